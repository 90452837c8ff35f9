"""`python -m bench.cluster`: measure ours on a real API server, and write a report."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.cluster_latency import latency
from bench.cluster_objects import Population
from bench.cluster_reconcile import reconciling
from bench.cluster_report import markdown
from bench.cluster_start import cold_start
from bench.results import Outcome, Results, machine
from tests.integration.cluster import World, opened
from tests.kube.binaries import binary

_REPORTS = Path(__file__).parent / "reports"
_REPEATS = 3


def _cold_start(world: World) -> Outcome:
    population = Population(10_000, 1_000, tuple(f"team-{number}" for number in range(20)))
    return cold_start(world, binary, population, objects_a_file=250, repeats=_REPEATS, settle_s=2.0)


def _reconciling(world: World) -> Outcome:
    namespaces = tuple(world.cluster.create_namespace("team") for _ in range(4))
    # Whole ones could not change so fast: the API server would need three cores.
    population = Population(1_000, 100, namespaces, bare=True)
    return reconciling(world, population, over_s=5.0, repeats=_REPEATS)


def _latency(world: World) -> Outcome:
    population = Population(100, 25, (world.cluster.create_namespace("team"),))
    return latency(world, binary, population, samples=200, repeats=_REPEATS)


_SCENARIOS: dict[str, Callable[[World], Outcome]] = {
    "k": _cold_start,
    "l": _reconciling,
    "m": _latency,
}


def main() -> None:
    """Measure what the arguments name, each on a cluster of its own."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description=__doc__)
    parser.add_argument("--only", default=",".join(_SCENARIOS), help="scenarios, as in k,m")
    parser.add_argument("--into", type=Path, default=_REPORTS, help="folder of the report")
    given = parser.parse_args()
    chosen = given.only.split(",")
    if unknown := set(chosen) - set(_SCENARIOS):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    results = Results(machine())
    for key in chosen:
        print(f"{key}: begins", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as world:
            results.outcomes[key] = _SCENARIOS[key](world)
    given.into.mkdir(parents=True, exist_ok=True)
    results.save(given.into / "cluster.json")
    text = markdown(results)
    (given.into / "cluster.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
