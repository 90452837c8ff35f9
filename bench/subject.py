"""Ours, under test: the real cache and server, fed with VMs as the bytes of an API server."""

from __future__ import annotations

import asyncio
import logging
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import uvloop

from bench import dataset
from bench.serving import Flags, allow_connections, flags, obey
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.collector import GarbageScans, calm_collector
from vmsvc_grpc.kube.client import ApiServer
from vmsvc_grpc.kube.credentials import Kubeconfig
from vmsvc_grpc.lag import LoopLag
from vmsvc_grpc.model.events import Apply, Init, InitDone
from vmsvc_grpc.model.objects import Kind
from vmsvc_grpc.model.parse import parse_json
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.server.access.kube_reviews import KubeReviews
from vmsvc_grpc.server.access.principal import CertificateRules
from vmsvc_grpc.server.access.reviews import ReviewGate
from vmsvc_grpc.server.access.verdicts import VerdictBounds
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.listen import Server
from vmsvc_grpc.server.transport import Listener, MakeTransport
from vmsvc_grpc.server.transport.http2 import Http2

# All clients here come from one address, and each says so that it is many.
_LIMITS = Limits(
    streams_max=200_000, streams_per_client_max=200_000, connections_per_client_max=20_000
)


_KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{name: bench, cluster: {server: "http://%s"}}]
contexts: [{name: bench, context: {cluster: bench, user: bench}}]
users: [{name: bench, user: {token: of-the-server}}]
current-context: bench
"""


def filled(data: dataset.DataSet) -> Cache:
    """A cache that has taken in everything, and is synced; as the program has it then."""
    cache = Cache(AddressRules())
    for kind in (Kind.VIRTUAL_MACHINE_SERVICE, Kind.VIRTUAL_MACHINE):
        cache.apply(Init(kind))
    for service in range(data.services):
        raw = dataset.service_json(service)
        cache.apply(Apply(parse_json(Kind.VIRTUAL_MACHINE_SERVICE, raw)))
    for seq in data.initial():
        cache.apply(Apply(parse_json(Kind.VIRTUAL_MACHINE, dataset.vm_json(*data.place(seq), seq))))
    for kind in (Kind.VIRTUAL_MACHINE_SERVICE, Kind.VIRTUAL_MACHINE):
        cache.apply(InitDone(kind))
    assert cache.synced
    calm_collector()
    return cache


async def _serve(given: Flags, make_transport: MakeTransport) -> None:
    cache = filled(given.data)

    def change(seq: int) -> Callable[[], object]:
        raw = dataset.vm_json(*given.data.place(seq), seq)
        return lambda: cache.apply(Apply(parse_json(Kind.VIRTUAL_MACHINE, raw)))

    def tls() -> ssl.SSLContext:
        assert given.tls is not None, "it is asked for where there is TLS"
        return given.tls

    async with _gate(given.reviews) as gate, asyncio.TaskGroup() as tasks:
        scanning = tasks.create_task(LoopLag(GarbageScans().scan_if_due).run())  # As the program.
        listener = Listener(given.listen, tls if given.tls else None, guarded=gate is not None)
        server = Server(cache, [listener], make_transport, _LIMITS, gate=gate)
        try:
            (address,) = await server.start()
            await obey(address, given.data, change)
        finally:
            await server.stop()
            scanning.cancel()


@asynccontextmanager
async def _gate(reviews: str) -> AsyncIterator[ReviewGate | None]:
    """The program's gate, which asks at this address; None if there is none."""
    if not reviews:
        yield None
        return
    gate = ReviewGate(VerdictBounds(), CertificateRules(), logging.log)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as kubeconfig:
        kubeconfig.write(_KUBECONFIG % reviews)
        kubeconfig.flush()
        async with ApiServer(Kubeconfig(kubeconfig.name)) as api, asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(gate.run(KubeReviews(api, ("vmsvc-grpc",))))
            yield gate
            asking.cancel()


def run(given: Flags, make_transport: MakeTransport) -> None:
    """Be the server under test, on this transport, until told to quit."""
    allow_connections()
    uvloop.run(_serve(given, make_transport))


if __name__ == "__main__":
    run(flags(__doc__ or ""), Http2)
