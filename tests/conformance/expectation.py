"""What a case expects, held against what is there. Pure; says each difference in a line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.conformance.case import VM_SERVICE, Expect, Manifest, ObjectId, id_of, named

# What an API server fills in, by the name of the VMService's field that would set it.
_FILLED_IN = {"ipFamilies": "ipFamilies", "ipFamilyPolicy": "ipFamilyPolicy"} | {
    "clusterIP": "clusterIp"
}
_PATH = re.compile(r"([^.\[\]]+)|\[([^\]]+)\]")
_OF_METADATA = ("labels", "annotations", "ownerReferences", "finalizers")
_ABSENT = object()

ACCEPTED = "VirtualMachineServiceAccepted"
"""The condition that says why a VMService is refused."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What is there: objects, and the reason given for each that is refused.

    The rest is an API server's: events.k8s.io/v1 Events; the fields that it named when it
    would not store an object; each object's resourceVersion before the last step.
    """

    objects: Mapping[ObjectId, Manifest]
    refusals: Mapping[ObjectId, str]
    events: Sequence[Manifest] = ()
    denied: Mapping[ObjectId, Sequence[str]] = field(default_factory=dict)
    before: Mapping[ObjectId, str] = field(default_factory=dict)


def without_filled_in(expect: Expect, manifests: Iterable[Manifest]) -> Expect:
    """The expectation without the Service fields that only an API server would fill in."""
    specs = {id_of(m)[1:]: m.get("spec") or {} for m in manifests if m["kind"] == VM_SERVICE}

    def compared(entry: Mapping[str, Any]) -> Mapping[str, Any]:
        spec = specs.get(named(entry, VM_SERVICE)[1:], {})
        # Files may write the field as the documentation does.
        given = {key for key, value in spec.items() if value is not None}
        set_fields = {"clusterIp" if key == "clusterIP" else key for key in given}
        filled_in = {of for of, field in _FILLED_IN.items() if field not in set_fields}
        expected = entry.get("spec") or {}
        return {**entry, "spec": {k: v for k, v in expected.items() if k not in filled_in}}

    return {
        section: [compared(entry) for entry in entries] if section == "service" else entries
        for section, entries in expect.items()
    }


def differences(expect: Expect, observed: Observed) -> list[str]:
    """Each way in which `observed` is not as expected; empty if there is none."""
    found: list[str] = []
    for section, entries in expect.items():
        for entry in entries:
            found += _COMPARED_BY[section](entry, observed)
    return found


def _service(entry: Mapping[str, Any], observed: Observed) -> Iterator[str]:
    yield from _object(named(entry, "Service"), entry, observed)


def _endpoints(entry: Mapping[str, Any], observed: Observed) -> Iterator[str]:
    id_ = named(entry, "Endpoints")
    yield from _object(id_, entry, observed)
    if "subsets" in entry and id_ in observed.objects:
        expected = _canonical(entry["subsets"])
        actual = _canonical(observed.objects[id_].get("subsets"))
        for subset in _without(expected, actual):
            yield f"{id_}: lacks the subset {subset}"
        for subset in _without(actual, expected):
            yield f"{id_}: has the subset {subset}, which is not expected"


def _absent(entry: Mapping[str, Any], observed: Observed) -> Iterator[str]:
    id_ = named(entry, entry["kind"])
    if id_ in observed.objects:
        yield f"{id_}: exists, and must not"


def _vmservice(entry: Mapping[str, Any], observed: Observed) -> Iterator[str]:
    yield from _object(named(entry, VM_SERVICE), entry, observed)


def _condition(entry: Mapping[str, Any], observed: Observed) -> Iterator[str]:
    id_ = named(entry, VM_SERVICE)
    held = _condition_of(observed.objects.get(id_) or {}, entry["type"])
    if held is None:
        yield f"{id_}: has no condition {entry['type']}"
        return
    for key in ("status", "reason", "message"):
        if key in entry and entry[key] != held.get(key, ""):
            yield (
                f"{id_}: the {key} of its condition {entry['type']} is {held.get(key, '')!r}, "
                f"and must be {entry[key]!r}"
            )


def _condition_of(manifest: Manifest, type_: str) -> Mapping[str, Any] | None:
    conditions = (manifest.get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c["type"] == type_), None)


def _event(entry: Mapping[str, Any], observed: Observed) -> Iterator[str]:
    if not any(_is_event(entry, event) for event in observed.events):
        yield f"no event is like {_text(entry)}; there are: {_told_of(observed.events)}"


def _no_event(entry: Mapping[str, Any], observed: Observed) -> Iterator[str]:
    for event in observed.events:
        if _is_event(entry, event):
            yield f"there is an event, and must not be: {_told_of([event])}"


def _is_event(entry: Mapping[str, Any], event: Manifest) -> bool:
    """Whether the event is one that the entry describes; it may name what it regards itself."""
    regarding = entry.get("regarding") or {
        key: entry[key] for key in ("kind", "namespace", "name") if key in entry
    }
    told = {"type": "type", "reason": "reason", "message": "note"}
    return all(entry[of] == event.get(key) for of, key in told.items() if of in entry) and not any(
        _lacking("regarding", regarding, event.get("regarding") or {})
    )


def _told_of(events: Iterable[Manifest]) -> str:
    keys = ("type", "reason", "note")
    return "; ".join(" ".join(str(event.get(key)) for key in keys) for event in events) or "none"


def _unchanged(entry: Mapping[str, Any], observed: Observed) -> Iterator[str]:
    id_ = named(entry, entry["kind"])
    if id_ not in observed.before:
        yield f"{id_}: did not exist before the last step, and must not be changed by it"
    elif id_ not in observed.objects:
        yield f"{id_}: does not exist, and must not be changed"
    else:
        before = observed.before[id_]
        after = observed.objects[id_]["metadata"]["resourceVersion"]
        if before != after:
            yield f"{id_}: was written: its resourceVersion was {before}, and is {after}"


def _rejected(entry: Mapping[str, Any], observed: Observed) -> Iterator[str]:
    kind, wanted = entry.get("kind") or VM_SERVICE, entry["field"]
    by_crd = entry["by"] == "crd"

    def meant(id_: ObjectId) -> bool:
        # An entry may leave the namespace out where the name says enough.
        namespace = entry.get("namespace") or id_.namespace
        return id_ == (kind, namespace, entry["name"])

    denied = {id_: fields for id_, fields in observed.denied.items() if meant(id_)}
    refusals = {id_: reason for id_, reason in observed.refusals.items() if meant(id_)}
    if not (denied if by_crd else refusals) and not entry.get("optional"):
        by = "the API server" if by_crd else "us"
        yield f"{kind} {entry['name']}: is not refused by {by}, and must be for {wanted}"
    for id_, fields in denied.items():
        if by_crd and wanted not in fields:
            yield f"{id_}: the API server names {', '.join(fields)}, and must name {wanted}"
    for id_, reason in refusals.items():
        if not by_crd and not reason.startswith(f"{wanted}: "):
            yield f"{id_}: is refused for {reason!r}, and must be for {wanted}"


def unsaid(observed: Observed) -> Iterator[str]:
    """Refusals that no Warning event and no condition of the VMService tells of.

    Both must name the same field as the refusal, at their beginning.
    """
    for id_, reason in observed.refusals.items():
        if id_ not in observed.objects:
            continue  # It has been deleted since.
        name = f"{reason.partition(': ')[0]}: "
        warning = {"type": "Warning", "regarding": {"kind": VM_SERVICE, **_place(id_)}}
        warnings = [event for event in observed.events if _is_event(warning, event)]
        if not any(str(event.get("note")).startswith(name) for event in warnings):
            yield f"{id_}: no Warning event begins with {name!r}; {_told_of(warnings)}"
        condition = _condition_of(observed.objects[id_], ACCEPTED) or {}
        if condition.get("status") != "False":
            yield f"{id_}: is refused, but its condition {ACCEPTED} is {condition or 'not there'}"
        elif not condition["message"].startswith(name):
            message = condition["message"]
            yield f"{id_}: its condition {ACCEPTED} says {message!r}, which must begin {name!r}"


def _place(id_: ObjectId) -> Mapping[str, str]:
    return {"namespace": id_.namespace, "name": id_.name}


_COMPARED_BY = {
    "service": _service,
    "endpoints": _endpoints,
    "vmservice": _vmservice,
    "conditions": _condition,
    "events": _event,
    "no_events": _no_event,
    "absent": _absent,
    "unchanged": _unchanged,
    "rejected": _rejected,
}


def _object(id_: ObjectId, entry: Mapping[str, Any], observed: Observed) -> Iterator[str]:
    """What services and endpoints have in common."""
    if id_ not in observed.objects:
        yield f"{id_}: does not exist"
        return
    manifest = observed.objects[id_]
    meta = manifest["metadata"]
    for key, holder in (("spec", manifest), ("status", manifest), *((k, meta) for k in _SUBSETS)):
        if key in entry:
            empty: Any = [] if key == "ownerReferences" else {}
            yield from _lacking(f"{id_}: {key}", entry[key], holder.get(key) or empty)
    if "finalizers" in entry and set(entry["finalizers"]) != set(meta.get("finalizers") or ()):
        yield f"{id_}: finalizers are {meta.get('finalizers')}, not {entry['finalizers']}"
    for path in entry.get("unset", ()):
        if (value := _at(manifest, path)) is not _ABSENT:
            yield f"{id_}: {path} is {value!r}, and must not be set"


_SUBSETS = ("labels", "annotations", "ownerReferences")


def _lacking(path: str, expected: Any, actual: Any) -> Iterator[str]:
    """Mappings hold at least what is expected; lists are exact in length and order."""
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        for key, value in expected.items():
            if key in actual:
                yield from _lacking(f"{path}.{key}", value, actual[key])
            else:
                yield f"{path}.{key} is not set, and must be {value!r}"
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for index, (wanted, found) in enumerate(zip(expected, actual, strict=True)):
            yield from _lacking(f"{path}[{index}]", wanted, found)
    elif expected != actual or type(expected) is not type(actual):
        yield f"{path} is {actual!r}, and must be {expected!r}"


def _at(manifest: Manifest, path: str) -> Any:
    """The value at a path like `spec.ports[0].nodePort` or `annotations[a.b/c]`, or _ABSENT."""
    value: Any = manifest["metadata"] if path.startswith(_OF_METADATA) else manifest
    for name, bracketed in _PATH.findall(path):
        key = name or bracketed
        if isinstance(value, list):
            value = value[int(key)] if int(key) < len(value) else _ABSENT
        else:
            value = value.get(key, _ABSENT) if isinstance(value, Mapping) else _ABSENT
        if value is None or value is _ABSENT:
            return _ABSENT
    return value


def _canonical(subsets: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """Subsets as texts that are equal if they mean the same, whatever their order."""
    return sorted(
        _text(
            {
                **subset,
                "addresses": sorted(_text(_address(a)) for a in subset.get("addresses") or ()),
                "notReadyAddresses": sorted(
                    _text(_address(a)) for a in subset.get("notReadyAddresses") or ()
                ),
                # A protocol that is not named is TCP.
                "ports": sorted(
                    _text({"protocol": "TCP", **port}) for port in subset.get("ports") or ()
                ),
            }
        )
        for subset in subsets or ()
    )


def _address(address: Mapping[str, Any]) -> Mapping[str, Any]:
    target = {k: v for k, v in (address.get("targetRef") or {}).items() if k != "apiVersion"}
    return {**address, "targetRef": target}


def _text(mapping: Mapping[str, Any]) -> str:
    """In Kubernetes' Endpoints, an empty text or object and none are the same."""
    return json.dumps({k: v for k, v in mapping.items() if v not in ("", None, {})}, sort_keys=True)


def _without(texts: Sequence[str], others: Sequence[str]) -> list[str]:
    left = list(others)
    lacking = []
    for text in texts:
        if text in left:
            left.remove(text)
        else:
            lacking.append(text)
    return lacking
