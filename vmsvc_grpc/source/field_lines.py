"""The lines of a text on which the fields of its objects stand.

Reading needs no lines, and values have no place for them, so the text is read again to report a
problem. This works for all that libyaml reads as YAML, so for JSON too, apart from a few odd
escapes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import yaml

from vmsvc_grpc.model.yaml_scalars import is_merge_key, key_text, plain_scalar


class _Key(NamedTuple):
    """A key whose value comes next, its line, and whether YAML merges the value instead."""

    name: str
    line: int
    merges: bool


class Repeat(NamedTuple):
    """A key that occurs again in a mapping: its path, its line, and the line of the first one."""

    path: tuple[str | int, ...]
    line: int
    first_line: int


class FieldLines:
    """The line of a value, and of all values within it."""

    __slots__ = ("fields", "items", "line", "repeats")

    def __init__(self, line: int) -> None:
        self.line = line
        self.fields: dict[str, tuple[int, FieldLines]] = {}
        self.items: list[FieldLines] = []
        self.repeats: list[tuple[str, int, int]] = []

    def merge(self, value: FieldLines) -> None:
        """Take over the fields of a mapping, or of a list of them, of which the first counts.

        As to kubectl, they take the place of those that came before.
        """
        for source in reversed(value.items or [value]):
            self.fields.update(source.fields)

    def line_of(self, path: Sequence[str | int]) -> int:
        """The line of a field, by keys and indexes; for one that is missing, that of its parent."""
        at, line = self, self.line
        for step in path:
            if isinstance(step, int):
                if step >= len(at.items):
                    break
                at = at.items[step]
                line = at.line
            else:
                if step not in at.fields:
                    break
                line, at = at.fields[step]
        return line

    def below(self, path: Sequence[str | int]) -> FieldLines | None:
        """The lines of a value within this one; None if there is none."""
        at: FieldLines | None = self
        for step in path:
            if at is None:
                return None
            if isinstance(step, int):
                at = at.items[step] if step < len(at.items) else None
            else:
                at = at.fields.get(step, (0, None))[1]
        return at

    def all_repeats(self) -> Iterator[Repeat]:
        """The keys that occur twice, here and below."""
        ahead: list[tuple[tuple[str | int, ...], FieldLines]] = [((), self)]
        seen: set[int] = set()  # A value of several aliases is visited once.
        while ahead:
            path, at = ahead.pop()
            if id(at) in seen:
                continue
            seen.add(id(at))
            for key, line, first_line in at.repeats:
                yield Repeat((*path, key), line, first_line)
            ahead += (((*path, key), inner) for key, (_, inner) in at.fields.items())
            ahead += (((*path, index), inner) for index, inner in enumerate(at.items))


class Text:
    """The text of a file. Ask for its documents in their order."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._stream = io.StringIO(text)
        self._line, self._offset = 1, 0
        self._last: tuple[int, FieldLines | None] = (0, None)

    def document(self, first_line: int) -> FieldLines | None:
        """The lines of the document that begins in that line, from 1; None if it is no YAML.

        The value of an alias stands where its anchor does. O(document); the last one is kept, as it
        is asked for again for each item of a list.
        """
        if first_line != self._last[0]:
            self._last = (first_line, self._read(first_line))
        return self._last[1]

    def _read(self, first_line: int) -> FieldLines | None:
        if first_line < self._line:
            self._line, self._offset = 1, 0
        while self._line < first_line:
            self._offset = self._text.find("\n", self._offset) + 1
            self._line += 1
        self._stream.seek(self._offset)
        building = _Building(first_line)
        try:
            for event in yaml.parse(self._stream, Loader=yaml.CSafeLoader):
                if isinstance(event, yaml.DocumentEndEvent):
                    break
                if isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
                    building.take(event)
        except (yaml.YAMLError, ValueError):
            return None
        return building.root


class _Building:
    """Builds the lines of one document from libyaml's events."""

    def __init__(self, first_line: int) -> None:
        self.root: FieldLines | None = None
        self._first_line = first_line
        # The open mappings and lists; and of each mapping, the key whose value comes next, and the
        # lines of its own keys.
        self._open: list[FieldLines] = []
        self._keys: list[_Key | None] = []
        self._own: list[dict[str, int] | None] = []
        self._anchored: dict[str, FieldLines] = {}

    def take(self, event: yaml.Event) -> None:
        """Take in the next event. Raises ValueError for an alias of nothing, or an odd key."""
        if isinstance(event, yaml.CollectionEndEvent):
            self._keys.pop()
            self._own.pop()
            self._done(self._open.pop())
            return
        assert isinstance(event, yaml.NodeEvent), "nothing else begins"
        assert event.start_mark is not None, "libyaml marks every event"
        line = self._first_line + event.start_mark.line
        if self._open and self._own[-1] is not None and self._keys[-1] is None:
            if not isinstance(event, yaml.ScalarEvent):
                raise ValueError("no text is a key")
            merges = is_merge_key(event.value, event.tag, plain=event.implicit[0])
            plain = event.tag is None and event.implicit[0]
            name = key_text(plain_scalar(event.value), event.value) if plain else event.value
            self._keys[-1] = _Key(name, line, merges)
            return
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchored:
                raise ValueError("an alias of nothing")
            lines = self._anchored[event.anchor]
        else:
            lines = FieldLines(line)
            if event.anchor is not None:
                self._anchored[event.anchor] = lines
        self._put(lines)
        if isinstance(event, yaml.CollectionStartEvent):
            self._open.append(lines)
            self._keys.append(None)
            self._own.append({} if isinstance(event, yaml.MappingStartEvent) else None)
        else:
            self._done(lines)

    def _put(self, lines: FieldLines) -> None:
        """Note a value that begins."""
        if not self._open:
            self.root = lines
            return
        inner, own = self._open[-1], self._own[-1]
        if own is None:
            inner.items.append(lines)
            return
        key = self._keys[-1]
        assert key is not None, "a mapping's value comes after its key"
        if key.merges:
            return
        if key.name in own:
            inner.repeats.append((key.name, key.line, own[key.name]))
        own[key.name] = key.line
        inner.fields[key.name] = (key.line, lines)

    def _done(self, lines: FieldLines) -> None:
        """Note that a value is whole."""
        key = self._keys[-1] if self._keys else None
        if key is not None:
            self._keys[-1] = None
            if key.merges:
                self._open[-1].merge(lines)
