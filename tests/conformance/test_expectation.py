"""A wrong result fails: each kind of expectation, met once and broken in each way."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.conformance.case import ObjectId
from tests.conformance.expectation import Observed, differences, without_filled_in

OWNER = {
    "apiVersion": "vmoperator.vmware.com/v1alpha6",
    "kind": "VirtualMachineService",
    "name": "web",
    "uid": "u-web",
    "controller": True,
    "blockOwnerDeletion": True,
}
META = {
    "name": "web",
    "namespace": "shop",
    "labels": {"team": "blue"},
    "annotations": {"a.b/c": "d"},
    "ownerReferences": [OWNER],
}
PORT = {"name": "http", "port": 80, "targetPort": 9376, "protocol": "TCP"}
DNS = {"name": "dns", "port": 53, "targetPort": 5353, "protocol": "UDP"}
SERVICE = {
    "kind": "Service",
    "metadata": META,
    "spec": {"type": "ClusterIP", "ports": [PORT, DNS], "allocateLoadBalancerNodePorts": False},
}
HTTP = {"name": "http", "port": 9376, "protocol": "TCP"}
UDP = {"name": "dns", "port": 5353, "protocol": "UDP"}


def address(ip: str, name: str, **more: Any) -> dict[str, Any]:
    target = {"kind": "VirtualMachine", "namespace": "shop", "name": name, "uid": f"u-{name}"}
    return {"ip": ip, "targetRef": {**target, **more}}


A, B, C = (address(f"10.0.0.{n}", f"web-{n}") for n in (1, 2, 3))
SUBSETS = [
    {"addresses": [A, B], "notReadyAddresses": [C], "ports": [HTTP, UDP]},
    {"addresses": [C], "ports": [{"name": "x", "port": 1, "protocol": "TCP"}]},
]
ENDPOINTS = {"kind": "Endpoints", "metadata": META, "subsets": SUBSETS}


def compared(
    section: str, entry: Mapping[str, Any], actual: Mapping[str, Any] | None, reason: str = ""
) -> list[str]:
    objects = {ObjectId(actual["kind"], "shop", "web"): actual} if actual else {}
    refusals = {ObjectId("VirtualMachineService", "shop", "web"): reason} if reason else {}
    expect = {section: [{"name": "web", "namespace": "shop", **entry}]}
    return differences(expect, Observed(objects, refusals))


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param({}, id="it exists"),
        pytest.param({"spec": {"type": "ClusterIP"}}, id="a subset of the spec"),
        pytest.param({"spec": {"ports": [{"port": 80}, {"name": "dns"}]}}, id="subsets in a list"),
        pytest.param({"labels": {"team": "blue"}, "annotations": {"a.b/c": "d"}}, id="metadata"),
        pytest.param({"ownerReferences": [{"kind": "VirtualMachineService"}]}, id="owners"),
        pytest.param({"finalizers": []}, id="no finalizers"),
        pytest.param({"status": {}}, id="an empty status"),
        pytest.param(
            {"unset": ["spec.selector", "spec.ports[0].nodePort", "spec.ports[7].name"]},
            id="paths in the spec that are unset",
        ),
        pytest.param(
            {"unset": ["annotations[x.y/z]", "labels[x]", "status.loadBalancer.ingress"]},
            id="other paths that are unset",
        ),
    ],
)
def test_a_service_that_is_as_expected_passes(entry: Mapping[str, Any]) -> None:
    assert compared("service", entry, SERVICE) == []


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        pytest.param({"spec": {"type": "LoadBalancer"}}, "spec.type", id="another value"),
        pytest.param({"spec": {"clusterIP": "None"}}, "spec.clusterIP is not set", id="unset"),
        pytest.param({"spec": {"ports": [PORT]}}, "spec.ports", id="an item too many"),
        pytest.param({"spec": {"ports": [PORT, DNS, PORT]}}, "spec.ports", id="an item missing"),
        pytest.param({"spec": {"ports": [DNS, PORT]}}, "spec.ports[0]", id="another order"),
        pytest.param(
            {"spec": {"ports": [PORT, {"port": 53, "appProtocol": "x"}]}},
            "spec.ports[1].appProtocol is not set",
            id="a field missing in an item",
        ),
        pytest.param(
            {"spec": {"allocateLoadBalancerNodePorts": 0}},
            "allocateLoadBalancerNodePorts",
            id="a number for a flag",
        ),
        pytest.param({"spec": {"type": {"a": 1}}}, "spec.type", id="a mapping for a text"),
        pytest.param({"labels": {"team": "red"}}, "labels.team", id="another label"),
        pytest.param({"annotations": {"x": "y"}}, "annotations.x", id="an annotation missing"),
        pytest.param(
            {"ownerReferences": [{"uid": "another"}]}, "ownerReferences[0].uid", id="another owner"
        ),
        pytest.param({"ownerReferences": [OWNER, {}]}, "ownerReferences", id="an owner missing"),
        pytest.param({"ownerReferences": []}, "ownerReferences", id="an owner too many"),
        pytest.param({"finalizers": ["a/b"]}, "finalizers", id="a finalizer missing"),
        pytest.param({"status": {"loadBalancer": {}}}, "status", id="a status missing"),
        pytest.param({"unset": ["spec.type"]}, "spec.type is 'ClusterIP'", id="a path that is set"),
        pytest.param({"unset": ["spec.ports[1].port"]}, "spec.ports[1].port", id="one in a list"),
        pytest.param(
            {"unset": ["annotations[a.b/c]"]}, "annotations[a.b/c]", id="one with dots in it"
        ),
        pytest.param(
            {"unset": ["spec.allocateLoadBalancerNodePorts"]}, "is False", id="one that is false"
        ),
    ],
)
def test_a_service_that_is_not_as_expected_fails(entry: Mapping[str, Any], says: str) -> None:
    found = compared("service", entry, SERVICE)
    assert found
    assert says in found[0]


def test_an_object_that_does_not_exist_fails() -> None:
    assert compared("service", {}, None) == ["Service shop/web: does not exist"]
    assert compared("endpoints", {"subsets": []}, None) == ["Endpoints shop/web: does not exist"]


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        pytest.param(SUBSETS, SUBSETS, id="the same"),
        pytest.param(SUBSETS, SUBSETS[::-1], id="another order of subsets"),
        pytest.param(
            SUBSETS,
            [{**SUBSETS[0], "addresses": [B, A], "ports": [UDP, HTTP]}, SUBSETS[1]],
            id="another order of addresses and ports",
        ),
        pytest.param(
            [{"addresses": [A], "ports": [HTTP]}],
            [{"addresses": [address("10.0.0.1", "web-1", apiVersion="v9")], "ports": [HTTP]}],
            id="another apiVersion of the target",
        ),
        pytest.param(
            [{"addresses": [A], "ports": [{"port": 1}]}],
            [
                {
                    "addresses": [A],
                    "notReadyAddresses": None,
                    "ports": [{"name": "", "port": 1, "protocol": "TCP"}],
                }
            ],
            id="empty texts and defaults written out",
        ),
        pytest.param([{"addresses": [A]}], [{"addresses": [A], "ports": []}], id="no ports"),
        pytest.param([], None, id="no subsets at all"),
    ],
)
def test_subsets_that_mean_the_same_pass(expected: Any, actual: Any) -> None:
    assert compared("endpoints", {"subsets": expected}, {**ENDPOINTS, "subsets": actual}) == []


def changed(**changes: Any) -> list[dict[str, Any]]:
    return [{**SUBSETS[0], **changes}, SUBSETS[1]]


@pytest.mark.parametrize(
    "actual",
    [
        pytest.param([], id="no subsets"),
        pytest.param(SUBSETS[:1], id="a subset missing"),
        pytest.param([*SUBSETS, SUBSETS[1]], id="a subset twice"),
        pytest.param(changed(addresses=[A]), id="an address missing"),
        pytest.param(changed(addresses=[A, B, B]), id="an address twice"),
        pytest.param(changed(addresses=[A, B, C], notReadyAddresses=[]), id="ready, and is not"),
        pytest.param(changed(addresses=[A], notReadyAddresses=[B, C]), id="not ready, and is"),
        pytest.param(
            changed(addresses=[A, address("10.0.0.2", "web-2", uid="other")]), id="another uid"
        ),
        pytest.param(
            changed(addresses=[A, address("10.0.0.2", "web-2", resourceVersion="7")]),
            id="a resourceVersion",
        ),
        pytest.param(changed(addresses=[A, {"ip": "10.0.0.2"}]), id="no target"),
        pytest.param(changed(addresses=[A, {**B, "nodeName": "esx"}]), id="a node's name"),
        pytest.param(changed(ports=[HTTP]), id="a port missing"),
        pytest.param(changed(ports=[{**HTTP, "port": 80}, UDP]), id="the service's own port"),
        pytest.param(changed(ports=[{**HTTP, "name": "web"}, UDP]), id="another port name"),
        pytest.param(changed(ports=[{**HTTP, "protocol": "SCTP"}, UDP]), id="another protocol"),
        pytest.param(
            [
                {"addresses": [A], "notReadyAddresses": [C], "ports": [HTTP, UDP]},
                {"addresses": [B], "ports": [HTTP, UDP]},
                SUBSETS[1],
            ],
            id="packed in another way",
        ),
    ],
)
def test_subsets_that_mean_something_else_fail(actual: Any) -> None:
    found = compared("endpoints", {"subsets": SUBSETS}, {**ENDPOINTS, "subsets": actual})
    assert found
    assert all(line.startswith("Endpoints shop/web: ") for line in found)


def test_subsets_that_are_expected_to_be_none_fail_where_there_are_some() -> None:
    assert len(compared("endpoints", {"subsets": []}, ENDPOINTS)) == 2


def test_endpoints_are_compared_for_their_metadata_too() -> None:
    assert compared("endpoints", {"labels": {"team": "blue"}}, ENDPOINTS) == []
    assert compared("endpoints", {"labels": {"team": "red"}}, ENDPOINTS) != []


def test_what_must_be_absent_fails_where_it_exists() -> None:
    assert compared("absent", {"kind": "Endpoints"}, SERVICE) == []
    found = compared("absent", {"kind": "Service"}, SERVICE)
    assert found == ["Service shop/web: exists, and must not"]


@pytest.mark.parametrize(
    ("entry", "reason", "says"),
    [
        pytest.param({}, "spec.ports[1]: doubled", None, id="refused for the field"),
        pytest.param({"namespace": None}, "spec.ports[1]: doubled", None, id="no namespace given"),
        pytest.param({"optional": True}, "", None, id="taken, and may be"),
        pytest.param({}, "", "is not refused", id="taken, and may not be"),
        pytest.param({}, "spec.type: no", "must be for spec.ports[1]", id="another field"),
        pytest.param({}, "spec.ports[1].port: no", "must be for", id="a field below it"),
        pytest.param({"namespace": "other"}, "spec.ports[1]: no", "is not", id="another object"),
        pytest.param({"optional": True}, "spec.type: no", "must be for", id="may be, but so"),
    ],
)
def test_a_refusal_names_the_field(entry: Mapping[str, Any], reason: str, says: str | None) -> None:
    expected = {"by": "validation", "field": "spec.ports[1]", **entry}
    found = compared("rejected", expected, None, reason)
    assert [says in line for line in found if says] == ([True] if says else [])
    assert bool(found) is bool(says)


@pytest.mark.parametrize(
    ("spec", "compared_fields"),
    [
        pytest.param({}, {"type"}, id="set by nobody"),
        pytest.param({"clusterIp": "None"}, {"type", "clusterIP"}, id="as on the wire"),
        pytest.param({"clusterIP": "None"}, {"type", "clusterIP"}, id="as documented"),
        pytest.param(
            {"ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"},
            {"type", "ipFamilies", "ipFamilyPolicy"},
            id="families",
        ),
    ],
)
def test_what_an_api_server_fills_in_is_compared_only_where_it_is_set(
    spec: Mapping[str, Any], compared_fields: set[str]
) -> None:
    expected = {"type": "x", "clusterIP": "x", "ipFamilies": ["x"], "ipFamilyPolicy": "x"}
    expect: dict[str, list[dict[str, Any]]] = {
        "service": [{"name": "web", "namespace": "shop", "spec": expected}],
        "endpoints": [{"name": "web", "namespace": "shop", "subsets": []}],
    }
    manifest = {
        "kind": "VirtualMachineService",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": spec,
    }
    left = without_filled_in(expect, [manifest])
    assert set(left["service"][0]["spec"]) == compared_fields
    assert left["endpoints"] == expect["endpoints"]
