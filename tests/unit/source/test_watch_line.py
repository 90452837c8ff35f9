"""A line of a watch says the same however it is read, and is scanned once."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from vmsvc_grpc.model.from_wire import ParseError
from vmsvc_grpc.model.objects import GROUP, Kind
from vmsvc_grpc.source.watch_line import Changed, Line, _read_by_parts, line_reader

OWNER = {
    "apiVersion": f"{GROUP}/v1alpha6",
    "kind": "VirtualMachineService",
    "name": "web",
    "uid": "u",
    "controller": True,
}
META = {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7"}
SUBSETS = [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]
VM = {
    "apiVersion": f"{GROUP}/v1alpha6",
    "metadata": {**META, "labels": {"app": "web"}, "managedFields": [{"manager": "m"}]},
    "status": {"network": {"primaryIP4": "10.0.0.1"}},
}
VM_SERVICE = {"apiVersion": f"{GROUP}/v1alpha6", "metadata": META, "spec": {"ports": [{"port": 8}]}}
OBJECTS: dict[Kind, list[Any]] = {
    Kind.VIRTUAL_MACHINE: [VM, {**VM, "apiVersion": "x/v1"}, {**VM, "status": 7}],
    Kind.VIRTUAL_MACHINE_SERVICE: [VM_SERVICE, {**VM_SERVICE, "spec": "?"}],
    Kind.SERVICE: [{"metadata": META, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}}],
    Kind.ENDPOINTS: [
        {"metadata": META, "subsets": SUBSETS},
        {"metadata": {**META, "ownerReferences": [OWNER]}, "subsets": SUBSETS},
        {"metadata": {**META, "ownerReferences": [OWNER]}, "subsets": None},
        {"metadata": {**META, "ownerReferences": [OWNER]}},
        {"metadata": {**META, "ownerReferences": [OWNER]}, "subsets": [None, *SUBSETS]},
        {"metadata": {**META, "ownerReferences": [OWNER]}, "subsets": "?"},
    ],
    Kind.ENDPOINT_SLICE: [{"metadata": META, "addressType": "IPv4"}],
}
WHOLE = [(kind, objects) for kind, all_objects in OBJECTS.items() for objects in all_objects]


def damaged(value: Any, place: st.DataObject) -> Any:
    """The same with something in it that is something else."""
    if not isinstance(value, dict) or not value or place.draw(st.integers(0, 3)) == 0:
        return place.draw(st.sampled_from([None, 7, 7.0, "", "x", [], {}, [None], {"a": None}]))
    key = place.draw(st.sampled_from(sorted(value)))
    return {**value, key: damaged(value[key], place)}


def said(line: Line | Exception) -> Any:
    match line:
        case Changed(resource_version, ParseError() as error):
            return resource_version, error.kind, error.key, error.problem
        case Exception():
            return str(line)
    return line


def read(kind: Kind, raw: bytes, *, by_parts: bool) -> Any:
    try:
        return said(_read_by_parts(kind, raw) if by_parts else line_reader(kind)(raw))
    except msgspec.DecodeError as error:
        return said(error)


@given(
    st.sampled_from(WHOLE),
    st.sampled_from(["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR", "?"]),
    st.booleans(),
    st.data(),
)
def test_a_line_says_the_same_at_one_look_and_by_parts(
    whole: tuple[Kind, Any], type_: str, damage: bool, data: st.DataObject
) -> None:
    kind, object_ = whole
    line = {"type": type_, "object": object_}
    raw = json.dumps(damaged(line, data) if damage else line).encode()
    assert read(kind, raw, by_parts=False) == read(kind, raw, by_parts=True)


@contextmanager
def scans() -> Iterator[list[int]]:
    """How often bytes are decoded meanwhile."""
    counted = [0]

    def count(_frame: object, event: str, called: Any) -> None:
        decodes = event == "c_call" and isinstance(
            getattr(called, "__self__", None), msgspec.json.Decoder
        )
        counted[0] += decodes

    sys.setprofile(count)
    try:
        yield counted
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("type_", ["ADDED", "MODIFIED", "DELETED", "BOOKMARK"])
@pytest.mark.parametrize("kind", Kind)
def test_a_line_is_scanned_once(kind: Kind, type_: str) -> None:
    raw = json.dumps({"type": type_, "object": OBJECTS[kind][0]}).encode()
    read_line = line_reader(kind)
    with scans() as counted:
        read_line(raw)
    assert counted == [1]
