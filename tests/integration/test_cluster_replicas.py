"""Several replicas on one API server: every one serves, one writes, whatever becomes of it."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest

from tests.integration.cluster import (
    LEASE_S,
    Replica,
    World,
    churn,
    eventually,
    within,
    world,
)
from tests.program import ProgramError

__all__ = ["world"]

# How much later than it might a busy machine does something.
SLACK_S = 5.0


def leader_of(*replicas: Replica) -> Replica | None:
    leading = [replica for replica in replicas if replica.leads]
    assert len(leading) < 2, "two lead at once"
    return leading[0] if leading else None


def test_two_that_start_at_once(world: World) -> None:
    """Each object is created once, by the one that leads."""
    site = world.site()
    start = world.mark()
    with (
        world.replica(steady=[site.steady]) as one,
        world.replica(steady=[site.steady]) as other,
    ):
        world.agrees(one, other)
        created = [w for w in world.writes(start) if w.verb == "create" and w.resource != "events"]
        assert {w.by for w in created} == {one.token_id if one.leads else other.token_id}
        assert sorted(w.code for w in created) == [201] * 10, created
        assert len({(w.resource, w.name) for w in created}) == 10
        with churn(site):
            eventually(lambda: min(r.listener.messages for r in (one, other)) > 100, "told")
        world.agrees(one, other)
        writers = {w.by for w in world.writes(start)}
        assert len(writers) == 1


def test_a_leader_that_is_killed(world: World) -> None:
    """Changes made while nobody led are not lost (linkerd2 #12021)."""
    site = world.site()
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(ProgramError, match="ended with -9"))
        first = stack.enter_context(world.replica())
        eventually(lambda: first.leads, "leading")
        with world.replica(steady=[site.steady]) as second:
            world.agrees(first, second)
            with churn(site):
                assert not second.leads
                first.program.process.kill()
                first.program.process.wait()
                within(LEASE_S + SLACK_S, lambda: second.leads, "led by the other")
            world.agrees(second)


def test_a_leader_that_is_paused_past_its_lease_starts_no_write_until_it_leads_again(
    world: World,
) -> None:
    site = world.site()
    with world.replica(steady=[site.steady]) as one, world.replica(steady=[site.steady]) as other:
        eventually(lambda: leader_of(one, other), "led by one")
        first, second = (one, other) if one.leads else (other, one)
        world.agrees(one, other)
        with churn(site):
            start = world.mark()
            eventually(lambda: writers(world, start) == {first.token_id}, "at work")
            first.program.process.send_signal(signal.SIGSTOP)
            try:
                within(LEASE_S + SLACK_S, lambda: second.leads, "led by the other")
                after = world.mark()
                woken = datetime.now(UTC)
            finally:
                first.program.process.send_signal(signal.SIGCONT)
            count = len(world.writes(after))
            eventually(lambda: len(world.writes(after)) > count + 30, "at work again")
            # What it had sent before it slept may still arrive, but nothing that it begins.
            late = [w for w in world.writes(after) if w.by == first.token_id]
            assert [w for w in late if datetime.fromisoformat(w.at) > woken] == []
            assert not first.leads
        world.agrees(one, other)


def writers(world: World, since: int) -> set[str]:
    return {write.by for write in world.writes(since)}


def test_a_leader_that_ends_hands_over_at_once(world: World) -> None:
    site = world.site()
    with world.replica("--lease-duration-s", "60", steady=[site.steady]) as second:
        eventually(lambda: second.leads, "leading")
        with world.replica("--lease-duration-s", "60", steady=[site.steady]) as third:
            with churn(site):
                second.listener.close()
                second.program.process.send_signal(signal.SIGTERM)
                assert second.program.process.wait(30) == 0
                # It looks every 8 s, and need not wait for a lease of 60 s to end.
                within(8 + SLACK_S, lambda: third.leads, "led by the other")
            world.agrees(third)
