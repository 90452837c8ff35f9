"""The README's table of what streams cost, made of a run's results."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple

from bench import servers
from bench.report import number, table
from bench.results import Outcome, Results

BEGIN, END = "<!-- by make bench -->", "<!-- end -->"
"""What stands between these is made anew."""

_HEAD = (
    "",
    "CPU a message",
    "a change is at the median stream after",
    "at the slowest of a hundred after",
    "memory",
)


class _Row(NamedTuple):
    """What a row is called, its scenario, who is measured, and beside whom, as a reader knows it.

    `few`: there are so few messages that the CPU is that of waiting.
    """

    what: str
    scenario: str
    ours: servers.Server
    peer: servers.Server | None = None
    peer_name: str = ""
    few: bool = False


_OURS, _GO = servers.OURS, servers.GRPC_GO

_ROWS = (
    _Row("1 stream", "a", _OURS, few=True),
    _Row("1,000 streams, 5 changes/s", "c", _OURS, _GO, "grpc-go"),
    _Row("the same with TLS", "n", servers.OURS_TLS, servers.GRPC_GO_TLS, "grpc-go"),
    _Row("the same without, 200 changes/s: what is outdated is skipped", "h", _OURS),
    _Row(
        "1,000 streams of xDS (delta), 5 changes/s",
        "i-c",
        servers.OURS_DELTA,
        servers.CONTROL_PLANE_DELTA,
        "go-control-plane",
    ),
    _Row("10,000 streams on 1,000 connections, 1 change/s", "e", _OURS, _GO, "grpc-go"),
    _Row("100,000 streams on 1,000 connections, 1 change/s", "o", _OURS),
)


def rewrite(file: Path, results: Results) -> bool:
    """Make the table in a file anew, if every row has been measured; whether it was.

    Raises ValueError if the file does not say where the table stands.
    """
    before, begin, rest = file.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{file}: there is no place for the table: {BEGIN} ... {END}")
    if not all(_is_measured(results, row) for row in _ROWS):
        return False
    lines = "\n".join(lines_of(results))
    file.write_text(f"{before}{BEGIN}\n{lines}\n{END}{after}")
    return True


def lines_of(results: Results) -> list[str]:
    """When all rows were measured, and the table."""
    dates = sorted(results.outcomes[row.scenario].dates[row.ours.name] for row in _ROWS)
    when = " to ".join(dict.fromkeys(map(_day, (dates[0], dates[-1]))))
    return [f"Measured on {when}, in the median:", "", *table(_HEAD, _cells(results))]


def _is_measured(results: Results, row: _Row) -> bool:
    outcome = results.outcomes.get(row.scenario)
    return outcome is not None and row.ours.name in outcome.dates


def _cells(results: Results) -> Iterator[tuple[str, ...]]:
    for row in _ROWS:
        outcome = results.outcomes[row.scenario]
        cpu = "" if row.few else _median(outcome, row.ours, "cpu_us_a_message", "µs")
        if row.peer is not None and (theirs := _median(outcome, row.peer, "cpu_us_a_message")):
            cpu += f" ({row.peer_name}: {theirs})"
        yield (
            row.what,
            cpu,
            _median(outcome, row.ours, "delivery_p50_ms", "ms"),
            _median(outcome, row.ours, "delivery_p99_ms", "ms"),
            _median(outcome, row.ours, "rss_mib", "MiB"),
        )


def _median(outcome: Outcome, server: servers.Server, metric: str, unit: str = "") -> str:
    spread = outcome.spread(server.name, metric)
    return f"{number(spread.median)} {unit}".strip() if spread else ""


def _day(written: str) -> str:
    """A date as a reader writes it."""
    day = date.fromisoformat(written[: len("2026-11-28")])
    return f"{day.day} {day:%B %Y}"
