"""What callers of a guarded listener may do, over the wire, at a gate whose rights a test sets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_channelz.v1 import channelz_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tests.gate import RightsGate
from tests.integration.http2_toy import Client
from tests.integration.serving import Serving, serving, until
from tests.unit.objects import service, vm
from tests.unit.server.endpoint_service.watching import synced_cache
from tests.unit.server.xds.client import CDS, EDS, LDS, RDS, node
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.access.facts import Refusal, Secret
from vmsvc_grpc.server.access.needs import (
    Need,
    ResourceNeed,
    UrlNeed,
    endpoints_everywhere,
    endpoints_in,
)
from vmsvc_grpc.server.access.principal import CertificateRules, Principal
from vmsvc_grpc.server.access.reviews import ReviewGate, Reviews
from vmsvc_grpc.server.access.verdicts import VerdictBounds
from vmsvc_grpc.server.call import Code
from vmsvc_grpc.server.endpoint_service.needs import vms_in
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.transport.grpc_wire import framed

REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
API = "/vmsvc.v1.EndpointService/"
RESOLVE, LIST, WATCH, EXPLAIN = (
    f"{API}{name}"
    for name in ("ResolveEndpoints", "ListServices", "WatchEndpoints", "ExplainEndpoints")
)

ALL_RIGHTS: tuple[Need, ...] = (
    *(endpoints_everywhere(verb) for verb in ("get", "list", "watch")),
    vms_in(""),
    UrlNeed("get", "/vmsvc-grpc/csds"),
    UrlNeed("get", "/vmsvc-grpc/channelz"),
)

CALLERS: Mapping[str, str | None] = {
    "no credentials": None,
    "another scheme": "Basic YWRtaW46YWRtaW4=",
    "bad token": "Bearer stolen",
    "denied": "Bearer nobody",
    "allowed": "Bearer admin",
}

OK, DENIED = "OK", "PERMISSION_DENIED"


def of(denied: str, allowed: str = OK, unknown: str = "UNAUTHENTICATED") -> dict[str, str]:
    """The statuses of all callers."""
    return dict(zip(CALLERS, [unknown] * 3 + [denied, allowed], strict=True))


OPEN_TO_ALL, TO_KNOWN, BY_RIGHT = of(OK, OK, OK), of(OK), of(DENIED)


def xds(type_url: Any) -> tuple[bytes, bytes]:
    """The first request of a client for everything of a type: in both forms."""
    fields = {"type_url": type_url.value, "node": node()}
    return (
        discovery_pb2.DiscoveryRequest(**fields).SerializeToString(),
        discovery_pb2.DeltaDiscoveryRequest(**fields).SerializeToString(),
    )


def rows() -> Iterator[tuple[str, bytes, dict[str, str]]]:
    """What each method is sent, and the statuses it ends with, or OK for an answer."""
    yield RESOLVE, pb.ResolveEndpointsRequest(service="shop/web").SerializeToString(), BY_RIGHT
    yield LIST, b"", BY_RIGHT
    yield WATCH, pb.WatchEndpointsRequest(all_services=True).SerializeToString(), BY_RIGHT
    yield EXPLAIN, pb.ExplainEndpointsRequest(service="shop/web").SerializeToString(), BY_RIGHT
    yield "/vmsvc.v1.ServerService/GetVersion", b"", TO_KNOWN
    for method in ("Check", "List", "Watch"):
        yield f"/grpc.health.v1.Health/{method}", b"", OPEN_TO_ALL
    asked = reflection_pb2.ServerReflectionRequest(list_services="*").SerializeToString()
    for version in ("v1", "v1alpha"):
        yield f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo", asked, TO_KNOWN
    discovery = "envoy.service.{}.v3.{}DiscoveryService"
    for package, name, noun, type_url in (
        ("discovery", "Aggregated", "AggregatedResources", CDS),
        ("cluster", "Cluster", "Clusters", CDS),
        ("endpoint", "Endpoint", "Endpoints", EDS),
        ("listener", "Listener", "Listeners", LDS),
        ("route", "Route", "Routes", RDS),
    ):
        path = discovery.format(package, name)
        for verb, request in zip(("Stream", "Delta"), xds(type_url), strict=True):
            yield f"/{path}/{verb}{noun}", request, TO_KNOWN
    for method in ("StreamClientStatus", "FetchClientStatus"):
        yield f"/envoy.service.status.v3.ClientStatusDiscoveryService/{method}", b"", BY_RIGHT
    server = channelz_pb2.GetServerRequest(server_id=1).SerializeToString()
    for method, request, allowed in (
        ("GetTopChannels", b"", OK),
        ("GetServers", b"", OK),
        ("GetServer", server, OK),
        ("GetServerSockets", server, OK),
        ("GetChannel", b"", "NOT_FOUND"),
        ("GetSubchannel", b"", "NOT_FOUND"),
        ("GetSocket", b"", "NOT_FOUND"),
    ):
        yield f"/grpc.channelz.v1.Channelz/{method}", request, of(DENIED, allowed)


ROWS = {path: (request, statuses) for path, request, statuses in rows()}


def world() -> tuple[RightsGate, tuple[Any, ...]]:
    gate = RightsGate()
    gate.admit("admin", *ALL_RIGHTS)
    gate.admit("nobody")
    return gate, (service(), vm("a", "10.0.0.1"))


@pytest.fixture
async def gate() -> RightsGate:
    gate, _ = world()
    return gate


@pytest.fixture
async def running(gate: RightsGate) -> AsyncIterator[Serving]:
    async with serving(*world()[1], gate=gate) as server:
        yield server
        await until(lambda: not server.streams_open)
        assert not gate.passes, "every pass is given back"


@asynccontextmanager
async def connected(server: Serving) -> AsyncIterator[Client]:
    """A connection whose client sends its request whatever comes back.

    gRPC's own may report a fault of itself if its call has ended before it has sent anything.
    """
    host, _, port = server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Client(reader, writer, 65_535, auto=True)
    finally:
        writer.close()
        await writer.wait_closed()


def call(client: Client, path: str, shown: str | None, request: bytes) -> int:
    """Begin a call of any kind; its stream's number."""
    more = () if shown is None else ((b"authorization", shown.encode()),)
    return client.call(path, framed(request), more=more)


