"""What a log line is about, in fields beside its text.

A line says everything in words. What a program searches for has fields too, in JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from vmsvc_grpc.model.objects import Key, Kind

Value: TypeAlias = str | int | Sequence[str] | Mapping[str, str]

ABOUT = "about"
"""The attribute of a record that holds its fields."""

SHOWN = "shown"
"""The attribute of a record that text shows as it is, without time and level."""

BOUNDED = "bounded"
"""The attribute of a record whose number is bounded already where it is logged."""


def about(
    kind: Kind | str = "",
    key: Key | None = None,
    *,
    reason: str = "",
    error: object = None,
    **others: Value,
) -> dict[str, Any]:
    """The `extra` of a log call: an object of Kubernetes, why the line is logged, and an error.

    `reason` is one word in CamelCase, as those of conditions and Events: it stays the same where
    the text of the line changes.
    """
    fields: dict[str, Value] = {}
    if key is not None:
        name = kind.value if isinstance(kind, Kind) else kind
        fields["object"] = {"kind": name, "namespace": key.namespace, "name": key.name}
    if reason:
        fields["reason"] = reason
    if error is not None:
        fields["error"] = str(error)
    return {ABOUT: {**fields, **others}}


def shown(text: str, **fields: Value) -> dict[str, Any]:
    """The `extra` of a line for a person at a terminal: in text, `text` stands for the line."""
    return {SHOWN: text, ABOUT: fields}
