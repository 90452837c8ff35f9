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
_NAMED_KEYS = frozenset({"apiVersion", "kind", "namespace", "name"})
_EVENT_KEYS = _NAMED_KEYS | {"type", "reason", "message", "regarding"}
_ENTRY_KEYS = {
    "service": _OBJECT_KEYS,
    "endpoints": _OBJECT_KEYS | {"subsets"},
    "vmservice": _OBJECT_KEYS,
    "conditions": _NAMED_KEYS | {"type", "status", "reason", "message"},
    "events": _EVENT_KEYS,
    "no_events": _EVENT_KEYS,
    "absent": _NAMED_KEYS,
    "unchanged": _NAMED_KEYS,
    "rejected": _NAMED_KEYS | {"by", "field", "optional"},
}
_REQUIRED = {
    "conditions": ("name", "type"),
    "events": (),
    "no_events": (),
    "absent": ("kind", "name"),
    "unchanged": ("kind", "name"),
    "rejected": ("name", "by", "field"),
}
# For people, anywhere.
_REMARKS = frozenset({"why", "note"})
_THROUGH_FILES = frozenset({"service", "endpoints", "absent", "rejected"})
_STEP_KEYS = frozenset({"apply", "patch", "delete", "expect"})


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
    """The object is deleted. `api_version` is how the case names it; it may be empty."""

    id: ObjectId
    api_version: str = ""


@dataclass(frozen=True, slots=True)
class Patch:
    """A JSON merge patch, as the case has it: also of which object, or of its subresource."""

    patch: Mapping[str, Any]

    @property
    def id(self) -> ObjectId:
        """The object that it changes."""
        return named(self.patch, self.patch["kind"])


Edit = Apply | Delete | Patch


@dataclass(frozen=True, slots=True)
class Stage:
    """Edits, and what must hold once they are done."""

    edits: tuple[Edit, ...]
    expect: Expect


class Setting(NamedTuple):
    """What a case asks of the cluster that it runs on, and of the program's flags."""

    ip_families: tuple[str, ...] = ("IPv4",)
    crd: str = ""
    load_balancer_provider: str = ""

    def __str__(self) -> str:
        families = "+".join(self.ip_families)
        return ", ".join(filter(None, (families, self.crd, self.load_balancer_provider)))


@dataclass(frozen=True, slots=True)
class Case:
    """One case. `id` is its file's name; the stages come one after the other."""

    id: str
    ip_families: tuple[str, ...]
    load_balancer_provider: str | None
    crd: str | None
    stages: tuple[Stage, ...]

    @property
    def setting(self) -> Setting:
        """What it needs around it. Cases that need the same may run side by side."""
        return Setting(self.ip_families, self.crd or "", self.load_balancer_provider or "")


def load_all(directory: Path) -> tuple[Case, ...]:
    """The cases of a directory, sorted by file name. Raises CaseError; also if there is none."""
    return tuple(load(path) for path in paths_of(directory))


def paths_of(directory: Path) -> tuple[Path, ...]:
    """The files of the cases in a directory, sorted by name. Raises CaseError if there is none."""
    paths = tuple(sorted(directory.glob("*.yaml")))
    if not paths:
        raise CaseError(f"{directory} holds no case (*.yaml)")
    return paths


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
    for number, entry in enumerate(untyped.get("patch") or ()):
        _only(f"{where}.patch[{number}]", entry, _NAMED_KEYS | {"subresource", "patch"})
        edits.append(Patch(entry))
    edits += [
        Delete(named(entry, entry["kind"]), entry.get("apiVersion", ""))
        for entry in untyped.get("delete") or ()
    ]
    return Stage(tuple(edits), _expect(f"{where}.expect", untyped.get("expect")))


def _expect(where: str, untyped: Mapping[str, Any] | None) -> Expect:
    # A misspelt word would be an expectation that always holds.
    expect = untyped or {}
    _only(where, expect, frozenset(_ENTRY_KEYS))
    read = {
        # Of an event that must not occur, its reason alone may be given.
        section: [{"reason": e} if isinstance(e, str) else e for e in entries or ()]
        for section, entries in expect.items()
    }
    for section, entries in read.items():
        for index, entry in enumerate(entries):
            place = f"{where}.{section}[{index}]"
            _only(place, entry, _ENTRY_KEYS[section])
            if missing := [key for key in _REQUIRED.get(section, ("name",)) if key not in entry]:
                raise CaseError(f"{place} has no {', '.join(missing)}")
    return read


def _only(where: str, mapping: Mapping[str, Any], known: frozenset[str]) -> None:
    if unknown := sorted(set(mapping) - known - _REMARKS):
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
    reasons += [f"expects {section}" for section in sorted(sections - _THROUGH_FILES)]
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
