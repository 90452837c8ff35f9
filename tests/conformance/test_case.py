"""Cases are read whole, and an unknown word in one is an error, not a thing to pass over."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conformance.case import (
    Apply,
    Case,
    CaseError,
    Delete,
    ObjectId,
    Patch,
    Setting,
    Stage,
    applied,
    deleted,
    load,
    load_all,
    why_api_server,
)

VM: dict[str, Any] = {
    "kind": "VirtualMachine",
    "metadata": {"name": "web-1", "namespace": "shop", "uid": "u-1"},
    "status": {"network": {"primaryIP4": "10.20.0.11"}},
}
SERVICE: dict[str, Any] = {
    "kind": "VirtualMachineService",
    "metadata": {"name": "web", "namespace": "shop", "uid": "u-web"},
}
CHANGED = {**VM, "status": {}}
DELETE_VM = {"apiVersion": "v9", "kind": "VirtualMachine", "namespace": "shop", "name": "web-1"}
EXISTS = {"service": [{"name": "web", "namespace": "shop"}]}
GONE = {"absent": [{"kind": "Service", "name": "web", "namespace": "shop"}]}


def case(tmp_path: Path, **untyped: Any) -> Case:
    path = tmp_path / "01-case.yaml"
    path.write_text(yaml.safe_dump({"name": "case", "objects": [VM, SERVICE], **untyped}))
    return load(path)


def test_objects_without_steps_are_one_stage_with_the_final_expectation(tmp_path: Path) -> None:
    assert case(tmp_path, expect=EXISTS).stages == (Stage((Apply(VM), Apply(SERVICE)), EXISTS),)


def test_a_first_step_that_only_expects_belongs_to_the_objects(tmp_path: Path) -> None:
    steps = [{"expect": EXISTS}, {"apply": [CHANGED], "delete": [DELETE_VM]}]
    assert case(tmp_path, steps=steps, expect=GONE).stages == (
        Stage((Apply(VM), Apply(SERVICE)), EXISTS),
        Stage((Apply(CHANGED), Delete(ObjectId("VirtualMachine", "shop", "web-1"), "v9")), GONE),
    )


def test_a_last_step_that_expects_is_a_stage_before_the_final_expectation(tmp_path: Path) -> None:
    steps = [{"apply": [CHANGED], "expect": EXISTS}]
    assert case(tmp_path, steps=steps, expect=GONE).stages == (
        Stage((Apply(VM), Apply(SERVICE)), {}),
        Stage((Apply(CHANGED),), EXISTS),
        Stage((), GONE),
    )


def test_settings_have_defaults(tmp_path: Path) -> None:
    plain = case(tmp_path)
    assert (plain.ip_families, plain.load_balancer_provider, plain.crd) == (("IPv4",), None, None)
    assert plain.setting == Setting(("IPv4",), "", "")
    set_ = case(
        tmp_path,
        cluster={"ipFamilies": ["IPv6", "IPv4"]},
        config={"loadBalancerProvider": "nsx-t-lb"},
        crd="relaxed",
    )
    assert (set_.ip_families, set_.load_balancer_provider, set_.crd) == (
        ("IPv6", "IPv4"),
        "nsx-t-lb",
        "relaxed",
    )
    assert str(set_.setting) == "IPv6+IPv4, relaxed, nsx-t-lb"


def test_cases_that_need_the_same_around_them_have_one_setting(tmp_path: Path) -> None:
    assert case(tmp_path, crd="relaxed").setting == case(tmp_path, crd="relaxed").setting
    different: list[dict[str, Any]] = [
        {},
        {"crd": "relaxed"},
        {"cluster": {"ipFamilies": ["IPv6"]}},
        {"config": {"loadBalancerProvider": "nsx-t-lb"}},
    ]
    assert len({case(tmp_path, **untyped).setting for untyped in different}) == 4


def test_a_patch_names_its_object(tmp_path: Path) -> None:
    entry = {"kind": "Service", "name": "web", "subresource": "status", "patch": {"a": None}}
    edit = case(tmp_path, steps=[{"patch": [entry]}]).stages[1].edits[0]
    assert edit == Patch(entry)
    assert isinstance(edit, Patch)
    assert edit.id == ObjectId("Service", "default", "web")


def test_of_an_event_that_must_not_occur_the_reason_is_enough(tmp_path: Path) -> None:
    expect = {"no_events": ["Failed", {"reason": "Broken", "note": "for people"}]}
    assert case(tmp_path, expect=expect).stages[0].expect == {
        "no_events": [{"reason": "Failed"}, {"reason": "Broken", "note": "for people"}]
    }


@pytest.mark.parametrize(
    ("untyped", "says"),
    [
        pytest.param(
            {"expect": {"service": [{"name": "web", "specs": {}}]}},
            "expect.service[0] has unknown keys: specs",
            id="a misspelt key of an expectation",
        ),
        pytest.param(
            {"steps": [{"aply": [VM]}]},
            "steps[0] has unknown keys: aply",
            id="a misspelt action of a step",
        ),
        pytest.param(
            {"steps": [{"expect": {"endpoints": [{"name": "web", "subset": []}]}}]},
            "steps[0].expect.endpoints[0] has unknown keys: subset",
            id="a misspelt key of a step's expectation",
        ),
        pytest.param(
            {"config": {"provider": "x"}},
            "config has unknown keys: provider",
            id="an unknown setting",
        ),
        pytest.param({"objects": None}, "TypeError", id="no objects"),
        pytest.param(
            {"expect": {"services": [{"name": "web"}]}},
            "expect has unknown keys: services",
            id="a misspelt section",
        ),
        pytest.param(
            {"steps": [{"patch": [{"kind": "Service", "name": "web", "path": {}}]}]},
            "steps[0].patch[0] has unknown keys: path",
            id="a misspelt key of a patch",
        ),
        pytest.param(
            {"expect": {"rejected": [{"name": "web"}]}},
            "expect.rejected[0] has no by, field",
            id="a rejection by nobody",
        ),
        pytest.param(
            {"expect": {"unchanged": [{"name": "web"}]}},
            "expect.unchanged[0] has no kind",
            id="what is unchanged has no kind",
        ),
    ],
)
def test_what_is_no_case_is_an_error_that_names_the_place(
    tmp_path: Path, untyped: dict[str, Any], says: str
) -> None:
    with pytest.raises(CaseError) as raised:
        case(tmp_path, **untyped)
    assert says in str(raised.value)
    assert "01-case.yaml" in str(raised.value)


def test_a_directory_without_cases_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="holds no case"):
        load_all(tmp_path)


def test_cases_come_sorted_by_file_name(tmp_path: Path) -> None:
    for name in ("10-b.yaml", "02-a.yaml"):
        (tmp_path / name).write_text(yaml.safe_dump({"objects": [VM]}))
    assert [case.id for case in load_all(tmp_path)] == ["02-a", "10-b"]


@pytest.mark.parametrize(
    ("untyped", "reason"),
    [
        pytest.param({"expect": {**EXISTS, **GONE}}, None, id="service and absent do not"),
        pytest.param(
            {"expect": {"rejected": [{"name": "web", "by": "validation", "field": "spec.type"}]}},
            None,
            id="rejection by validation does not",
        ),
        pytest.param({"steps": [{"delete": [DELETE_VM]}]}, None, id="deletion does not"),
        pytest.param(
            {"expect": {"events": [{"type": "Normal"}], "vmservice": [{"name": "web"}]}},
            "expects events, expects vmservice",
            id="events and the status of a VMService do",
        ),
        pytest.param(
            {"steps": [{"expect": {"unchanged": [{"kind": "Service", "name": "web"}]}}]},
            "expects unchanged",
            id="what a step in the middle expects counts",
        ),
        pytest.param(
            {"expect": {"rejected": [{"name": "web", "by": "crd", "field": "spec.type"}]}},
            "expects rejection by crd",
            id="rejection by the API server does",
        ),
        pytest.param(
            {"objects": [{"kind": "Service", "metadata": {"name": "web"}}]},
            "has a Service",
            id="a Service among the objects does",
        ),
        pytest.param(
            {"steps": [{"apply": [{"kind": "Endpoints", "metadata": {"name": "web"}}]}]},
            "has a Endpoints",
            id="an Endpoints that a step applies does",
        ),
        pytest.param(
            {"steps": [{"patch": [{"kind": "VirtualMachine", "name": "web-1", "patch": {}}]}]},
            "patches",
            id="a patch does, of whatever",
        ),
    ],
)
def test_what_needs_an_api_server(
    tmp_path: Path, untyped: dict[str, Any], reason: str | None
) -> None:
    assert why_api_server(case(tmp_path, **untyped)) == reason


def test_an_apply_replaces_a_vm_but_for_its_identity_and_finalizers() -> None:
    held = {**VM, "metadata": {**VM["metadata"], "labels": {"a": "b"}, "finalizers": ["x/y"]}}
    new = {**CHANGED, "metadata": {"name": "web-1", "namespace": "shop", "finalizers": ["new"]}}
    assert applied(held, new) == {
        **CHANGED,
        "metadata": {"name": "web-1", "namespace": "shop", "uid": "u-1", "finalizers": ["x/y"]},
    }


def test_an_apply_keeps_the_status_of_a_service() -> None:
    held = {**SERVICE, "status": {"loadBalancer": {}}}
    assert applied(held, {**SERVICE, "spec": {}}) == {**held, "spec": {}}


def test_an_apply_of_what_does_not_exist_creates_it() -> None:
    assert applied(None, VM) == VM


def test_a_deleted_object_is_gone_unless_a_finalizer_holds_it() -> None:
    assert deleted(VM) is None
    held = {**VM, "metadata": {**VM["metadata"], "finalizers": ["x/y"]}}
    terminating = deleted(held)
    assert terminating is not None
    assert terminating["metadata"]["deletionTimestamp"]
    assert terminating["status"] == VM["status"]
