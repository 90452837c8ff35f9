"""In which order connections of one client are taken in that have all sent something."""

from __future__ import annotations

import asyncio

from tests.integration.http2_toy import GRPC, asking
from tests.integration.http2_watches import Client, Played, Watch
from tests.integration.serving import PATIENCE_S, until
from tests.unit.objects import service, spec
from tests.unit.server.endpoint_service.watching import request, synced_cache
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.transport.grpc_wire import framed

WEB = Key("n1", "web")
RESOLVE = "/vmsvc.v1.EndpointService/ResolveEndpoints"
WINDOW_BYTES = 1_000_000
CONNECTIONS, WATCHES = 40, 80


def look_up(client: Client) -> None:
    """Ask once; sent with what else the client sends next."""
    stream = client.engine.send_request([*asking(RESOLVE), GRPC])
    asked = pb.ResolveEndpointsRequest(service=str(WEB)).SerializeToString()
    client.engine.send_data(stream, framed(asked), end_stream=True)
    client.watches[stream] = Watch(request(str(WEB)))  # Its answer has the bytes of a snapshot.


def test_a_look_up_does_not_wait_for_all_that_its_own_client_begins() -> None:
    """5,000 watches of one address held up the look-ups of the same one for 0.8 s."""
    limits = Limits(streams_per_client_max=CONNECTIONS * WATCHES)
    played = Played(synced_cache(service(WEB, spec({"app": "x"}))), limits)
    many = [played.connect(WINDOW_BYTES) for _ in range(CONNECTIONS)]
    other = played.connect(WINDOW_BYTES)
    for client in many:
        for _ in range(WATCHES):
            client.watch(request(str(WEB)))
    look_up(other)
    transport = played.transport

    async def steps() -> None:
        for client in (*many, other):
            client.send()
        opened = 0
        async with asyncio.timeout(PATIENCE_S):
            while not other.wire.written:
                opened = transport.streams_open
                await asyncio.sleep(0)
        assert opened < CONNECTIONS * WATCHES / 2
        await until(lambda: transport.streams_open == CONNECTIONS * WATCHES)

    played.loop.run_until_complete(steps())
    played.close()
