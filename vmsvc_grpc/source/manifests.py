"""The objects that the text of a manifest defines.

Pure: knows no file and no directory.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from vmsvc_grpc.model.from_wire import DEFAULT_NAMESPACE
from vmsvc_grpc.model.objects import Kind
from vmsvc_grpc.model.problem import PROBLEMS_MAX, Problem
from vmsvc_grpc.source.contents import Contents, Entry, Flaw, ObjectId, repeated
from vmsvc_grpc.source.definitions import (
    Asked,
    Found,
    Looked,
    Other,
    Position,
    definitions,
    implied_by,
    is_unnamed,
    refuse_cut,
    text_of,
)
from vmsvc_grpc.source.documents import Document, Item, ManifestError, Restart
from vmsvc_grpc.source.manifest_size import bound_objects, bound_parts, weight
from vmsvc_grpc.source.stream import document_steps


class AbandonedError(Exception):
    """Thrown into `reading`: what it reads does not count any more."""


def read_objects(
    content: bytes,
    kinds: AbstractSet[Kind],
    looked: Looked | None = None,
    *,
    namespace: str = DEFAULT_NAMESPACE,
) -> Contents:
    """The objects of `kinds` that a file's bytes define, in `namespace` if they name none.

    Raises ManifestError.

    As for kubectl, anything with a kind and `items` is a list, and its items are objects like any
    other. An object that cannot be read is a `Malformed` entry, or a flaw if not even its
    name can; the others are not affected. Of two objects with one name, the first counts.
    If one of our limits leaves something unread that may be an object, nothing of the text counts.
    """
    steps = reading(content, kinds, looked, namespace=namespace)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            contents: Contents = end.value
            return contents


def reading(
    content: bytes,
    kinds: AbstractSet[Kind],
    looked: Looked | None = None,
    *,
    namespace: str = DEFAULT_NAMESPACE,
) -> Generator[None, None, Contents]:
    """`read_objects` in steps of a millisecond or so, so that a large file holds up nobody.

    A single text of several MiB in YAML is one step, at 30 ns a character. To abandon it, throw
    AbandonedError into it. It raises that, as it does ManifestError, only after it has freed the
    objects read so far, in steps.
    """
    reader = _DocumentReader(content, Asked(kinds, looked, namespace))
    try:
        yield from reader.read()
    except (ManifestError, AbandonedError):
        yield from reader.contents.draining()
        raise
    return reader.contents


class _ImpliedLaterError(Exception):
    """A list said again, after its items, what it leaves out of them, and this counts."""


# How many things that take a few microseconds each are done in a step.
_STEP_TRIFLES = 50


class _TakenIn(NamedTuple):
    """How much of each sort was taken in by the end of a document."""

    entries: int = 0
    flaws: int = 0
    more_flaws: int = 0
    ignored: int = 0
    parts: int = 0
    looked: int = 0


class _DocumentReader:
    """Takes in documents, and the items of lists before their document."""

    def __init__(self, content: bytes, asked: Asked) -> None:
        self._content = content
        self._asked = asked
        self._entries: dict[ObjectId, Entry] = {}
        self._weight = 0  # Of the entries.
        self._flaws: list[Flaw] = []
        self._more_flaws = 0
        self._ignored = 0
        self._count = 0
        # As it was before the document that is being read.
        self._before = _TakenIn()
        # What the list that is being read seems to imply, if that was used.
        self._seeming: dict[str, str] | None = None
        # By document, the fields that a list leaves out of its items; filled when first needed.
        self._implied: Mapping[int, dict[str, str]] | None = None

    @property
    def contents(self) -> Contents:
        """All that was found."""
        return Contents(self._entries, tuple(self._flaws), self._more_flaws, self._ignored)

    def read(self) -> Iterator[None]:
        """Take in all documents, in steps. Raises ManifestError."""
        try:
            yield from self._read()
        except _ImpliedLaterError:
            self._before = _TakenIn()
            yield from self._restart()
            self._implied = yield from _implied_by_document(self._content)
            yield from self._read()

    def _read(self) -> Iterator[None]:
        for count, step in enumerate(document_steps(self._content)):
            match step:
                case Item():
                    yield from self._item(step)
                case Restart():
                    yield from self._restart()
                case Document():
                    yield from self._document(step)
            if step is None or count % _STEP_TRIFLES == 0:
                yield

    def _item(self, item: Item) -> Iterator[None]:
        self._count_part(item.line)
        if not isinstance(item.value, dict) and len(self._flaws) >= PROBLEMS_MAX:
            self._more_flaws += 1  # There may be hundreds of thousands.
        elif not is_unnamed(item.value):
            yield from self._take(_place(item), item.value, item.size, item.flaw)
        elif (implied := (yield from self._implied_by(item))) is not None:
            whole = (item.value or {}) | implied
            yield from self._take(_place(item), whole, item.size, item.flaw)

    def _implied_by(self, item: Item) -> Generator[None, None, dict[str, str] | None]:
        """What the item's list implies for it; None if it turns out not to be a list.

        Keys may come in any order, and items of an API server's list have no kind. With sorted
        keys, as `jq -S` writes them, the list's kind comes last.
        """
        if self._implied is not None:
            return self._implied.get(item.document)
        if text_of(item.head, "kind") and text_of(item.head, "apiVersion"):
            self._seeming = implied_by(item.head)
            return self._seeming
        self._implied = yield from _implied_by_document(self._content)
        return self._implied.get(item.document)

    def _restart(self) -> Iterator[None]:
        """Forget the items since the last document, in steps."""
        before, self._seeming = self._before, None
        self._more_flaws, self._ignored = before.more_flaws, before.ignored
        self._count = before.parts
        del self._flaws[before.flaws :]
        while self._asked.looked is not None and len(self._asked.looked) > before.looked:
            self._asked.looked.popitem()
        while len(self._entries) > before.entries:
            self._weight -= weight(self._entries.popitem()[1])
            if len(self._entries) % _STEP_TRIFLES == 0:
                yield

    def _document(self, document: Document) -> Iterator[None]:
        self._count_part(document.line)
        place = Position(document.index, document.line)
        refuse_cut(document.line, document.value, document.size)
        if document.listed and not text_of(document.value, "kind"):
            yield from self._restart()  # kubectl ignores it.
            yield from self._take(place, document.value, document.size, document.flaw)
        elif document.listed and self._seeming not in (None, implied_by(document.value)):
            raise _ImpliedLaterError
        elif not document.listed and document.value is not None:
            yield from self._take(place, document.value, document.size, document.flaw)
        elif document.flaw is not None:
            self._found(Flaw(str(place), str(document.flaw)), document.line)
        if document.unread_line is not None:
            unread = f"line {document.unread_line}"
            flaw = Flaw(unread, "is not read; begin a document with a line '---'")
            self._found(flaw, document.line)
        self._complete()

    def _complete(self) -> None:
        """Note that what was taken in so far stays."""
        self._seeming = None
        self._before = _TakenIn(
            entries=len(self._entries),
            flaws=len(self._flaws),
            more_flaws=self._more_flaws,
            ignored=self._ignored,
            parts=self._count,
            looked=len(self._asked.looked or ()),
        )

    def _take(
        self, place: Position, value: Any, size: int, refused: Problem | None
    ) -> Iterator[None]:
        for nested, found in enumerate(definitions(place, value, size, self._asked, refused)):
            if nested:
                self._count_part(place.line)  # It is in a list within a list.
            self._found(found, place.line)
            if isinstance(found, Entry) or nested % _STEP_TRIFLES == _STEP_TRIFLES - 1:
                yield

    def _count_part(self, line: int) -> None:
        self._count += 1
        bound_parts(self._count, line)

    def _found(self, found: Found, line: int) -> None:
        match found:
            case Entry():
                self._found_object(found, line)
            case Flaw() if len(self._flaws) < PROBLEMS_MAX:
                self._flaws.append(found)
            case Flaw():
                self._more_flaws += 1
            case Other.UNASKED:
                self._ignored += 1

    def _found_object(self, entry: Entry, line: int) -> None:
        first = self._entries.get(entry.id)
        if first is not None:
            self._found(repeated(entry, first.place), line)
            return
        self._weight += weight(entry)
        bound_objects(self._weight, line)
        self._entries[entry.id] = entry


def _implied_by_document(content: bytes) -> Generator[None, None, dict[int, dict[str, str]]]:
    """What each list in a text leaves out of its items, in steps.

    Raises ManifestError.
    """
    implied = dict[int, dict[str, str]]()
    parts = parts_before = 0
    for count, step in enumerate(document_steps(content)):
        match step:
            case Item():
                parts += 1
                bound_parts(parts, step.line)
            case Restart():
                parts = parts_before
            case Document():
                parts_before = parts = parts + 1
                bound_parts(parts, step.line)
                if step.listed and text_of(step.value, "kind"):
                    implied[step.index] = implied_by(step.value)
        if step is None or count % _STEP_TRIFLES == 0:
            yield
    return implied


def _place(item: Item) -> Position:
    return Position(item.document, item.line, (item.index,))
