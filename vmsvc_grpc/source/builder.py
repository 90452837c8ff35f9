"""Builds one document from its parts, in the order of the text, without recursion.

It keeps no more than an object may hold, so that memory stays in proportion to the text: the items
of a list are handed out one by one, and of too large or too deep an object only the beginning is
kept.
"""

from __future__ import annotations

from typing import Any

from vmsvc_grpc.model.decoding import LEVELS_MAX
from vmsvc_grpc.model.misfit import field_name
from vmsvc_grpc.model.problem import Problem
from vmsvc_grpc.source.documents import OBJECT_SIZE_MAX, Document, Item, Restart, Step

CONTAINER_SIZE = 16
"""What a mapping or list adds to an object's size, in characters, as it takes memory."""

DEPTH_MAX = 10_000
"""How deep mappings and lists may nest; the same as for kubectl."""


class Open:
    """A mapping or list whose end has not come yet.

    `kept`: it is itself kept, and `holds`: its values are, too; `key`: of the value to come, None
    in a list and where a key is to come; `merging`: its next value is merged into it, by YAML's
    `<<`; `plain`: its next value goes into it, if there is room, and that is all. `anchor` is its
    name in YAML, and `values_before` counts the document's values before it.
    """

    __slots__ = (
        "anchor",
        "holds",
        "kept",
        "key",
        "mapping",
        "merging",
        "plain",
        "value",
        "values_before",
    )

    def __init__(self, value: dict[str, Any] | list[Any], *, kept: bool, holds: bool) -> None:
        self.value = value
        self.mapping = isinstance(value, dict)
        self.kept = kept
        self.holds = holds
        self.key: str | None = None
        self.merging = False
        self.plain = holds
        self.anchor: str | None = None
        self.values_before = 0


class Builder:
    """A document under construction. `complete` once its last part has come.

    `innermost` is the mapping or list that the next part is in, and `depth` says how many are open.
    `ready` are the steps to hand out; whoever does so empties it. Each value of a file passes
    through here, so what is asked for each is an attribute.
    """

    def __init__(self, index: int, line: int) -> None:
        self.complete = False
        self.innermost: Open | None = None
        self.depth = 0
        self.ready: list[Step] = []
        self._index = index
        self._line = line
        self._root: Any = None
        self._open: list[Open] = []
        self._items: Open | None = None
        self._items_seen = 0
        self._listed = False
        self._size = 0
        self._size_of_root = 0
        self._size_max = OBJECT_SIZE_MAX  # Of an item, with what came before the items.
        # Of the item that is being built, or of the document.
        self._flaw: Problem | None = None
        self._flaw_of_root: Problem | None = None

    @property
    def in_mapping(self) -> bool:
        """Whether the innermost open container is a mapping."""
        return self.innermost is not None and self.innermost.mapping

    @property
    def between_items(self) -> bool:
        """Whether the next value is one of the items that are handed out one by one."""
        return self._items is not None and self.innermost is self._items

    @property
    def at_items(self) -> bool:
        """Whether the next value is that of `items`: if it is a list, it is handed out so."""
        return self.depth == 1 and self._open[0].key == "items"

    @property
    def has_room(self) -> bool:
        """Whether the object is not too large to keep more of it."""
        return self._size <= self._size_max

    def document(self, unread_line: int | None = None) -> Document:
        """The complete document, without the items that were handed out."""
        return Document(
            self._index,
            self._line,
            self._root,
            self._size,
            listed=self._listed,
            unread_line=unread_line,
            flaw=self._flaw,
        )

    def refuse(self, message: str) -> None:
        """Refuse the object that is being built, for what comes next; the first reason counts."""
        if self._flaw is None:
            within = self._open[2:] if self._items else self._open
            path = (_place_in(one, innermost=one is self.innermost) for one in within)
            steps = tuple(step for step in path if step is not None)
            self._flaw = Problem(field_name(steps), message)

    def key(self, text: str, size: int) -> None:
        """Take the key of the next value. Of two equal keys, the last one counts."""
        assert self.innermost is not None, "a key is one of a mapping"
        self._size += size
        self.innermost.key = text
        if self.depth == 1 and text == "items":
            self.drop_items()

    def drop_items(self) -> None:
        """Drop the items that were handed out, if any: others take their place."""
        if self._listed:
            self._listed = False
            self.ready.append(Restart())

    def begin(self, value: dict[str, Any] | list[Any], *, anchored: bool = False) -> Open:
        """Begin a mapping or list; `value` is an empty one. One with an anchor is kept whole."""
        self._size += CONTAINER_SIZE
        outer = self.innermost
        kept = outer is None or (outer.holds and self._size <= self._size_max)
        items = isinstance(value, list) and self.at_items
        self.depth += 1
        opened = Open(value, kept=kept, holds=kept and self.depth < LEVELS_MAX)
        if items and not anchored:
            opened.plain = False
            self._items, self._items_seen, self._listed = opened, 0, True
            self._size_of_root = self._size
            self._size_max = self._size + OBJECT_SIZE_MAX
            self._flaw_of_root, self._flaw = self._flaw, None
        elif outer is not None:
            self._attach(outer, value)
        self._open.append(opened)
        self.innermost = opened
        return opened

    def end(self) -> Open:
        """End the innermost open container, which is returned."""
        self._size += 1
        ended = self._open.pop()
        self.depth -= 1
        self.innermost = outer = self._open[-1] if self._open else None
        if ended is self._items:
            assert outer is not None, "items are those of a mapping"
            self._items = None
            self._size_max = OBJECT_SIZE_MAX
            self._flaw = self._flaw_of_root
            outer.key = None
        elif outer is not None and outer.plain:
            outer.key = None
        else:
            self._done(outer, ended.value)
        return ended

    def put(self, value: Any, size: int) -> None:
        """Take a whole value, of so many characters."""
        self._size += size
        outer = self.innermost
        if outer is not None:
            # Most values by far; by the two other methods they would take twice the time.
            if outer.plain and self._size <= self._size_max:
                container = outer.value
                if isinstance(container, list):
                    container.append(value)
                else:
                    assert outer.key is not None, "a mapping's value comes after its key"
                    container[outer.key] = value
                    outer.key = None
                return
            self._attach(outer, value)
        self._done(outer, value)

    def _attach(self, outer: Open, value: Any) -> None:
        """Keep a value in the container that it is in, unless that would be too large or deep."""
        if not outer.kept or self._size > self._size_max:
            return
        if not outer.holds:
            value = None
        container = outer.value
        if isinstance(container, list):
            if outer is not self._items:
                container.append(value)
        elif not outer.merging:
            assert outer.key is not None, "a mapping's value comes after its key"
            container[outer.key] = value

    def _done(self, outer: Open | None, value: Any) -> None:
        """Note that a value is whole, which is in `outer`."""
        if outer is None:
            self._root, self.complete = value, True
        elif outer is self._items:
            size = self._size - self._size_of_root
            head = self._open[0].value
            assert isinstance(head, dict), "items are those of a mapping"
            seen = self._items_seen
            flaw, self._flaw = self._flaw, None
            self.ready.append(Item(self._index, self._line, head, seen, value, size, flaw))
            self._items_seen += 1
            self._size = self._size_of_root
        else:
            outer.key = None


def _place_in(container: Open, *, innermost: bool) -> str | int | None:
    """The key or index of what is being read in it; None before a key."""
    if isinstance(container.value, list):
        # A mapping or list in it is there already.
        return len(container.value) - (not innermost)
    return container.key
