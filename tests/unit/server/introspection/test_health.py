"""grpc.health.v1: what is said of the server and each of its services, and when."""

from __future__ import annotations

import pytest
from grpc_health.v1 import health_pb2 as pb

from tests.unit.leavings import leavings
from tests.unit.objects import service
from tests.unit.server.endpoint_service.watching import emptied, key, listed, synced_cache
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.server.call import Call, Code, RpcError, Stream, StreamMethod, UnaryMethod
from vmsvc_grpc.server.introspection.health import Health

CALL = Call("ipv4:192.0.2.1:1")
OURS = "vmsvc.v1.EndpointService"


def check(health: Health, name: str) -> str:
    method = health.methods()[0]
    assert isinstance(method, UnaryMethod)
    raw = method.handle(pb.HealthCheckRequest(service=name).SerializeToString(), CALL)
    assert isinstance(raw, bytes)
    return _name(raw)


def _name(raw: bytes) -> str:
    status = pb.HealthCheckResponse.FromString(raw).status
    return pb.HealthCheckResponse.ServingStatus.Name(status)


class Watched:
    """A Watch call without a server."""

    def __init__(self, health: Health, name: str) -> None:
        self.wakes = 0
        method = health.methods()[2]
        assert isinstance(method, StreamMethod)
        self.stream: Stream = method.open(CALL, self._wake)
        assert self.stream.next_message() is None
        self.stream.receive(pb.HealthCheckRequest(service=name).SerializeToString())
        self.stream.half_close()

    def _wake(self) -> None:
        self.wakes += 1

    def read(self) -> str | None:
        raw = self.stream.next_message()
        assert raw is None or isinstance(raw, bytes)
        return None if raw is None else _name(raw)


@pytest.mark.parametrize("name", ["", OURS])
def test_health_goes_up_when_the_cache_is_synced_and_down_when_the_server_drains(name: str) -> None:
    """linkerd2 #10036, #8245: while it syncs it is not ready, and nothing else is wrong."""
    cache = Cache(AddressRules())
    health = Health(cache, [OURS])
    watched = Watched(health, name)
    assert check(health, name) == watched.read() == "NOT_SERVING"
    assert watched.read() is None
    listed(cache, service())
    assert watched.wakes == 1
    assert check(health, name) == watched.read() == "SERVING"
    health.drain()
    assert watched.wakes == 2
    assert check(health, name) == watched.read() == "NOT_SERVING"


def test_a_service_that_is_none_of_ours_is_not_found_and_watched_as_unknown() -> None:
    health = Health(synced_cache(), [OURS])
    with pytest.raises(RpcError, match="has no service 'another") as failure:
        check(health, "another.Service")
    assert failure.value.code is Code.NOT_FOUND
    watched = Watched(health, "another.Service")
    assert watched.read() == "SERVICE_UNKNOWN"
    health.drain()
    assert watched.read() is None


def test_nothing_is_kept_of_a_name_that_is_none_of_ours() -> None:
    """Thousands of watches of long names: each holds what one of a short name holds."""
    cache = Cache(AddressRules())
    health = Health(cache, [OURS])
    name = "x" * 60_000
    watches = [Watched(health, name) for _ in range(2_000)]
    assert {watched.read() for watched in watches} == {"SERVICE_UNKNOWN"}
    assert not any(name in vars(watched.stream).values() for watched in watches)
    listed(cache, service())
    health.drain()
    assert {(watched.wakes, watched.read()) for watched in watches} == {(0, None)}
    for watched in watches:
        watched.stream.close()
    emptied(cache)
    assert leavings(cache) == []


def test_all_are_listed() -> None:
    method = Health(synced_cache(), [OURS]).methods()[1]
    assert isinstance(method, UnaryMethod)
    raw = method.handle(b"", CALL)
    assert isinstance(raw, bytes)
    listed_ = pb.HealthListResponse.FromString(raw).statuses
    assert {name: of.status for name, of in listed_.items()} == {
        "": pb.HealthCheckResponse.SERVING,
        OURS: pb.HealthCheckResponse.SERVING,
    }


def test_a_watch_holds_on_to_the_cache_only_until_it_is_synced() -> None:
    cache = Cache(AddressRules())
    health = Health(cache, [OURS])
    closed, open_ = Watched(health, ""), Watched(health, "")
    assert leavings(cache)
    closed.stream.close()
    listed(cache)
    assert open_.read() == "SERVING"
    cache.apply(Apply(service(key("shop/late"))))
    assert open_.read() is None
    emptied(cache)
    assert leavings(cache) == []
    open_.stream.close()
    health.drain()
    assert (closed.wakes, open_.wakes) == (0, 1)


@pytest.mark.parametrize("index", [0, 1], ids=["Check", "List"])
def test_bytes_that_are_no_request_are_refused(index: int) -> None:
    method = Health(synced_cache(), [OURS]).methods()[index]
    assert isinstance(method, UnaryMethod)
    with pytest.raises(RpcError, match="is not a grpc"):
        method.handle(b"\xff\xff", CALL)
