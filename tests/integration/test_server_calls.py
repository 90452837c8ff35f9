"""Unary calls, health, reflection and channelz over a real connection."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.integration.raw_http2 import RawClient, close_all
from tests.integration.serving import PATIENCE_S, Serving, detail, make_transport, serving, until
from tests.unit.leavings import leavings
from tests.unit.objects import service, vm
from tests.unit.server.endpoint_service.watching import key, listed, synced_cache
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc.v1 import server_service_pb2 as server_pb
from vmsvc.v1.server_service_pb2_grpc import ServerServiceStub
from vmsvc_grpc import __version__
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.problem import Problem
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.server.call import Code
from vmsvc_grpc.server.listen import ListenError, Server
from vmsvc_grpc.server.transport import Listener

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = [
    "grpc.channelz.v1.Channelz",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "vmsvc.v1.EndpointService",
    "vmsvc.v1.ServerService",
]
REFUSED = service(key("shop/bad"), problems=(Problem("spec.type", "NodePort is not supported"),))


@pytest.fixture
async def running() -> AsyncIterator[Serving]:
    async with serving(service(), REFUSED, vm("a", "10.0.0.1")) as running:
        yield running


async def failure(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


async def test_the_three_look_ups_answer(running: Serving) -> None:
    stub = running.stub()
    found = await stub.ResolveEndpoints(pb.ResolveEndpointsRequest(service="shop/web"))
    assert [e.address for e in found.endpoint_set.endpoints] == ["10.0.0.1"]
    page = await stub.ListServices(pb.ListServicesRequest())
    assert [(s.service, s.refused) for s in page.services] == [
        ("shop/bad", True),
        ("shop/web", False),
    ]
    told = await stub.ExplainEndpoints(pb.ExplainEndpointsRequest(service="shop/web"))
    assert [of.vm_name for of in told.virtual_machines] == ["a"]
    path = "/vmsvc.v1.EndpointService/ResolveEndpoints"
    assert running.counts.calls[path, Code.OK] == 1


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("web", grpc.StatusCode.INVALID_ARGUMENT),
        ("shop/none", grpc.StatusCode.NOT_FOUND),
        ("shop/bad", grpc.StatusCode.FAILED_PRECONDITION),
    ],
)
async def test_a_look_up_that_fails_has_its_code_and_is_counted(
    running: Serving, name: str, code: grpc.StatusCode
) -> None:
    request = pb.ResolveEndpointsRequest(service=name)
    error = await failure(running.stub().ResolveEndpoints(request))
    assert error.code() is code
    path = "/vmsvc.v1.EndpointService/ResolveEndpoints"
    assert running.counts.calls == {(path, Code(code.value[0])): 1}


async def test_a_page_token_that_is_garbage_is_told_by_its_field(running: Serving) -> None:
    request = pb.ListServicesRequest(page_size=-1, page_token="garbage")
    error = await failure(running.stub().ListServices(request))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    found = detail(error, error_details_pb2.BadRequest).field_violations
    assert [violation.field for violation in found] == ["page_size", "page_token"]


async def test_the_version_is_told_before_the_cache_is_synced(transport: str) -> None:
    before = datetime.now(UTC)
    async with serving(cache=Cache(AddressRules())) as running:
        stub: Any = ServerServiceStub(running.channel())
        told = await stub.GetVersion(server_pb.GetVersionRequest())
        assert (told.version, told.transport) == (__version__, transport)
        assert told.python_version == platform.python_version()
        services = (await running.health().List(health_pb2.HealthListRequest())).statuses
        assert list(told.packages) == sorted({s.rpartition(".")[0] for s in services if s})
        assert before <= told.started_at.ToDatetime(UTC) <= datetime.now(UTC)
        assert await stub.GetVersion(server_pb.GetVersionRequest()) == told
        path = "/vmsvc.v1.ServerService/GetVersion"
        assert running.counts.calls[path, Code.OK] == 2
        assert running.server.labels_of(path) == ("unary", "vmsvc.v1.ServerService", "GetVersion")


async def test_before_the_cache_is_synced_look_ups_say_when_to_try_again() -> None:
    """linkerd2 #10036, #8245: no empty answers while it syncs."""
    async with serving(cache=Cache(AddressRules())) as running:
        stub, health = running.stub(), running.health()
        request = pb.ResolveEndpointsRequest(service="shop/web")
        error = await failure(stub.ResolveEndpoints(request))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert detail(error, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() > 0
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING
        listed(running.cache, service())
        assert (await stub.ResolveEndpoints(request)).endpoint_set.service == "shop/web"
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == SERVING


@pytest.mark.parametrize("name", ["", *SERVICES])
async def test_health_is_told_of_every_service(running: Serving, name: str) -> None:
    health = running.health()
    checked = await health.Check(health_pb2.HealthCheckRequest(service=name))
    assert checked.status == SERVING
    statuses = (await health.List(health_pb2.HealthListRequest())).statuses
    assert {"", *SERVICES} <= set(statuses)


async def test_health_of_a_service_that_is_not_here(running: Serving) -> None:
    health = running.health()
    request = health_pb2.HealthCheckRequest(service="none")
    error = await failure(health.Check(request))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    call = health.Watch(request)
    assert (await call.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


async def test_health_is_watched_from_the_start_to_the_drain() -> None:
    async with serving(cache=Cache(AddressRules())) as running:
        health = running.health()
        call = health.Watch(health_pb2.HealthCheckRequest())
        assert (await call.read()).status == NOT_SERVING
        listed(running.cache)
        assert (await call.read()).status == SERVING
        await until(lambda: not leavings(running.cache))
        draining = asyncio.create_task(running.server.drain(0.2))
        assert (await call.read()).status == NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as ending:
            await call.read()
        assert ending.value.code() is grpc.StatusCode.UNAVAILABLE
        await draining


async def test_reflection_answers_many_requests_on_one_stream(running: Serving) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(running.channel())  # type: ignore[no-untyped-call] # has none
    request = reflection_pb2.ServerReflectionRequest
    requests = [
        request(list_services=""),
        request(file_containing_symbol="none"),
        request(file_containing_symbol="vmsvc.v1.EndpointService"),
    ]
    responses = [response async for response in stub.ServerReflectionInfo(iter(requests))]
    assert [response.WhichOneof("message_response") for response in responses] == [
        "list_services_response",
        "error_response",
        "file_descriptor_response",
    ]
    listed_ = {of.name for of in responses[0].list_services_response.service}
    statuses = (await running.health().List(health_pb2.HealthListRequest())).statuses
    assert set(SERVICES) <= listed_ == set(statuses) - {""}
    raw = responses[2].file_descriptor_response.file_descriptor_proto[0]
    assert b"Removals" in raw or b"removals" in raw, "the proto's comments are told"


async def test_reflection_ends_with_bytes_that_are_no_request(running: Serving) -> None:
    path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    method: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
    method = running.channel().stream_stream(path)
    call = method()
    await call.write(b"\xff\xff")
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_client_that_cancels_is_told_from_one_that_asks_no_more(running: Serving) -> None:
    path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    method: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
    method = running.channel().stream_stream(path)
    request = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    rounds = 20  # grpc.aio tells of either as the end of the requests, about every other time.
    for _ in range(rounds):
        call = method()
        await call.write(request)
        assert await call.read()
        call.cancel()
        await until(lambda: not running.streams_open)
    for _ in range(rounds):
        call = method()
        await call.write(request)
        assert await call.read()
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK
    await until(lambda: not running.streams_open)
    assert running.counts.calls == {(path, Code.CANCELLED): rounds, (path, Code.OK): rounds}


async def test_channelz_tells_of_this_server(running: Serving) -> None:
    stub = channelz_pb2_grpc.ChannelzStub(running.channel())  # type: ignore[no-untyped-call] # has none
    found = await stub.GetServers(channelz_pb2.GetServersRequest())
    assert [len(server.listen_socket) for server in found.server] == [1]
    sockets = await stub.GetServerSockets(
        channelz_pb2.GetServerSocketsRequest(server_id=found.server[0].ref.server_id)
    )
    assert len(sockets.socket_ref) == 1


@pytest.mark.parametrize("size", [0, -1, 100, 101, 2**63 - 1])
async def test_channelz_tells_of_a_hundred_connections_at_a_time(
    running: Serving, size: int
) -> None:
    stub = channelz_pb2_grpc.ChannelzStub(running.channel())  # type: ignore[no-untyped-call] # has none
    (server,) = (await stub.GetServers(channelz_pb2.GetServersRequest())).server

    async def pages() -> list[int]:
        sizes = []
        request = channelz_pb2.GetServerSocketsRequest(server_id=server.ref.server_id)
        request.max_results = size
        while True:
            page = await stub.GetServerSockets(request)
            sizes.append(len(page.socket_ref))
            if page.end:
                return sizes
            request.start_socket_id = page.socket_ref[-1].socket_id + 1

    others = [await RawClient.connect(running.address) for _ in range(100)]
    async with asyncio.timeout(PATIENCE_S):
        # A connection is there once the server has begun with it.
        while sum(seen := await pages()) <= len(others):
            assert max(seen) <= 100
    assert seen == [100, 1]
    await close_all(others)


@pytest.mark.parametrize("id_", [0, -1, 999_999, 2**63 - 1])
async def test_channelz_has_no_such_id(running: Serving, id_: int) -> None:
    stub = channelz_pb2_grpc.ChannelzStub(running.channel())  # type: ignore[no-untyped-call] # has none
    calls = (
        stub.GetServer(channelz_pb2.GetServerRequest(server_id=id_)),
        stub.GetServerSockets(channelz_pb2.GetServerSocketsRequest(server_id=id_)),
        stub.GetChannel(channelz_pb2.GetChannelRequest(channel_id=id_)),
        stub.GetSubchannel(channelz_pb2.GetSubchannelRequest(subchannel_id=id_)),
        stub.GetSocket(channelz_pb2.GetSocketRequest(socket_id=id_)),
    )
    assert {(await failure(call)).code() for call in calls} == {grpc.StatusCode.NOT_FOUND}


async def test_a_method_that_is_not_here_is_unimplemented(running: Serving) -> None:
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
    method = running.channel().unary_unary("/vmsvc.v1.EndpointService/None")
    assert (await failure(method(b""))).code() is grpc.StatusCode.UNIMPLEMENTED
    unknown = {("(unknown)", Code.UNIMPLEMENTED): 1}
    assert running.counts.calls == unknown, "a client cannot fill our counts with names"


async def test_all_addresses_are_those_of_both_families() -> None:
    server = Server(synced_cache(service()), [Listener("[::]:0")], make_transport)
    (address,) = await server.start()
    port = address.rpartition(":")[2]
    try:
        for host in ("127.0.0.1", "[::1]"):
            async with grpc.aio.insecure_channel(f"{host}:{port}") as channel:
                stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call] # none
                answer = await stub.Check(health_pb2.HealthCheckRequest())
                assert answer.status == SERVING
    finally:
        await server.stop()


async def test_every_listener_is_served_and_named() -> None:
    listeners = [Listener("127.0.0.1:0"), Listener("[::1]:0"), Listener("127.0.0.1:0")]
    server = Server(synced_cache(service()), listeners, make_transport)
    bound = await server.start()
    try:
        hosts = [address.rpartition(":")[0] for address in bound]
        assert hosts == ["127.0.0.1", "[::1]", "127.0.0.1"]
        assert len(set(bound)) == 3
        for address in bound:
            async with grpc.aio.insecure_channel(address) as channel:
                stub = channelz_pb2_grpc.ChannelzStub(channel)  # type: ignore[no-untyped-call] # none
                asked = channelz_pb2.GetServersRequest()
                sockets = [
                    socket
                    for each in (await stub.GetServers(asked)).server
                    for socket in each.listen_socket
                ]
                assert len({socket.socket_id for socket in sockets}) >= len(bound)
    finally:
        await server.stop()


async def test_of_several_listeners_one_that_cannot_be_bound_leaves_none_bound(
    running: Serving,
) -> None:
    listeners = [Listener("127.0.0.1:0"), Listener(running.address)]
    server = Server(synced_cache(), listeners, make_transport)
    with pytest.raises(ListenError, match=f"cannot listen on {running.address}"):
        await server.start()
    await server.stop()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
async def test_the_server_tells_the_port_that_it_took(host: str) -> None:
    server = Server(synced_cache(service()), [Listener(f"{host}:0")], make_transport)
    (address,) = await server.start()
    try:
        assert address.startswith(f"{host}:")
        assert not address.endswith(":0")
        async with grpc.aio.insecure_channel(address) as channel:
            method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
            method = channel.unary_unary("/grpc.health.v1.Health/Check")
            raw = await method(b"")
        assert health_pb2.HealthCheckResponse.FromString(raw).status == SERVING
    finally:
        await server.stop()


async def test_an_address_in_use_is_one_clear_line(
    running: Serving, capfd: pytest.CaptureFixture[str]
) -> None:
    second = Server(synced_cache(), [Listener(running.address)], make_transport)
    with pytest.raises(ListenError) as error:
        await second.start()
    assert str(error.value) == (
        f"cannot listen on {running.address}: Address already in use; choose another address "
        "or port with --listen"
    )
    await second.stop()
    assert capfd.readouterr() == ("", ""), "gRPC itself prints nothing"


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("50051", "write it as host:port"),
        ("127.0.0.1", "write it as host:port"),
        ("127.0.0.1:", "write it as host:port"),
        ("127.0.0.1:http", "write it as host:port"),
        ("192.0.2.1:0", "annot assign requested address"),
        ("no-such-host.invalid:0", "choose another address or port"),
        ("127.0.0.1:99999", "write it as host:port"),
    ],
)
async def test_an_address_that_cannot_be_listened_on_is_one_clear_line(
    address: str, says: str
) -> None:
    server = Server(synced_cache(), [Listener(address)], make_transport)
    with pytest.raises(ListenError, match=says) as error:
        await server.start()
    assert address in str(error.value)
    assert "\n" not in str(error.value)
    await server.stop()
