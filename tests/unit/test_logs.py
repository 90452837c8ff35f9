"""A log line is one line, whatever is logged."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator

import pytest

from vmsvc_grpc.logs import LINE_CHARACTERS_MAX, TRACEBACK_LINES_MAX, LineFormatter

FORGED = "x\n2026-11-27T10:00:00.000 INFO    vmsvc_grpc: all is well\x1b[2J\u202e"
HEAD = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} (WARNING|ERROR) +[a-z_.]+: ")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(LineFormatter())
    logger = logging.getLogger("tests.logs")
    logger.addHandler(handler)
    logger.propagate = False
    yield out
    logger.removeHandler(handler)


def fail(text: str) -> None:
    raise ValueError(text)


def test_a_message_stays_on_its_line(lines: io.StringIO) -> None:
    logging.getLogger("tests.logs").warning("%s: refused", FORGED)
    [line] = lines.getvalue().splitlines()
    assert HEAD.match(line)
    assert line.isprintable()
    assert line.endswith(r"all is well\x1b[2J\u202e: refused")


def test_a_long_message_is_cut(lines: io.StringIO) -> None:
    logging.getLogger("tests.logs").warning("%s", "y" * 1_000_000)
    [line] = lines.getvalue().splitlines()
    assert len(line) <= LINE_CHARACTERS_MAX + 100
    assert line.endswith("yyy...")


def test_no_line_of_a_traceback_looks_like_a_record(lines: io.StringIO) -> None:
    logger = logging.getLogger("tests.logs")
    try:
        fail(FORGED)
    except ValueError:
        logger.exception("it failed", stack_info=True)
    first, *others = lines.getvalue().splitlines()
    assert HEAD.match(first)
    assert any("ValueError: x" in line for line in others)
    assert any("test_logs.py" in line for line in others)
    for line in others:
        assert line.startswith("    ")
        assert line.isprintable()
    assert not [line for line in others if HEAD.match(line)]


def test_a_long_traceback_keeps_its_end(lines: io.StringIO) -> None:
    logger = logging.getLogger("tests.logs")
    try:
        fail("\n" * 5000 + "the end")
    except ValueError:
        logger.exception("it failed")
    shown = lines.getvalue().splitlines()
    assert len(shown) <= TRACEBACK_LINES_MAX + 2
    assert shown[-1] == "    the end"
    assert "lines before these" in shown[1]
