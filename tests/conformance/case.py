"""Conformance cases as values: objects, edits, and what must follow. Format: README.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

Manifest = Mapping[str, Any]
Expect = Mapping[str, Sequence[Mapping[str, Any]]]

VM, VM_SERVICE = "VirtualMachine", "VirtualMachineService"

# When a deleted object was deleted. Nothing looks at the moment itself.
DELETION_TIMESTAMP = "2026-01-01T00:00:00Z"

_OBJECT_KEYS = frozenset(
    {"name", "namespace", "spec", "status", "labels", "annotations"}
    | {"ownerReferences", "finalizers", "unset"}
)
_ENTRY_KEYS = {
    "service": _OBJECT_KEYS,
    "endpoints": _OBJECT_KEYS | {"subsets"},
    "absent": frozenset({"apiVersion", "kind", "namespace", "name"}),
    "rejected": frozenset({"name", "namespace", "kind", "by", "field", "optional"}),
}
_STEP_KEYS = frozenset({"why", "note", "apply", "patch", "delete", "expect"})


class CaseError(Exception):
    """A file that is no case. The message names the file and what is wrong."""


class ObjectId(NamedTuple):
    """Which object of which kind."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Apply:
    """The object is created, or becomes like this."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Delete:
    """The object is deleted."""

    id: ObjectId


@dataclass(frozen=True, slots=True)
class Patch:
    """A JSON merge patch, as the case has it."""

    patch: Mapping[str, Any]


Edit = Apply | Delete | Patch


@dataclass(frozen=True, slots=True)
class Stage:
    """Edits, and what must hold once they are done."""

    edits: tuple[Edit, ...]
    expect: Expect


@dataclass(frozen=True, slots=True)
class Case:
    """One case. `id` is its file's name; the stages come one after the other."""

    id: str
    ip_families: tuple[str, ...]
    load_balancer_provider: str | None
    crd: str | None
    stages: tuple[Stage, ...]


def load_all(directory: Path) -> tuple[Case, ...]:
    """The cases of a directory, sorted by file name. Raises CaseError; also if there is none."""
    paths = sorted(directory.glob("*.yaml"))
    if not paths:
        raise CaseError(f"{directory} holds no case (*.yaml)")
    return tuple(load(path) for path in paths)


def load(path: Path) -> Case:
    """The case in a file. Raises CaseError."""
    try:
        untyped = yaml.safe_load(path.read_bytes())
        return _case(path.stem, untyped)
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise CaseError(f"{path}: {type(error).__name__}: {error}") from error
    except CaseError as error:
        raise CaseError(f"{path}: {error}") from error


def _case(id_: str, untyped: Mapping[str, Any]) -> Case:
    config = untyped.get("config") or {}
    _only("config", config, frozenset({"loadBalancerProvider"}))
    return Case(
        id=id_,
        ip_families=tuple((untyped.get("cluster") or {}).get("ipFamilies") or ("IPv4",)),
        load_balancer_provider=config.get("loadBalancerProvider"),
        crd=untyped.get("crd"),
        stages=tuple(_stages(untyped)),
    )


def _stages(untyped: Mapping[str, Any]) -> Iterator[Stage]:
    """Edits that nothing is expected of on their own still make a stage: they are seen apart."""
    stage = Stage(tuple(Apply(manifest) for manifest in untyped["objects"]), {})
    steps = [_step(index, step) for index, step in enumerate(untyped.get("steps") or ())]
    for following in [*steps, Stage((), _expect("expect", untyped.get("expect")))]:
        if following.edits or stage.expect:
            yield stage
            stage = following
        else:
            stage = Stage(stage.edits, following.expect)
    yield stage


def _step(index: int, untyped: Mapping[str, Any]) -> Stage:
    where = f"steps[{index}]"
    _only(where, untyped, _STEP_KEYS)
    edits: list[Edit] = [Apply(manifest) for manifest in untyped.get("apply") or ()]
    edits += [Patch(patch) for patch in untyped.get("patch") or ()]
    edits += [Delete(named(entry, entry["kind"])) for entry in untyped.get("delete") or ()]
    return Stage(tuple(edits), _expect(f"{where}.expect", untyped.get("expect")))


def _expect(where: str, untyped: Mapping[str, Any] | None) -> Expect:
    # A misspelt key would be an expectation that always holds.
    for section, entries in (untyped or {}).items():
        for index, entry in enumerate(entries):
            _only(f"{where}.{section}[{index}]", entry, _ENTRY_KEYS.get(section, frozenset(entry)))
    return untyped or {}


def _only(where: str, mapping: Mapping[str, Any], known: frozenset[str]) -> None:
    if unknown := sorted(set(mapping) - known):
        raise CaseError(f"{where} has unknown keys: {', '.join(unknown)}")


def named(entry: Mapping[str, Any], kind: str) -> ObjectId:
    """The object that an entry of `expect`, `patch` or `delete` names."""
    return ObjectId(kind, entry.get("namespace") or "default", entry["name"])


def id_of(manifest: Manifest) -> ObjectId:
    """Which object a manifest is."""
    return named(manifest["metadata"], manifest["kind"])


def why_api_server(case: Case) -> str | None:
    """Why a case cannot run through files; None if it can."""
    edits = [edit for stage in case.stages for edit in stage.edits]
    kinds = {edit.manifest["kind"] for edit in edits if isinstance(edit, Apply)}
    sections = {section for stage in case.stages for section in stage.expect}
    refused_by = {e["by"] for stage in case.stages for e in stage.expect.get("rejected", ())}
    reasons = [f"has a {kind}" for kind in sorted(kinds - {VM, VM_SERVICE})]
    if any(isinstance(edit, Patch) for edit in edits):
        reasons.append("patches")
    reasons += [f"expects {section}" for section in sorted(sections - set(_ENTRY_KEYS))]
    reasons += [f"expects rejection by {who}" for who in sorted(refused_by - {"validation"})]
    return ", ".join(reasons) or None


def applied(stored: Manifest | None, new: Manifest) -> Manifest:
    """What is stored once `new` is applied: what an apply does not replace is kept."""
    if stored is None:
        return new
    kept_meta = {
        key: value
        for key, value in stored["metadata"].items()
        if key in ("uid", "finalizers", "deletionTimestamp")
    }
    new_meta = {k: v for k, v in new["metadata"].items() if k != "finalizers"}
    kept = {"status": stored["status"]} if new["kind"] != VM and "status" in stored else {}
    return {**new, **kept, "metadata": {**new_meta, **kept_meta}}


def deleted(stored: Manifest) -> Manifest | None:
    """What is stored once the object is deleted: None if nothing holds it."""
    if not stored["metadata"].get("finalizers"):
        return None
    return {
        **stored,
        "metadata": {**stored["metadata"], "deletionTimestamp": DELETION_TIMESTAMP},
    }
