"""What a case expects, held against what is there. Pure; says each difference in a line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.conformance.case import VM_SERVICE, Expect, Manifest, ObjectId, id_of, named

# What an API server fills in, by the name of the VMService's field that would set it.
_FILLED_IN = {"ipFamilies": "ipFamilies", "ipFamilyPolicy": "ipFamilyPolicy"} | {
    "clusterIP": "clusterIp"
}
_PATH = re.compile(r"([^.\[\]]+)|\[([^\]]+)\]")
_OF_METADATA = ("labels", "annotations", "ownerReferences", "finalizers")
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Observed:
    """What is there: objects, and the reason given for each that is refused."""

    objects: Mapping[ObjectId, Manifest]
    refusals: Mapping[ObjectId, str]


def without_filled_in(expect: Expect, manifests: Iterable[Manifest]) -> Expect:
    """The expectation without the Service fields that only an API server would fill in."""
    specs = {id_of(m)[1:]: m.get("spec") or {} for m in manifests if m["kind"] == VM_SERVICE}

    def compared(entry: Mapping[str, Any]) -> Mapping[str, Any]:
        spec = specs.get(named(entry, VM_SERVICE)[1:], {})
        # Files may write the field as the documentation does.
        set_fields = {"clusterIp" if key == "clusterIP" else key for key in spec}
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


def _rejected(entry: Mapping[str, Any], observed: Observed) -> Iterator[str]:
    kind = entry.get("kind") or VM_SERVICE
    # An entry may leave the namespace out where the name says enough.
    refusals = {
        id_: reason
        for id_, reason in observed.refusals.items()
        if (id_.kind, id_.name) == (kind, entry["name"])
        and id_.namespace == (entry.get("namespace") or id_.namespace)
    }
    if not refusals and not entry.get("optional"):
        yield f"{kind} {entry['name']}: is not refused, and must be for {entry['field']}"
    for id_, reason in refusals.items():
        if not reason.startswith(f"{entry['field']}: "):
            yield f"{id_}: is refused for {reason!r}, and must be for {entry['field']}"


_COMPARED_BY = {
    "service": _service,
    "endpoints": _endpoints,
    "absent": _absent,
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
