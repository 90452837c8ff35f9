"""What the text of a manifest is read into: documents, and the items of those that are lists.

Values are untyped: mappings with text as keys, lists and scalars. Values may be shared, as
aliases of YAML are: change none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class ManifestError(Exception):
    """A text is neither YAML nor JSON, or breaks a rule of ours; nothing of it counts.

    `line` and `column` are where, from 1.
    """

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.message = message
        self.line = line
        self.column = column


OBJECT_SIZE_MAX = 3 * 1024 * 1024
"""How large an object may be in its file; of a larger one only the beginning is kept.

In characters, and CONTAINER_SIZE for each mapping or list. A request to an API server can be
as large; it stores half of that.
"""


@dataclass(frozen=True, slots=True)
class Item:
    """One of the `items` of a document that is still being read.

    `index` is its place among them; `document` and `line` are those of the document, and
    `head` is what has been read of it; `size` is how large the item is.
    """

    document: int
    line: int
    head: Mapping[str, Any]
    index: int
    value: Any
    size: int


@dataclass(frozen=True, slots=True)
class Restart:
    """The items since the last document do not count: the document is read differently."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a text: its number and the line where it begins, both from 1.

    `value` is None if it is empty. `listed`: its `items` came before it, one by one, and are
    neither in `value` nor in `size`. `unread_line` is where something stands
    that does not belong to the document and that kubectl passes over, too.
    """

    index: int
    line: int
    value: Any
    size: int = 0
    listed: bool = False
    unread_line: int | None = None


Step = Item | Restart | Document | None
"""A step of reading; None is one that led to nothing yet."""
