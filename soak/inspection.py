"""What a process holds, seen from outside: its memory, descriptors, gauges, and its window."""

from __future__ import annotations

import json
import os
import signal
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soak.memory import Sample
from tests.program import Program, awaited
from vmsvc_grpc.metrics import Metric

_PATIENCE_S = 30.0

# What is open, taken or waiting; nothing of it is left once nobody asks and nothing is there.
GAUGES = (
    Metric.OBJECTS,
    Metric.TOPICS,
    Metric.STREAMS,
    Metric.TAKEN,
    Metric.NAMES,
    Metric.NAME_BYTES,
    Metric.REVIEWS_OPEN,
    Metric.FILE_PROBLEMS,
    Metric.PENDING,
    Metric.FAILING,
    Metric.QUEUE_DEPTH,
    Metric.QUEUE_UNFINISHED,
)

# What is kept on purpose: for ten minutes, the answers about callers.
_KEPT = {
    "vmsvc_grpc.server.access.facts.RightFact",
    "vmsvc_grpc.server.access.facts.TokenFact",
    "vmsvc_grpc.server.access.needs.ResourceNeed",
    "vmsvc_grpc.server.access.principal.Principal",
}


def within(folder: Path) -> list[str]:
    """The command that gives a program its window."""
    return [sys.executable, "-m", "soak.inside", str(folder)]


def resident(program: Program, at_s: float) -> Sample:
    """The memory that a process has now."""
    pages = int(Path(f"/proc/{program.process.pid}/statm").read_text().split()[1])
    return Sample(at_s, pages * os.sysconf("SC_PAGESIZE"))


@dataclass(frozen=True)
class Holding:
    """What a process holds at a moment."""

    descriptors: int
    tasks: Mapping[str, int]
    objects: Mapping[str, int]
    cached: tuple[str, ...]
    gauges: Mapping[str, float]

    def leavings(self, before: Holding) -> Iterator[str]:
        """What there is that was not there before."""
        if self.descriptors > before.descriptors:
            yield f"{self.descriptors} descriptors, {before.descriptors} before"
        for name in ("tasks", "objects", "gauges"):
            now: Mapping[str, float] = getattr(self, name)
            was: Mapping[str, float] = getattr(before, name)
            for key in sorted(now):
                if now[key] > was.get(key, 0) and key not in _KEPT:
                    yield f"{name}: {now[key]:g} {key}, {was.get(key, 0):g} before"
        for field in self.cached:
            if field not in before.cached:
                yield f"the cache still has {field}"


def holding(program: Program, folder: Path) -> Holding:
    """What a process that runs within `within(folder)` holds now."""
    window = _looked(program, folder)
    return Holding(
        descriptors=len(list(Path(f"/proc/{program.process.pid}/fd").iterdir())),
        tasks=window["tasks"],
        objects=window["objects"],
        cached=tuple(window["held"]),
        gauges=gauges(program),
    )


def gauges(program: Program) -> dict[str, float]:
    """The values of what is open, taken or waiting, by metric and labels; those that are not 0."""
    page = urllib.request.urlopen(f"http://{program.http}/metrics", timeout=_PATIENCE_S)
    with page:
        lines = page.read().decode().splitlines()
    rows = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    wanted = {each.metric for each in GAUGES}
    found = {name: float(value) for name, _, value in rows if name.partition("{")[0] in wanted}
    return {name: value for name, value in found.items() if value}


def _looked(program: Program, folder: Path) -> dict[str, Any]:
    window = folder / f"{program.process.pid}.json"
    window.unlink(missing_ok=True)
    program.process.send_signal(signal.SIGUSR1)
    assert awaited(window.exists, _PATIENCE_S), "the window does not open"
    found: dict[str, Any] = json.loads(window.read_text())
    return found
