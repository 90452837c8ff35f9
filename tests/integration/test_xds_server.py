"""xDS over the wire: each service, client status, and the bounds of a stream."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2 as pb
from envoy.service.status.v3 import csds_pb2

from tests.integration.serving import PATIENCE_S, SMALL_WINDOW, Serving, serving, until
from tests.unit.objects import service, spec, vm
from tests.unit.server.xds.client import CDS, EDS, LDS, RDS, node
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.model.objects import Key, ServicePort
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.xds.resources import TypeUrl
from vmsvc_grpc.server.xds.service import stream_age_s
from vmsvc_grpc.server.xds.shared import Form

NAME = "web.shop:80"
ADS = "envoy.service.discovery.v3.AggregatedDiscoveryService"
STATUS = "/envoy.service.status.v3.ClientStatusDiscoveryService/"
METHODS = {
    EDS: "envoy.service.endpoint.v3.EndpointDiscoveryService/{}Endpoints",
    CDS: "envoy.service.cluster.v3.ClusterDiscoveryService/{}Clusters",
    LDS: "envoy.service.listener.v3.ListenerDiscoveryService/{}Listeners",
    RDS: "envoy.service.route.v3.RouteDiscoveryService/{}Routes",
}


class Stream:
    """One call, of either form."""

    def __init__(self, channel: grpc.aio.Channel, path: str) -> None:
        self._response = pb.DeltaDiscoveryResponse if "/Delta" in path else pb.DiscoveryResponse
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        method = channel.stream_stream(path)
        self.call = method()

    async def send(self, request: Any) -> None:
        await self.call.write(request.SerializeToString())

    async def ask(self, type_url: TypeUrl, *names: str, **fields: Any) -> None:
        request = pb.DiscoveryRequest(
            type_url=type_url.value, resource_names=names, node=node(), **fields
        )
        await self.send(request)

    async def read(self) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            raw = await self.call.read()
        return None if raw is grpc.aio.EOF else self._response.FromString(raw)


@pytest.fixture
async def running() -> AsyncIterator[Serving]:
    async with serving(service(), vm("a", "10.0.0.1")) as server:
        yield server


def ads(server: Serving, form: str = "Stream", *options: tuple[str, Any]) -> Stream:
    return Stream(server.channel(*options), f"/{ADS}/{form}AggregatedResources")


@pytest.mark.parametrize("type_url", TypeUrl, ids=lambda type_url: type_url.label)
async def test_each_type_has_a_service_of_its_own(running: Serving, type_url: TypeUrl) -> None:
    sotw = Stream(running.channel(), "/" + METHODS[type_url].format("Stream"))
    await sotw.send(pb.DiscoveryRequest(resource_names=[NAME]))
    assert len((await sotw.read()).resources) == 1
    delta = Stream(running.channel(), "/" + METHODS[type_url].format("Delta"))
    await delta.send(pb.DeltaDiscoveryRequest(resource_names_subscribe=[NAME]))
    assert [resource.name for resource in (await delta.read()).resources] == [NAME]


async def test_a_request_without_a_type_is_refused(running: Serving) -> None:
    stream = ads(running)
    await stream.send(pb.DiscoveryRequest())
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stream.read()
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def status(server: Serving, request: Any = None) -> Any:
    request = request or csds_pb2.ClientStatusRequest()
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
    method = server.channel().unary_unary(STATUS + "FetchClientStatus")
    return csds_pb2.ClientStatusResponse.FromString(await method(request.SerializeToString()))


async def statuses(server: Serving) -> dict[str, tuple[str, str]]:
    """Of each resource of the one client: its config status, and the error told."""
    (config,) = (await status(server)).config
    assert config.node.id == "n1"
    return {
        one.name: (csds_pb2.ConfigStatus.Name(one.config_status), one.error_state.details)
        for one in config.generic_xds_configs
    }


async def test_client_status_follows_acks_and_nacks(running: Serving) -> None:
    stream = ads(running)
    await stream.ask(EDS, NAME, "gone.shop:80")
    first = await stream.read()
    assert await statuses(running) == {NAME: ("STALE", ""), "gone.shop:80": ("STALE", "")}
    names = (NAME, "gone.shop:80")
    await stream.ask(EDS, *names, response_nonce=first.nonce, version_info=first.version_info)
    await until(lambda: running.counts.xds_acks[EDS.label])
    assert (await statuses(running))[NAME] == ("SYNCED", "")
    running.apply(Apply(vm("b", "10.0.0.2")))
    second = await stream.read()
    await stream.ask(EDS, *names, response_nonce=second.nonce, error_detail={"message": "no"})
    await until(lambda: running.counts.xds_nacks[EDS.label])
    assert (await statuses(running))[NAME] == ("ERROR", "no")


async def test_client_status_can_be_of_some_nodes_and_streamed(running: Serving) -> None:
    stream = ads(running)
    await stream.ask(EDS, NAME)
    await stream.read()
    for wanted, shown in (("n1", 1), ("n2", 0)):
        request = csds_pb2.ClientStatusRequest()
        request.node_matchers.add().node_id.exact = wanted
        assert len((await status(running, request)).config) == shown
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        method = running.channel().stream_stream(STATUS + "StreamClientStatus")
        call = method()
        await call.write(request.SerializeToString())
        raw = await call.read()
        assert isinstance(raw, bytes)
        assert len(csds_pb2.ClientStatusResponse.FromString(raw).config) == shown
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
    request = csds_pb2.ClientStatusRequest()
    request.node_matchers.add().node_id.safe_regex.regex = "n.*"
    with pytest.raises(grpc.aio.AioRpcError, match="safe_regex cannot be matched by here"):
        await status(running, request)


async def test_a_refusal_is_logged_once_with_the_clients_words(
    running: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for number in range(1, 4):
        stream = ads(running)
        await stream.ask(EDS, NAME)
        nonce = (await stream.read()).nonce
        detail = {"message": "bad\nweight"}
        await stream.ask(EDS, NAME, response_nonce=nonce, error_detail=detail)
        await until(lambda number=number: running.counts.xds_nacks[EDS.label] == number)  # type: ignore[misc] # a default binds it
    (record,) = [r for r in caplog.records if "refuses" in r.message]
    assert "bad\\nweight" in record.message
    assert "'n1' refuses ClusterLoadAssignment 'web.shop:80', version" in record.message


async def test_a_stream_ends_with_ok_at_its_age() -> None:
    limits = Limits(xds_stream_age_s=0.2)
    async with serving(service(), limits=limits) as running:
        stream = ads(running)
        await stream.ask(EDS, NAME)
        assert await stream.read() is not None
        assert await stream.read() is None
        assert await stream.call.code() is grpc.StatusCode.OK


async def test_streams_do_not_end_together() -> None:
    """Else all would come back at once."""
    limits = Limits(xds_stream_age_s=1.0)
    async with serving(service(), limits=limits) as running:
        streams = [ads(running) for _ in range(40)]
        loop, began = asyncio.get_running_loop(), asyncio.get_running_loop().time()

        async def age(stream: Stream) -> float:
            await stream.ask(EDS, NAME)
            assert await stream.read() is not None
            assert await stream.read() is None
            assert await stream.call.code() is grpc.StatusCode.OK
            return loop.time() - began

        ages = sorted(await asyncio.gather(*map(age, streams)))
        assert ages[0] > 0.75
        assert ages[-1] - ages[0] > 0.05


def test_streams_end_before_their_connection_does() -> None:
    """gRPC ends a connection up to a tenth before its age, and its streams not with OK."""
    assert stream_age_s(Limits()) == Limits().xds_stream_age_s == 1_500
    assert stream_age_s(Limits(connection_age_s=600)) == 540


async def test_a_client_that_takes_in_nothing_is_ended_and_delays_nobody() -> None:
    key = Key("shop", "big")
    vms = [vm(f"v{n}", f"10.1.{n // 250}.{n % 250}", labels={"app": "big"}) for n in range(2_000)]
    limits = Limits(xds_write_s=1.0)
    big = service(key, spec({"app": "big"}))
    async with serving(service(), vm("a", "10.0.0.1"), big, *vms, limits=limits) as running:
        stalled = ads(running, "Stream", *SMALL_WINDOW)
        await stalled.ask(EDS, "big.shop:80")
        reader = ads(running)
        await reader.ask(EDS, NAME)
        await reader.read()
        sent = running.counts.xds_resources_sent
        told, changes = 1, 0
        async with asyncio.timeout(PATIENCE_S):
            while running.streams_open == 2:
                changes += 1
                running.apply(Apply(vm("v0", f"10.2.0.{changes % 250}", labels={"app": "big"})))
                running.apply(Apply(vm("a", f"10.3.0.{changes % 250}")))
                response = await reader.read()
                told += 1
                await reader.ask(EDS, NAME, response_nonce=response.nonce)
        handed = sent[EDS.label] - told
        assert 0 < handed < changes / 2, "what is not read is not made either"
        assert running.counts.xds_encodings[EDS.label] <= told + handed
        ended = f"/{ADS}/StreamAggregatedResources"
        (code,) = [code for path, code in running.counts.calls if path == ended]
        assert code.name == "UNAVAILABLE"


KEYS = [Key("shop", f"s{number}") for number in range(500)]
NAMES = sorted(f"{key.name}.shop:80" for key in KEYS)
MANY_VMS = [
    vm(f"s{n}-{m}", f"10.{n // 250}.{n % 250}.{m}", labels={"app": f"s{n}"})
    for n in range(500)
    for m in range(20)
]
BYTES_MAX = 4 * 1024 * 1024


class Holder:
    """A client that asks for clusters and load assignments, and counts what it is told."""

    def __init__(self, stream: Stream, form: Form, who: Any) -> None:
        self._stream = stream
        self._form = form
        self._who = who
        self.held = Counter[TypeUrl]()

    async def ask(self, type_url: TypeUrl, names: list[str]) -> None:
        url = type_url.value
        if self._form is Form.SOTW:
            request = pb.DiscoveryRequest(node=self._who, type_url=url, resource_names=names)
        else:
            request = pb.DeltaDiscoveryRequest(
                node=self._who, type_url=url, resource_names_subscribe=names
            )
        await self._stream.send(request)

    async def hold(self, type_url: TypeUrl, count: int) -> None:
        while self.held[type_url] < count:
            response = await self._stream.read()
            assert response.ByteSize() < BYTES_MAX
            self.held[TypeUrl(response.type_url)] += len(response.resources)


@pytest.mark.parametrize("envoy", [False, True], ids=["gRPC", "Envoy"])
@pytest.mark.parametrize("form", Form, ids=lambda form: form.value)
async def test_500_services_to_200_streams(form: Form, envoy: bool) -> None:
    """Complete, below 4 MiB each, and every resource made once."""
    services = [service(key, spec({"app": key.name})) for key in KEYS]
    async with serving(*services, *MANY_VMS) as running:
        channels = [running.channel() for _ in range(10)]

        async def client(number: int) -> Stream:
            verb = "Stream" if form is Form.SOTW else "Delta"
            stream = Stream(channels[number % 10], f"/{ADS}/{verb}AggregatedResources")
            who = node("envoy" if envoy else "gRPC Go", f"n{number}")
            holder = Holder(stream, form, who)
            await holder.ask(CDS, [] if envoy else NAMES)
            await holder.hold(CDS, 500)
            await holder.ask(EDS, NAMES)
            await holder.hold(EDS, 500)
            assert holder.held == {CDS: 500, EDS: 500}
            return stream

        # They stay until all hold it: a body goes with the last stream that was sent it.
        for stream in await asyncio.gather(*map(client, range(200))):
            stream.call.cancel()
        made = {CDS.label: 500, EDS.label: 500}
        if form is Form.SOTW:
            made["all Cluster"] = 1  # As one body, which all streams share.
        assert running.counts.xds_encodings == made
        assert running.counts.xds_resources_sent[EDS.label] == 500 * 200


async def test_wide_services_are_split_below_what_clients_take(running: Serving) -> None:
    """A response of 6.9 MB made grpcio connect again for ever."""
    ports = tuple(ServicePort(f"p{n}", "TCP", n, n) for n in range(1, 9))
    keys = [Key("shop", f"w{number}") for number in range(30)]
    for number in range(1_000):
        address = f"10.9.{number // 250}.{number % 250}"
        running.apply(Apply(vm(f"w{number}", address, labels={"app": "wide"})))
    for key in keys:
        running.apply(Apply(service(key, spec({"app": "wide"}, ports=ports))))
    stream = ads(running)  # It takes 4 MiB at most, as every client does by default.
    await stream.ask(EDS, *(f"{key.name}.shop:{port.port}" for key in keys for port in ports))
    sizes, held = [], 0
    while held < 30 * 8:
        response = await stream.read()
        sizes.append(response.ByteSize())
        held += len(response.resources)
    assert sum(sizes) > 4 * 1024 * 1024 > max(sizes)
