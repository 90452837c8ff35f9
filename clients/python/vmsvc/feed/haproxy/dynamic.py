"""Servers that are added and deleted while HAProxy runs: the plan. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vmsvc.feed.haproxy import commands, steps
from vmsvc.feed.haproxy.commands import Command
from vmsvc.feed.haproxy.held import HeldServer
from vmsvc.feed.haproxy.wanted import State, WantedServer

PREFIX = "vmsvc_"
"""What the names of our servers begin with; no other server is touched."""


def name(server: WantedServer) -> str:
    """The name of a server: always the same for an address and port.

    A backup has another one, since `backup` can only be said of a new server: so one role can be
    taken up before the other is given up.
    """
    role = "_backup" if server.backup else ""
    return f"{PREFIX}{server.address}_{server.port}{role}"


def plan(
    backend: str,
    held: Iterable[HeldServer],
    wanted: Iterable[WantedServer],
    *,
    options: str,
    drain_s: float,
) -> tuple[Command, ...]:
    """What makes the servers of a backend those that are wanted, in order: the new ones first.

    `options` are HAProxy's own words for a server that is added. A server that is not wanted gets
    no new requests. It is deleted once it has none under way, which are ended after `drain_s`.
    Planning again what was done yields nothing, once HAProxy has deleted what it should.
    """
    ours = {server.name: server for server in held if server.name.startswith(PREFIX)}
    named = {name(server): server for server in wanted}
    # Only with this name by another's hand: it is deleted, and then added as it should be.
    misfits = {n for n, server in ours.items() if n in named and server.backup != named[n].backup}
    found: list[Command] = []
    for each, server in named.items():
        if each not in ours:
            found += _new(backend, each, server, options)
        elif each not in misfits:
            found += _kept(backend, ours[each], server)
    for each, old in ours.items():
        if each not in named or each in misfits:
            found += _leaving(backend, old, drain_s)
    return tuple(found)


def _new(backend: str, each: str, server: WantedServer, options: str) -> Iterator[Command]:
    yield commands.add(backend, each, server, options)
    words = options.split()
    if "check" in words:
        yield commands.enable_health(backend, each)
    if "agent-check" in words:
        yield commands.enable_agent(backend, each)
    if server.state is not State.MAINT:
        yield commands.set_state(backend, each, server.state)


def _kept(backend: str, old: HeldServer, server: WantedServer) -> Iterator[Command]:
    if (old.address, old.port) != (server.address, server.port):
        yield commands.set_address(backend, old.name, server.address, server.port)
    if old.unchecked:
        yield commands.enable_health(backend, old.name)
    if old.agent_off:
        # It was about to leave.
        yield commands.enable_agent(backend, old.name)
    yield from steps.put_right(backend, old, server.state)


def _leaving(backend: str, old: HeldServer, drain_s: float) -> Iterator[Command]:
    if old.agent:
        yield commands.disable_agent(backend, old.name)
    taken_out, idle = steps.take_out(backend, old, drain_s)
    yield from taken_out
    if idle:
        yield commands.delete(backend, old.name)
