"""The parts that a manifest is read into: documents, and the items of lists.

Values are untyped: mappings with text as keys, lists and scalars. Values may be shared, as by
aliases of YAML: do not change them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vmsvc_grpc.model.problem import Problem


class ManifestError(Exception):
    """A text is neither YAML nor JSON, or exceeds a limit of ours; nothing of it counts.

    `line` and `column` are where, from 1.
    """

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.message = message
        self.line = line
        self.column = column


OBJECT_SIZE_MAX = 3 * 1024 * 1024
"""How large an object may be in its file. Only the beginning of a larger one is kept.

In characters, and CONTAINER_SIZE for each mapping or list. A request to an API server can be
as large; it stores half of that.
"""


@dataclass(frozen=True, slots=True)
class Item:
    """One of the `items` of a document that is still being read.

    `index` is its place among them; `document` and `line` are those of the document, `head` is the
    part of it read so far, and `size` is the size of the item. `flaw` is why kubectl refuses it,
    although it is YAML.
    """

    document: int
    line: int
    head: Mapping[str, Any]
    index: int
    value: Any
    size: int
    flaw: Problem | None = None


@dataclass(frozen=True, slots=True)
class Restart:
    """Drop the items since the last document: it will be read in another way."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a text: its number and the line where it begins, both from 1.

    `value` is None if it is empty. `listed`: its `items` came before it, one by one, and are
    neither in `value` nor in `size`. `unread_line` is the line of a text after the document that
    kubectl skips too. `flaw` is as for an item.
    """

    index: int
    line: int
    value: Any
    size: int = 0
    listed: bool = False
    unread_line: int | None = None
    flaw: Problem | None = None


Step = Item | Restart | Document | None
"""A step of reading; None if it led to nothing yet."""
