"""Requests of xDS, read from bytes that anybody may have made."""

from __future__ import annotations

import sys
import tracemalloc

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2 as pb
from google.rpc import status_pb2

from tests.unit.server.xds.client import node
from vmsvc_grpc.server.call import Code, RpcError
from vmsvc_grpc.server.xds import requests


def _held(request: bytes) -> list[tuple[str, str] | None]:
    return [requests.held_version(one) for one in requests.delta(request).held]


def _field(number: int, content: bytes) -> bytes:
    assert len(content) < 1 << 14
    return bytes((number << 3 | 2, len(content) & 0x7F | 0x80, len(content) >> 7)) + content


def test_what_a_client_holds_is_read_an_entry_at_a_time() -> None:
    """As a map, protobuf takes seconds for so many."""
    versions = {f"{number}.shop:80": f"v{number}" for number in range(50_000)}
    request = pb.DeltaDiscoveryRequest(initial_resource_versions=versions).SerializeToString()
    held = requests.delta(request).held
    assert len(held) == len(versions)
    assert {type(one) for one in held} == {bytes}
    assert dict(filter(None, _held(request))) == versions


@pytest.mark.parametrize(
    ("entry", "read"),
    [
        pytest.param(_field(1, b"a\xff") + _field(2, b"v"), ("a\ufffd", "v"), id="not UTF-8"),
        pytest.param(_field(1, b"a"), ("a", ""), id="no version"),
        pytest.param(b"", ("", ""), id="nothing"),
        pytest.param(_field(1, b"a") + b"\x12\x05v", None, id="cut off"),
        pytest.param(_field(2, b"v" * 500) + _field(1, b"a"), ("a", "v" * 12), id="too long"),
    ],
)
def test_an_entry_that_is_wrong_costs_itself(entry: bytes, read: tuple[str, str] | None) -> None:
    good = _field(1, b"b") + _field(2, b"w")
    assert _held(_field(5, entry) + _field(5, good)) == [read, ("b", "w")]


def test_a_part_that_comes_more_than_once_is_all_of_it() -> None:
    """As protobuf merges them."""
    first = node("envoy", "first", namespace="shop")
    second = base_pb2.Node(id="second", cluster="c")
    request = pb.DiscoveryRequest(node=first).SerializeToString()
    request += pb.DiscoveryRequest(node=second).SerializeToString()
    read = requests.node(requests.sotw(request).node)
    first.MergeFrom(second)
    assert read.message == first
    assert (read.id, read.envoy, read.namespace) == ("second", True, "shop")


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        pytest.param({}, None, id="no error is an ACK"),
        pytest.param({"error_detail": status_pb2.Status()}, "", id="one without words is a NACK"),
        pytest.param({"error_detail": status_pb2.Status(code=3, message="no")}, "no", id="NACK"),
    ],
)
def test_an_error_that_is_there_is_a_nack(
    error: dict[str, status_pb2.Status], refusal: str | None
) -> None:
    assert requests.sotw(pb.DiscoveryRequest(**error).SerializeToString()).refusal == refusal
    assert requests.delta(pb.DeltaDiscoveryRequest(**error).SerializeToString()).refusal == refusal


def test_an_error_that_cannot_be_read_is_a_nack_without_words() -> None:
    assert requests.sotw(_field(6, b"\x12\x05no")).refusal == ""


def test_of_a_large_node_only_what_counts_is_kept() -> None:
    who = node("envoy", "n1", namespace="shop")
    who.cluster = "c" * 70_000
    read = requests.node(who.SerializeToString())
    assert (read.id, read.envoy, read.namespace) == ("n1", True, "shop")
    assert read.message == base_pb2.Node(id="n1")


def test_of_metadata_that_nobody_has_that_many_of_none_is_read() -> None:
    who = node("envoy", "n1", **{f"k{number}": "v" for number in range(2_000)}, namespace="shop")
    read = requests.node(who.SerializeToString())
    assert (read.id, read.envoy, read.namespace) == ("n1", True, "")


def test_of_a_long_namespace_only_what_names_none_is_kept() -> None:
    who = node(namespace="n" * 1_000_000)
    kept = requests.node(who.SerializeToString()).namespace
    assert 253 < len(kept) <= 1_000


def test_what_is_no_message_is_refused() -> None:
    for read in (requests.sotw, requests.delta):
        with pytest.raises(RpcError, match="the request is not a envoy") as refused:
            read(b"\x0a\x05abc")
        assert refused.value.code is Code.INVALID_ARGUMENT


def test_names_that_are_not_utf8_are_decoded_as_they_are_taken_in() -> None:
    """They take ten times as long as others: all of a request together would hold up everybody."""
    names = [b"%d.shop\xff" % number for number in range(50_000)]
    request = b"".join(_field(3, name) for name in [*names, b"*"])
    tracemalloc.start()
    try:
        read = requests.delta(request).subscribe
        assert "*" in read
        assert "web.shop" not in read
        assert tracemalloc.get_traced_memory()[1] < 1_000_000 < len(names) * sys.getsizeof(names[0])
    finally:
        tracemalloc.stop()
    assert list(read) == [name.decode(errors="replace") for name in [*names, b"*"]]
    assert "7.shop\ufffd" in read
    assert read[-1] == "*"
    assert list(read[1:3]) == ["1.shop\ufffd", "2.shop\ufffd"]


def test_beside_a_text_that_is_not_utf8_the_others_are_as_they_were() -> None:
    request = _field(2, _field(1, b"n\xff") + _field(10, b"f"))
    read = requests.sotw(request + _field(1, b"v\xff") + _field(3, b"web.shop:80"))
    assert (read.version, list(read.names)) == ("v\ufffd", ["web.shop:80"])
    who = requests.node(read.node)
    assert who.message == base_pb2.Node(id="n\ufffd", client_features=["f"])
    assert requests.node(_field(1, b"n") + _field(10, b"\xff")).message == base_pb2.Node(id="n")
