"""The live table of `vmsvc watch`: events in, what to show out. Pure.

Time is an argument, in seconds of a steady clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vmsvc.addresses import reached
from vmsvc.model import AbsenceReason, Endpoint, Port, Readiness, ServiceState
from vmsvc.show import printable
from vmsvc.state import Disconnected, Event, Synced

# A change is marked for so long, in case nobody looked; a deleted service then makes room.
_MARKED_S = 5.0
_DELETED_SHOWN_S = 30.0

# Status, a blank line, the table's header and the footer; and one that the terminal
# keeps for the cursor.
_LINES_AROUND = 5

_GAP = 2
# Columns that shrink if a line is too wide, in this order, with their least width; 0: gone.
_GIVES_WAY = {"ZONE": 0, "CHANGED": 7, "ENDPOINTS": 20, "ENDPOINT": 20, "VM": 12, "SERVICE": 16}

_GOOD, _POOR, _BAD = "green", "yellow", "red"

_EndpointKey = tuple[str, str]


@dataclass(slots=True)
class _Row:
    """One service. `changed_at` is None until a change was seen."""

    state: ServiceState
    changed_at: float | None = None
    change: str = ""
    touched: frozenset[_EndpointKey] = field(default_factory=frozenset)

    def marked(self, now: float) -> bool:
        return self.changed_at is not None and now - self.changed_at < _MARKED_S

    def changed(self, now: float) -> Text:
        if self.changed_at is None:
            return Text()
        return Text(
            f"{age(now - self.changed_at)} {self.change}", "bold" if self.marked(now) else "dim"
        )


class Board:
    """The services of one watch, and when each last changed."""

    def __init__(self, server: str, named: Iterable[str], readiness: Readiness) -> None:
        """Services `named` stay on the board when they are deleted."""
        self._server = server
        self._named = frozenset(named)
        self._all_endpoints = readiness is Readiness.ALL
        self._rows: dict[str, _Row] = {}
        self._synced = self._ever_synced = False
        self._lost: Disconnected | None = None
        self._lost_at = self._retry_at = 0.0

    def take(self, event: Event, now: float) -> None:
        """Take in an event."""
        match event:
            case Synced():
                self._synced = self._ever_synced = True
                self._lost = None
            case Disconnected():
                self._lost_at = self._lost_at if self._lost else now
                self._retry_at = now + event.retry_in_s
                self._lost = event
                self._synced = False
            case ServiceState():
                self._put(event, now)

    def _put(self, state: ServiceState, now: float) -> None:
        row = self._rows.get(state.service)
        if row is not None:
            row.change, row.touched = change(row.state, state)
            row.state, row.changed_at = state, now
        elif self._ever_synced:
            self._rows[state.service] = _Row(state, now, "created")
        else:
            self._rows[state.service] = _Row(state)

    def render(self, now: float, width: int, height: int) -> RenderableType:
        """The board in fewer than `height` lines: one for each endpoint, if all fit.

        Else one for each service; if there are too many, those that changed last.
        """
        self._forget_deleted(now)
        rows = [self._rows[name] for name in sorted(self._rows)]
        room = max(1, height - _LINES_AROUND)
        left_out = 0
        if sum(max(1, len(row.state.endpoints)) for row in rows) <= room:
            table = self._by_endpoint(rows, now, width)
        else:
            left_out = max(0, len(rows) - room)
            by_recency = sorted(rows, key=lambda row: -(row.changed_at or 0.0))
            shown = sorted(by_recency[:room], key=lambda row: row.state.service)
            table = self._by_service(shown, now, width)
        return Group(self._status(now), Text(), table, self._footer(rows, left_out))

    def _forget_deleted(self, now: float) -> None:
        for name, row in list(self._rows.items()):
            absence = row.state.absence
            if absence is None or absence.reason is not AbsenceReason.NOT_FOUND:
                continue
            if name not in self._named and now - (row.changed_at or now) > _DELETED_SHOWN_S:
                del self._rows[name]

    def _status(self, now: float) -> Text:
        status = Text(f"server {self._server}: ", no_wrap=True, overflow="ellipsis")
        if self._synced:
            return status.append("live", _GOOD)
        if self._lost is None:
            return status.append("connecting", _POOR)
        wait_s = round(self._retry_at - now)
        lost = f"lost {age(now - self._lost_at)} ago" if self._ever_synced else "not connected"
        status.append(f"{lost}, {f'next try in {wait_s}s' if wait_s > 0 else 'trying'}", _BAD)
        # Server and state are shown already.
        why = str(self._lost.error).removeprefix(f"server {self._server}").removeprefix(":")
        why = why.strip().removeprefix("cannot be reached: ")
        return status.append(f" ({printable(why)})")

    def _by_endpoint(self, rows: Sequence[_Row], now: float, width: int) -> Table:
        columns = ("SERVICE", "READY", "ENDPOINT", "VM", "ZONE", "CHANGED")
        lines: list[tuple[Text, ...]] = []
        for row in rows:
            first = (self._name(row, now), self._ready(row.state), row.changed(now))
            if not row.state.endpoints:
                lines.append((*first[:2], self._nothing(row.state), Text(), Text(), first[2]))
            for index, endpoint in enumerate(row.state.endpoints):
                marked = row.marked(now) and _key(endpoint) in row.touched
                name, ready, changed = (Text(), Text(), Text()) if index else first
                where = Text(
                    reach(endpoint, row.state.ports),
                    f"{_colour(endpoint)} bold" if marked else _colour(endpoint),
                )
                vm, zone = Text(printable(endpoint.vm_name)), Text(printable(endpoint.zone), "dim")
                lines.append((name, ready, where, vm, zone, changed))
        # A refusal is a long sentence: it has the room that others leave.
        addresses = [where for _, _, where, vm, *_ in lines if vm]
        others = [_width(columns, lines, name) for name in columns if name != "ENDPOINT"]
        room = max(width - sum(w + _GAP for w in others if w), _widest("", addresses))
        for _, _, where, *_ in lines:
            where.truncate(room, overflow="ellipsis")
        return _table(columns, lines, width)

    def _by_service(self, rows: Sequence[_Row], now: float, width: int) -> Table:
        names = [self._name(row, now) for row in rows]
        changes = [row.changed(now) for row in rows]
        shared = width - len("READY") - _GIVES_WAY["ENDPOINTS"] - 3 * _GAP
        longest_name, longest_change = _widest("SERVICE", names), _widest("CHANGED", changes)
        for texts, room in (
            (names, max(width // 2, shared - longest_change)),
            (changes, max(width // 3, shared - longest_name)),
        ):
            for text in texts:
                text.truncate(room, overflow="ellipsis")
        others = (_widest("SERVICE", names), _widest("READY", ()), _widest("CHANGED", changes))
        room = width - sum(others) - _GAP * len(others)
        lines = [
            (name, self._ready(row.state), self._endpoints(row.state, room), changed)
            for row, name, changed in zip(rows, names, changes, strict=True)
        ]
        return _table(("SERVICE", "READY", "ENDPOINTS", "CHANGED"), lines, width)

    def _endpoints(self, state: ServiceState, room: int) -> Text:
        if state.endpoints:
            return fitted(state.endpoints, room)
        nothing = self._nothing(state)
        nothing.truncate(max(room, _GIVES_WAY["ENDPOINTS"]), overflow="ellipsis")
        return nothing

    def _name(self, row: _Row, now: float) -> Text:
        return Text(printable(row.state.service), "bold" if row.marked(now) else "")

    def _ready(self, state: ServiceState) -> Text:
        if not state.present:
            return Text("-", _BAD)
        count, ready = len(state.endpoints), sum(e.ready for e in state.endpoints)
        colour = _GOOD if ready == count and ready else _POOR if ready else _BAD
        return Text(f"{ready}/{count}" if self._all_endpoints else str(ready), colour)

    def _nothing(self, state: ServiceState) -> Text:
        if state.absence is None:
            return Text("none" if self._all_endpoints else "none is ready", _POOR)
        if state.absence.reason is AbsenceReason.NOT_FOUND:
            return Text("not found", _BAD)
        return Text(f"refused: {printable(state.absence.message)}", _BAD)

    def _footer(self, rows: Sequence[_Row], left_out: int) -> Text:
        endpoints = [e for row in rows for e in row.state.endpoints]
        ready = sum(e.ready for e in endpoints)
        of = f"{ready} of " if self._all_endpoints else ""
        text = f"{_count(len(rows), 'service')}, {of}{_count(len(endpoints), 'endpoint')} ready"
        if left_out:
            text += f"; shown are the {len(rows) - left_out} that changed last"
        return Text(text, "dim", no_wrap=True, overflow="ellipsis")


def change(before: ServiceState, after: ServiceState) -> tuple[str, frozenset[_EndpointKey]]:
    """What changed, in a few words, and which endpoints of `after` are new or different."""
    if after.absence is not None:
        deleted = after.absence.reason is AbsenceReason.NOT_FOUND
        return ("deleted" if deleted else "refused"), frozenset()
    if before.absence is not None:
        return "created", frozenset(map(_key, after.endpoints))
    old = {_key(e): e for e in before.endpoints}
    new = {_key(e): e for e in after.endpoints}
    added = [e.address for key, e in new.items() if key not in old]
    removed = [e.address for key, e in old.items() if key not in new]
    changed = [e for key, e in new.items() if key in old and old[key] != e]
    words = [*_few("+", added), *_few("-", removed)]
    if len(changed) == 1:
        words.append(f"{changed[0].address} {'ready' if changed[0].ready else 'not ready'}")
    elif changed:
        words.append(f"~{len(changed)}")
    if before.ports != after.ports:
        words.append("ports")
    touched = frozenset(key for key, e in new.items() if old.get(key) != e)
    return " ".join(words), touched


def _few(sign: str, addresses: Sequence[str]) -> list[str]:
    return [f"{sign}{addresses[0] if len(addresses) == 1 else len(addresses)}"] if addresses else []


def reach(endpoint: Endpoint, ports: Sequence[Port]) -> str:
    """Where to connect to: address and target ports, `[address]` for IPv6."""
    numbers = dict.fromkeys(str(port.target_port) for port in ports)
    return reached(endpoint.address, ",".join(numbers)) if numbers else endpoint.address


def fitted(endpoints: Sequence[Endpoint], width: int) -> Text:
    """As many addresses as fit in `width` columns, and how many more there are; at least one."""
    text = Text()
    for index, endpoint in enumerate(endpoints):
        rest = f" +{len(endpoints) - index - 1}" if index + 1 < len(endpoints) else ""
        if index and len(text) + 1 + len(endpoint.address) + len(rest) > width:
            return text.append(f" +{len(endpoints) - index}", "dim")
        text.append(" " if index else "").append(endpoint.address, _colour(endpoint))
    return text


def age(seconds: float) -> str:
    """How long ago, in its largest unit: `5s`, `3m`, `2h`, `4d`."""
    whole = max(0, int(seconds))
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if whole >= length:
            return f"{whole // length}{unit}"
    return f"{whole}s"


def _table(columns: Sequence[str], lines: Sequence[Sequence[Text]], width: int) -> Table:
    """Lines under column heads. If they are too wide, the least important columns shrink first."""
    widths = {name: _width(columns, lines, name) for name in columns}
    shown = [name for name in columns if widths[name]]
    for name, width_min in _GIVES_WAY.items():
        excess = sum(widths[c] for c in shown) + _GAP * (len(shown) - 1) - width
        if name in shown and excess > 0:
            widths[name] = min(widths[name], max(width_min, widths[name] - excess))
            if not width_min:
                shown.remove(name)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for name in shown:
        table.add_column(name, no_wrap=True, overflow="ellipsis", width=widths[name])
    for line in lines:
        table.add_row(*(text for name, text in zip(columns, line, strict=True) if name in shown))
    return table


def _width(columns: Sequence[str], lines: Sequence[Sequence[Text]], name: str) -> int:
    """How wide a column is if nothing is cut; 0 if it is not shown, as no VM has a zone."""
    index = columns.index(name)
    width = _widest(name, [line[index] for line in lines])
    return 0 if name == "ZONE" and not any(line[index] for line in lines) else width


def _widest(head: str, texts: Sequence[Text]) -> int:
    return max(len(head), *(text.cell_len for text in texts), 0)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _key(endpoint: Endpoint) -> _EndpointKey:
    return endpoint.address, endpoint.vm_uid


def _colour(endpoint: Endpoint) -> str:
    return _GOOD if endpoint.ready else _POOR
