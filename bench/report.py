"""A run's results as Markdown: what a person reads, and the targets' verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import starmap
from pathlib import Path

from bench.results import Outcome, Results
from bench.targets import STREAMS, Target, verdicts

_STREAM_COLUMNS = {
    "cpu_us_a_message": "CPU a message, µs",
    "delivery_p50_ms": "p50, ms",
    "delivery_p99_ms": "p99, ms",
    "lag_p99_ms": "lag p99, ms",
    "last_stream_p50_ms": "last stream p50, ms",
    "last_stream_p99_ms": "p99, ms",
    "rss_kib_a_stream": "RSS a stream, KiB",
    "rss_mib": "RSS, MiB",
    "connect_s": "connected in, s",
    "deliveries": "delivered",
    "skipped": "skipped",
}
_RECONNECT_COLUMNS = {
    "anew_s": "anew: all in, s",
    "anew_p99_ms": "p99, ms",
    "anew_cpu_us_a_stream": "CPU a stream, µs",
    "anew_bytes": "bytes",
    "anew_failures": "failures",
    "resumed_s": "resumed: all in, s",
    "resumed_p99_ms": "p99, ms",
    "resumed_cpu_us_a_stream": "CPU a stream, µs",
    "resumed_bytes": "bytes",
    "resumed_failures": "failures",
    "first_s": "the first time: all in, s",
    "first_p99_ms": "p99, ms",
    "first_cpu_us_a_stream": "CPU a stream, µs",
    "first_failures": "failures",
    "first_stood_ms": "event loop stood still, the first time, ms",
    "anew_stood_ms": "anew, ms",
    "resumed_stood_ms": "resumed, ms",
}
_CLIENT_COLUMNS = {
    "client_cpu_us_a_state": "CPU of the client a state, µs",
    "client_rss_kib_a_stream": "RSS of the client a stream, KiB",
    "client_rss_mib": "RSS, MiB",
    "received": "states",
    "skipped": "skipped",
}
_EVENT_COLUMNS = {"us": "CPU an event, µs", "evaluations": "services evaluated"}
_STANDSTILL_COLUMNS = {
    "lag_ms": "lag, at most, ms",
    "lag_p99_ms": "p99, ms",
    "histogram_ms": "by its own histogram, ms",
    "stood_ms": "but for waiting for a core, ms",
    "step_cpu_ms": "longest step, CPU ms",
    "turn_cpu_ms": "longest turn, CPU ms",
    "look_up_ms": "a look-up, at most, ms",
    "look_up_p50_ms": "p50, ms",
    "look_up_p99_ms": "p99, ms",
    "took_s": "took, s",
    "cpu_s": "CPU, s",
    "before_mib": "RSS before, MiB",
    "peak_mib": "peak",
    "after_mib": "after",
    "kept": "after, of before",
    "ended": "ended or failed",
}

_COLUMNS = (
    _STREAM_COLUMNS,
    _RECONNECT_COLUMNS,
    _CLIENT_COLUMNS,
    _EVENT_COLUMNS,
    _STANDSTILL_COLUMNS,
)

WRONG = ("connect_failures", "behind", "out_of_order", "lost", "wrong_state", "ended")
"""What must be 0, however slow a machine is."""


def markdown(results: Results, plots: Iterable[Path]) -> str:
    """The whole report; `plots` are named relative to it."""
    lines = ["# What the streams cost", ""]
    lines += [f"- {name}: {value}" for name, value in results.machine.items()]
    lines += ["", _HOW, "", "## Targets", ""]
    lines += verdict_table(results, STREAMS)
    for plot in plots:
        lines += ["", f"![{plot.stem}]({plot.name})"]
    for key, outcome in results.outcomes.items():
        lines += ["", f"## {key}: {outcome.title}", ""]
        lines += [*_outcome_table(outcome), "", f"Measured {_when(outcome)}."]
        lines += _wrong(outcome)
    return "\n".join(lines) + "\n"


_HOW = """\
Server and load client share the machine. Each number is the median of its repeats, which took turns
with the others' (in parentheses the least and the most). CPU is user and system time of the
server's process between the first change and the last delivery, over the messages that were
delivered. A latency is from just before a change is made to when a stream's reader has the message;
*lag* counts from the first of the changes that the message covers, so it tells how old was what the
stream held; *last stream* is when the last of them has it. RSS a stream is what connecting added,
over the streams. *Skipped* counts changes that a stream was not told one by one, as it got a newer
state instead.

