"""Lines about clients: so many a minute, and one for those left out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

import pytest

from vmsvc_grpc.server.lines import ClientLines

LOG = logging.getLogger("test.lines")


class Minutes:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        assert delay_s == 60
        self.due.append(call)

    def end(self) -> None:
        (call,) = self.due
        self.due.clear()
        call()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = [record.message for record in caplog.records]
    caplog.clear()
    return messages


def test_a_client_has_so_many_lines_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    refusals: Counter[str] = Counter()
    minutes = Minutes()
    lines = ClientLines(LOG, 2, refusals, minutes.later)
    for number in range(5):
        lines.warn("a", f"a{number} %s")
    lines.warn("b", "b0")
    assert said(caplog) == ["a0 %s", "a1 %s", "b0"]
    assert refusals == {"client_lines_per_minute_max": 3}
    minutes.end()
    assert said(caplog) == [
        "lines about clients left out in the last minute (client_lines_per_minute_max): 3 of 'a'"
    ]
    assert not minutes.due, "nobody waits for a minute in which nothing happened"
    lines.warn("a", "a5")
    assert said(caplog) == ["a5"]
    minutes.end()
    assert not said(caplog)


def test_many_clients_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    minutes = Minutes()
    lines = ClientLines(LOG, 1, Counter(), minutes.later)
    for number in range(50):
        for _ in range(number + 1):
            lines.warn(f"c{number}", "words")
    said(caplog)
    minutes.end()
    (line,) = said(caplog)
    assert "49 of 'c49', 48 of 'c48'" in line
    assert line.endswith("40 of 'c40', and those of 39 more")
