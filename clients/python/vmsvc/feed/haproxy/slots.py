"""Servers of HAProxy's configuration, slots, that are filled while it runs: the plan. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from vmsvc.feed.haproxy import commands, steps
from vmsvc.feed.haproxy.commands import Command
from vmsvc.feed.haproxy.held import HeldServer
from vmsvc.feed.haproxy.wanted import State, WantedServer


def slots(held: Iterable[HeldServer], prefix: str) -> tuple[HeldServer, ...]:
    """The servers named `prefix` and a number, as `server-template` makes them, in its order."""
    pattern = re.compile(rf"{re.escape(prefix)}[0-9]{{1,9}}")
    found = (server for server in held if pattern.fullmatch(server.name))
    return tuple(sorted(found, key=lambda server: int(server.name[len(prefix) :])))


@dataclass(frozen=True, slots=True)
class Filling:
    """Commands, in order, and how many ready servers found no slot, and no slot for backups."""

    commands: tuple[Command, ...]
    missing: int
    missing_backup: int


def plan(
    backend: str,
    held: Sequence[HeldServer],
    wanted: Collection[WantedServer],
    *,
    drain_s: float,
) -> Filling:
    """What puts the wanted servers into the slots `held`, the new ones first.

    A server keeps the slot that has its address, and comes back to it. Others get free ones, those
    without requests under way first. A ready server takes the slot of one that is not ready where
    slots are short. A slot that nobody needs gets no new requests, and those under way are ended
    after `drain_s`. Backups have slots that are backups. Planning again what was done yields
    nothing.
    """
    filled: dict[str, WantedServer] = {}
    missing = []
    for backup in (False, True):
        rooms = [slot for slot in held if slot.backup == backup]
        servers = [server for server in wanted if server.backup == backup]
        given = _given(rooms, servers)
        filled |= given
        ready = sum(server.state is State.READY for server in servers)
        missing.append(ready - sum(server.state is State.READY for server in given.values()))
    new: list[Command] = []
    kept: list[Command] = []
    left: list[Command] = []
    for slot in held:
        server = filled.get(slot.name)
        if server is None:
            left += steps.take_out(backend, slot, drain_s)[0]
        elif (slot.address, slot.port) != (server.address, server.port):
            new += _refilled(backend, slot, server)
        else:
            kept += steps.put_right(backend, slot, server.state)
    return Filling((*new, *kept, *left), *missing)


def _given(rooms: Sequence[HeldServer], servers: Sequence[WantedServer]) -> dict[str, WantedServer]:
    """Which slot, by name, each server gets."""
    holders: dict[tuple[object, int], HeldServer] = {}
    for slot in rooms:
        before = holders.get((slot.address, slot.port))
        # Of two with one address, the one that is in use.
        if before is None or (before.state is State.MAINT and slot.state is not State.MAINT):
            holders[slot.address, slot.port] = slot
    given: dict[str, WantedServer] = {}
    seeking: list[WantedServer] = []
    for server in servers:
        holder = holders.get((server.address, server.port))
        if holder is None:
            seeking.append(server)
        else:
            given[holder.name] = server
    free = [slot.name for slot in sorted(rooms, key=_busy) if slot.name not in given]
    # Of no use while others have none: the last ones go first.
    free += [slot for slot, server in reversed(given.items()) if server.state is not State.READY]
    seeking.sort(key=lambda server: server.state is not State.READY)
    for slot_name, server in zip(free, seeking, strict=False):
        if slot_name not in given or server.state is State.READY:
            given[slot_name] = server
    return given


def _busy(slot: HeldServer) -> bool:
    return slot.sessions > 0


def _refilled(backend: str, slot: HeldServer, server: WantedServer) -> Iterator[Command]:
    if slot.state is not State.MAINT:
        # No request of the old server's is to begin at the new one before all is set.
        yield commands.set_state(backend, slot.name, State.MAINT)
    yield commands.set_address(backend, slot.name, server.address, server.port)
    if slot.reweighted:
        yield commands.reset_weight(backend, slot.name)
    if server.state is not State.MAINT:
        yield commands.set_state(backend, slot.name, server.state)
