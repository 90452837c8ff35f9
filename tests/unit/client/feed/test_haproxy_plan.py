"""Commands for HAProxy, from what it holds and what is wanted: one case each."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

import pytest

from vmsvc.feed.haproxy import commands, dynamic, slots
from vmsvc.feed.haproxy.commands import Command, Outcome
from vmsvc.feed.haproxy.held import HeldServer
from vmsvc.feed.haproxy.wanted import State, WantedServer, wanted
from vmsvc.feed.target import Server

A = WantedServer(ipaddress.ip_address("10.0.0.1"), 80, State.READY)
B = WantedServer(ipaddress.ip_address("fd00::2"), 8080, State.READY)
AWAY = replace(B, backup=True)

HELD = HeldServer("vmsvc_10.0.0.1_80", A.address, 80, State.READY)
NOT_OURS = HeldServer("fixed", ipaddress.ip_address("10.0.0.9"), 80, State.READY, reweighted=True)
SLOT = HeldServer("slot1", ipaddress.ip_address("0.0.0.0"), 0, State.MAINT)


@pytest.mark.parametrize(
    ("held", "want", "options", "planned"),
    [
        pytest.param((HELD, NOT_OURS), (A,), "", [], id="nothing where all is as it should be"),
        pytest.param(
            (NOT_OURS,),
            (A, AWAY),
            "",
            [
                "add server web/vmsvc_10.0.0.1_80 10.0.0.1:80",
                "set server web/vmsvc_10.0.0.1_80 state ready",
                "add server web/vmsvc_fd00::2_8080_backup [fd00::2]:8080 backup",
                "set server web/vmsvc_fd00::2_8080_backup state ready",
            ],
            id="what is new is added, of another zone as a backup",
        ),
        pytest.param(
            (),
            (replace(A, state=State.DRAIN),),
            "check agent-check inter 2s",
            [
                "add server web/vmsvc_10.0.0.1_80 10.0.0.1:80 check agent-check inter 2s",
                "enable health web/vmsvc_10.0.0.1_80",
                "enable agent web/vmsvc_10.0.0.1_80",
                "set server web/vmsvc_10.0.0.1_80 state drain",
            ],
            id="checks that HAProxy leaves switched off are switched on",
        ),
        pytest.param(
            (),
            (replace(AWAY, state=State.MAINT),),
            "from be:",
            ["add server web/vmsvc_fd00::2_8080_backup [fd00::2]:8080 from be: backup"],
            id="options come first, as one that HAProxy 3.5 has must",
        ),
        pytest.param(
            (),
            (replace(A, state=State.MAINT),),
            "",
            ["add server web/vmsvc_10.0.0.1_80 10.0.0.1:80"],
            id="a server is in maintenance when it is added",
        ),
        pytest.param(
            (replace(HELD, address=B.address, reweighted=True, unchecked=True, state=State.DRAIN),),
            (A,),
            "",
            [
                "set server web/vmsvc_10.0.0.1_80 addr 10.0.0.1 port 80",
                "enable health web/vmsvc_10.0.0.1_80",
                "set server web/vmsvc_10.0.0.1_80 weight 100%",
                "set server web/vmsvc_10.0.0.1_80 state ready",
            ],
            id="what somebody else has changed is put right",
        ),
        pytest.param(
            (replace(HELD, state=State.MAINT, agent_off=True),),
            (A,),
            "",
            [
                "enable agent web/vmsvc_10.0.0.1_80",
                "set server web/vmsvc_10.0.0.1_80 state ready",
            ],
            id="one that was leaving and comes back has its agent again",
        ),
        pytest.param(
            (HELD,),
            (),
            "",
            ["set server web/vmsvc_10.0.0.1_80 state maint", "del server web/vmsvc_10.0.0.1_80"],
            id="an idle server that leaves is deleted at once",
        ),
        pytest.param(
            (replace(HELD, sessions=2, since_s=100),),
            (),
            "",
            ["set server web/vmsvc_10.0.0.1_80 state maint"],
            id="one with requests under way drains, from now",
        ),
        pytest.param(
            (replace(HELD, sessions=2, since_s=29, state=State.MAINT),),
            (),
            "",
            [],
            id="and goes on draining",
        ),
        pytest.param(
            (replace(HELD, sessions=2, since_s=30, state=State.MAINT, agent=True),),
            (),
            "",
            [
                "disable agent web/vmsvc_10.0.0.1_80",
                "shutdown sessions server web/vmsvc_10.0.0.1_80",
                "del server web/vmsvc_10.0.0.1_80",
            ],
            id="until its time is over",
        ),
        pytest.param(
            (replace(HELD, backup=True),),
            (A,),
            "",
            ["set server web/vmsvc_10.0.0.1_80 state maint", "del server web/vmsvc_10.0.0.1_80"],
            id="one of our name with another role goes first",
        ),
    ],
)
def test_dynamic_servers(
    held: tuple[HeldServer, ...], want: tuple[WantedServer, ...], options: str, planned: list[str]
) -> None:
    plan = dynamic.plan("web", held, want, options=options, drain_s=30)
    assert [command.text for command in plan] == planned


def slot(number: int, server: WantedServer | None = None, **changed: Any) -> HeldServer:
    held = replace(SLOT, name=f"slot{number}")
    if server:
        held = replace(held, address=server.address, port=server.port, state=State.READY)
    return replace(held, **changed)


@pytest.mark.parametrize(
    ("held", "want", "planned", "missing"),
    [
        pytest.param(
            (slot(1), slot(2)),
            (A, B),
            [
                "set server web/slot1 addr 10.0.0.1 port 80",
                "set server web/slot1 state ready",
                "set server web/slot2 addr fd00::2 port 8080",
                "set server web/slot2 state ready",
            ],
            (0, 0),
            id="free slots are filled in order",
        ),
        pytest.param(
            (slot(1), slot(2, A, state=State.MAINT)),
            (A,),
            ["set server web/slot2 state ready"],
            (0, 0),
            id="a server that comes back has its slot again",
        ),
        pytest.param(
            (slot(1, B), slot(2)),
            (A,),
            [
                "set server web/slot1 state maint",
                "set server web/slot1 addr 10.0.0.1 port 80",
                "set server web/slot1 state ready",
            ],
            (0, 0),
            id="a slot that is given up is filled anew",
        ),
        pytest.param(
            (slot(1, B, sessions=1), slot(2)),
            (A,),
            [
                "set server web/slot2 addr 10.0.0.1 port 80",
                "set server web/slot2 state ready",
                "set server web/slot1 state maint",
            ],
            (0, 0),
            id="but not while requests are under way, if there is another",
        ),
        pytest.param(
            (slot(1, A),), (A, B), [], (1, 0), id="with too few slots, the one that has it keeps it"
        ),
        pytest.param(
            (slot(1, A),),
            (replace(A, state=State.MAINT), B),
            [
                "set server web/slot1 state maint",
                "set server web/slot1 addr fd00::2 port 8080",
                "set server web/slot1 state ready",
            ],
            (0, 0),
            id="unless it is not ready",
        ),
        pytest.param(
            (slot(1, A),), (A, replace(B, state=State.MAINT)), [], (0, 0), id="none is missing then"
        ),
        pytest.param((slot(1, A),), (A, AWAY), [], (0, 1), id="backups need slots of their own"),
        pytest.param(
            (slot(1, A, reweighted=True, sessions=1), slot(2, A)),
            (A,),
            ["set server web/slot1 weight 100%", "set server web/slot2 state maint"],
            (0, 0),
            id="of two slots with one address the first is used",
        ),
        pytest.param(
            (slot(1, A, state=State.MAINT), slot(2, A)),
            (A,),
            [],
            (0, 0),
            id="unless only the second one is in use",
        ),
        pytest.param(
            (slot(1, A, state=State.MAINT), slot(2, B, state=State.MAINT)),
            (
                replace(A, state=State.MAINT),
                replace(B, state=State.MAINT),
                replace(B, port=1),
            ),
            ["set server web/slot2 addr fd00::2 port 1", "set server web/slot2 state ready"],
            (0, 0),
            id="of those that are not ready the last one gives its slot up",
        ),
        pytest.param(
            (slot(1, A, state=State.MAINT, sessions=1, since_s=30),),
            (),
            ["shutdown sessions server web/slot1"],
            (0, 0),
            id="what is under way on an empty slot is ended in time",
        ),
    ],
)
def test_slots(
    held: tuple[HeldServer, ...],
    want: tuple[WantedServer, ...],
    planned: list[str],
    missing: tuple[int, int],
) -> None:
    filling = slots.plan("web", held, want, drain_s=30)
    assert [command.text for command in filling.commands] == planned
    assert (filling.missing, filling.missing_backup) == missing


@pytest.mark.parametrize(
    ("command", "answer", "outcome"),
    [
        (commands.add("web", "a", A, ""), "New server registered.", Outcome.DONE),
        (commands.add("web", "a", A, ""), "a warning\nNew server registered.", Outcome.DONE),
        (commands.add("web", "a", A, ""), "", Outcome.REFUSED),
        (commands.add("web", "a", A, ""), "unknown keyword 'x'", Outcome.REFUSED),
        (commands.delete("web", "a"), "Server deleted.", Outcome.DONE),
        (commands.delete("web", "a"), "No such server.", Outcome.DONE),
        (
            commands.delete("web", "a"),
            "Server still has connections attached to it, cannot remove it.",
            Outcome.LATER,
        ),
        (
            commands.delete("web", "a"),
            "Only servers in maintenance mode can be deleted.",
            Outcome.REFUSED,
        ),
        (
            commands.set_address("web", "a", A.address, 80),
            "IP changed from '0.0.0.0' to '10.0.0.1', no need to change the port by 'stats socket'",
            Outcome.DONE,
        ),
        (
            commands.set_address("web", "a", A.address, 80),
            "no need to change the addr, port changed from '+0' to '80' by 'stats socket command'",
            Outcome.DONE,
        ),
        (commands.set_address("web", "a", A.address, 80), "nothing changed", Outcome.DONE),
        (commands.set_address("web", "a", A.address, 80), "Invalid addr 'x'", Outcome.REFUSED),
        (commands.set_state("web", "a", State.READY), "", Outcome.DONE),
        (commands.set_state("web", "a", State.READY), "Permission denied", Outcome.REFUSED),
    ],
)
def test_what_haproxy_answers_to_a_command(command: Command, answer: str, outcome: Outcome) -> None:
    assert command.outcome(answer) is outcome


def test_slots_are_found_by_prefix_and_number_in_the_order_of_numbers() -> None:
    named = [replace(SLOT, name=name) for name in ("web10", "web2", "web", "webx1", "aweb1")]
    assert [server.name for server in slots.slots(named, "web")] == ["web2", "web10"]


def served(address: str, *, ready: bool = True, zone: str = "", port: int = 80) -> Server:
    return Server(address, port, ready, zone, "vm")


def test_servers_of_other_zones_are_backups_where_a_zone_is_preferred() -> None:
    servers = (served("10.0.0.1", zone="a"), served("10.0.0.2", zone="b"), served("10.0.0.3"))
    here = wanted(servers, not_ready=State.MAINT, zone="a")
    anywhere = wanted(servers, not_ready=State.MAINT, zone="")
    assert [server.backup for server in here] == [False, True, True]
    assert [server.backup for server in anywhere] == [False, False, False]


def test_one_address_written_in_two_ways_is_one_server_which_is_ready_if_one_is() -> None:
    servers = (
        served("fd00::2", ready=False),
        served("fd00:0:0::2"),
        served("FD00::2", ready=False),
    )
    found = wanted(servers, not_ready=State.DRAIN, zone="")
    assert found == (replace(B, port=80),)
