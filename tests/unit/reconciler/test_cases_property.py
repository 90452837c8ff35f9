"""Cases told in other words: order, names, versions and other objects do not matter.

Each case of `tests/conformance/cases` is changed in a way that must not change what follows from
it, and run as in `test_cases`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings

from tests.conformance.case import (
    VM,
    VM_SERVICE,
    Apply,
    Case,
    Delete,
    Edit,
    Manifest,
    Patch,
    Stage,
    id_of,
)
from tests.unit.reconciler.test_cases import each_case, run

EXAMPLES = 4
"""For each case and change; all of them take some 10 s."""

GROUP = "vmoperator.vmware.com"
VERSIONS = [f"v1alpha{n}" for n in range(1, 7)]


def with_edits(case: Case, changed: Callable[[Stage], tuple[Edit, ...]]) -> Case:
    return replace(case, stages=tuple(replace(s, edits=changed(s)) for s in case.stages))


def is_ours(edit: Edit) -> bool:
    """Whether the edit creates or replaces a VM or VMService."""
    return isinstance(edit, Apply) and edit.manifest["kind"] in (VM, VM_SERVICE)


@each_case
@given(data=st.data())
@settings(max_examples=EXAMPLES)
def test_the_order_in_which_objects_come_does_not_matter(case: Case, data: st.DataObject) -> None:
    objects, *steps = case.stages
    # Children that are there before, keep their places.
    order = iter(data.draw(st.permutations([edit for edit in objects.edits if is_ours(edit)])))
    edits = tuple(next(order) if is_ours(edit) else edit for edit in objects.edits)
    run(replace(case, stages=(replace(objects, edits=edits), *steps)))


def strangers(case: Case) -> list[Edit]:
    """Objects that have to do with none of the case, though they look like its own.

    Its VMs and VMServices in another namespace, and in its own namespaces VMs without labels,
    VMServices that nothing matches, and one that is refused.
    """
    found: dict[str, Manifest] = {}
    for manifest in manifests_of(case):
        if manifest["kind"] not in (VM, VM_SERVICE):
            continue
        meta = manifest["metadata"]
        meta = {**meta, "namespace": "elsewhere", "uid": f"{meta['uid']}-2"}
        found[f"elsewhere {id_of(manifest)}"] = {**manifest, "metadata": meta}
        namespace = id_of(manifest).namespace
        for name, spec in STRANGE_SPECS.items():
            found[f"{namespace}/{name}"] = {
                "apiVersion": f"{GROUP}/v1alpha6",
                "kind": VM_SERVICE,
                "metadata": {"name": name, "namespace": namespace, "uid": f"{namespace}-{name}"},
                "spec": spec,
            }
        found[f"{namespace} VM"] = {
            "apiVersion": f"{GROUP}/v1alpha6",
            "kind": VM,
            "metadata": {"name": "stranger", "namespace": namespace},
            "status": {"network": {"primaryIP4": "10.20.0.1", "primaryIP6": "2001:db8::1"}},
        }
    return [Apply(manifest) for manifest in found.values()]


STRANGE_SPECS: Mapping[str, Any] = {
    "stranger-unmatched": {"selector": {"stranger": "yes"}, "ports": [{"port": 80}]},
    "stranger-refused": {"type": "NodePort"},
}


def manifests_of(case: Case) -> Iterator[Manifest]:
    edits = (edit for stage in case.stages for edit in stage.edits)
    return (edit.manifest for edit in edits if isinstance(edit, Apply))


@each_case
@given(data=st.data())
@settings(max_examples=EXAMPLES)
def test_objects_in_between_do_not_matter(case: Case, data: st.DataObject) -> None:
    others = st.lists(st.sampled_from(strangers(case)), max_size=3)

    def amid(stage: Stage) -> tuple[Edit, ...]:
        return tuple(one for edit in stage.edits for one in (*data.draw(others), edit))

    run(with_edits(case, amid))


@each_case
def test_what_comes_twice_counts_once(case: Case) -> None:
    run(with_edits(case, lambda stage: tuple(e for e in stage.edits for e in again(e))))


def again(edit: Edit) -> tuple[Edit, ...]:
    return (edit, edit) if is_ours(edit) else (edit,)


@each_case
def test_names_do_not_matter(case: Case) -> None:
    run(renamed(case))


def renamed(case: Case) -> Case:
    """The case with other namespaces, names and uids; VMs sort the other way round by name."""
    vms = sorted({id_of(m).name for m in manifests_of(case) if m["kind"] == VM}, reverse=True)
    names = {name: f"v{rank:03}-{name}" for rank, name in enumerate(vms)}

    def of(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(of(one) for one in value)
        if not isinstance(value, Mapping):
            return value
        changed = {key: of(one) for key, one in value.items()}
        # Ports and the like have a name and no more of these.
        if "namespace" in value:
            changed["namespace"] = f"{value['namespace']}-2"
            changed["name"] = names.get(value["name"], value["name"])
        if "uid" in value:
            changed["uid"] = f"{value['uid']}-2"
        return changed

    def of_edit(edit: Edit) -> Edit:
        match edit:
            case Apply(manifest):
                return Apply(of(manifest))
            case Patch(patch):
                return Patch(of(patch))
            case Delete(id_, api_version):
                name = names.get(id_.name, id_.name)
                there = id_._replace(namespace=f"{id_.namespace}-2", name=name)
                return Delete(there, api_version)

    stages = (Stage(tuple(map(of_edit, stage.edits)), of(stage.expect)) for stage in case.stages)
    return replace(case, stages=tuple(stages))


@each_case
@given(data=st.data())
@settings(max_examples=EXAMPLES)
def test_the_version_of_a_manifest_does_not_matter(case: Case, data: st.DataObject) -> None:
    def translated(stage: Stage) -> tuple[Edit, ...]:
        return tuple(
            Apply(in_version(edit.manifest, data.draw(st.sampled_from(VERSIONS))))
            if isinstance(edit, Apply) and is_ours(edit)
            else edit
            for edit in stage.edits
        )

    run(with_edits(case, translated))


def in_version(manifest: Manifest, version: str) -> Manifest:
    """The object in another version; as it is where that version cannot say the same."""
    spec, status = manifest.get("spec") or {}, manifest.get("status") or {}
    there = {**manifest, "apiVersion": f"{GROUP}/{version}"}
    if manifest["kind"] == VM_SERVICE:
        return manifest if {"ipFamilies", "ipFamilyPolicy"} & spec.keys() else there
    old, new = manifest["apiVersion"].endswith("/v1alpha1"), version == "v1alpha1"
    if old is new:
        return there
    if old:
        address = status.get("vmIp")
        field = _field_of(address)
        newer = {**there, "status": {**status, "network": {field: address}}}
        return newer if field else there
    network = status.get("network") or {}
    field, address = next(iter(network.items()), ("", None))
    guest_info = "guestInfo" in (spec.get("readinessProbe") or {})
    if guest_info or len(network) > 1 or _field_of(address) != field:
        return manifest
    return {**there, "status": {**status, "vmIp": address}}


def _field_of(address: str | None) -> str:
    """Where the newer versions have an address; empty if it is none."""
    try:
        return f"primaryIP{ip_address(address or '').version}"
    except ValueError:
        return ""


@each_case
def test_absent_and_null_are_the_same(case: Case) -> None:
    def nulled(stage: Stage) -> tuple[Edit, ...]:
        return tuple(
            Apply(with_nulls(edit.manifest)) if isinstance(edit, Apply) and is_ours(edit) else edit
            for edit in stage.edits
        )

    run(with_edits(case, nulled))


NULLS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    VM: {"spec": ("readinessProbe",), "status": ("network", "conditions", "vmIp", "zone")},
    VM_SERVICE: {
        "spec": (
            *("clusterIp", "clusterIP", "loadBalancerIP", "loadBalancerSourceRanges"),
            *("selector", "ports", "type", "ipFamilies", "ipFamilyPolicy", "externalName"),
        ),
        "status": ("loadBalancer", "conditions"),
    },
}


def with_nulls(manifest: Manifest) -> Manifest:
    """The object with a null in place of each field that it lacks, and whole numbers as floats."""
    whole = json.loads(json.dumps(dict(manifest), default=str), parse_int=float)
    for part, fields in NULLS[manifest["kind"]].items():
        there = whole.get(part) or {}
        whole[part] = {**dict.fromkeys(fields), **there}
    meta = dict.fromkeys(["labels", "annotations", "finalizers"])
    whole["metadata"] = {**meta, **whole["metadata"]}
    return dict(whole)
