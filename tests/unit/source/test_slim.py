"""What is read of objects: all of ours, and of others' Endpoints no address."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from vmsvc_grpc.model.from_wire import ParseError
from vmsvc_grpc.model.objects import GROUP, Key, Kind, StoredEndpoints
from vmsvc_grpc.model.parse import parse_json
from vmsvc_grpc.source.slim import read_slim

OURS = {
    "apiVersion": f"{GROUP}/v1alpha6",
    "kind": "VirtualMachineService",
    "name": "web",
    "uid": "u1",
}
POD_SET = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u2"}
NAMESAKE = OURS | {"apiVersion": "example.com/v1"}


def stored(*owners: dict[str, Any], **parts: Any) -> bytes:
    metadata = {
        "name": "web",
        "namespace": "shop",
        "uid": "u3",
        "resourceVersion": "7",
        "labels": {"a": "b"},
        "annotations": {"c": "d"},
        "finalizers": ["example.com/f"],
        "ownerReferences": list(owners),
    }
    return msgspec.json.encode({"metadata": metadata, **parts})


def service(*owners: dict[str, Any], **spec: Any) -> bytes:
    ports = [{"port": 80}]
    given = {"type": "ClusterIP", "ports": ports, "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"]}
    return stored(*owners, spec=given | spec)


def endpoints(*owners: dict[str, Any]) -> bytes:
    return stored(*owners, subsets=[{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}])


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        pytest.param(Kind.ENDPOINTS, endpoints(OURS), id="Endpoints of a VMService"),
        pytest.param(Kind.ENDPOINTS, endpoints(POD_SET, OURS), id="one owner of several"),
        pytest.param(Kind.SERVICE, service(OURS), id="the Service of a VMService"),
        pytest.param(
            Kind.SERVICE,
            service(OURS, selector={"a": "b"}),
            id="with a selector that does not stay",
        ),
        pytest.param(Kind.SERVICE, service(), id="a Service to adopt"),
        pytest.param(Kind.SERVICE, service(POD_SET), id="somebody's Service"),
    ],
)
def test_what_somebody_looks_at_is_read_whole(kind: Kind, raw: bytes) -> None:
    assert read_slim(kind, raw) == parse_json(kind, raw)


@pytest.mark.parametrize(
    "owners",
    [
        pytest.param((), id="nobody's"),
        pytest.param((POD_SET,), id="somebody's"),
        pytest.param((NAMESAKE,), id="those of another group's VirtualMachineService"),
    ],
)
def test_of_others_endpoints_the_addresses_are_not_read(owners: tuple[dict[str, Any], ...]) -> None:
    whole = parse_json(Kind.ENDPOINTS, endpoints(*owners))
    assert isinstance(whole, StoredEndpoints)
    assert read_slim(Kind.ENDPOINTS, endpoints(*owners)) == StoredEndpoints(meta=whole.meta)


def test_endpoints_that_cannot_be_read_are_named() -> None:
    raw = msgspec.json.encode({"metadata": {"name": "web", "namespace": "shop", "labels": 7}})
    with pytest.raises(ParseError) as caught:
        read_slim(Kind.ENDPOINTS, raw)
    assert caught.value.key == Key("shop", "web")
    assert caught.value.problem.field == "metadata.labels"


def test_endpoints_without_a_name_are_not() -> None:
    for raw in (b'{"metadata": {"name": 7}}', b"<html>"):
        with pytest.raises(ParseError) as caught:
            read_slim(Kind.ENDPOINTS, raw)
        assert caught.value.key is None
