"""What is said again and again is counted instead."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from vmsvc_grpc.logs.origins import ORIGIN_LINES_MAX, ORIGIN_WINDOW_S, LinesPerOrigin
from vmsvc_grpc.logs.repeats import Repeats

log = logging.getLogger("tests.repeats")


class Heard(logging.Handler):
    """A handler with a filter whose clock a test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.repeats = Repeats(clock=lambda: self.now)
        self.addFilter(self.repeats)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    def since(self) -> list[str]:
        texts, self.texts = self.texts, []
        return texts


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler = Heard()
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)
    root.setLevel(before)


def test_lines_of_a_kind_are_few_and_the_others_are_counted(heard: Heard) -> None:
    for number in range(51):
        log.warning("cannot accept %d", number)
    log.warning("something else")
    assert heard.since() == [
        *(f"cannot accept {number}" for number in range(ORIGIN_LINES_MAX)),
        "something else",
    ]
    heard.now += ORIGIN_WINDOW_S
    heard.repeats.sum_up()
    (line,) = heard.since()
    assert line == "41 more lines within a minute like 'tests.repeats: cannot accept %d'"
    log.warning("cannot accept %d", 51)
    assert heard.since() == ["cannot accept 51"]
    heard.now += ORIGIN_WINDOW_S
    heard.repeats.sum_up()
    assert heard.since() == []


def test_faults_of_libraries_that_name_what_differs_are_of_one_kind(heard: Heard) -> None:
    """As asyncio does: the object follows in a line of its own."""
    for number in range(50):
        log.error(f"Task exception was never retrieved\nfuture: <Task {number}>")  # noqa: G004
    assert len(heard.since()) == ORIGIN_LINES_MAX


def test_details_are_not_counted(heard: Heard) -> None:
    for number in range(50):
        log.debug("published %d", number)
    assert len(heard.since()) == 50


def test_origins_have_their_own_bound(heard: Heard) -> None:
    lines = LinesPerOrigin(log)
    for number in range(20):
        lines.log(f"namespace {number}", logging.WARNING, "it is refused")
    assert len(heard.since()) == 20


async def test_what_is_not_counted_yet_is_counted_at_the_end(heard: Heard) -> None:
    running = asyncio.create_task(heard.repeats.run())
    await asyncio.sleep(0)
    for _ in range(ORIGIN_LINES_MAX + 2):
        log.warning("again")
    running.cancel()
    await asyncio.wait([running])
    assert heard.since()[-1] == "2 more lines within a minute like 'tests.repeats: again'"
