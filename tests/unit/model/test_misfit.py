"""Whatever is of a wrong type is named by its path, in our words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import pytest

from vmsvc_grpc.model.decoding import ShapeError, converted, decoder
from vmsvc_grpc.model.from_wire import ParseError
from vmsvc_grpc.model.misfit import FieldPath, field_name, in_words, misfit
from vmsvc_grpc.model.objects import Kind, VirtualMachineService
from vmsvc_grpc.model.parse import SHAPES, parse, parse_json
from vmsvc_grpc.model.problem import Problem

META = {
    "name": "web",
    "namespace": "shop",
    "uid": "u",
    "resourceVersion": "1",
    "generation": 1,
    "creationTimestamp": "2026-01-31T09:30:00Z",
    "deletionTimestamp": "2026-01-31T09:30:00Z",
    "labels": {"app": "web", "example.com/tier": "1"},
    "annotations": {"a": "b", "example.com/c": "d"},
    "finalizers": ["example.com/x"],
    "ownerReferences": [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "name": "n",
            "uid": "o",
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ],
}
CONDITION = {
    "type": "Ready",
    "status": "True",
    "reason": "R",
    "message": "M",
    "lastTransitionTime": "2026-01-31T09:30:00Z",
    "observedGeneration": 1,
}
VM = {
    "apiVersion": "vmoperator.vmware.com/v1alpha6",
    "kind": "VirtualMachine",
    "metadata": META,
    "spec": {"readinessProbe": {"tcpSocket": {}, "guestHeartbeat": {}, "guestInfo": []}},
    "status": {
        "vmIp": "192.0.2.1",
        "network": {"primaryIP4": "192.0.2.1", "primaryIP6": "2001:db8::1"},
        "zone": "z",
        "conditions": [CONDITION],
    },
}
INGRESS = {"loadBalancer": {"ingress": [{"ip": "192.0.2.9", "hostname": "h"}]}}
VMSERVICE = {
    "apiVersion": "vmoperator.vmware.com/v1alpha6",
    "kind": "VirtualMachineService",
    "metadata": META,
    "spec": {
        "type": "LoadBalancer",
        "selector": {"app": "web", "example.com/tier": "1"},
        "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
        "clusterIp": "",
        "clusterIP": "",
        "loadBalancerIP": "192.0.2.9",
        "loadBalancerSourceRanges": ["192.0.2.0/24"],
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
    },
    "status": {**INGRESS, "conditions": [CONDITION]},
}
PORT = {"name": "http", "protocol": "TCP", "port": 80, "appProtocol": "http"}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": META,
    "spec": {
        "type": "LoadBalancer",
        "selector": {"app": "web"},
        "ports": [PORT | {"nodePort": 30000}],
        "clusterIP": "10.0.0.1",
        "clusterIPs": ["10.0.0.1"],
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "loadBalancerIP": "192.0.2.9",
        "loadBalancerSourceRanges": ["192.0.2.0/24"],
        "loadBalancerClass": "c",
        "allocateLoadBalancerNodePorts": False,
        "externalTrafficPolicy": "Local",
        "externalName": "",
        "healthCheckNodePort": 30001,
    },
    "status": {**INGRESS, "conditions": [CONDITION]},
}
ADDRESS = {
    "ip": "192.0.2.1",
    "targetRef": {
        "apiVersion": "v1",
        "kind": "VirtualMachine",
        "namespace": "shop",
        "name": "web",
        "uid": "u",
    },
}
ENDPOINTS = {
    "apiVersion": "v1",
    "kind": "Endpoints",
    "metadata": META,
    "subsets": [{"addresses": [ADDRESS], "notReadyAddresses": [ADDRESS], "ports": [PORT]}],
}
SLICE = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSlice",
    "metadata": META,
    "addressType": "IPv4",
    "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": True}, "zone": "z"}],
    "ports": [PORT],
}
OBJECTS: dict[Kind, dict[str, Any]] = {
    Kind.VIRTUAL_MACHINE: VM,
    Kind.VIRTUAL_MACHINE_SERVICE: VMSERVICE,
    Kind.SERVICE: SERVICE,
    Kind.ENDPOINTS: ENDPOINTS,
    Kind.ENDPOINT_SLICE: SLICE,
}
WRONG = ("text", 5, 2.5, 10**30, True, ["a list"], {"a": "mapping"})


def places(value: Any, path: FieldPath = ()) -> Iterator[tuple[FieldPath, Any]]:
    """Each field, key and index of an object, and what is there."""
    steps = value.items() if isinstance(value, dict) else enumerate(value)
    for step, inner in steps:
        if path or step not in ("kind", "apiVersion"):
            yield (*path, step), inner
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, step))


def with_instead(object_: dict[str, Any], path: FieldPath, instead: Any) -> dict[str, Any]:
    """A copy of an object with another value at a place."""
    changed: dict[str, Any] = json.loads(json.dumps(object_))
    inner: Any = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = instead
    return changed


def is_of_its_type(wrong: Any, right: Any) -> bool:
    """Whether the one may stand where the other does."""
    if isinstance(right, bool) or isinstance(wrong, bool):
        return type(wrong) is type(right)
    return isinstance(wrong, type(right)) and wrong != 10**30


def problems_of(kind: Kind, untyped: dict[str, Any], *, as_json: bool) -> list[Problem]:
    """What is said of an object that is of the wrong shape."""
    try:
        found = parse_json(kind, json.dumps(untyped).encode()) if as_json else parse(kind, untyped)
    except ParseError as error:
        return [error.problem]
    assert isinstance(found, VirtualMachineService), f"{kind} is read: {untyped}"
    assert found.spec is None
    return list(found.problems)


@pytest.mark.parametrize("as_json", [False, True], ids=["given", "in JSON"])
@pytest.mark.parametrize("kind", OBJECTS)
def test_whatever_is_of_a_wrong_type_is_named(kind: Kind, as_json: bool) -> None:
    """Issue 9, point 16: labels that hold a number were refused, and not by their key."""
    object_ = OBJECTS[kind]
    tried = 0
    for path, right in places(object_):
        for wrong in WRONG:
            # Fields that nobody reads may be anything.
            if is_of_its_type(wrong, right) or not refuses(kind, object_, path, wrong):
                continue
            untyped = with_instead(object_, path, wrong)
            [problem] = problems_of(kind, untyped, as_json=as_json)
            assert problem.field == field_name(path)
            assert problem.message.startswith("must be ")
            assert problem.message.endswith(f", not {in_words(wrong)}")
            tried += 1
    assert tried > 100


def refuses(kind: Kind, object_: dict[str, Any], path: FieldPath, wrong: Any) -> bool:
    """Whether the shape itself, by msgspec's word, leaves the object out for that."""
    try:
        msgspec.convert(with_instead(object_, path, wrong), SHAPES[kind])
    except msgspec.ValidationError:
        return True
    return False


