"""A wrong result fails: each kind of expectation, met once and broken in each way."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.conformance.case import ObjectId
from tests.conformance.expectation import ACCEPTED, Observed, differences, unsaid, without_filled_in

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


READY = "VirtualMachineServiceServiceReady"
VM_SERVICE: dict[str, Any] = {
    "kind": "VirtualMachineService",
    "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "7"}
    | {"finalizers": ["a/b", "c/d"]},
    "status": {
        "loadBalancer": {"ingress": [{"ip": "192.0.2.7"}, {"hostname": "lb.example.com"}]},
        "conditions": [
            {"type": "Other", "status": "True", "reason": "R", "message": "m"},
            {"type": READY, "status": "False", "reason": "Broken", "message": "no pool"},
        ],
    },
}


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        pytest.param({}, None, id="it exists"),
        pytest.param({"finalizers": ["c/d", "a/b"]}, None, id="its finalizers, in any order"),
        pytest.param({"finalizers": ["a/b"]}, "finalizers", id="a finalizer too many"),
        pytest.param({"finalizers": ["a/b", "c/d", "e/f"]}, "finalizers", id="one missing"),
        pytest.param({"status": {}}, None, id="any status"),
        pytest.param(
            {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}, {}]}}}, None, id="ingress"
        ),
        pytest.param(
            {"status": {"loadBalancer": {"ingress": [{}, {"ip": "192.0.2.7"}]}}},
            "status.loadBalancer.ingress[1].ip is not set",
            id="ingress in another order",
        ),
        pytest.param(
            {"status": {"loadBalancer": {"ingress": [{}]}}}, "ingress", id="an ingress too many"
        ),
        pytest.param({"unset": ["status.loadBalancer.ingress[2]"]}, None, id="a path unset"),
        pytest.param({"unset": ["status.loadBalancer"]}, "must not be set", id="a path set"),
        pytest.param({"labels": {"a": "b"}}, "labels.a is not set", id="a label missing"),
    ],
)
def test_a_vmservice_is_compared_as_a_service_is(entry: dict[str, Any], says: str | None) -> None:
    found = compared("vmservice", entry, VM_SERVICE)
    assert [says in line for line in found if says] == ([True] if says else [])
    assert compared("vmservice", entry, None) != []


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        pytest.param({"status": "False"}, None, id="the status"),
        pytest.param({"reason": "Broken", "message": "no pool"}, None, id="the rest"),
        pytest.param({"status": "True"}, "the status", id="another status"),
        pytest.param({"status": False}, "the status", id="a flag for a text"),
        pytest.param({"reason": "Any"}, "the reason", id="another reason"),
        pytest.param({"message": ""}, "the message", id="a message, and none expected"),
        pytest.param({"message": "no"}, "the message", id="the beginning of a message only"),
        pytest.param({"type": "Ready"}, "has no condition", id="another type"),
    ],
)
def test_a_condition_is_compared_by_its_type(entry: dict[str, Any], says: str | None) -> None:
    found = compared("conditions", {"type": READY, **entry}, VM_SERVICE)
    assert [says in line for line in found if says] == ([True] if says else [])
    assert bool(found) is bool(says)


def test_a_vmservice_that_does_not_exist_has_no_condition() -> None:
    assert compared("conditions", {"type": READY}, None) != []


def event(**changes: Any) -> dict[str, Any]:
    regarding = {"kind": "VirtualMachineService", "namespace": "shop", "name": "web", "uid": "u"}
    base = {"type": "Normal", "reason": "CreateDone", "note": "done", "regarding": regarding}
    return {**base, **changes}


EVENT = {
    "type": "Normal",
    "reason": "CreateDone",
    "message": "done",
    "regarding": {"kind": "VirtualMachineService", "namespace": "shop", "name": "web"},
}


@pytest.mark.parametrize(
    ("events", "found"),
    [
        pytest.param([event()], True, id="the same"),
        pytest.param([event(note="other"), event()], True, id="one of two"),
        pytest.param([], False, id="none"),
        pytest.param([event(type="Warning")], False, id="another type"),
        pytest.param([event(reason="CreateFailed")], False, id="another reason"),
        pytest.param([event(note="done so far")], False, id="another note"),
        pytest.param(
            [event(regarding={**event()["regarding"], "name": "x"})], False, id="another object"
        ),
        pytest.param(
            [event(regarding={**event()["regarding"], "kind": "Service"})], False, id="another kind"
        ),
        pytest.param([event(regarding={})], False, id="no object"),
        pytest.param([event(type="Warning"), event(reason="x")], False, id="two that are it half"),
    ],
)
def test_one_event_must_be_as_expected_in_all(events: list[Any], found: bool) -> None:
    observed = Observed({}, {}, events=events)
    assert (differences({"events": [EVENT]}, observed) == []) is found
    assert (differences({"no_events": [EVENT]}, observed) == []) is not found


def test_what_an_event_regards_may_be_named_in_short() -> None:
    observed = Observed({}, {}, events=[event()])
    assert differences({"events": [{"reason": "CreateDone", "name": "web"}]}, observed) == []
    assert differences({"events": [{"reason": "CreateDone", "name": "api"}]}, observed) != []
    assert differences({"no_events": [{"reason": "CreateDone"}]}, observed) != []
    assert differences({"no_events": [{"reason": "CreateFailed"}]}, observed) == []


ID = ObjectId("VirtualMachineService", "shop", "web")
UNCHANGED = {"kind": "VirtualMachineService", "name": "web", "namespace": "shop"}


@pytest.mark.parametrize(
    ("before", "objects", "says"),
    [
        pytest.param({ID: "7"}, {ID: VM_SERVICE}, None, id="not written"),
        pytest.param({ID: "6"}, {ID: VM_SERVICE}, "was 6, and is 7", id="written"),
        pytest.param({}, {ID: VM_SERVICE}, "did not exist before", id="created"),
        pytest.param({ID: "7"}, {}, "does not exist", id="deleted"),
    ],
)
def test_what_is_unchanged_was_not_written(before: Any, objects: Any, says: str | None) -> None:
    found = differences({"unchanged": [UNCHANGED]}, Observed(objects, {}, before=before))
    assert [says in line for line in found if says] == ([True] if says else [])
    assert bool(found) is bool(says)


@pytest.mark.parametrize(
    ("entry", "denied", "says"),
    [
        pytest.param({}, ["spec.type", "spec.ports[0].name"], None, id="one of the fields named"),
        pytest.param({}, ["spec.ports"], "must name spec.type", id="another field"),
        pytest.param({}, ["spec.type.x"], "must name spec.type", id="a field below it"),
        pytest.param({}, None, "is not refused by the API server", id="stored"),
        pytest.param({"optional": True}, None, None, id="stored, and may be"),
        pytest.param({"optional": True}, ["x"], "must name", id="may be, but not so"),
        pytest.param({"by": "validation"}, ["spec.type"], "not refused by us", id="not by us"),
        pytest.param({"namespace": "other"}, ["spec.type"], "not refused", id="another object"),
    ],
)
def test_what_the_api_server_refuses_it_refuses_for_the_field(
    entry: dict[str, Any], denied: list[str] | None, says: str | None
) -> None:
    expected = {"name": "web", "by": "crd", "field": "spec.type", **entry}
    observed = Observed({}, {}, denied={} if denied is None else {ID: denied})
    found = differences({"rejected": [expected]}, observed)
    assert [says in line for line in found if says] == ([True] if says else [])
    assert bool(found) is bool(says)


def test_what_we_refuse_is_not_refused_by_the_api_server() -> None:
    expected = {"name": "web", "by": "crd", "field": "spec.type"}
    observed = Observed({}, {ID: "spec.type: no"})
    assert len(differences({"rejected": [expected]}, observed)) == 1


REASON = "spec.type: NodePort is not supported"
WARNING = event(type="Warning", reason="Invalid", note=REASON)


def refused(**changes: Any) -> dict[str, Any]:
    condition = {"type": ACCEPTED, "status": "False", "message": REASON, **changes}
    return {**VM_SERVICE, "status": {"conditions": [condition]}}


@pytest.mark.parametrize(
    ("events", "manifest", "says"),
    [
        pytest.param([event(), WARNING], refused(), [], id="said by both"),
        pytest.param([], refused(), ["no Warning event"], id="no event"),
        pytest.param([event(note=REASON)], refused(), ["no Warning event"], id="not a warning"),
        pytest.param(
            [event(type="Warning", note="spec: no")], refused(), ["no Warning"], id="another field"
        ),
        pytest.param(
            [{**WARNING, "regarding": {**WARNING["regarding"], "name": "api"}}],
            refused(),
            ["no Warning event"],
            id="an event of another VMService",
        ),
        pytest.param([WARNING], VM_SERVICE, ["is not there"], id="no condition"),
        pytest.param([WARNING], refused(status="True"), ["is refused, but"], id="accepted"),
        pytest.param([WARNING], refused(message="spec: no"), ["must begin"], id="no such field"),
        pytest.param([], VM_SERVICE, ["no Warning event", "is not there"], id="said by none"),
    ],
)
def test_a_refusal_is_said_by_an_event_and_a_condition(
    events: list[Any], manifest: dict[str, Any], says: list[str]
) -> None:
    found = list(unsaid(Observed({ID: manifest}, {ID: REASON}, events=events)))
    assert len(found) == len(says)
    assert all(text in line for text, line in zip(says, found, strict=True))


def test_a_refused_vmservice_that_is_gone_need_not_say_so() -> None:
    assert list(unsaid(Observed({}, {ID: REASON}))) == []
    assert list(unsaid(Observed({ID: VM_SERVICE}, {}))) == []
