"""What HAProxy says that it holds. Pure.

Formats: HAProxy's management guide, sections 9.1 (CSV) and 9.3 (`show servers state`). Columns are
found by their names, as later versions have more of them.
"""

from __future__ import annotations

import csv
import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

from vmsvc.feed.haproxy.wanted import Address, State

# Masks of srv_admin_state: SRV_ADMF_FMAINT and SRV_ADMF_FDRAIN.
_FORCED_MAINT = 0x01
_FORCED_DRAIN = 0x08
# Masks of srv_check_state and srv_agent_state: CHK_ST_CONFIGURED and CHK_ST_ENABLED.
_CONFIGURED = 0x02
_ENABLED = 0x04

_STAT_COLUMNS = ("svname", "qcur", "scur", "bck")
_UNCOUNTED = ("0", "0", "0")
_STATE_COLUMNS = (
    *("srv_name", "srv_addr", "srv_port", "srv_admin_state", "srv_uweight", "srv_iweight"),
    *("srv_time_since_last_change", "srv_check_state", "srv_agent_state", "srv_fqdn"),
)

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
    configured and switched off. `agent`: an agent's checks may change its state; `agent_off`: they
    are configured and switched off. `named`: the configuration has a host's name for it, and no
    address. `sessions` are requests under way, or queued for it. `since_s`: since it went up or
    down.
    """

    name: str
    address: Address | None
    port: int
    state: State
    reweighted: bool = False
    unchecked: bool = False
    agent: bool = False
    agent_off: bool = False
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
        counted = {name: rest for name, *rest in _stat(stat)}
        return tuple(_server(row, counted.get(row[0], _UNCOUNTED)) for row in _state(state))
    except (IndexError, ValueError, csv.Error) as error:
        said = " ".join((state + stat).split())[:_SHOWN_CHARACTERS_MAX]
        raise HeldError(f"HAProxy's answer is not understood ({error}): {said}") from error


def _stat(text: str) -> Iterable[Sequence[str]]:
    if text.startswith("No such proxy"):
        # It has gone, or come, since.
        return ()
    return _columns(csv.reader(text.removeprefix("# ").splitlines()), _STAT_COLUMNS)


def _state(text: str) -> Iterable[Sequence[str]]:
    version, _, table = text.partition("\n")
    if version.strip() != "1":
        raise ValueError(f"format {version}")
    lines = table.removeprefix("# ").splitlines()
    return _columns((line.split(" ") for line in lines), _STATE_COLUMNS)


def _columns(rows: Iterator[list[str]], names: Sequence[str]) -> Iterable[Sequence[str]]:
    """The columns of these names; a table of many servers has a hundred others."""
    header = next(rows, [])
    return map(itemgetter(*(header.index(name) for name in names)), rows)


def _server(row: Sequence[str], counted: Sequence[str]) -> HeldServer:
    name, address, port, admin_state, weight, own_weight, since_s, *checks, fqdn = row
    queued, current, backup = counted
    admin = int(admin_state)
    check, agent = (int(state) & (_CONFIGURED | _ENABLED) for state in checks)
    return HeldServer(
        name,
        _address(address),
        int(port),
        State.MAINT
        if admin & _FORCED_MAINT
        else State.DRAIN
        if admin & _FORCED_DRAIN
        else State.READY,
        reweighted=weight != own_weight and not agent & _ENABLED,
        unchecked=check == _CONFIGURED,
        agent=bool(agent & _ENABLED),
        agent_off=agent == _CONFIGURED,
        backup=backup == "1",
        named=fqdn != "-",
        sessions=int(current or 0) + int(queued or 0),
        since_s=int(since_s),
    )


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