@pytest.mark.parametrize("as_json", [False, True], ids=["given", "in JSON"])
@pytest.mark.parametrize(
    ("labels", "said"),
    [
        pytest.param({"k": 5}, "metadata.labels.k: must be text, not 5", id="a number"),
        pytest.param(
            {"a": "b", "example.com/k": [1]},
            "metadata.labels.example.com/k: must be text, not a list",
            id="a key with dots",
        ),
        pytest.param({"": True}, "metadata.labels.: must be text, not true", id="an empty key"),
        pytest.param(
            {"\x1b\n": {}}, r"metadata.labels.\x1b\n: must be text, not a mapping", id="escapes"
        ),
        pytest.param(
            dict.fromkeys(map(str, range(10_001)), ""),
            "metadata.labels: has 10001 keys, and may have 10000",
            id="too many",
        ),
    ],
)
def test_a_label_is_named_by_its_key(labels: dict[str, Any], said: str, as_json: bool) -> None:
    untyped = with_instead(VMSERVICE, ("metadata", "labels"), labels)
    told = problems_of(Kind.VIRTUAL_MACHINE_SERVICE, untyped, as_json=as_json)
    assert [str(problem) for problem in told] == [said]


@pytest.mark.parametrize(
    ("digits", "said"),
    [
        pytest.param(b"9" * 5_000, "a number too large to be kept", id="5,000 digits"),
        pytest.param(b"-1e400", "a number too large to be kept", id="a float"),
        pytest.param(
            b"9223372036854775808",
            f"{2**63}, which is more than {2**63 - 1}",
            id="too large by one, in 64 bits",
        ),
        pytest.param(
            b"-9223372036854775809",
            f"{-(2**63) - 1}, which is less than {-(2**63)}",
            id="too small by one",
        ),
    ],
)
def test_numbers_beyond_all_bounds_are_named(digits: bytes, said: str) -> None:
    raw = json.dumps(with_instead(VMSERVICE, ("spec", "ports", 0, "port"), 12345)).encode()
    found = parse_json(Kind.VIRTUAL_MACHINE_SERVICE, raw.replace(b"12345", digits))
    assert isinstance(found, VirtualMachineService)
    ((field, message),) = found.problems
    assert field == "spec.ports[0].port"
    assert message == f"must be a whole number, not {said}"


class Outer(msgspec.Struct, rename="kebab"):
    """What programs and files other than ours give."""

    needed: str
    at: datetime | None = None
    one_or_other: int | str = 0
    share: float = 0.0


@pytest.mark.parametrize(
    ("untyped", "said"),
    [
        pytest.param({}, "needed: is missing; it is required", id="a missing field"),
        pytest.param({"needed": 5}, "needed: must be text, not a number", id="perhaps a secret"),
        pytest.param([], "(object): must be a mapping, not a list", id="the whole"),
        pytest.param(
            {"needed": "", "at": "today"},
            "at: must be a time, as 2026-01-31T09:30:00Z is, not text",
            id="a time",
        ),
        pytest.param(
            {"needed": "", "one-or-other": []},
            "one-or-other: must be a whole number or text, not a list",
            id="one of two types",
        ),
        pytest.param(
            {"needed": "", "share": "x"}, "share: must be a number, not text", id="a number"
        ),
        pytest.param(
            {"needed": b"x"}, "needed: must be text, not of a type that JSON has not", id="bytes"
        ),
    ],
)
def test_the_errors_own_text_shows_no_value(untyped: Any, said: str) -> None:
    with pytest.raises(ShapeError) as caught:
        converted(untyped, Outer)
    assert str(caught.value) == said


def test_what_is_no_json_is_said_to_be_none() -> None:
    with pytest.raises(msgspec.DecodeError, match="malformed"):
        decoder(Outer)(b'{"needed": 5, x')


def test_keys_of_another_type_are_named_by_their_mapping() -> None:
    assert misfit({"needed": "", "at": None}, dict[str, str]).path == ("at",)
    assert misfit({5: ""}, dict[str, str]).message.startswith("must be a mapping whose keys")
