"""What HAProxy says that it holds. Pure.

Formats: HAProxy's management guide, sections 9.1 (CSV) and 9.3 (`show servers state`). Columns are
found by their names, as later versions have more of them.
"""

from __future__ import annotations

import csv
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from vmsvc.feed.haproxy.wanted import Address, State

# Masks of srv_admin_state: SRV_ADMF_FMAINT and SRV_ADMF_FDRAIN.
_FORCED_MAINT = 0x01
_FORCED_DRAIN = 0x08
# Masks of srv_check_state and srv_agent_state: CHK_ST_CONFIGURED and CHK_ST_ENABLED.
_CONFIGURED = 0x02
_ENABLED = 0x04

_SHOWN_CHARACTERS_MAX = 200


class HeldError(ValueError):
    """An answer is not in the format that HAProxy documents."""


class NoSuchBackendError(Exception):
    """HAProxy has no backend of this name."""


@dataclass(frozen=True, slots=True)
class HeldServer:
    """A server of a backend.

    `address` is None if it has none that is an IP address; the port may be 0. `reweighted`: its
    weight is not that of its configuration, and no agent sets it. `unchecked`: health checks are
    configured and switched off. `agent`: an agent's checks may change its state. `named`: the
    configuration has a host's name for it, and no address. `sessions` are requests under way, or
    queued for it. `since_s`: since it went up or down.
    """

    name: str
    address: Address | None
    port: int
    state: State
    reweighted: bool = False
    unchecked: bool = False
    agent: bool = False
    backup: bool = False
    named: bool = False
    sessions: int = 0
    since_s: int = 0


def held(stat: str, state: str) -> tuple[HeldServer, ...]:
    """The servers of one backend in HAProxy's order.

    Of the answers to `show stat BACKEND 4 -1` and, later, `show servers state BACKEND`. A server
    that only the later one has was just added. Raises NoSuchBackendError and HeldError.
    """
    if state.startswith("Can't find backend"):
        raise NoSuchBackendError
    try:
        counted = {row["svname"]: row for row in _csv(stat)}
        return tuple(_server(row, counted.get(row["srv_name"], {})) for row in _rows(state))
    except (KeyError, ValueError) as error:
        said = " ".join((state + stat).split())[:_SHOWN_CHARACTERS_MAX]
        raise HeldError(f"HAProxy's answer is not understood ({error}): {said}") from error


def _csv(stat: str) -> Iterator[dict[str, str]]:
    if stat.startswith("No such proxy"):
        # It has gone, or come, since.
        return
    for row in csv.DictReader(stat.removeprefix("# ").splitlines()):
        yield {name: value for name, value in row.items() if value}


def _rows(state: str) -> Iterator[dict[str, str]]:
    version, header, *lines = state.strip().splitlines()
    if version.strip() != "1":
        raise ValueError(f"format {version}")
    names = header.removeprefix("# ").split(" ")
    for line in lines:
        yield dict(zip(names, line.split(" "), strict=False))


def _server(row: dict[str, str], counted: dict[str, str]) -> HeldServer:
    admin = int(row["srv_admin_state"])
    check, agent = int(row["srv_check_state"]), int(row["srv_agent_state"])
    own_weight = bool(agent & _ENABLED)
    return HeldServer(
        row["srv_name"],
        _address(row["srv_addr"]),
        int(row["srv_port"]),
        State.MAINT
        if admin & _FORCED_MAINT
        else State.DRAIN
        if admin & _FORCED_DRAIN
        else State.READY,
        reweighted=row["srv_uweight"] != row["srv_iweight"] and not own_weight,
        unchecked=check & (_CONFIGURED | _ENABLED) == _CONFIGURED,
        agent=own_weight,
        backup=counted.get("bck") == "1",
        named=row.get("srv_fqdn", "-") != "-",
        sessions=int(counted.get("scur", 0)) + int(counted.get("qcur", 0)),
        since_s=int(row["srv_time_since_last_change"]),
    )


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
