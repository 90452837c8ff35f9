"""All that is wrong with an object, told at once."""

from __future__ import annotations

from typing import Any

import pytest

from vmsvc_grpc.model.objects import GROUP, Kind
from vmsvc_grpc.model.strict import FAULTS_MAX, field_path, problems


def fields(kind: Kind, spec: Any, **metadata: Any) -> list[str]:
    untyped = {
        "apiVersion": f"{GROUP}/v1alpha6",
        "kind": kind.value,
        "metadata": {"name": "web", **metadata},
        "spec": spec,
    }
    found = problems(kind, untyped)
    assert [field_path(problem.field) for _, problem in found] == [path for path, _ in found]
    return [problem.field for _, problem in found]


@pytest.mark.parametrize(
    ("spec", "metadata", "expected"),
    [
        pytest.param({"ports": [{"port": 80}]}, {}, [], id="nothing"),
        pytest.param(
            {"ports": [{"port": "80", "name": "A"}], "selector": {"a b": "c"}, "x": 1},
            {"labels": {"-": ""}},
            [
                "spec.ports[0].port",
                "spec.x",
                "metadata.labels",
                "spec.ports[0].name",
                "spec.selector",
            ],
            id="a wrong type hides no rule of another field",
        ),
        pytest.param(
            {"ports": [1, {"port": 1}], "type": 2},
            {},
            ["spec.ports[0]", "spec.type", "spec.ports[1].name"],
            id="an item of a wrong type keeps its place",
        ),
        pytest.param(
            {"ports": [{"port": 1, "name": "A"}], "type": "NodePort", "ipFamilies": ["IPv5"]},
            {},
            ["spec.type", "spec.ports[0].name", "spec.ipFamilies[0]"],
            id="a wrong type of service hides no other rule, and is told in our words",
        ),
        pytest.param(
            {"type": "ExternalName", "loadBalancerSourceRanges": ["192.0.2.0/24"]},
            {},
            ["spec.type"],
            id="but those that depend on it",
        ),
        pytest.param(
            {"ports": [{"port": 80}]},
            {"finalizers": ["a.io/b", "", None]},
            ["metadata.finalizers[1]", "metadata.finalizers[2]"],
            id="finalizers without a name",
        ),
        pytest.param(
            {"port": []}, {"name": 3}, ["metadata.name", "spec.port", "spec.ports"], id="no name"
        ),
        pytest.param("text", {}, ["spec"], id="a spec that is none"),
        pytest.param(
            {"ports": [{"name": "a", "port": "x"}, {"name": "b", "port": "y"}]},
            {},
            ["spec.ports[0].port", "spec.ports[1].port"],
            id="two ports without a number are not the same port",
        ),
        pytest.param(
            {"ports": [{"name": "a", "port": 1, "protocol": 6}, {"name": "b", "port": 1}]},
            {},
            ["spec.ports[0].protocol"],
            id="a protocol of a wrong type is not the default one",
        ),
        pytest.param(
            {"ports": [{"port": 1}], "type": 6, "loadBalancerSourceRanges": ["192.0.2.0/24"]},
            {},
            ["spec.type"],
            id="a type of a wrong type is not the default one",
        ),
        pytest.param(
            {"ports": [{"port": 1}]},
            {"creationTimestamp": "yesterday", "deletionTimestamp": "2026-02-30T00:00:00Z"},
            ["metadata.creationTimestamp", "metadata.deletionTimestamp"],
            id="times that are none",
        ),
    ],
)
def test_of_a_vmservice(spec: Any, metadata: dict[str, Any], expected: list[str]) -> None:
    assert fields(Kind.VIRTUAL_MACHINE_SERVICE, spec, **metadata) == expected


def test_of_a_vm() -> None:
    metadata = {"labels": {"a b": "", "c": "d e"}, "annotations": {"/": ""}}
    assert fields(Kind.VIRTUAL_MACHINE, {"classname": "small"}, **metadata) == [
        "spec.classname",
        "metadata.labels",
        "metadata.labels",
        "metadata.annotations",
    ]