async def outcome(client: Client, stream: int) -> tuple[str, str]:
    """How a call is answered: OK if there is a message, or else the status; and its words."""
    await client.until(lambda: client.body(stream) or client.closed(stream))
    if client.body(stream):
        return OK, ""
    code, words = await client.status(stream)
    return Code(code).name, words


async def methods(channel: grpc.aio.Channel, authorization: str) -> set[str]:
    """The path of every method that reflection lists."""
    method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(REFLECTION)
    asking = method(metadata=[("authorization", authorization)])

    async def ask(**asked: Any) -> reflection_pb2.ServerReflectionResponse:
        request = reflection_pb2.ServerReflectionRequest(**asked)
        await asking.write(request.SerializeToString())
        said = await asking.read()
        assert isinstance(said, bytes)
        return reflection_pb2.ServerReflectionResponse.FromString(said)

    found = set()
    listed = (await ask(list_services="*")).list_services_response.service
    for name in (each.name for each in listed):
        described = (await ask(file_containing_symbol=name)).file_descriptor_response
        file = FileDescriptorProto.FromString(described.file_descriptor_proto[0])
        for one in file.service:
            if f"{file.package}.{one.name}" == name:
                found |= {f"/{name}/{method.name}" for method in one.method}
    await asking.done_writing()
    assert await asking.read() is grpc.aio.EOF
    return found


async def test_every_method_has_its_status_for_every_caller(running: Serving) -> None:
    """A method without a row fails. Those of single types that xDS calls Fetch are not served."""
    found = {}
    async with connected(running) as client:
        for path in await methods(running.channel(), "Bearer admin"):
            if path not in ROWS and "Service/Fetch" in path:
                request, shown = b"", CALLERS["allowed"]
                unserved = await outcome(client, call(client, path, shown, request))
                assert unserved[0] == "UNIMPLEMENTED"
                continue
            assert path in ROWS, "say who may call it"
            request, _ = ROWS[path]
            found[path] = {
                who: (await outcome(client, call(client, path, shown, request)))[0]
                for who, shown in CALLERS.items()
            }
    assert found == {path: statuses for path, (_, statuses) in ROWS.items()}


