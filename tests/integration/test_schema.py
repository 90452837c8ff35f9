"""What the schemas refuse, beside a real API server that validates strictly.

Valid objects of each version are damaged, one thing at a time, and both are asked.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from copy import deepcopy
from http import HTTPStatus
from typing import Any

import pytest

from tests.kube.apiserver import Cluster
from vmsvc_grpc.model.objects import GROUP, KNOWN_VERSIONS, Kind
from vmsvc_grpc.model.parse import unfit_metadata
from vmsvc_grpc.model.schema import faults
from vmsvc_grpc.model.strict import problems

Object = dict[str, Any]

SERVICE = {
    "type": "LoadBalancer",
    "selector": {"app": "web"},
    "ports": [
        {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"},
        {"name": "dns", "port": 53, "targetPort": 53, "protocol": "UDP"},
    ],
    "loadBalancerIP": "192.0.2.1",
    "loadBalancerSourceRanges": ["192.0.2.0/24"],
    "clusterIp": "10.96.0.9",
    "externalName": "",
}
OLD_VM = {
    "className": "small",
    "imageName": "vmi-0a0044d7c690bcbea",
    "powerState": "poweredOn",
    "ports": [{"ip": "192.0.2.1", "name": "a", "port": 1, "protocol": "TCP"}],
    "readinessProbe": {"tcpSocket": {"port": 22}, "timeoutSeconds": 3},
    "volumes": [{"name": "a", "persistentVolumeClaim": {"claimName": "b"}}],
}
VM = {
    "className": "small",
    "imageName": "vmi-0a0044d7c690bcbea",
    "powerState": "PoweredOn",
    "readinessProbe": {"tcpSocket": {"port": "ssh"}, "periodSeconds": 10},
    "volumes": [{"name": "a", "persistentVolumeClaim": {"claimName": "b", "readOnly": True}}],
    "bootstrap": {
        "cloudInit": {
            "cloudConfig": {
                "users": [
                    {"name": "a", "sudo": "yes", "groups": "b", "ssh_authorized_keys": ["x"]}
                ],
                "runcmd": [["any", {"thing": 1}]],
                "write_files": [{"path": "/a", "content": "text"}],
            }
        }
    },
    "network": {
        "hostName": "a",
        "interfaces": [
            {"name": "eth0", "addresses": ["192.0.2.9/24"], "routes": [{"to": "a", "via": "b"}]}
        ],
    },
}


def objects() -> Iterator[tuple[str, Object]]:
    metadata = {
        "name": "web",
        "labels": {"app": "web"},
        "annotations": {"note": "any"},
        "finalizers": ["example.com/a"],
        "ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "b", "controller": True}
        ],
    }
    for version in KNOWN_VERSIONS:
        head = {"apiVersion": f"{GROUP}/{version}", "metadata": metadata}
        yield (
            "virtualmachines",
            {
                **head,
                "kind": "VirtualMachine",
                "spec": OLD_VM if version == "v1alpha1" else VM,
                "status": {"zone": "a"},
            },
        )
        families = {"ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}
        yield (
            "virtualmachineservices",
            {
                **head,
                "kind": "VirtualMachineService",
                "spec": {**SERVICE, **(families if version == "v1alpha6" else {})},
                "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
            },
        )


JUNK: tuple[Any, ...] = (
    "",
    "junk",
    "a b",
    0,
    1,
    -1,
    10**6,
    2.0,
    2.5,
    2**31,
    2**63,
    1e300,
    True,
    [],
    ["a"],
    [{}],
    {},
    {"a": 1},
    None,
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    if isinstance(value, dict | list):
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, step))


def damaged(whole: Object) -> Iterator[tuple[str, Object]]:
    """The object with one thing changed in each, and what that is."""
    chosen = random.Random(9)
    paths = [path for path in places(whole) if path[0] in ("metadata", "spec", "status")]
    for path in paths:
        *above, last = path
        changes = chosen.sample(JUNK, 5) + (["remove", "rename"] if isinstance(last, str) else [])
        for change in changes:
            copy: Any = deepcopy(whole)
            at = copy
            for step in above:
                at = at[step]
            if change == "remove":
                del at[last]
            elif change == "rename":
                at[f"{last}s"] = at.pop(last)
            else:
                at[last] = change
            yield f"{path}: {change!r}", copy


# From files and wherever they are absent, they mean their defaults.
_MAY_BE_ABSENT = {"type", "name", "protocol", "targetPort"}


def may_be_absent(kind: Kind, one: Object, whole: Object) -> bool:
    """Whether all that is missing is what files may leave out of a VMService."""
    spec = one.get("spec")
    if kind is not Kind.VIRTUAL_MACHINE_SERVICE or not isinstance(spec, dict):
        return False
    ports = spec.get("ports")
    filled = deepcopy(one)
    if spec.get("type") is None:
        filled["spec"]["type"] = whole["spec"]["type"]
    for index, port in enumerate(ports if isinstance(ports, list) else ()):
        if isinstance(port, dict) and index < len(whole["spec"]["ports"]):
            for name in _MAY_BE_ABSENT & whole["spec"]["ports"][index].keys():
                if port.get(name) is None:
                    filled["spec"]["ports"][index][name] = whole["spec"]["ports"][index][name]
    return filled == whole


@pytest.mark.parametrize(
    ("resource", "whole"),
    [pytest.param(*one, id=f"{one[0]} {one[1]['apiVersion']}") for one in objects()],
)
def test_both_refuse_the_same(resource: str, whole: Object, kube: Cluster) -> None:
    """What the schemas here refuse, the API server does; what it refuses, render does."""
    namespace = kube.create_namespace()
    path = f"/apis/{whole['apiVersion']}/namespaces/{namespace}/{resource}"
    kind = Kind(whole["kind"])
    told = []
    with closing(kube.server.session()) as session:
        for what, one in [("nothing", whole), *damaged(whole)]:
            answer = session.request("POST", f"{path}?dryRun=All&fieldValidation=Strict", one)
            refused = answer.status != HTTPStatus.CREATED
            by_schema = [*faults(kind, one), *unfit_metadata(one)]
            if by_schema and not refused:
                told.append(f"{what}: {by_schema}, and the API server takes it")
            if refused and not problems(kind, one) and not may_be_absent(kind, one, whole):
                told.append(f"{what}: {answer.body}, and here it is right")
    assert not told, "\n" + "\n".join(told)


TIMES = (
    "",
    "yesterday",
    "2026-01-01",
    "2026-01-01T00:00:00Z",
    "2026-01-01t00:00:00z",
    "2026-01-01T00:00:00.5+01:00",
    "2026-01-01T00:00:00,5Z",
    "2026-01-01T00:00:00.Z",
    f"2026-01-01T00:00:00.{'1' * 40}Z",
    "2026-01-01T0:00:00Z",
    "2026-01-01T00:0:00Z",
    "2026-1-01T00:00:00Z",
    "2026-02-29T00:00:00Z",
    "2024-02-29T00:00:00Z",
    "0000-02-29T00:00:00Z",
    "2026-01-01T24:00:00Z",
    "2026-01-01T23:59:60Z",
    "2026-01-01T00:00:00+24:60",
    "2026-01-01T00:00:00+25:00",
    "2026-01-01T00:00:00-00:61",
    "2026-01-01T00:00:00+0100",
    "2026-01-01T00:00:00",
    "2026-01-01 00:00:00Z",
    "2026-01-01T00:00:00Z ",
)


def test_both_take_the_same_for_a_time(kube: Cluster) -> None:
    namespace = kube.create_namespace()
    path = f"/apis/{GROUP}/v1alpha6/namespaces/{namespace}/virtualmachines"
    unlike = []
    with closing(kube.server.session()) as session:
        for value in (*TIMES, 5, None):
            for metadata in (
                {"creationTimestamp": value},
                {"deletionTimestamp": value},
                {"managedFields": [{**MANAGED, "time": value}]},
            ):
                one = vm(metadata)
                answer = session.request("POST", f"{path}?dryRun=All&fieldValidation=Strict", one)
                taken = answer.status == HTTPStatus.CREATED
                if taken == bool(problems(Kind.VIRTUAL_MACHINE, one)):
                    unlike.append((metadata, answer.status))
    assert not unlike


MANAGED = {
    "manager": "a",
    "operation": "Apply",
    "apiVersion": f"{GROUP}/v1alpha6",
    "fieldsType": "FieldsV1",
    "fieldsV1": {"f:spec": {}},
}


def vm(metadata: Object, spec: Object | None = None) -> Object:
    return {
        "apiVersion": f"{GROUP}/v1alpha6",
        "kind": "VirtualMachine",
        "metadata": {"name": "web", **metadata},
        "spec": spec or {},
    }


OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "b"}
METADATA: tuple[Object, ...] = (
    {},
    *({"managedFields": [{**MANAGED, **one}]} for one in ({"operation": ""}, {"manager": ""})),
    {"managedFields": [{**MANAGED, "fieldsV1": None}]},
    {"ownerReferences": [{**OWNER, "controller": True}, {**OWNER, "uid": "c"}]},
    {"ownerReferences": [{**OWNER, "controller": True}, {**OWNER, "uid": "c", "controller": True}]},
    *(
        {"ownerReferences": [{**OWNER, "apiVersion": version}]}
        for version in ("apps/v1", "a/b/c", "v1/", "/v1", "/", " v1", "any")
    ),
    {"ownerReferences": [{**OWNER, "kind": "Event"}]},
    {"ownerReferences": [{**OWNER, "kind": "Event", "apiVersion": "events.k8s.io/v1"}]},
    *({"generateName": name} for name in ("a", "a-", "a.", "a.-", "-", "A B", "", "a" * 254)),
    *(
        {"finalizers": finalizers}
        for finalizers in (
            ["orphan"],
            ["foregroundDeletion"],
            ["foregroundDeletion", "orphan"],
            ["a/b", "a/b"],
            ["plain"],
        )
    ),
    {"generation": -1},
    {"deletionGracePeriodSeconds": -5},
    {"selfLink": "x y"},
    {"uid": "x y"},
    {"resourceVersion": "x"},
)
UUID = "12345678-1234-1234-1234-123456789abc"


def interface(**fields: Any) -> Object:
    return {"network": {"interfaces": [{"name": "eth0", **fields}]}}


SPECS: tuple[Object, ...] = (
    *(
        {field: text}
        for field in ("biosUUID", "instanceUUID")
        for text in (
            UUID,
            UUID.upper(),
            UUID.replace("-", ""),
            UUID.replace("-", "", 1),
            UUID[:-1],
            f"{UUID}0",
            f"{UUID}\n",
            f" {UUID}",
            f"g{UUID[1:]}",
            f"{{{UUID}}}",
            f"urn:uuid:{UUID}",
            "",
        )
    ),
    *(
        {"readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": period}}
        for port, period in ((22, 2**31 - 1), (22, 2**31), (22, 2**63 - 1), (2**31, 1))
    ),
    *(interface(ipamModes=modes) for modes in (["IPv4"], ["IPv4", "IPv4"], ["IPv4", "x"], [])),
    *(
        interface(type="VMXNet3", vmxnet3={"pnicFeatures": features})
        for features in (["1", "2"], ["1", "1"], ["zzz"], ["01"], ["1\n"], [])
    ),
    *(
        interface(type="VMXNet3", vmxnet3={"ctxPerDev": text})
        for text in ("1", "10", "PerVM", "pervm", "1\n")
    ),
    *(
        interface(type="VMXNet3", vmxnet3={field: text})
        for field in ("coalescingParams", "coalescingScheme")
        for text in ("a" * 127, "ä" * 127, "a" * 128, "Adapt")
    ),
    interface(type="SRIOV", vmxnet3={}),
    interface(vmxnet3={}),
    *(
        {"resources": {part: {"cpu": cpu}}}
        for part in ("size", "limits", "requests")
        for cpu in ("1", 1, "1m", "0.5", "x", "")
    ),
    *(
        {"cpuAdvanced": {"topology": topology}}
        for topology in (
            {},
            {"vnumaNodeCount": 0},
            {"vnumaNodeCount": 2},
            {"vnumaNodeCount": 2, "coresPerSocket": 0},
            {"vnumaNodeCount": 2, "coresPerSocket": 4},
        )
    ),
    {"volumes": [{"name": "a"}, {"name": "a"}]},
    {"hardware": {"scsiControllers": [{"busNumber": 1}, {"busNumber": 1}]}},
)


def test_both_refuse_the_same_metadata_formats_and_rules(kube: Cluster) -> None:
    """Issue 9, point 15: what no damage by chance comes upon, in either direction."""
    namespace = kube.create_namespace()
    path = f"/apis/{GROUP}/v1alpha6/namespaces/{namespace}/virtualmachines"
    unlike = []
    with closing(kube.server.session()) as session:
        for one in (*map(vm, METADATA), *(vm({}, spec) for spec in SPECS)):
            answer = session.request("POST", f"{path}?dryRun=All&fieldValidation=Strict", one)
            found = problems(Kind.VIRTUAL_MACHINE, one)
            if (answer.status == HTTPStatus.CREATED) == bool(found):
                unlike.append(f"{one}: {answer.body}, and here {found}")
    assert not unlike, "\n" + "\n".join(unlike)
