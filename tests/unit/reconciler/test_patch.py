"""A merge patch leads from one state to the other, and says no more than that."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmsvc_grpc.reconciler.patch import merge_patch


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2, word for word."""
    if not isinstance(patch, dict):
        return patch
    if not isinstance(target, dict):
        target = {}
    result = dict(target)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


KEYS = st.sampled_from("abcd")
MAPPINGS = st.recursive(
    st.integers(0, 2) | st.booleans() | st.text(max_size=1) | st.lists(st.integers(0, 2)),
    lambda inner: st.dictionaries(KEYS, inner),
    max_leaves=12,
)
OBJECTS = st.dictionaries(KEYS, MAPPINGS)


@given(OBJECTS, OBJECTS)
def test_what_is_patched_is_what_was_wanted(before: Any, after: Any) -> None:
    assert merged(before, merge_patch(before, after)) == after
    assert merge_patch(after, after) == {}


@given(OBJECTS, OBJECTS, st.dictionaries(st.sampled_from("xyz"), MAPPINGS))
def test_what_is_not_known_of_stays(before: Any, after: Any, unknown: Any) -> None:
    assert merged({**before, **unknown}, merge_patch(before, after)) == {**after, **unknown}


@pytest.mark.parametrize(
    ("before", "after", "patch"),
    [
        pytest.param({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, {"a": {"c": 3}}, id="one"),
        pytest.param({"a": {"b": 1}}, {"a": {}}, {"a": {"b": None}}, id="removed"),
        pytest.param({"a": [1, 2]}, {"a": [2, 1]}, {"a": [2, 1]}, id="a list, whole"),
        pytest.param({"a": 1}, {"a": {"b": 1}}, {"a": {"b": 1}}, id="another type"),
    ],
)
def test_patches(before: Any, after: Any, patch: Any) -> None:
    assert merge_patch(before, after) == patch