class Noted(Cache):
    """A cache that notes what it is asked for."""

    asked: ClassVar[list[str]] = []

    def __getattribute__(self, name: str) -> Any:
        Noted.asked.append(name)
        return super().__getattribute__(name)


def names_of(type_url: Any, name: str) -> tuple[bytes, bytes]:
    """A client's first request for one name of a type: in both forms."""
    fields = {"type_url": type_url.value, "node": node()}
    return (
        discovery_pb2.DiscoveryRequest(resource_names=[name], **fields).SerializeToString(),
        discovery_pb2.DeltaDiscoveryRequest(
            resource_names_subscribe=[name], **fields
        ).SerializeToString(),
    )


def asking_for_the_shop() -> Iterator[tuple[str, bytes]]:
    """All ways to ask about the service shop/web, or about its namespace."""
    for path, request in (
        (RESOLVE, pb.ResolveEndpointsRequest(service="shop/web")),
        (EXPLAIN, pb.ExplainEndpointsRequest(service="shop/web")),
        (EXPLAIN, pb.ExplainEndpointsRequest(service="shop/web", vm_name="a")),
        (LIST, pb.ListServicesRequest(namespace="shop")),
        (WATCH, pb.WatchEndpointsRequest(services=[pb.WatchedService(service="shop/web")])),
        (WATCH, pb.WatchEndpointsRequest(namespaces=["shop"])),
    ):
        yield path, request.SerializeToString()
    ads = "/envoy.service.discovery.v3.AggregatedDiscoveryService"
    for type_url in (CDS, EDS, LDS, RDS):
        requests = names_of(type_url, "web.shop:80")
        for form, raw in zip(("Stream", "Delta"), requests, strict=True):
            yield f"{ads}/{form}AggregatedResources", raw


WORLDS = (
    (service(), vm("a", "10.0.0.1")),
    (service(Key("shop", "other")), vm("b", "10.0.0.2")),
    (service(Key("bank", "web")),),
)
"""Where the service exists; where only its namespace does; and where neither does."""


@pytest.mark.parametrize(
    ("who", "same"), [("denied", True), ("no credentials", True), ("allowed", False)]
)
async def test_who_is_denied_learns_nothing_of_what_exists(who: str, same: bool) -> None:
    """By status, words and messages; nor by time, as the same is looked at, whatever exists."""
    told: list[list[object]] = []
    for objects in WORLDS:
        gate, _ = world()
        cache = synced_cache(*objects)
        cache.__class__ = Noted
        told.append([])
        async with serving(cache=cache, gate=gate) as server, connected(server) as client:
            for path, request in asking_for_the_shop():
                Noted.asked.clear()
                gate.asked.clear()
                stream = call(client, path, CALLERS[who], request)
                found = await outcome(client, stream)
                if same:  # Else what it looks at in the end may count for the next.
                    await until(lambda: not server.streams_open)
                said = found, client.body(stream), dict(gate.asked)
                told[-1].append((path, said, tuple(Noted.asked)))
    assert (told[0] == told[1] == told[2]) is same


@pytest.mark.parametrize(
    ("rights", "named"),
    [((endpoints_in("get", "shop"), vms_in("shop")), False), (ALL_RIGHTS, True)],
    ids=["one namespace", "all"],
)
async def test_vms_of_other_namespaces_are_named_to_who_may_get_them(
    rights: tuple[Need, ...], named: bool
) -> None:
    gate = RightsGate()
    gate.admit("t", *rights)
    async with (
        serving(service(), vm("secret", "10.0.0.1", namespace="bank"), gate=gate) as server,
        connected(server) as client,
    ):
        gate.open = False
        asked = pb.ExplainEndpointsRequest(service="shop/web").SerializeToString()
        stream = call(client, EXPLAIN, "Bearer t", asked)
        await until(lambda: gate.passes)
        gate.answer()
        assert await outcome(client, stream) == (OK, "")
        assert (b"secret" in client.body(stream)) is named
        assert (b"bank" in client.body(stream)) is named