SPEC_OF_FAULTS = {
    "type": "NodePort",
    "ports": [{"port": 0, "name": "A"}, {"port": "80", "name": "b"}],
    "selector": {"a b": "c"},
    "ipFamilies": ["IPv5"],
    "x": 1,
}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param(5, ["status"], id="all of it"),
        pytest.param({"loadBalancer": []}, ["status.loadBalancer"], id="a mapping"),
        pytest.param(
            {
                "loadBalancer": {"ingress": [{"ip": 5, "hostname": []}, "a", {"ip": True}]},
                "conditions": [{"type": "A", "observedGeneration": "1", "status": True, "x": 1}],
            },
            [
                "status.conditions[0].observedGeneration",
                "status.conditions[0].status",
                "status.loadBalancer.ingress[0].hostname",
                "status.loadBalancer.ingress[0].ip",
                "status.loadBalancer.ingress[1]",
                "status.loadBalancer.ingress[2].ip",
            ],
            id="many parts",
        ),
    ],
)
def test_a_status_of_wrong_types_hides_no_other_fault(status: Any, expected: list[str]) -> None:
    def found(status: Any) -> list[str]:
        untyped = {
            "apiVersion": f"{GROUP}/v1alpha6",
            "metadata": {"name": "web", "labels": {"-": ""}},
            "spec": SPEC_OF_FAULTS,
            "status": status,
        }
        return [p.problem.field for p in problems(Kind.VIRTUAL_MACHINE_SERVICE, untyped)]

    others = found(None)
    assert len(others) >= 6
    every = found(status)
    unknown = [field for field in every if field == "status.conditions[0].x"]
    in_status = sorted(f for f in every if f.startswith("status") and f not in unknown)
    assert in_status == expected
    assert [field for field in every if not field.startswith("status")] == others


def test_a_vms_status_of_wrong_types_hides_no_other_fault() -> None:
    untyped = {
        "apiVersion": f"{GROUP}/v1alpha6",
        "metadata": {"name": "web", "labels": {"a b": ""}, "annotations": {"/": ""}},
        "status": {"zone": 1, "network": {"primaryIP4": 5, "primaryIP6": []}},
    }
    assert [p.problem.field for p in problems(Kind.VIRTUAL_MACHINE, untyped)] == [
        "metadata.labels",
        "metadata.annotations",
        "status.network.primaryIP4",
        "status.network.primaryIP6",
        "status.zone",
    ]


def test_a_status_with_very_many_wrong_types_is_bounded() -> None:
    untyped = {
        "apiVersion": f"{GROUP}/v1alpha6",
        "metadata": {"name": "web"},
        "spec": {"ports": [{"port": 80}]},
        "status": {"loadBalancer": {"ingress": [{"ip": 5}] * 10_000}},
    }
    assert len(problems(Kind.VIRTUAL_MACHINE_SERVICE, untyped)) == FAULTS_MAX


def test_an_object_without_metadata_is_told_so_in_our_words() -> None:
    untyped = {"apiVersion": f"{GROUP}/v1alpha6", "kind": "VirtualMachine"}
    ((_, problem),) = problems(Kind.VIRTUAL_MACHINE, untyped)
    assert str(problem) == "metadata: is missing; it is required"


def test_an_object_with_very_many_faults_is_bounded() -> None:
    found = fields(Kind.VIRTUAL_MACHINE_SERVICE, {f"x{number}": 1 for number in range(50_000)})
    assert len(found) == FAULTS_MAX + 1


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ("spec.ports[0].name", ("spec", "ports", 0, "name")),
        ("metadata.labels[...]", ("metadata", "labels")),
        ("spec.a[1][2]", ("spec", "a", 1, 2)),
        ("", ()),
    ],
)
def test_paths(field: str, path: tuple[str | int, ...]) -> None:
    assert field_path(field) == path


def test_what_serving_reads_nothing_of_is_refused_in_metadata_too() -> None:
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "b", "controller": True}
    metadata = {
        "name": "web",
        "generateName": "A B",
        "finalizers": ["orphan", "foregroundDeletion"],
        "ownerReferences": [owner, {**owner, "apiVersion": "a/b/c"}, {**owner, "kind": "Event"}],
    }
    untyped = {"apiVersion": f"{GROUP}/v1alpha6", "kind": "VirtualMachine", "metadata": metadata}
    both = "is true in metadata.ownerReferences[0], too; only one controls"
    assert [str(found.problem) for found in problems(Kind.VIRTUAL_MACHINE, untyped)] == [
        "metadata.generateName: 'A B' is not the beginning of a name that Kubernetes takes",
        "metadata.finalizers: has orphan and foregroundDeletion; only one of them can be done",
        (
            "metadata.ownerReferences[1].apiVersion: 'a/b/c' is not a version; write it as in "
            "apps/v1 or v1"
        ),
        f"metadata.ownerReferences[1].controller: {both}",
        "metadata.ownerReferences[2]: is an Event, which may own nothing",
        f"metadata.ownerReferences[2].controller: {both}",
    ]
