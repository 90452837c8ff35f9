"""A log line is one line, whatever is logged, as text and as JSON."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest

from vmsvc_grpc.logs.about import about, shown
from vmsvc_grpc.logs.formats import (
    FORMATS,
    LINE_CHARACTERS_MAX,
    TRACEBACK_CHARACTERS_MAX,
    TRACEBACK_LINES_MAX,
    formatter,
)
from vmsvc_grpc.model.objects import Key, Kind

FORGED = "x\n2026-11-27T10:00:00.000Z INFO    vmsvc_grpc: all is well\x1b[2J\u202e"
ESCAPED = r"x\n2026-11-27T10:00:00.000Z INFO    vmsvc_grpc: all is well\x1b[2J\u202e"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
HEAD = re.compile(TIME + r" (WARNING|ERROR) +[a-z_.]+: ")


class Written:
    """What the loggers of a test have written, in one of the formats."""

    def __init__(self, form: str) -> None:
        self.form = form
        self._out = io.StringIO()
        self.handler = logging.StreamHandler(self._out)
        self.handler.setFormatter(formatter(form))

    @property
    def lines(self) -> list[str]:
        """The lines; each is ended, and made of characters that can be seen."""
        text = self._out.getvalue()
        assert text.endswith("\n")
        lines = text.removesuffix("\n").split("\n")
        assert all(line.isprintable() for line in lines)
        return lines

    def message(self, line: str) -> str:
        if self.form == "json":
            return str(json.loads(line)["message"])
        assert HEAD.match(line)
        return HEAD.sub("", line)


def writing(form: str) -> Iterator[Written]:
    written = Written(form)
    logger = logging.getLogger("tests.logs")
    logger.addHandler(written.handler)
    logger.propagate = False
    yield written
    logger.removeHandler(written.handler)


@pytest.fixture(params=FORMATS)
def written(request: pytest.FixtureRequest) -> Iterator[Written]:
    yield from writing(request.param)


@pytest.fixture
def text() -> Iterator[Written]:
    yield from writing("text")


@pytest.fixture
def as_json() -> Iterator[Written]:
    yield from writing("json")


log = logging.getLogger("tests.logs")


def fail(text: str) -> None:
    raise ValueError(text)


def logged_failure(text: str, **extra: Any) -> None:
    try:
        fail(text)
    except ValueError:
        log.exception("it failed", **extra)


def test_a_message_stays_on_its_line(written: Written) -> None:
    log.warning("%s: refused", FORGED)
    [line] = written.lines
    assert written.message(line) == f"{ESCAPED}: refused"


def test_a_long_message_is_cut(written: Written) -> None:
    log.warning("%s", "y" * 1_000_000)
    [line] = written.lines
    message = written.message(line)
    assert len(message) == LINE_CHARACTERS_MAX
    assert message.endswith("yyy...")


def test_no_line_of_a_traceback_looks_like_a_record(text: Written) -> None:
    logged_failure(FORGED, stack_info=True)
    first, *others = text.lines
    assert HEAD.match(first)
    assert any("ValueError: x" in line for line in others)
    assert any("test_formats.py" in line for line in others)
    assert all(line.startswith("    ") for line in others)
    assert not [line for line in others if HEAD.match(line)]


def test_a_long_traceback_keeps_its_end(text: Written) -> None:
    logged_failure("\n" * 5000 + "the end")
    shown_lines = text.lines
    assert len(shown_lines) <= TRACEBACK_LINES_MAX + 2
    assert shown_lines[-1] == "    the end"
    assert "lines before these" in shown_lines[1]


def test_a_traceback_is_part_of_its_event(as_json: Written) -> None:
    logged_failure(FORGED, stack_info=True)
    [line] = as_json.lines
    event = json.loads(line)
    assert (event["level"], event["message"]) == ("error", "it failed")
    assert event["error"] == f"ValueError: {ESCAPED}"
    assert event["traceback"][0] == "Traceback (most recent call last):"
    assert "ValueError: x" in event["traceback"]
    assert any("logged_failure" in line for line in event["stack"])


@pytest.mark.parametrize("ending", ["z" * 3000 + "\n", "\n"])
def test_an_event_with_a_long_traceback_fits_into_a_line_of_a_container(
    ending: str, as_json: Written
) -> None:
    logged_failure(ending * 5000 + "the end")
    [line] = as_json.lines
    assert len(line) < 16 * 1024
    event = json.loads(line)
    assert event["traceback"][-1] == "the end"
    assert "before these" in event["traceback"][0]
    assert sum(map(len, event["traceback"][1:])) <= TRACEBACK_CHARACTERS_MAX


def test_fields_say_what_a_line_is_about(as_json: Written) -> None:
    extra = about(
        Kind.VIRTUAL_MACHINE_SERVICE,
        Key("shop", "web"),
        reason="Refused",
        error="no ports",
        streams=3,
        grpc=("a", FORGED),
    )
    log.warning("it is %s", "refused", extra=extra)
    [line] = as_json.lines
    event = json.loads(line)
    assert re.fullmatch(TIME, event.pop("time"))
    assert event == {
        "level": "warning",
        "logger": "tests.logs",
        "message": "it is refused",
        "object": {"kind": "VirtualMachineService", "namespace": "shop", "name": "web"},
        "reason": "Refused",
        "error": "no ports",
        "streams": 3,
        "grpc": ["a", ESCAPED],
    }


def test_fields_are_cut_and_escaped_and_never_replace_what_each_event_has(
    as_json: Written,
) -> None:
    extra = about("Lease", Key(FORGED, "y" * 100_000), error=FORGED, message="m", time="t")
    log.warning("true", extra=extra)
    [line] = as_json.lines
    event = json.loads(line)
    assert (event["message"], event["error"]) == ("true", ESCAPED)
    assert re.fullmatch(TIME, event["time"])
    assert event["object"]["namespace"] == ESCAPED
    assert len(event["object"]["name"]) < 2000


@pytest.mark.parametrize("outside", ["größe 漢字 😀", "\udcff\ud800", "\x00\x7f\x9b\u2028"])
def test_an_event_is_ascii_whatever_the_encoding_of_the_stream(
    outside: str, as_json: Written
) -> None:
    log.warning("%s", outside)
    [line] = as_json.lines
    assert line.isascii()
    assert json.loads(line)["message"].isprintable()


def test_a_line_for_a_person_is_shown_as_it_is_but_for_escapes(text: Written) -> None:
    log.info("not shown")
    log.warning("in short", extra=shown("one\n  two \x1b[2J", reason="Serving"))
    assert text.lines == ["one", r"  two \x1b[2J"]


def test_a_line_for_a_person_is_an_event_in_json(as_json: Written) -> None:
    log.warning("in short", extra=shown("one\n  two", reason="Serving", services=2))
    [line] = as_json.lines
    event = json.loads(line)
    assert (event["message"], event["reason"], event["services"]) == ("in short", "Serving", 2)