async def test_calls_wait_for_verdicts_and_hold_up_nobody(
    running: Serving, gate: RightsGate
) -> None:
    asked = {path: row for path, row in ROWS.items() if "/grpc.health" not in path}
    gate.open = False
    async with connected(running) as client:
        waiting = [
            call(client, path, "Bearer admin", request) for path, (request, _) in asked.items()
        ]
        await until(lambda: len(gate.passes) == len(waiting))
        check = call(client, "/grpc.health.v1.Health/Check", None, b"")
        assert await outcome(client, check) == (OK, "")
        assert not any(client.body(stream) or client.closed(stream) for stream in waiting)
        gate.answer()
        statuses = [(await outcome(client, stream))[0] for stream in waiting]
        assert statuses == [statuses["allowed"] for _, statuses in asked.values()]


async def test_a_client_that_goes_while_it_waits_leaves_nothing(
    running: Serving, gate: RightsGate
) -> None:
    gate.open = False
    async with connected(running) as client:
        for path in (RESOLVE, WATCH, REFLECTION):
            call(client, path, "Bearer admin", ROWS[path][0])
        await until(lambda: len(gate.passes) == 3)
    await until(lambda: not gate.passes)
    gate.answer()


@pytest.mark.parametrize("ends", ["revoked", "expired"])
async def test_a_watch_ends_when_its_right_does(
    running: Serving, gate: RightsGate, ends: str
) -> None:
    user = gate.admit("t", endpoints_in("watch", "shop"))
    asked = pb.WatchEndpointsRequest(services=[pb.WatchedService(service="shop/web")])
    request = asked.SerializeToString()
    channel = running.channel()
    method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(WATCH)
    # Some of one connection, which are sent the same as one.
    watches, others = (
        [method(request, metadata=[("authorization", f"Bearer {token}")]) for _ in range(3)]
        for token in ("t", "admin")
    )
    for opened in (*watches, *others):
        await opened.read()
        await opened.read()
    if ends == "revoked":
        gate.revoke(user, endpoints_in("watch", "shop"))
    else:
        gate.expire("t")
    for opened in watches:
        with pytest.raises(grpc.aio.AioRpcError):
            await opened.read()
        code = "PERMISSION_DENIED" if ends == "revoked" else "UNAUTHENTICATED"
        assert (await opened.code()).name == code
    running.apply(Apply(vm("b", "10.0.0.2")))
    for opened in others:
        said = await opened.read()
        assert isinstance(said, bytes)
        assert pb.WatchEndpointsResponse.FromString(said).WhichOneof("event") == "delta"
        opened.cancel()


class Stalled:
    """Reviews of an API server that knows one caller, and is slow with all others."""

    async def owner(self, token: Secret) -> Principal | Refusal:
        if token.reveal() != "ann":
            await asyncio.Event().wait()
        return Principal(username="ann")

    async def allowed(self, _principal: Principal, _need: ResourceNeed | UrlNeed) -> bool:
        return True


@asynccontextmanager
async def asking(gate: ReviewGate, reviews: Reviews) -> AsyncIterator[None]:
    """Within it, the gate asks."""
    running = asyncio.create_task(gate.run(reviews))
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait((running,))


async def test_strangers_who_wait_shut_out_nobody_who_is_known_at_their_address() -> None:
    patient = VerdictBounds(wait_s=600.0, yes_s=600.0)
    gate = ReviewGate(patient, CertificateRules(), lambda *_: None, ask_s=600.0)
    most, ann = 100, "Bearer ann"
    limits = Limits(streams_max=most, streams_per_client_max=most)
    async with (
        serving(service(), gate=gate, limits=limits) as server,
        asking(gate, Stalled()),
        connected(server) as client,
        connected(server) as theirs,
    ):
        request = ROWS[WATCH][0]
        assert await outcome(client, call(client, WATCH, ann, request)) == (OK, "")
        call(theirs, WATCH, "Bearer first", request)  # It has a place of its connection's own.
        for number, path in enumerate((WATCH, RESOLVE) * (most // 2)):
            call(theirs, path, f"Bearer {number}", ROWS[path][0])
        places = server.server._admission._strangers
        await until(lambda: places.in_all == most)
        one_more = await outcome(theirs, call(theirs, WATCH, "Bearer more", request))
        assert one_more[0] == "RESOURCE_EXHAUSTED"
        for path in (WATCH, RESOLVE):
            assert await outcome(client, call(client, path, ann, ROWS[path][0])) == (OK, "")
