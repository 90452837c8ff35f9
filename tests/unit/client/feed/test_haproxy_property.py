"""Plans against a model of HAProxy, from any mess that others may have left there."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from copy import deepcopy

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.client.feed.haproxy_model import ADMIN, ModelBackend, ModelServer
from vmsvc.feed.haproxy import dynamic, slots
from vmsvc.feed.haproxy.commands import Command, Outcome
from vmsvc.feed.haproxy.held import HeldServer, held
from vmsvc.feed.haproxy.wanted import State, WantedServer

ADDRESSES = [*(f"10.0.0.{n}" for n in range(1, 5)), "fd00::1"]
PORTS = (80, 8080)
OPTIONS = ("", "check inter 2s", "check agent-check agent-port 9")
DRAIN_S = 30


@st.composite
def wanted_servers(draw: st.DrawFn) -> tuple[WantedServer, ...]:
    keys = draw(st.lists(st.sampled_from([(a, p) for a in ADDRESSES for p in PORTS]), unique=True))
    return tuple(
        WantedServer(
            ipaddress.ip_address(address),
            port,
            draw(st.sampled_from(State)),
            draw(st.booleans()),
        )
        for address, port in keys
    )


@st.composite
def model_servers(draw: st.DrawFn, address: str, port: int) -> ModelServer:
    check, agent = draw(st.sampled_from([0, 2, 6])), draw(st.sampled_from([0, 2, 6]))
    return ModelServer(
        address,
        port,
        admin=draw(st.sampled_from(sorted({*ADMIN.values(), 9, 4, 5, 0x20}))),
        weight=draw(st.sampled_from([100, 50, 0])),
        backup=draw(st.booleans()),
        check=check,
        agent=agent,
        sessions=draw(st.sampled_from([0, 0, 3])),
        since_s=draw(st.sampled_from([0, DRAIN_S - 1, DRAIN_S])),
    )


@st.composite
def dynamic_backends(draw: st.DrawFn) -> ModelBackend:
    """Servers of ours, as somebody may have left them, and others'."""
    backend = ModelBackend()
    for server in draw(wanted_servers()):
        address = draw(st.sampled_from([str(server.address), "10.9.9.9"]))
        backend.servers[dynamic.name(server)] = draw(model_servers(address, server.port))
    for name in ("fixed", "vmsvc", "zzz"):
        backend.servers[name] = draw(model_servers("10.0.0.1", 80))
    return backend


@st.composite
def slot_backends(draw: st.DrawFn) -> ModelBackend:
    backend = ModelBackend()
    for number in range(1, draw(st.integers(0, 6)) + 1):
        place = draw(st.sampled_from([("0.0.0.0", 0), *((a, p) for a in ADDRESSES for p in PORTS)]))
        backend.servers[f"slot{number}"] = draw(model_servers(*place))
    backend.servers["slotted"] = draw(model_servers("10.0.0.1", 80))
    backend.servers["fixed"] = draw(model_servers("10.0.0.1", 80))
    return backend


def read(backend: ModelBackend) -> tuple[HeldServer, ...]:
    return held(backend.stat(), backend.state())


def carry_out(backend: ModelBackend, commands: Iterable[Command]) -> None:
    for command in commands:
        outcome = command.outcome(backend.do(command.text))
        # The model's sessions do not end between the commands of one plan.
        assert outcome is Outcome.DONE, command


def others(backend: ModelBackend, ours: Callable[[str], bool]) -> dict[str, ModelServer]:
    return {name: deepcopy(s) for name, s in backend.servers.items() if not ours(name)}


@given(dynamic_backends(), wanted_servers(), st.sampled_from(OPTIONS))
def test_a_plan_makes_dynamic_servers_those_that_are_wanted(
    backend: ModelBackend, wanted: tuple[WantedServer, ...], options: str
) -> None:
    def ours(name: str) -> bool:
        return name.startswith("vmsvc_")

    before = others(backend, ours)
    held_before = set(backend.servers)

    def plan() -> tuple[Command, ...]:
        return dynamic.plan("web", read(backend), wanted, options=options, drain_s=DRAIN_S)

    carry_out(backend, plan())
    assert others(backend, ours) == before
    assert not held_before & set(backend.added)
    draining = {n: s for n, s in backend.servers.items() if ours(n) and s.sessions and s.admin & 1}
    # Time passes, and sessions that go on are ended.
    for server in backend.servers.values():
        server.since_s += DRAIN_S
    carry_out(backend, plan())
    # A server that had our name and another role is added once the old one is deleted.
    carry_out(backend, plan())
    assert plan() == ()
    assert others(backend, ours) == {
        name: ModelServer(**{**vars(s), "since_s": s.since_s + DRAIN_S})
        for name, s in before.items()
    }
    found = {s.name: s for s in read(backend) if ours(s.name)}
    assert found.keys() == {dynamic.name(server) for server in wanted}
    for want in wanted:
        made = found[dynamic.name(want)]
        assert WantedServer(made.address, made.port, made.state, made.backup) == want  # type: ignore[arg-type]
        assert not made.reweighted
        assert not made.unchecked
        assert not made.agent_off
    assert all(s.admin & 1 for s in draining.values())


@given(slot_backends(), wanted_servers())
def test_a_plan_puts_the_wanted_servers_into_slots(
    backend: ModelBackend, wanted: tuple[WantedServer, ...]
) -> None:
    def ours(name: str) -> bool:
        return name.removeprefix("slot").isdigit()

    def plan() -> slots.Filling:
        return slots.plan("web", slots.slots(read(backend), "slot"), wanted, drain_s=DRAIN_S)

    before = others(backend, ours)
    first = plan()
    carry_out(backend, first.commands)
    assert others(backend, ours) == before
    assert not backend.added

    placed = {(s.address, s.port, s.backup): s for s in read(backend) if ours(s.name)}
    serving = [s for s in read(backend) if ours(s.name) and s.state is not State.MAINT]
    for backup, missing in ((False, first.missing), (True, first.missing_backup)):
        ready = [s for s in wanted if s.backup == backup and s.state is State.READY]
        served = [s for s in ready if (s.address, s.port, backup) in placed]
        assert len(ready) - len(served) == missing
        rooms = sum(ours(s.name) and s.backup == backup for s in read(backend))
        assert len(served) == min(len(ready), rooms)
    # Each serves a wanted server, in its state; no two the same.
    by_place: dict[tuple[object, int, bool], WantedServer]
    by_place = {(s.address, s.port, s.backup): s for s in wanted}
    assert len({(s.address, s.port, s.backup) for s in serving}) == len(serving)
    for slot in serving:
        assert by_place[slot.address, slot.port, slot.backup].state is slot.state
        assert not slot.reweighted

    second = plan()
    assert second.commands == ()
    assert (second.missing, second.missing_backup) == (first.missing, first.missing_backup)


@given(slot_backends(), wanted_servers(), wanted_servers())
def test_a_server_that_stays_ready_keeps_its_slot(
    backend: ModelBackend, first: tuple[WantedServer, ...], then: tuple[WantedServer, ...]
) -> None:
    def place(wanted: tuple[WantedServer, ...]) -> dict[tuple[object, int, bool], str]:
        found = slots.slots(read(backend), "slot")
        carry_out(backend, slots.plan("web", found, wanted, drain_s=DRAIN_S).commands)
        return {
            (s.address, s.port, s.backup): s.name
            for s in slots.slots(read(backend), "slot")
            if s.state is State.READY
        }

    before, after = place(first), place(then)
    for server in then:
        key = (server.address, server.port, server.backup)
        if server.state is State.READY and key in before:
            assert after[key] == before[key]
