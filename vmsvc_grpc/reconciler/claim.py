"""Whether a file of the output directory is ours, by its content. Pure.

An editor may have removed our first line from a file of ours; then its content decides. Others may
have put anything there, so it is read as a stream of libyaml's events: that needs no recursion,
expands no alias, and can be done in steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from vmsvc_grpc.model.objects import OwnerReference
from vmsvc_grpc.model.ownership import HELD_FOR, is_vmservice

OUR_LINE = b"# Held by vmsvc-grpc"
"""What each file that we write begins with."""

BYTES_MAX = 4 * 1024 * 1024
"""A larger file without our line is not ours: it would hold 15,000 endpoints."""

_STEP_EVENTS = 500  # About a millisecond of work.
_DEPTH_MAX = 100


def claims(text: str) -> Iterator[bool | None]:
    """For each object in a text, whether an owner or our mark says that it is a VMService's.

    Yields None after each millisecond of work or so, for a break. Raises ValueError or
    yaml.YAMLError if the text is not YAML, or not objects.
    """
    scan = _Scan(text)
    for count, event in enumerate(yaml.parse(text, Loader=yaml.CSafeLoader), 1):
        match event:
            case yaml.DocumentStartEvent():
                scan = _Scan(text)
            case yaml.DocumentEndEvent() if not scan.empty:
                yield _is_claimed(scan.metadata)
            case yaml.NodeEvent() | yaml.CollectionEndEvent():
                scan.take(event)
        if count % _STEP_EVENTS == 0:
            yield None


class _Scan:
    """Finds the text of `metadata` in one document."""

    def __init__(self, text: str) -> None:
        self.empty = True
        self.metadata = ""
        self._text = text
        self._depth = 0
        self._key: str | None = None
        self._begun = 0

    def take(self, event: yaml.Event) -> None:
        """Take in the next event. Raises ValueError if the document is no mapping, or too deep."""
        begins = isinstance(event, yaml.CollectionStartEvent)
        if self._depth == 0:
            # An empty document is a scalar without text.
            if isinstance(event, yaml.ScalarEvent) and not event.value:
                return
            if not isinstance(event, yaml.MappingStartEvent):
                raise ValueError("it is no mapping")
            self.empty = False
        elif self._depth == 1 and isinstance(event, yaml.NodeEvent) and self._key is None:
            self._key = event.value if isinstance(event, yaml.ScalarEvent) else ""
            self._begun = _index(event.start_mark)
            if begins:
                raise ValueError("a mapping or list is no key")
            return
        self._depth += begins - isinstance(event, yaml.CollectionEndEvent)
        if self._depth > _DEPTH_MAX:
            raise ValueError("it is too deep")
        if self._depth == 1 and self._key is not None:
            if self._key == "metadata":
                self.metadata = self._text[self._begun : _index(event.end_mark)]
            self._key = None


def _index(mark: Any) -> int:
    assert mark is not None, "libyaml marks every event"
    return int(mark.index)


def _is_claimed(metadata_text: str) -> bool:
    # This loader reads every scalar as text, and merges nothing.
    document = yaml.load(metadata_text, Loader=yaml.CBaseLoader)  # noqa: S506 - it makes texts only
    metadata = document.get("metadata") if isinstance(document, dict) else None
    if not isinstance(metadata, dict):
        return False
    owners, annotations = metadata.get("ownerReferences"), metadata.get("annotations")
    if isinstance(annotations, dict) and annotations.get(HELD_FOR) == metadata.get("name"):
        return True
    return isinstance(owners, list) and any(
        isinstance(owner, dict) and is_vmservice(_owner_reference(owner)) for owner in owners
    )


def _owner_reference(owner: dict[Any, Any]) -> OwnerReference:
    text = {field: str(owner.get(field, "")) for field in ("apiVersion", "kind", "name", "uid")}
    return OwnerReference(text["apiVersion"], text["kind"], text["name"], text["uid"])