Of r, CPU and RSS are the *client's*: of one process with all streams, between the first change and
the last state. A bare stream is the same gRPC and the same messages, read and left.

Of f and p, that the event loop *stood still* is how much later than due it came round, but for its
waiting for a core. *The first time*, who the clients are and what they may do is not known yet.

Of q, *lag* is how much later than due the server's event loop came round: what everybody
waits for. *But for waiting for a core* leaves out how long its thread was ready to run and other
work had the cores. *Longest step* is the CPU of the thread in one callback, and *longest turn* from
one look to the next, 5 ms apart at rest. *Its own histogram* is the bound of
`vmsvc_loop_lag_seconds` that it kept. A *look-up* is of one service, by a client of its own.
*After* is a minute after the cause was over. *Ended or failed* counts the streams, calls and
look-ups that did and should not have."""


def verdict_table(results: Results, targets: Iterable[Target]) -> list[str]:
    """What a run says of each target."""
    rows = starmap(_verdict_row, verdicts(results, targets))
    return table(("what", "target", "measured", ""), rows)


def _verdict_row(target: Target, measured: float) -> tuple[str, ...]:
    met = {True: "met", False: "**missed**", None: ""}[target.met(measured)]
    what = f"{target.scenario}: {target.what}"
    return (what, target.bound, f"{number(measured)} {target.unit}", met)


def _when(outcome: Outcome) -> str:
    """When a scenario was measured: its contenders are, one by one, if not in one run."""
    days = {name: date[: len("2026-11-28")] for name, date in outcome.dates.items()}
    if len(set(days.values())) == 1:
        return min(outcome.dates.values())
    return "; ".join(f"{name}: {day}" for name, day in days.items())


def _outcome_table(outcome: Outcome) -> list[str]:
    columns = next(
        columns
        for columns in _COLUMNS
        if any(outcome.spread(name, next(iter(columns))) for name in outcome.measured)
    )
    return outcome_table(outcome, columns)


def outcome_table(outcome: Outcome, columns: Mapping[str, str]) -> list[str]:
    """A row for each contender, and a column for each of these metrics with its heading."""
    rows = (
        (name, *(_cell(outcome, name, metric) for metric in columns)) for name in outcome.measured
    )
    return table(("", *columns.values()), rows)


def _cell(outcome: Outcome, contender: str, metric: str) -> str:
    spread = outcome.spread(contender, metric)
    if spread is None:
        return ""
    if spread.least == spread.most:
        return number(spread.median)
    least, most = number(spread.least), number(spread.most)
    return f"{number(spread.median)} ({least} to {most})"


def number(value: float) -> str:
    """A number as a person reads it: three digits, or all of those before the point."""
    digits = len(f"{abs(value):.0f}")
    return f"{value:,.0f}" if value == int(value) else f"{value:,.{max(0, 3 - digits)}f}"


def _wrong(outcome: Outcome) -> list[str]:
    """A line for each thing that was not as it must be."""
    lines = []
    for name in outcome.measured:
        for metric in WRONG:
            spread = outcome.spread(name, metric)
            if spread and spread.most:
                lines.append(f"- {name}: {metric.replace('_', ' ')}: up to {spread.most:.0f}")
    return ["", *lines] if lines else []


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table of Markdown, a line each."""
    lines = [head, ("---",) * len(head), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]
