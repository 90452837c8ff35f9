"""What a run measured: for each scenario and contender, each repeat; and how it is kept."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.streams import Scenario

Measured = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Spread:
    """A number that was measured several times."""

    median: float
    least: float
    most: float


@dataclass(slots=True)
class Outcome:
    """One scenario: what was measured, by contender, a mapping each time; and when, of each."""

    title: str
    measured: dict[str, list[Measured]] = field(default_factory=dict)
    dates: dict[str, str] = field(default_factory=dict)

    def spread(self, contender: str, metric: str) -> Spread | None:
        """A metric of a contender; None if it has none."""
        values = [m[metric] for m in self.measured.get(contender, ()) if metric in m]
        if not values:
            return None
        return Spread(statistics.median(values), min(values), max(values))

    def ratio(self, metric: str, ours: str, theirs: str) -> float | None:
        """How many times theirs ours is, of medians; None if either was not measured."""
        a, b = self.spread(ours, metric), self.spread(theirs, metric)
        return a.median / b.median if a and b and b.median else None


@dataclass(slots=True)
class Results:
    """One run: on which machine, when, and what came out by scenario."""

    machine: dict[str, str]
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def save(self, file: Path) -> None:
        """Write all as JSON."""
        file.write_text(json.dumps(asdict(self), indent=1) + "\n")


def load(file: Path) -> Results:
    """What `save` wrote."""
    kept = json.loads(file.read_text())
    outcomes = {key: Outcome(**outcome) for key, outcome in kept["outcomes"].items()}
    return Results(kept["machine"], outcomes)


def merged(kept: Results, new: Results, scenarios: Iterable[Scenario]) -> Results:
    """Both, in the order of the scenarios: what is new, and of what was kept that which is not.

    What none of the scenarios measures (any more) is left out.
    """
    together = Results(new.machine)
    for scenario in scenarios:
        found = [r.outcomes[scenario.key] for r in (kept, new) if scenario.key in r.outcomes]
        outcome = Outcome(scenario.title)
        for contender in scenario.contenders:
            for each in found:  # The new one last.
                if contender.name in each.measured:
                    outcome.measured[contender.name] = each.measured[contender.name]
                    outcome.dates[contender.name] = each.dates.get(contender.name, "")
        if outcome.measured:
            together.outcomes[scenario.key] = outcome
    return together


def run(chosen: Iterable[Scenario], note: Callable[[str], None]) -> Results:
    """Measure each contender of each scenario, in turns, so that all have the same weather."""
    results = Results(machine())
    for scenario in chosen:
        outcome = results.outcomes[scenario.key] = Outcome(scenario.title)
        note(f"{scenario.key}: {scenario.title}")
        for repeat in range(scenario.repeats):
            for contender in scenario.contenders:
                if repeat and contender.once:
                    continue
                began = time.monotonic()
                measured = contender.measure()
                outcome.measured.setdefault(contender.name, []).append(measured)
                outcome.dates[contender.name] = _now()
                took_s = time.monotonic() - began
                note(f"  {repeat + 1}/{scenario.repeats} {contender.name}: {took_s:.0f} s")
    return results


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def machine() -> dict[str, str]:
    """What a reader must know of this machine."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": _now(),
        "cpu": f"{os.cpu_count()} cores, {cpu}",
        "memory": f"{memory_bytes / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "grpcio": version("grpcio"),
        "load before": f"{os.getloadavg()[0]:.1f}",
    }
