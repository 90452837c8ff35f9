"""Builds one document from its parts, in the order of the text, without recursion.

It keeps no more than an object may hold, so that memory stays in proportion to the text: the items
of a list are handed out one by one, and of too large or too deep an object only the beginning is
kept.
"""

from __future__ import annotations

from typing import Any

from vmsvc_grpc.model.decoding import LEVELS_MAX
from vmsvc_grpc.source.documents import OBJECT_SIZE_MAX, Document, Item, Restart, Step

CONTAINER_SIZE = 16
"""What a mapping or list adds to an object's size, in characters, as it takes memory."""

DEPTH_MAX = 10_000
"""How deep mappings and lists may nest; the same as for kubectl."""


class Open:
    """A mapping or list whose end has not come yet.

    `kept`: its values are kept; `merging`: its next value is merged into it, by YAML's `<<`;
    `weight` counts its values, and `anchor` is its name in YAML.
    """

    __slots__ = ("anchor", "kept", "key", "merging", "value", "weight")

    def __init__(self, value: dict[str, Any] | list[Any], *, kept: bool) -> None:
        self.value = value
        self.kept = kept
        self.key: str | None = None
        self.merging = False
        self.anchor: str | None = None
        self.weight = 1


class Builder:
    """A document under construction. `complete` once its last part has come."""

    def __init__(self, index: int, line: int) -> None:
        self.complete = False
        self._index = index
        self._line = line
        self._root: Any = None
        self._open: list[Open] = []
        self._items: Open | None = None
        self._items_seen = 0
        self._listed = False
        self._size = 0
        self._size_of_root = 0
        self._ready: list[Step] = []

    @property
    def depth(self) -> int:
        """How many mappings and lists are open."""
        return len(self._open)

    @property
    def _innermost(self) -> Open:
        return self._open[-1]

    @property
    def in_mapping(self) -> bool:
        """Whether the innermost open container is a mapping."""
        return bool(self._open) and isinstance(self._innermost.value, dict)

    @property
    def expects_key(self) -> bool:
        """Whether the next part is a key of a mapping."""
        return self.in_mapping and self._innermost.key is None

    @property
    def ready(self) -> list[Step]:
        """The steps that are ready; each is handed out once."""
        ready, self._ready = self._ready, []
        return ready

    def document(self, unread_line: int | None = None) -> Document:
        """The complete document, without the items that were handed out."""
        return Document(
            self._index,
            self._line,
            self._root,
            self._size,
            listed=self._listed,
            unread_line=unread_line,
        )

    def key(self, text: str, size: int) -> None:
        """Take the key of the next value. Of two equal keys, the last one counts."""
        self._size += size
        self._innermost.key = text
        if self._listed and self.depth == 1 and text == "items":
            self._listed = False
            self._ready.append(Restart())

    def begin(self, value: dict[str, Any] | list[Any], *, anchored: bool = False) -> Open:
        """Begin a mapping or list; `value` is an empty one. One with an anchor is kept whole."""
        self._size += CONTAINER_SIZE
        items = self.depth == 1 and isinstance(value, list) and self._open[0].key == "items"
        opened = Open(value, kept=self._kept)
        if items and not anchored:
            self._items, self._items_seen, self._listed = opened, 0, True
            self._size_of_root = self._size
        elif self._open:
            self._attach(value if opened.kept else None)
        self._open.append(opened)
        return opened

    def end(self) -> Any:
        """End the innermost open container; its value."""
        self._size += 1
        ended = self._open.pop()
        if ended is self._items:
            self._items = None
            self._innermost.key = None
        else:
            self._done(ended.value)
        return ended.value

    def put(self, value: Any, size: int) -> None:
        """Take a whole value, of so many characters."""
        self._size += size
        if self._open:
            self._attach(value if self._kept else None)
        self._done(value)

    @property
    def _kept(self) -> bool:
        """Whether a value that comes now is kept."""
        if not self._open:
            return True
        room = self._has_room and self.depth < LEVELS_MAX
        return room and self._innermost.kept

    @property
    def _has_room(self) -> bool:
        before = self._size_of_root if self._items else 0
        return self._size - before <= OBJECT_SIZE_MAX

    def _attach(self, value: Any) -> None:
        inner = self._innermost
        apart = inner is self._items or inner.merging
        if apart or not inner.kept or not self._has_room:
            return
        if isinstance(inner.value, list):
            inner.value.append(value)
        else:
            assert inner.key is not None, "a mapping's value comes after its key"
            inner.value[inner.key] = value

    def _done(self, value: Any) -> None:
        if not self._open:
            self._root, self.complete = value, True
        elif self._innermost is self._items:
            size = self._size - self._size_of_root
            head = self._open[0].value
            assert isinstance(head, dict), "items are those of a mapping"
            seen = self._items_seen
            self._ready.append(Item(self._index, self._line, head, seen, value, size))
            self._items_seen += 1
            self._size = self._size_of_root
        else:
            self._innermost.key = None
