"""How fast and how big the program is on a real API server. Not a test: it prints numbers.

    python -m tests.integration.measure_cluster

It measures on this machine, with the API server, etcd and the clients on the same cores.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import ssl
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc

from tests.integration.cluster import (
    Hands,
    Replica,
    World,
    opened,
    path,
    vm,
    vm_service,
    vm_status,
)
from tests.program import awaited
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc.v1 import endpoint_service_pb2_grpc as api

WRITES = 200
# As many as it takes for each to have rested after its last write (0.2 s) when it is its turn.
SERVICES_IN_TURN = 20
VMS, SERVICES = 5000, 500
THREADS = 8
PATIENCE_S = 600


class Arrivals:
    """When each address was first seen, and a way to wait for one."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}
        self._changed = threading.Condition()

    def saw(self, address: str) -> None:
        now = time.monotonic()
        with self._changed:
            self._seen.setdefault(address, now)
            self._changed.notify_all()

    def of(self, address: str) -> float:
        """When it was seen; waits for that."""
        with self._changed:
            assert self._changed.wait_for(lambda: address in self._seen, PATIENCE_S), address
            return self._seen[address]


@contextmanager
def stream(address: str, arrivals: Arrivals) -> Iterator[None]:
    """A client of the program that watches everything."""
    with grpc.insecure_channel(address) as channel:
        request = pb.WatchEndpointsRequest(all_services=True, readiness=pb.READINESS_ALL)
        messages = api.EndpointServiceStub(channel).WatchEndpoints(request, wait_for_ready=True)

        def run() -> None:
            with contextlib.suppress(grpc.RpcError):  # So a stream that is cancelled ends.
                for message in messages:
                    for endpoint in (*message.snapshot.endpoints, *message.delta.upserted):
                        arrivals.saw(endpoint.address)

        thread = threading.Thread(target=run)
        thread.start()
        yield
        messages.cancel()
        thread.join()


@contextmanager
def endpoints_watch(world: World, arrivals: Arrivals) -> Iterator[None]:
    """A client of the API server that watches Endpoints, as kube-proxy once did."""
    server, token = world.cluster.server, world.cluster.admin.token
    trust = ssl.create_default_context(cafile=server.ca_file)
    connection = HTTPSConnection(urlsplit(server.url).netloc, context=trust)
    headers = {"Authorization": f"Bearer {token}"}
    connection.request("GET", f"{path('endpoints')}?watch=1", headers=headers)
    response = connection.getresponse()

    def run() -> None:
        for line in response:
            for subset in json.loads(line)["object"].get("subsets") or ():
                for address in subset.get("addresses") or ():
                    arrivals.saw(address["ip"])

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield


def summary(seconds: Sequence[float]) -> str:
    ordered = sorted(1000 * s for s in seconds)
    p99 = ordered[int(0.99 * (len(ordered) - 1))]
    return f"median {statistics.median(ordered):.1f} ms, p99 {p99:.1f} ms, max {ordered[-1]:.1f} ms"


def make(hands: Hands, namespace: str, name: str, app: str, address: str) -> None:
    hands.create("virtualmachines", vm(namespace, name, {"app": app}))
    hands.patch(f"{path('virtualmachines', namespace, name)}/status", vm_status(address))


def in_threads(world: World, jobs: Sequence[Callable[[Hands], Any]]) -> None:
    """Do them all, over a few connections."""
    own = threading.local()

    def run(job: Callable[[Hands], Any]) -> None:
        if not hasattr(own, "hands"):
            own.hands = Hands(world.cluster)
        job(own.hands)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(run, jobs))


def measure_latency(world: World, replica: Replica) -> None:
    namespace = world.cluster.create_namespace("latency")
    for number in range(SERVICES_IN_TURN):
        make(world.hands, namespace, f"vm-{number}", f"app-{number}", f"10.1.0.{number + 1}")
        service = vm_service(namespace, f"s-{number}", {"app": f"app-{number}"})
        world.hands.create("virtualmachineservices", service)
    told, held = Arrivals(), Arrivals()
    to_stream, to_endpoints, to_answer = [], [], []
    world.agrees(replica)
    with stream(replica.program.grpc, told), endpoints_watch(world, held):
        for number in range(SERVICES_IN_TURN):
            told.of(f"10.1.0.{number + 1}")
        for number in range(WRITES):
            address = f"10.2.{number // 200}.{number % 200 + 1}"
            where = path("virtualmachines", namespace, f"vm-{number % SERVICES_IN_TURN}")
            began = time.monotonic()
            world.hands.patch(f"{where}/status", vm_status(address))
            to_answer.append(time.monotonic() - began)
            to_stream.append(told.of(address) - began)
            to_endpoints.append(held.of(address) - began)
    print(f"From a VM's status write, {WRITES} one after the other:")
    print(f"  to the API server's answer to it:     {summary(to_answer)}")
    print(f"  to the message at a streaming client: {summary(to_stream)}")
    print(f"  to the Endpoints at a watcher of it:  {summary(to_endpoints)}")


def measure_size(world: World) -> None:
    namespace = world.cluster.create_namespace("size")

    def creation(number: int) -> Callable[[Hands], Any]:
        address = f"10.{3 + number // 60_000}.{number // 250 % 250}.{number % 250 + 1}"
        app = f"app-{number % SERVICES}"
        return lambda hands: make(hands, namespace, f"vm-{number}", app, address)

    def service(number: int) -> Callable[[Hands], Any]:
        made = vm_service(namespace, f"s-{number}", {"app": f"app-{number}"})
        return lambda hands: hands.create("virtualmachineservices", made)

    began = time.monotonic()
    in_threads(world, [*map(creation, range(VMS)), *map(service, range(SERVICES))])
    print(f"{VMS} VMs and {SERVICES} services, made in {time.monotonic() - began:.0f} s.")
    began = time.monotonic()
    with world.replica() as replica:
        listening = time.monotonic() - began
        assert awaited(lambda: replica.metric("vmsvc_synced"), PATIENCE_S)
        print(
            f"  listening {listening:.1f} s and synced {time.monotonic() - began:.1f} s after start"
        )
        assert awaited(lambda: written(replica), PATIENCE_S, 0.1)
        right = time.monotonic() - began
        writes = sum(
            replica.metric("vmsvc_writes_total", kind=kind, verb=verb)
            for kind in ("VirtualMachineService", "Service", "Endpoints")
            for verb in ("create", "update")
        )
        world.agrees(replica)
        print(f"  all objects right {right:.1f} s after start, by {writes:.0f} writes")
        status = Path(f"/proc/{replica.program.process.pid}/status").read_text()
        for name, text in (("VmRSS", "resident"), ("VmHWM", "at the most")):
            print(f"  {text}: {int(status.split(f'{name}:')[1].split()[0]) / 1024:.0f} MiB")


def written(replica: Replica) -> bool:
    """Whether each service has its objects and nothing is left to do."""
    held = replica.metric("vmsvc_objects", kind="Endpoints")
    services = replica.metric("vmsvc_objects", kind="VirtualMachineService")
    return held >= services and not replica.metric("vmsvc_reconcile_queue")


def main() -> None:
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as world:
        with world.replica() as replica:
            assert awaited(lambda: replica.leads)
            measure_latency(world, replica)
        measure_size(world)


if __name__ == "__main__":
    main()
