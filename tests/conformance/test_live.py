"""What is sent for an edit: whole where an apply replaces, and kept where it does not."""

from typing import Any

import pytest

from tests.conformance.bench import flavour
from tests.conformance.case import (
    Apply,
    Case,
    CaseError,
    Delete,
    Edit,
    ObjectId,
    Patch,
    Setting,
    Stage,
)
from tests.conformance.live import created, namespaces_of, replaced, status_of
from tests.kube.plugin import FLAVOURS

VM: dict[str, Any] = {
    "apiVersion": "vmoperator.vmware.com/v1alpha2",
    "kind": "VirtualMachine",
    "metadata": {
        "name": "web",
        "namespace": "shop",
        "uid": "u-1",
        "labels": {"a": "b"},
        "finalizers": ["x/y"],
    },
    "spec": {"className": "small"},
    "status": {"network": {"primaryIP4": "10.0.0.1"}},
}
STORED: dict[str, Any] = {
    **VM,
    "metadata": {
        "name": "web",
        "namespace": "case-1",
        "uid": "live",
        "resourceVersion": "7",
        "labels": {"old": "label"},
        "annotations": {"old": "annotation"},
        "finalizers": ["other/one"],
        "ownerReferences": [{"uid": "o"}],
    },
    "spec": {"className": "large", "imageName": "i"},
    "status": {"zone": "z"},
}


def test_a_creation_says_neither_uid_nor_status() -> None:
    metadata = {key: value for key, value in VM["metadata"].items() if key != "uid"}
    assert created(VM) == {
        "apiVersion": VM["apiVersion"],
        "kind": VM["kind"],
        "metadata": metadata,
        "spec": VM["spec"],
    }


def test_an_apply_replaces_spec_labels_and_annotations_and_keeps_the_rest() -> None:
    sent = replaced(STORED, VM)
    metadata = {k: v for k, v in STORED["metadata"].items() if k != "annotations"}
    assert sent["metadata"] == {**metadata, "labels": {"a": "b"}}
    assert sent["spec"] == {"className": "small"}
    assert sent["status"] == STORED["status"]


def test_an_apply_without_a_spec_has_none() -> None:
    endpoints = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web"}}
    stored = {**endpoints, "subsets": [{}], "metadata": {"name": "web", "resourceVersion": "7"}}
    assert replaced(stored, endpoints) == {**endpoints, "metadata": stored["metadata"]}


@pytest.mark.parametrize(
    ("manifest", "stored", "status"),
    [
        pytest.param(VM, None, VM["status"], id="a VM that is created"),
        pytest.param({**VM, "status": None}, None, None, id="one without status"),
        pytest.param(VM, STORED, VM["status"], id="a VM that is there"),
        pytest.param({"kind": "VirtualMachine"}, STORED, {}, id="one that loses its status"),
        pytest.param({"kind": "Service", "status": {"a": 1}}, None, {"a": 1}, id="a Service"),
        pytest.param({"kind": "Service", "status": {"a": 1}}, {}, None, id="one that is there"),
    ],
)
def test_a_status_is_written_at_creation_and_a_vms_always(
    manifest: Any, stored: Any, status: Any
) -> None:
    assert status_of(manifest, stored) == status


def test_the_namespaces_are_those_of_objects_and_the_default() -> None:
    edits: list[Edit] = [
        Apply({"kind": "VirtualMachine", "metadata": {"name": "a"}}),
        Apply({"kind": "VirtualMachine", "metadata": {"name": "a", "namespace": "shop"}}),
        Delete(ObjectId("VirtualMachine", "other", "a")),
        Patch({"kind": "Service", "namespace": "another", "name": "a", "patch": {}}),
    ]
    case = Case("id", ("IPv4",), None, None, (Stage(tuple(edits), {}),))
    assert namespaces_of(case) == ["default", "shop"]


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        pytest.param(Setting(), "single-stack", id="the published CRDs, one family"),
        pytest.param(Setting(("IPv4", "IPv6")), "dual-stack", id="two families"),
        pytest.param(Setting(crd="relaxed"), "relaxed", id="a variant of the CRDs"),
        pytest.param(Setting(crd="v1alpha1-storage"), "v1alpha1-storage", id="another"),
        pytest.param(Setting(load_balancer_provider="x"), "single-stack", id="the program's flag"),
    ],
)
def test_a_setting_shares_the_cluster_that_other_tests_have(setting: Setting, name: str) -> None:
    assert flavour(setting) == FLAVOURS[name]


def test_settings_may_be_combined() -> None:
    both = flavour(Setting(("IPv6", "IPv4"), "relaxed"))
    assert both.crds == FLAVOURS["relaxed"].crds
    assert both.service_ranges == FLAVOURS["dual-stack"].service_ranges[::-1]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        pytest.param(Setting(crd="lax"), "crd: lax is not known", id="no such variant"),
        pytest.param(Setting(("IPv5",)), "cluster.ipFamilies: IPv5", id="no such family"),
    ],
)
def test_a_setting_that_no_cluster_has_is_an_error(setting: Setting, says: str) -> None:
    with pytest.raises(CaseError, match=says):
        flavour(setting)
