"""JSON merge patches (RFC 7386). Pure."""

from __future__ import annotations

from typing import Any

Untyped = dict[str, Any]


def merge_patch(before: Untyped, after: Untyped) -> Untyped:
    """What to send so that `before` becomes `after`: only what differs.

    Whatever else the object holds stays. Lists are replaced whole; what is in `before`
    alone is null. Neither may hold null itself.
    """
    patch: Untyped = {key: None for key in before if key not in after}
    for key, value in after.items():
        held = before.get(key)
        if isinstance(value, dict) and isinstance(held, dict):
            if inner := merge_patch(held, value):
                patch[key] = inner
        elif value != held:
            patch[key] = value
    return patch
