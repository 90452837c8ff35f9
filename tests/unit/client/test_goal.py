"""What `vmsvc watch` waits for, event by event."""

from __future__ import annotations

import grpc
import pytest

from vmsvc import Absence, AbsenceReason, Endpoint, ServiceState
from vmsvc.errors import UnavailableError
from vmsvc.goal import Goal
from vmsvc.state import Disconnected, Event, Synced

LOST = Disconnected(UnavailableError("away", code=grpc.StatusCode.UNAVAILABLE), 0.0)


def state(service: str, *ready: bool) -> ServiceState:
    """A service with a VM for each, which has an address of each family."""
    return ServiceState(
        service,
        endpoints=tuple(
            Endpoint(address, is_ready, f"vm-{index}", f"uid-{index}", "")
            for index, is_ready in enumerate(ready)
            for address in (f"10.0.0.{index}", f"fd00::{index}")
        ),
    )


def absent(service: str, reason: AbsenceReason = AbsenceReason.NOT_FOUND) -> ServiceState:
    return ServiceState(service, absence=Absence(reason, "it is told why"))


def ready(count: int, *services: str) -> Goal:
    return Goal(services, ready_min=count)


def gone(*services: str) -> Goal:
    return Goal(services, absent=True)


REFUSED = absent("a/b", AbsenceReason.REFUSED)


@pytest.mark.parametrize(
    ("goal", "events", "lacks"),
    [
        pytest.param(ready(1, "a/b"), [state("a/b", True), Synced()], "", id="ready"),
        pytest.param(
            ready(2, "a/b"),
            [state("a/b", True), Synced()],
            "a/b has 1 of 2 VMs ready",
            id="VMs count, not addresses",
        ),
        pytest.param(
            ready(2, "a/b"),
            [state("a/b", True, False), Synced()],
            "a/b has 1 of 2 VMs ready",
            id="one is not ready",
        ),
        pytest.param(
            ready(1, "a/b", "a/c"),
            [state("a/b", True), Synced(), state("a/c", True)],
            "",
            id="both, in the end",
        ),
        pytest.param(
            ready(1, "a/b", "a/c"),
            [state("a/b", True), Synced(), state("a/b"), state("a/c", True)],
            "a/b has 0 of 1 VMs ready",
            id="at the same time",
        ),
        pytest.param(
            ready(1, "a/b"), [absent("a/b"), Synced()], "a/b is absent: it is told why", id="absent"
        ),
        pytest.param(
            ready(1, "a/b"), [REFUSED, Synced()], "a/b is refused: it is told why", id="refused"
        ),
        pytest.param(gone("a/b"), [absent("a/b"), Synced()], "", id="gone"),
        pytest.param(gone("a/b"), [REFUSED, Synced()], "a/b is there still", id="refused is there"),
        pytest.param(
            gone("a/b"), [state("a/b"), Synced()], "a/b is there still", id="empty is there"
        ),
        pytest.param(
            ready(1, "a/b"),
            [state("a/b", True), Synced(), LOST],
            "nothing is known for sure (as last heard; the server is away)",
            id="what may be out of date",
        ),
        pytest.param(
            ready(1, "a/b"), [state("a/b", True), Synced(), LOST, Synced()], "", id="still true"
        ),
        pytest.param(
            gone("a/b"),
            [],
            "a/b is not known yet (as last heard; the server is away)",
            id="nothing",
        ),
    ],
)
def test_goal(goal: Goal, events: list[Event], lacks: str) -> None:
    reached = [goal.take(event) for event in events]
    assert (reached or [False])[-1] is not bool(lacks)
    assert lacks in ("", goal.lacks())


def test_without_a_goal_a_watch_does_not_end() -> None:
    goal = Goal(())
    events: list[Event] = [state("a/b", True), Synced(), absent("a/b")]
    assert not any(map(goal.take, events))
