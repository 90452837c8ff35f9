"""Scenario l: many VMs report new addresses. What is written of that, and when is it right?"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from bench.cluster_objects import Population
from bench.cluster_programs import endpoints, ours, populate, report, until
from bench.cluster_report import OURS
from bench.process import Process
from bench.results import Measured, Outcome
from tests.integration.cluster import INSTALLED, Hands, World, Write

_WRITERS = 4

# How long no more writes may come once everything is right; they would count.
_REST_S = 2.0


def reconciling(world: World, population: Population, *, over_s: float, repeats: int) -> Outcome:
    """Scenario l, on a cluster without VMs: each VM changes once, services in turn."""
    populate(world, population)
    with ours(world, "--reconcile", "on", "--lease-namespace", INSTALLED) as program:
        process = Process("ours", program.process)
        _await_right(world, population, 0)
        bursts = [_burst(world, population, process, n + 1, over_s) for n in range(repeats)]
    title = f"{population.vms:,} VMs of {population.services:,} services change within {over_s:g} s"
    return Outcome(title, {OURS: bursts})


def _burst(
    world: World, population: Population, process: Process, burst: int, over_s: float
) -> Measured:
    """One burst, and what came of it; `right_s` is from the last change to the last write."""
    time.sleep(_REST_S)
    mark, cpu_s, began = world.mark(), process.cpu_s(), time.time()
    _change_all(world, population, burst, over_s)
    changed = time.time()
    _await_right(world, population, burst)
    cpu_s = process.cpu_s() - cpu_s
    time.sleep(_REST_S)
    writes = world.writes(mark)
    held = [write for write in writes if write.resource == "endpoints"]
    last = max(write.at.timestamp() for write in held)
    return {
        "changed_s": changed - began,
        "right_s": last - changed,
        "writes": len(held),
        "other_writes": len(writes) - len(held),
        "writes_in_1s": _densest(held, 1.0),
        "cpu_s": cpu_s,
    }


def _change_all(world: World, population: Population, burst: int, over_s: float) -> None:
    """Have each VM report another address, evenly over that time."""
    own = threading.local()
    opened: list[Hands] = []
    began = time.monotonic()

    def change(number: int) -> None:
        if not hasattr(own, "hands"):
            own.hands = Hands(world.cluster)
            opened.append(own.hands)
        time.sleep(max(0.0, began + over_s * number / population.vms - time.monotonic()))
        report(own.hands, population, burst * population.vms + number)

    with ThreadPoolExecutor(_WRITERS) as threads:
        list(threads.map(change, range(population.vms)))
    for hands in opened:
        hands.close()


def _await_right(world: World, population: Population, burst: int) -> None:
    expected = defaultdict(set)
    for number in range(population.vms):
        service = population.service_key(number % population.services)
        expected[service].add(population.address(burst * population.vms + number))
    until(lambda: endpoints(world.hands, population.namespaces) == expected, "right", 0.1)


def _densest(writes: Iterable[Write], seconds: float) -> int:
    """How many writes of one object came within so many seconds, at the most."""
    times = defaultdict(list)
    for write in writes:
        times[write.name].append(write.at.timestamp())
    return max(
        sum(start <= at < start + seconds for at in of_one)
        for of_one in times.values()
        for start in of_one
    )
