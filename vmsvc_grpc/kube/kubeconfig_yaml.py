"""The values of a kubeconfig's text, as kubectl reads them.

PyYAML's loaders read some scalars differently: `12:34:56` as a number, `2026-11-28` as a date. And
they read by recursion, so brackets within brackets end the process. So values are built from
libyaml's events here.
Manifests of strangers have a reader of their own, which bounds what they may cost.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import yaml

from vmsvc_grpc.model.yaml_scalars import (
    Scalar,
    TagError,
    is_merge_key,
    key_text,
    plain_scalar,
    tagged_scalar,
)

_LEVELS_MAX = 10_000
"""How many mappings and lists may be within each other, as for kubectl."""


class TooDeepError(ValueError):
    """More mappings and lists are within each other than kubectl reads."""


def first_document(text: str) -> Any:
    """The first document; kubectl reads no further. None if it is empty.

    Raises yaml.YAMLError, and TooDeepError.
    """
    building = _Building()
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.DocumentEndEvent):
            break
        if isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
            building.take(event)
    return building.root


class _Open(NamedTuple):
    """A mapping or list that has not ended."""

    value: dict[str, Any] | list[Any]
    anchor: str | None


class _Key(NamedTuple):
    """A key whose value comes next, and whether the value's own keys are merged instead."""

    text: str
    merges: bool


class _Building:
    """Builds one document from libyaml's events."""

    def __init__(self) -> None:
        self.root: Any = None
        self._open: list[_Open] = []
        # One for each open mapping or list: the key whose value comes next.
        self._keys: list[_Key | None] = []
        self._anchored: dict[str, Any] = {}

    def take(self, event: yaml.Event) -> None:
        """Take in the next event. Raises yaml.YAMLError, and TooDeepError."""
        if isinstance(event, yaml.CollectionEndEvent):
            self._keys.pop()
            ended = self._open.pop()
            self._put(ended.value, ended.anchor, event)
        elif self._expects_key:
            self._keys[-1] = self._key(event)
        elif isinstance(event, yaml.AliasEvent):
            self._put(self._meant(event), None, event)
        elif isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
            if isinstance(value, float) and not math.isfinite(value):
                raise _flaw("is a number that JSON has not", event)
            self._put(value, event.anchor, event)
        else:
            assert isinstance(event, yaml.CollectionStartEvent), "nothing else is a value"
            if len(self._open) == _LEVELS_MAX:
                raise TooDeepError
            empty: dict[str, Any] | list[Any] = (
                {} if isinstance(event, yaml.MappingStartEvent) else []
            )
            self._open.append(_Open(empty, event.anchor))
            self._keys.append(None)

    @property
    def _expects_key(self) -> bool:
        return (
            bool(self._open) and self._keys[-1] is None and isinstance(self._open[-1].value, dict)
        )

    def _meant(self, alias: yaml.AliasEvent) -> Any:
        """What an alias stands for."""
        if alias.anchor not in self._anchored:
            raise _flaw("stands for nothing that ends before it", alias)
        return self._anchored[alias.anchor]

    def _key(self, event: yaml.Event) -> _Key:
        value: Any
        match event:
            case yaml.ScalarEvent():
                value, written = _scalar(event), event.value
                merges = is_merge_key(written, event.tag, plain=event.implicit[0])
                if event.anchor is not None:
                    self._anchored[event.anchor] = value
            case yaml.AliasEvent():
                value, written, merges = self._meant(event), "", False
            case _:
                value, written, merges = None, "", False
        if value is None or isinstance(value, dict | list):
            raise _flaw("is no text, which a key is", event)
        return _Key(key_text(value, written), merges)

    def _put(self, value: Any, anchor: str | None, event: yaml.Event) -> None:
        """Put a whole value where it belongs; it ends with that event."""
        if anchor is not None:
            self._anchored[anchor] = value
        if not self._open:
            self.root = value
            return
        into, key = self._open[-1].value, self._keys[-1]
        if isinstance(into, list):
            into.append(value)
            return
        assert key is not None, "a mapping's value comes after its key"
        self._keys[-1] = None
        if not key.merges:
            into[key.text] = value
            return
        # An alias stands for a mapping: kubectl merges only lists that are written there.
        listed = isinstance(value, list) and not isinstance(event, yaml.AliasEvent)
        sources = value if listed else [value]
        if not all(isinstance(source, dict) for source in sources):
            raise _flaw("is no mapping, which '<<' merges", event)
        # Of several mappings with a key, the first counts.
        for source in reversed(sources):
            into.update(source)


def _scalar(event: yaml.ScalarEvent) -> Scalar:
    text: str = event.value
    if event.tag is None:
        return plain_scalar(text) if event.implicit[0] else text
    try:
        return tagged_scalar(event.tag, text)
    except TagError:
        raise _flaw("is not what its tag says", event) from None


def _flaw(message: str, event: yaml.Event) -> yaml.MarkedYAMLError:
    mark: Any = event.start_mark  # libyaml's, which has the same fields.
    return yaml.MarkedYAMLError(problem=message, problem_mark=mark)
