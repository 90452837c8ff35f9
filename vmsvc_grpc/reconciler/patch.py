"""JSON merge patches (RFC 7386) of the objects that we write. Pure."""

from __future__ import annotations

from vmsvc_grpc.reconciler.fields import Untyped, fields_of, put
from vmsvc_grpc.reconciler.held import Held

PatchPath = tuple[str, ...]
"""Where a field stands in JSON: the names that lead to it."""


def merge_patch(before: Held, after: Held) -> Untyped:
    """The patch that turns `before` into `after`: the fields that differ, and no others.

    Other fields of the stored object stay. Lists are replaced whole; a field only in `before`
    becomes null. Only fields that differ are rendered: O(what differs), beside the comparison.
    """
    patch: Untyped = {}
    for field in fields_of(after):
        if field.part(before) == field.part(after):
            continue
        was, wanted = field.rendered(before), field.rendered(after)
        if was != wanted:
            both = isinstance(was, dict) and isinstance(wanted, dict)
            put(patch, field.path, _merged(was, wanted) if both else wanted)
    return patch


def _merged(before: Untyped, after: Untyped) -> Untyped:
    """The patch of one mapping: null for each key that goes, and all new or changed values."""
    gone = {key: None for key in before if key not in after}
    return {**gone, **{k: v for k, v in after.items() if k not in before or before[k] != v}}
