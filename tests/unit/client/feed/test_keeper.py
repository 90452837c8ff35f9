"""When an output is looked at: at news, when somebody asks, and after what went wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from tests.integration.serving import until
from tests.unit.client.feed.states import DB, WEB, absent, state
from vmsvc.feed import backoff
from vmsvc.feed.held import Held
from vmsvc.feed.keeper import Keeper
from vmsvc.feed.output import Applied, OutputError, PartlyError
from vmsvc.feed.policies import Policies, Policy
from vmsvc.feed.report import Report
from vmsvc.feed.systemd import Notifier
from vmsvc.model import ServiceState
from vmsvc.state import Event, Synced

NEVER_S = 1e6
EMPTY = Policies(Policy.EMPTY, Policy.EMPTY)


class Watch:
    """A watch of what a test says."""

    def __init__(self) -> None:
        self.states: dict[str, ServiceState] = {}
        self._news: asyncio.Queue[Event] = asyncio.Queue()

    def tell(self, *states: ServiceState) -> None:
        for each in states:
            self.states[each.service] = each
            self._news.put_nowait(each)
        self._news.put_nowait(Synced())

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Watch]:
        yield self

    async def events(self) -> AsyncIterator[Event]:
        while True:
            yield await self._news.get()


class Output:
    """Notes what it is given, and fails as a test says."""

    def __init__(self) -> None:
        self.given: list[Mapping[str, ServiceState]] = []
        self.fails: OutputError | None = None
        self.again_in_s: float | None = None
        self.reads = 0
        self.reading_fails: OutputError | None = None

    async def apply(self, states: Mapping[str, ServiceState]) -> Applied:
        self.given.append(states)
        if self.fails:
            raise self.fails
        return Applied(0, self.again_in_s)

    def reread(self) -> None:
        self.reads += 1
        if self.reading_fails:
            raise self.reading_fails

    async def aclose(self) -> None:
        pass


class Feed:
    def __init__(self) -> None:
        self.watch, self.output = Watch(), Output()
        self.saved: list[Mapping[str, ServiceState]] = []
        self.saving_fails = False
        self.report = Report("test", Notifier({}))
        self.keeper = Keeper(
            cast(Any, self.watch.opened),
            Held([], EMPTY),
            self.output,
            self.save,
            NEVER_S,
            self.report,
        )

    def save(self, states: Mapping[str, ServiceState]) -> None:
        if self.saving_fails:
            raise OutputError("No space left on device")
        self.saved.append(states)

    async def looked(self, times: int) -> None:
        await until(lambda: len(self.output.given) >= times)


@pytest.fixture
async def feed(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Feed]:
    """One that looks at its output when it has a reason, and never for the time alone."""
    monkeypatch.setattr(backoff, "_INITIAL_S", NEVER_S)
    monkeypatch.setattr(backoff, "_MAX_S", NEVER_S)
    made = Feed()
    running = asyncio.create_task(made.keeper.run())
    yield made
    running.cancel()
    await asyncio.wait({running})


async def test_news_waits_for_an_output_that_fails(feed: Feed) -> None:
    feed.output.fails = OutputError("away")
    feed.watch.tell(state(WEB, "10.0.0.1"))
    await feed.looked(1)
    feed.watch.tell(state(WEB, "10.0.0.2"))
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(feed.output.given) == 1
    assert feed.report.ready() == "away"


async def test_news_does_not_wait_for_a_part_that_fails(feed: Feed) -> None:
    feed.output.fails = PartlyError("web is refused")
    feed.watch.tell(state(WEB, "10.0.0.1"))
    await feed.looked(1)
    feed.watch.tell(state(DB, "10.0.0.2"))
    await feed.looked(2)
    assert set(feed.output.given[1]) == {WEB, DB}
    assert feed.report.ready() == "web is refused"
    # And a next start begins with what could be made right.
    await until(lambda: feed.saved == feed.output.given)


@pytest.mark.parametrize("kind", [OutputError, PartlyError])
async def test_what_fails_is_tried_again_when_it_says(feed: Feed, kind: type[OutputError]) -> None:
    feed.output.fails = kind("too soon", again_in_s=0.001)
    feed.watch.tell(state(WEB, "10.0.0.1"))
    await feed.looked(3)


async def test_an_output_that_fails_is_looked_at_when_somebody_asks(feed: Feed) -> None:
    feed.output.fails = OutputError("away")
    feed.watch.tell(state(WEB, "10.0.0.1"))
    await feed.looked(1)
    feed.output.fails = None
    feed.keeper.look()
    await feed.looked(2)
    await until(lambda: feed.report.ready() is None)
    assert feed.output.reads == 1


async def test_what_cannot_be_read_anew_costs_nothing_else(
    feed: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    feed.watch.tell(state(WEB, "10.0.0.1"))
    await feed.looked(1)
    feed.output.reading_fails = OutputError("there is no template t.j2")
    feed.keeper.look()
    await feed.looked(2)
    assert "there is no template t.j2; it goes on as it was" in caplog.text


async def test_it_is_not_ready_before_each_named_service_is_known(feed: Feed) -> None:
    feed.keeper.held = Held([WEB, DB], EMPTY, [state(WEB, "10.0.0.1")])
    feed.keeper.look()
    await until(lambda: feed.report.ready() == f"the server has not answered yet for {DB}")
    assert set(feed.output.given[0]) == {WEB}
    feed.watch.tell(state(WEB, "10.0.0.1"), absent(DB))
    await until(lambda: feed.report.ready() is None)


async def test_a_service_that_is_kept_as_it_never_was_is_known(feed: Feed) -> None:
    keep = Policies(Policy.KEEP, Policy.KEEP)
    feed.keeper.held = Held([WEB, DB], keep, [state(WEB, "10.0.0.1")])
    feed.watch.tell(absent(DB), absent(WEB))
    await until(lambda: feed.report.ready() is None)


@pytest.mark.parametrize("fails", [None, PartlyError("db is refused", again_in_s=0.001)])
async def test_an_output_is_looked_at_as_often_although_no_state_can_be_saved(
    feed: Feed, fails: OutputError | None
) -> None:
    feed.saving_fails, feed.output.fails, feed.output.again_in_s = True, fails, 0.001
    feed.watch.tell(state(WEB, "10.0.0.1"))
    await feed.looked(3)
    assert (feed.report.ready() or "").endswith("No space left on device")


async def test_what_is_gone_is_forgotten_although_no_state_can_be_saved(feed: Feed) -> None:
    feed.saving_fails = True
    feed.watch.tell(state(WEB, "10.0.0.1"), state(DB, "10.0.0.2"))
    await feed.looked(1)
    feed.watch.tell(absent(DB))
    await until(lambda: feed.keeper.held.fed().keys() == {WEB})
