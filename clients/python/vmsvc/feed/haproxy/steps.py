"""What is done to one server, be it a slot or one that was added. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from vmsvc.feed.haproxy import commands
from vmsvc.feed.haproxy.commands import Command
from vmsvc.feed.haproxy.held import HeldServer
from vmsvc.feed.haproxy.wanted import State


def put_right(backend: str, held: HeldServer, state: State) -> Iterator[Command]:
    """Weight and state of a server that is wanted, as far as they differ."""
    if held.reweighted:
        yield commands.reset_weight(backend, held.name)
    if held.state is not state:
        yield commands.set_state(backend, held.name, state)


def take_out(backend: str, held: HeldServer, drain_s: float) -> tuple[list[Command], bool]:
    """What keeps new requests from a server, and, after `drain_s`, ends those under way.

    And whether none is under way then. HAProxy counts the seconds, so that they go on when we are
    started again.
    """
    waited_s = held.since_s if held.state is State.MAINT else 0
    ended = held.sessions > 0 and waited_s >= drain_s
    steps: list[Command] = []
    if held.state is not State.MAINT:
        steps.append(commands.set_state(backend, held.name, State.MAINT))
    if ended:
        steps.append(commands.shut_down_sessions(backend, held.name))
    return steps, ended or not held.sessions
