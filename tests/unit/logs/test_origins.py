"""An origin has so many lines in a minute; the others are counted."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterator

import pytest

from vmsvc_grpc.logs.formats import TextFormatter
from vmsvc_grpc.logs.origins import ORIGIN_LINES_MAX, ORIGIN_WINDOW_S, LinesPerOrigin


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(TextFormatter())
    logger = logging.getLogger("tests.logs")
    logger.addHandler(handler)
    logger.propagate = False
    yield out
    logger.removeHandler(handler)


class OwnedLines:
    """Lines of origins, at times that a test chooses."""

    def __init__(self, out: io.StringIO) -> None:
        self.now = 0.0
        self.lines = LinesPerOrigin(logging.getLogger("tests.logs"), clock=lambda: self.now)
        self._out = out

    def log(self, origin: str, count: int) -> None:
        for index in range(count):
            self.lines.log(origin, logging.WARNING, f"{origin}: flaw {index}")

    def logged(self) -> list[str]:
        """Messages since this was last asked."""
        found = [line.partition("tests.logs: ")[2] for line in self._out.getvalue().splitlines()]
        self._out.seek(0)
        self._out.truncate()
        return found


MORE = "lines left out: %d about '%s'; /readyz and `vmsvc explain` say more"


def test_an_owner_of_many_flawed_objects_has_ten_lines_and_one_that_counts_the_others(
    lines: io.StringIO,
) -> None:
    owned = OwnedLines(lines)
    owned.log("a.yaml", 90_000)
    assert owned.logged() == [f"a.yaml: flaw {index}" for index in range(ORIGIN_LINES_MAX)]
    owned.log("b.yaml", 2)
    assert owned.logged() == ["b.yaml: flaw 0", "b.yaml: flaw 1"], "it costs nobody else"
    owned.lines.sum_up()
    assert owned.logged() == [], "there may be more"
    owned.now += ORIGIN_WINDOW_S / 2
    owned.lines.sum_up()
    assert owned.logged() == [MORE % (89_990, "a.yaml")]
    owned.now += ORIGIN_WINDOW_S
    owned.lines.sum_up()
    assert owned.logged() == []
    owned.log("a.yaml", 1)
    assert owned.logged() == ["a.yaml: flaw 0"]


def test_however_often_a_file_is_read_its_lines_are_few(lines: io.StringIO) -> None:
    owned = OwnedLines(lines)
    for _ in range(600):
        owned.now += 0.5
        owned.log("a.yaml", 20)
        owned.lines.sum_up()
    assert len(owned.logged()) <= 5 * (ORIGIN_LINES_MAX + 1)


def test_lines_of_many_owners_that_are_left_out_are_one_line(lines: io.StringIO) -> None:
    owned = OwnedLines(lines)
    for number in range(50):
        owned.log(f"c{number}", ORIGIN_LINES_MAX + number)
    owned.logged()
    owned.now += ORIGIN_WINDOW_S
    owned.lines.sum_up()
    (line,) = owned.logged()
    assert line.startswith("lines left out: 49 about 'c49', 48 about 'c48', ")
    assert "40 about 'c40', and those about 39 more; " in line


def test_how_many_lines_an_owner_has_may_be_set_and_what_is_left_out_is_counted() -> None:
    left_out: list[None] = []
    bounded = LinesPerOrigin(
        logging.getLogger("tests.logs"), lines_max=2, on_left_out=lambda: left_out.append(None)
    )
    for index in range(5):
        bounded.log("a", logging.WARNING, f"{index} %s")
    assert len(left_out) == 3


async def test_what_was_left_out_is_told_at_the_end(lines: io.StringIO) -> None:
    owned = OwnedLines(lines)
    running = asyncio.create_task(owned.lines.run())
    await asyncio.sleep(0)
    owned.log("a.yaml", ORIGIN_LINES_MAX + 1)
    running.cancel()
    await asyncio.wait([running])
    assert owned.logged()[-1] == MORE % (1, "a.yaml")
