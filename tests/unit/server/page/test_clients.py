"""Who follows what, in words."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.objects import service, vm
from tests.unit.server.endpoint_service.watching import synced_cache
from tests.unit.server.xds.client import CDS, EDS, XdsClient, node
from tests.unit.server.xds.world import ask, cache
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.server.call import LATER, Call
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.endpoint_service.encode import Encoder
from vmsvc_grpc.server.endpoint_service.watch import WatchStream
from vmsvc_grpc.server.followed import FollowedNames
from vmsvc_grpc.server.leaving import Leaving
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.page.clients import STREAMS_MAX, OpenStream, address, clients
from vmsvc_grpc.server.xds.shared import Form
from vmsvc_grpc.server.xds.stream import XdsStream


def watch(**asked: Any) -> WatchStream:
    """A watch that has had its first answers."""
    limits, counts = Limits(), ServerCounts()
    stream = WatchStream(
        synced_cache(service(), vm("a", "10.0.0.1")),
        Encoder(counts),
        limits,
        counts,
        lambda: None,
        names=FollowedNames(limits, counts.refusals).of("ipv4:10.0.0.9"),
        let_go=Leaving().let_go,
    )
    if asked:
        stream.receive(pb.WatchEndpointsRequest(**asked).SerializeToString())
        while (said := stream.next_message()) is not None:
            assert isinstance(said, bytes) or said is LATER
    return stream


def named(*names: str) -> list[pb.WatchedService]:
    return [pb.WatchedService(service=name) for name in names]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "a watch that has not asked yet"),
        ({"all_services": True}, "all services: ready endpoints"),
        (
            {"all_services": True, "readiness": pb.READINESS_ALL},
            "all services: all endpoints",
        ),
        ({"namespaces": ["shop"]}, "1 namespace (shop): ready endpoints"),
        (
            {"services": named("shop/web", "shop/no")},
            "2 services (shop/web, shop/no): ready endpoints",
        ),
        (
            {"services": named(*(f"shop/s-{n}" for n in range(9)))},
            "9 services (shop/s-0, shop/s-1, shop/s-2 and 6 more): ready endpoints",
        ),
    ],
)
def test_a_watch_is_told_in_words(asked: dict[str, Any], words: str) -> None:
    shown = clients([(Call("ipv4:10.0.0.9:5"), watch(**asked))], 1, 1)
    assert shown["clients"] == [
        {"address": "10.0.0.9:5", "user": "", "streams": 1, "follows": [words]}
    ]


@pytest.mark.parametrize("form", Form, ids=lambda form: form.value)
def test_a_client_of_xds_is_told_by_its_node_and_what_it_asks_for(form: Form) -> None:
    client = XdsClient(cache(), form, who=node("envoy", "front\u202e\n"))
    assert shown_of(client.stream) == "xDS, without a request yet"
    ask(client, CDS)
    ask(client, EDS, "web.shop:80", "a.b:1", "c.d:2", "e.f:3")
    words = shown_of(client.stream)
    assert words.startswith("xDS, node front")
    assert words.isprintable()
    assert words.endswith(
        ": Cluster: all; ClusterLoadAssignment: 4 names (web.shop:80, a.b:1, c.d:2 and 1 more)"
    )


def shown_of(stream: XdsStream) -> str:
    (client,) = clients([(Call("ipv4:10.0.0.9:5"), stream)], 1, 1)["clients"]
    (words,) = client["follows"]
    return str(words)


def test_streams_of_a_connection_are_shown_together_and_some_of_many() -> None:
    one = watch(all_services=True)
    call = Call("ipv4:10.0.0.9:5", "ann\u202e\n")
    many: list[OpenStream] = [(call, one)] * 30
    shown = clients(many, 30, 1)
    (client,) = shown["clients"]
    assert (client["streams"], len(client["follows"])) == (30, 20)
    assert "\n" not in client["user"]
    assert "\u202e" not in client["user"]


def test_what_is_looked_at_is_bounded_and_the_rest_is_counted() -> None:
    one = watch(all_services=True)
    many: list[OpenStream] = [(Call(f"ipv4:10.0.{n // 250}.{n % 250}:5"), one) for n in range(5000)]
    looked_at = 0

    def counted() -> Any:
        nonlocal looked_at
        for each in many:
            looked_at += 1
            yield each

    shown = clients(counted(), len(many), 5000)
    assert looked_at == STREAMS_MAX
    assert len(shown["clients"]) == 200
    assert shown["not_shown"] == 4800


@pytest.mark.parametrize(
    ("peer", "shown"),
    [
        ("ipv4:192.0.2.1:50000", "192.0.2.1:50000"),
        ("ipv6:[2001:db8::1]:50000", "[2001:db8::1]:50000"),
        ("ipv6:%5B::1%5D:1", "[::1]:1"),
        ("unix:", "unix:"),
    ],
)
def test_an_address_is_shown_as_people_write_it(peer: str, shown: str) -> None:
    assert address(peer) == shown
