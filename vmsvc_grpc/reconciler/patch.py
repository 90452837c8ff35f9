"""JSON merge patches (RFC 7386) of what is written. Pure."""

from __future__ import annotations

from vmsvc_grpc.reconciler.fields import Untyped, fields_of, put
from vmsvc_grpc.reconciler.held import Held

PatchPath = tuple[str, ...]
"""Where a field stands in JSON: the names that lead to it."""


def merge_patch(before: Held, after: Held) -> Untyped:
    """What to send so that `before` becomes `after`: the fields that differ, and no others.

    Whatever else the stored object holds stays. Lists are replaced whole; what is in
    `before` alone is null. Only fields that differ are rendered: O(what differs), but for
    the comparison.
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
    """The same for one mapping: a null for each key that goes, and what is new or other."""
    gone = {key: None for key in before if key not in after}
    return {**gone, **{k: v for k, v in after.items() if k not in before or before[k] != v}}
