"""Scenario m: a VM reports an address. When does who hear of it?

The client of a stream of ours, beside the way that Kubernetes has: we write the Endpoints,
kube-controller-manager mirrors them into an EndpointSlice, and a watcher of slices sees it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from bench.cluster_objects import Population
from bench.cluster_programs import PATIENCE_S, ours, peer, populate, report
from bench.cluster_report import ANSWER, ENDPOINTS, SLICE, STREAM, VM
from bench.process import BenchError, Process
from bench.results import Measured, Outcome
from tests.integration.cluster import INSTALLED, World
from tests.kube.apiserver import FindBinary
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc.v1 import endpoint_service_pb2_grpc as api

# kube-controller-manager makes no more than 20 requests a second: whoever writes faster
# measures how long it waits for its turn.
_EVERY_S = 0.1


Sample = Mapping[str, float]
"""One status write: the seconds from just before it until it had come somewhere, by where."""


def latency(
    world: World, find: FindBinary, population: Population, *, samples: int, repeats: int
) -> Outcome:
    """Scenario m, on a cluster without VMs: one write after the other, services in turn."""
    populate(world, population)
    controllers = world.cluster.start_controllers("endpointslice-mirroring-controller")
    try:
        with (
            ours(world, "--reconcile", "on", "--lease-namespace", INSTALLED) as program,
            _stream(program.grpc) as told,
            peer(world, find, "addresswatch") as watcher,
        ):
            path = _Path(world, population, told, _Watched(watcher))
            for number in range(population.vms):
                path.arrived(number)
            numbers = iter(range(population.vms, 1 << 24))
            runs = [[path.sample(next(numbers)) for _ in range(samples)] for _ in range(repeats)]
    finally:
        controllers.stop()
    title = f"from a VM's status write, {samples} times, {population.services} services in turn, to"
    return Outcome(title, {place: [_metrics(run, place) for run in runs] for place in runs[0][0]})


def _metrics(run: Sequence[Sample], place: str) -> Measured:
    since_write = sorted(1000 * sample[place] for sample in run)
    since_told = sorted(1000 * (sample[place] - sample[VM]) for sample in run)
    return {
        "p50_ms": _quantile(since_write, 0.5),
        "p99_ms": _quantile(since_write, 0.99),
        "told_p50_ms": _quantile(since_told, 0.5),
        "told_p99_ms": _quantile(since_told, 0.99),
    }


def _quantile(ordered: Sequence[float], q: float) -> float:
    return ordered[round(q * (len(ordered) - 1))]


class _Told:
    """When the client of a stream first saw each address."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._changed = threading.Condition()

    def saw(self, address: str, at_ns: int) -> None:
        with self._changed:
            self._seen.setdefault(address, at_ns)
            self._changed.notify_all()

    def of(self, address: str) -> int:
        """When it was seen, in ns since 1970; waits for that."""
        with self._changed:
            if not self._changed.wait_for(lambda: address in self._seen, PATIENCE_S):
                raise BenchError(f"no stream has told of {address}")
            return self._seen[address]


@contextmanager
def _stream(target: str) -> Iterator[_Told]:
    """A client of the program that watches all services. In Python, which is not to our favour."""
    told = _Told()
    with grpc.insecure_channel(target) as channel:
        request = pb.WatchEndpointsRequest(all_services=True)
        messages = api.EndpointServiceStub(channel).WatchEndpoints(request, wait_for_ready=True)

        def run() -> None:
            with contextlib.suppress(grpc.RpcError):  # So a stream that is cancelled ends.
                for message in messages:
                    at_ns = time.time_ns()
                    for endpoint in (*message.snapshot.endpoints, *message.delta.upserted):
                        told.saw(endpoint.address, at_ns)

        thread = threading.Thread(target=run, name="stream")
        thread.start()
        try:
            yield told
        finally:
            messages.cancel()
            thread.join()


class _Watched:
    """When addresswatch first saw each address, and in which resource."""

    def __init__(self, watcher: Process) -> None:
        self._watcher = watcher
        self._seen: dict[tuple[str, str], int] = {}

    def of(self, resource: str, address: str) -> int:
        """When it was seen there, in ns since 1970; waits for that."""
        while (resource, address) not in self._seen:
            line = self._watcher.answer()
            if "address" in line:
                self._seen[line["resource"], line["address"]] = line["at_ns"]
        return self._seen[resource, address]


@dataclass(frozen=True, slots=True)
class _Path:
    """A way to have a VM report an address, and to learn where that comes out."""

    world: World
    population: Population
    told: _Told
    watched: _Watched

    def sample(self, number: int) -> Sample:
        """Have the next VM in turn report the next address."""
        began = time.time_ns()
        report(self.world.hands, self.population, number)
        answered = time.time_ns()
        came = {ANSWER: answered, **self.arrived(number)}
        time.sleep(max(0.0, _EVERY_S - (time.time_ns() - began) / 1e9))
        return {place: (at_ns - began) / 1e9 for place, at_ns in came.items()}

    def arrived(self, number: int) -> dict[str, int]:
        """When the address of this number came where; waits until it has come everywhere."""
        shown = self.population.address(number)
        return {
            VM: self.watched.of("virtualmachines", shown),
            STREAM: self.told.of(shown),
            ENDPOINTS: self.watched.of("endpoints", shown),
            SLICE: self.watched.of("endpointslices", shown),
        }
