"""The states last fed, in a file: a feed that is started anew begins with them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vmsvc.feed import written
from vmsvc.model import Absence, AbsenceReason, Endpoint, Port, ServiceState

_FORMAT = 1
_BYTES_MAX = 256 * 1024 * 1024


class StateFileError(ValueError):
    """The file cannot be read, or is none of ours; the text is one sentence that names it."""


def save(path: Path, states: Mapping[str, ServiceState]) -> None:
    """Write the states, unless the file has them. Raises OutputError."""
    services = [_plain(states[name]) for name in sorted(states)]
    text = json.dumps({"format": _FORMAT, "services": services}, indent=1)
    written.write(path, f"{text}\n".encode())


def load(path: Path) -> list[ServiceState]:
    """The states that were saved; none if there is no file. Raises StateFileError."""
    try:
        with path.open("rb") as file:
            raw = file.read(_BYTES_MAX + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StateFileError(f"state file {path}: {error.strerror or error}") from error
    if len(raw) > _BYTES_MAX:
        raise StateFileError(f"state file {path} is larger than {_BYTES_MAX:,} bytes")
    try:
        return _states(json.loads(raw))
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise StateFileError(
            f"state file {path} is not one that vmsvc feed has written; delete it, or name another"
        ) from error


def _plain(state: ServiceState) -> dict[str, Any]:
    plain = asdict(state)
    if state.absence is not None:
        plain["absence"]["reason"] = state.absence.reason.value
    return plain


def _states(content: Mapping[str, Any]) -> list[ServiceState]:
    if content["format"] != _FORMAT:
        raise ValueError("another format")
    return [_state(service) for service in content["services"]]


def _state(plain: Mapping[str, Any]) -> ServiceState:
    absence = plain["absence"]
    return ServiceState(
        _text(plain["service"]),
        tuple(_port(**port) for port in plain["ports"]),
        tuple(_endpoint(**endpoint) for endpoint in plain["endpoints"]),
        absence and Absence(AbsenceReason(absence["reason"]), _text(absence["message"])),
    )


def _port(name: object, port: object, target_port: object, protocol: object) -> Port:
    return Port(_text(name), _number(port), _number(target_port), _text(protocol))


def _endpoint(
    address: object, ready: object, vm_name: object, vm_uid: object, zone: object
) -> Endpoint:
    return Endpoint(_text(address), ready is True, _text(vm_name), _text(vm_uid), _text(zone))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _number(value: object) -> int:
    if type(value) is not int:
        raise TypeError("not a number")
    return value


def within(
    states: Iterable[ServiceState], services: Iterable[str], namespaces: Iterable[str]
) -> list[ServiceState]:
    """Those of services that are named, or in the namespaces; all, if there are neither."""
    named, spaces = frozenset(services), frozenset(namespaces)
    if not named and not spaces:
        return list(states)
    return [
        state
        for state in states
        if state.service in named or state.service.partition("/")[0] in spaces
    ]
