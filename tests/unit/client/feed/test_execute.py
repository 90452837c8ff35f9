"""A command for each state: what one service's does costs no other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.serving import until
from tests.integration.test_feed import pid_is_gone
from tests.unit.client.feed.states import DB, WEB, ByHand, state
from vmsvc.feed.execute import Execution
from vmsvc.feed.output import OutputError
from vmsvc.model import ServiceState

pytestmark = pytest.mark.usefixtures("at_once")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmsvc.feed.execute._WAIT_S", 0.01)


class Feed(ByHand[Execution]):
    """Its command fails, or hangs, for the services that have a file for that."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        script = (
            f'cd {folder}; n=${{VMSVC_SERVICE#*/}}; echo $$ >> "began.$n"; '
            '[ ! -e "fails.$n" ] || exit 7; '
            '[ ! -e "hangs.$n" ] || exec sleep 100000; '
            'cat > "new.$n"; mv "new.$n" "has.$n"'
        )
        self.output = Execution(("sh", "-c", script), 1000.0, clock=lambda: self.now_s)

    async def given(self, service: str, address: str) -> None:
        """Until the newest state that the command has taken of a service has this address."""
        file = self.folder / f"has.{service}"
        await until(lambda: file.exists() and f'"{address}"' in file.read_text())

    def began(self, service: str) -> list[int]:
        """The processes that were begun for a service."""
        file = self.folder / f"began.{service}"
        return [int(pid) for pid in file.read_text().split()] if file.exists() else []

    async def look(self, *states: ServiceState) -> None:
        """Apply them, however far it comes by that."""
        with suppress(OutputError):
            await self.apply(*states)

    async def ended(self, *but: str) -> None:
        """Until no command runs, but for those of these services."""
        running = self.output._running
        await until(lambda: all(task.done() for name, task in running.items() if name not in but))


@pytest.fixture
async def feed(tmp_path: Path) -> AsyncIterator[Feed]:
    made = Feed(tmp_path)
    yield made
    await made.output.aclose()


async def test_a_command_that_hangs_holds_back_no_news_of_others(feed: Feed) -> None:
    (feed.folder / "hangs.db").touch()
    assert await feed.fault(state(DB, "10.0.0.9")) == "command sh has yet to end once"
    for address in ("10.0.0.1", "10.0.0.2"):
        await feed.fault(state(WEB, address), state(DB, "10.0.0.9"))
        await feed.given("web", address)
        await feed.ended(DB)
    # And it is the same process that goes on.
    assert len(feed.began("db")) == 1


async def test_what_runs_ends_with_the_feed(feed: Feed) -> None:
    (feed.folder / "hangs.db").touch()
    await feed.fault(state(DB, "10.0.0.9"))
    await until(lambda: bool(feed.began("db")))
    await feed.output.aclose()
    assert pid_is_gone(feed.began("db")[0])


async def test_a_command_that_fails_is_run_again_later_whatever_comes_for_others(
    feed: Feed,
) -> None:
    (feed.folder / "fails.db").touch()
    db = state(DB, "10.0.0.9")
    await feed.fault(db)
    await until(lambda: DB in feed.output._faults)
    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
        assert "data/db: command sh failed with exit code 7" in await feed.fault(
            state(WEB, address), db
        )
        await feed.given("web", address)
        await feed.ended()
    assert len(feed.began("db")) == 1
    (feed.folder / "fails.db").unlink()
    feed.now_s += 10
    await feed.look(state(WEB, "10.0.0.3"), db)
    await feed.given("db", "10.0.0.9")
    await feed.ended()
    assert (await feed.apply(state(WEB, "10.0.0.3"), db)).again_in_s is None
    assert len(feed.began("db")) == 2


async def test_who_asks_has_what_failed_run_at_once(feed: Feed) -> None:
    (feed.folder / "fails.db").touch()
    db = state(DB, "10.0.0.9")
    await feed.fault(db)
    await until(lambda: DB in feed.output._faults)
    (feed.folder / "fails.db").unlink()
    feed.output.reread()
    await feed.look(db)
    await feed.given("db", "10.0.0.9")
