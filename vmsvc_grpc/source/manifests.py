"""The objects that the text of a manifest defines.

Pure: knows no file and no directory.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, NamedTuple

from vmsvc_grpc.model.events import Apply, Malformed
from vmsvc_grpc.model.from_wire import DEFAULT_NAMESPACE, ParseError
from vmsvc_grpc.model.kinds import kind_of, likely_kind
from vmsvc_grpc.model.objects import (
    GROUP,
    NEWEST_API_VERSION,
    Key,
    Kind,
    ObjectMeta,
    VirtualMachine,
    VirtualMachineService,
)
from vmsvc_grpc.model.parse import parse, unread
from vmsvc_grpc.model.problem import PROBLEMS_MAX, Problem, quoted
from vmsvc_grpc.source.documents import OBJECT_SIZE_MAX, Document, Item, ManifestError, Restart
from vmsvc_grpc.source.stream import document_steps

OBJECTS_MAX = 60_000
"""How many objects a file may define; the design size is 30,000 in all files.

So a file of 16 MiB takes at most ten times its size in memory, also while another takes its place.
A VMService takes as much as three others, and counts as so many; so does an object of many parts.
"""

PARTS_MAX = 300_000
"""How many documents and items of lists a file may have, of any kind, empty ones too.

An object with a name takes 55 characters, so no honest file of 16 MiB has more. Eight million empty
ones would take us a minute, in which nobody is served at the start.
"""

ObjectId = tuple[Kind, Key]
"""Identifies an object. If several files define it, the first counts."""


class Position(NamedTuple):
    """The place of an object: its document and the line where that begins, both from 1.

    In a list, `items` are the indexes of the item, the outermost first.
    """

    document: int
    line: int
    items: tuple[int, ...] = ()

    def item(self, index: int) -> Position:
        """The place of an item of the list that is here."""
        return self._replace(items=(*self.items, index))

    def __str__(self) -> str:
        items = "".join(f" items[{index}]" for index in self.items)
        return f"document {self.document} (line {self.line}){items}"


Look = Callable[[Position, Kind, dict[str, Any]], None]
"""Called with each object of the wanted kinds as it is in the text, untyped."""


class Entry(NamedTuple):
    """An object of a text: its place, and the event to emit for it."""

    id: ObjectId
    place: str
    event: Apply | Malformed


class Flaw(NamedTuple):
    """A problem in a text that parses, and its place."""

    place: str
    message: str


@dataclass(frozen=True, slots=True)
class Contents:
    """The objects that a text defines, in its order, and what it holds besides.

    `flaws` are the first PROBLEMS_MAX, `more_flaws` counts the others. `ignored` counts objects of
    unwanted kinds.
    """

    entries: dict[ObjectId, Entry] = field(default_factory=dict)
    flaws: tuple[Flaw, ...] = ()
    more_flaws: int = 0
    ignored: int = 0

    @property
    def empty(self) -> bool:
        """Whether no object of any kind could be read in it."""
        return not self.entries and not self.ignored

    def malformed(self, message: str) -> Generator[None, None, Contents]:
        """The same objects, as malformed: a newer text cannot be read. In steps."""
        problem = Problem("(file)", message)
        entries = dict[ObjectId, Entry]()
        for count, (id_, entry) in enumerate(self.entries.items()):
            entries[id_] = entry._replace(event=Malformed(*id_, problem))
            if count % _STEP_TRIFLES == 0:
                yield
        return Contents(entries)

    def draining(self) -> Iterator[None]:
        """Let go of the entries in steps, once nobody holds these contents any more.

        To let go of 90,000 at once takes Python 36 ms, in which no other thread runs either.
        """
        while self.entries:
            for _ in range(min(_STEP_TRIFLES, len(self.entries))):
                self.entries.popitem()
            yield


class AbandonedError(Exception):
    """Thrown into `reading`: what it reads does not count any more."""


def read_objects(
    content: bytes,
    kinds: AbstractSet[Kind],
    look: Look = lambda *_: None,
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
    steps = reading(content, kinds, look, namespace=namespace)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            contents: Contents = end.value
            return contents


def reading(
    content: bytes,
    kinds: AbstractSet[Kind],
    look: Look = lambda *_: None,
    *,
    namespace: str = DEFAULT_NAMESPACE,
) -> Generator[None, None, Contents]:
    """`read_objects` in steps of a millisecond or so, so that a large file holds up nobody.

    A single text of several MiB in YAML is one step, at 30 ns a character. Who wants no
    more of it throws AbandonedError, which it raises in the end, as it does ManifestError: not
    before it has let go of what it had read, in steps.
    """
    reader = _DocumentReader(content, _Asked(kinds, look, namespace))
    try:
        for count, step in enumerate(document_steps(content)):
            match step:
                case Item():
                    yield from reader.item(step)
                case Restart():
                    reader.restart()
                case Document():
                    yield from reader.document(step)
            if step is None or count % _STEP_TRIFLES == 0:
                yield
    except (ManifestError, AbandonedError):
        yield from reader.contents.draining()
        raise
    return reader.contents


# How many things that take a few microseconds each are done in a step.
_STEP_TRIFLES = 50


class _Other(Enum):
    """What there may be in place of a wanted object."""

    UNASKED = auto()  # An object of another kind.
    LIST = auto()  # Its items come next.


_Found = Entry | Flaw | _Other


class _Asked(NamedTuple):
    """The wanted kinds, who is called with the objects, and the namespace of those without one."""

    kinds: AbstractSet[Kind]
    look: Look
    namespace: str


class _DocumentReader:
    """Takes in documents, and the items of lists before their document."""

    def __init__(self, content: bytes, asked: _Asked) -> None:
        self._content = content
        self._asked = asked
        self._entries: dict[ObjectId, Entry] = {}
        self._weight = 0  # Of the entries.
        self._flaws: list[Flaw] = []
        self._more_flaws = 0
        self._ignored = 0
        self._count = 0
        # As it was before the document that is being read.
        self._before = (0, 0, 0, 0, 0)
        # By document, what a list leaves out of its items; filled once that is needed too early.
        self._implied: Mapping[int, dict[str, str]] | None = None

    @property
    def contents(self) -> Contents:
        """All that was found."""
        return Contents(self._entries, tuple(self._flaws), self._more_flaws, self._ignored)

    def item(self, item: Item) -> Iterator[None]:
        """Take in the next item of a list, in steps. Raises ManifestError."""
        self._count_part(item.line)
        if not isinstance(item.value, dict) and len(self._flaws) >= PROBLEMS_MAX:
            self._more_flaws += 1  # There may be millions.
        elif not _is_unnamed(item.value):
            yield from self._take(_place(item), item.value, item.size)
        elif (implied := (yield from self._implied_by(item))) is not None:
            yield from self._take(_place(item), item.value | implied, item.size)

    def _implied_by(self, item: Item) -> Generator[None, None, dict[str, str] | None]:
        """What the item's list implies for it; None if it turns out not to be a list.

        Keys may come in any order, and items of an API server's list have no kind. With sorted
        keys, as `jq -S` writes them, the list's kind comes last.
        """
        if _text(item.head, "kind") and _text(item.head, "apiVersion"):
            return _implied(item.head)
        if self._implied is None:
            self._implied = yield from _implied_by_document(self._content)
        return self._implied.get(item.document)

    def restart(self) -> None:
        """Forget the items since the last document."""
        entries, flaws, self._more_flaws, self._ignored, self._count = self._before
        while len(self._entries) > entries:
            self._weight -= _weight(self._entries.popitem()[1])
        del self._flaws[flaws:]

    def document(self, document: Document) -> Iterator[None]:
        """Take in the next document, or what remains of a list, in steps. Raises ManifestError."""
        self._count_part(document.line)
        place = Position(document.index, document.line)
        _refuse_cut(document.line, document.value, document.size)
        if document.listed and not _text(document.value, "kind"):
            self.restart()  # kubectl ignores it.
            yield from self._take(place, document.value, document.size)
        elif not document.listed and document.value is not None:
            yield from self._take(place, document.value, document.size)
        if document.unread_line is not None:
            unread = f"line {document.unread_line}"
            flaw = Flaw(unread, "is not read; begin a document with a line '---'")
            self._found(flaw, document.line)
        entries, flaws = len(self._entries), len(self._flaws)
        self._before = (entries, flaws, self._more_flaws, self._ignored, self._count)

    def _take(self, place: Position, value: Any, size: int) -> Iterator[None]:
        for nested, found in enumerate(_read(place, value, size, self._asked)):
            if nested:
                self._count_part(place.line)  # It is in a list within a list.
            self._found(found, place.line)
            if isinstance(found, Entry) or nested % _STEP_TRIFLES == _STEP_TRIFLES - 1:
                yield

    def _count_part(self, line: int) -> None:
        self._count += 1
        _bound_parts(self._count, line)

    def _found(self, found: _Found, line: int) -> None:
        match found:
            case Entry():
                self._found_object(found, line)
            case Flaw() if len(self._flaws) < PROBLEMS_MAX:
                self._flaws.append(found)
            case Flaw():
                self._more_flaws += 1
            case _Other.UNASKED:
                self._ignored += 1

    def _found_object(self, entry: Entry, line: int) -> None:
        first = self._entries.get(entry.id)
        if first is not None:
            self._found(repeated(entry, first.place), line)
            return
        self._weight += _weight(entry)
        if self._weight > OBJECTS_MAX:
            counted = (
                f"a VirtualMachineService as {_SERVICE_WEIGHT}, {_PARTS_A_WEIGHT} parts as one"
            )
            message = f"more than {OBJECTS_MAX} objects (counting {counted}); split it"
            raise ManifestError(message, line, 1)
        self._entries[entry.id] = entry


_SERVICE_WEIGHT = 3


# Labels, owners, conditions, ports: each takes some 120 bytes, though `{}` is enough to write one.
_PARTS_A_WEIGHT = 10


def _weight(entry: Entry) -> int:
    """As how many objects one counts towards OBJECTS_MAX."""
    object_ = entry.event.object if isinstance(entry.event, Apply) else None
    match object_:
        case None:
            return 1
        case VirtualMachine():
            return 1 + len(object_.labels) // _PARTS_A_WEIGHT
        case VirtualMachineService():
            spec = object_.spec
            ports = len(spec.ports) + len(spec.selector) if spec else len(object_.declared_selector)
            parts = ports + len(object_.conditions) + len(object_.ingress)
            return _SERVICE_WEIGHT + (parts + _meta_parts(object_.meta)) // _PARTS_A_WEIGHT
    return 1 + _meta_parts(object_.meta) // _PARTS_A_WEIGHT


def _meta_parts(meta: ObjectMeta) -> int:
    owned = len(meta.owner_references) + len(meta.finalizers)
    return owned + len(meta.labels) + len(meta.annotations)


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
                _bound_parts(parts, step.line)
            case Restart():
                parts = parts_before
            case Document():
                parts_before = parts = parts + 1
                _bound_parts(parts, step.line)
                if step.listed and _text(step.value, "kind"):
                    implied[step.index] = _implied(step.value)
        if step is None or count % _STEP_TRIFLES == 0:
            yield
    return implied


def _bound_parts(count: int, line: int) -> None:
    if count > PARTS_MAX:
        message = f"more than {PARTS_MAX} documents and items of lists; split it"
        raise ManifestError(message, line, 1)


_TOO_LARGE = Problem(
    "(object)", f"takes more than {OBJECT_SIZE_MAX} characters; no API server holds as much"
)


def _refuse_cut(line: int, value: Any, size: int) -> None:
    """Raises ManifestError if it is so large that its kind was not read."""
    said = not isinstance(value, dict) or (_text(value, "apiVersion") and _text(value, "kind"))
    if size > OBJECT_SIZE_MAX and not said:
        raise _cut(line, "put apiVersion, kind and metadata.name first")


def _cut(line: int, advice: str) -> ManifestError:
    message = f"takes more than {OBJECT_SIZE_MAX} characters, and not all was read; {advice}"
    return ManifestError(message, line, 1)


def _place(item: Item) -> Position:
    return Position(item.document, item.line, (item.index,))


def _text(value: Mapping[str, Any], key: str) -> str:
    """The text of a key; empty if there is none. kubectl ignores a value that is not text."""
    text = value.get(key)
    return text if isinstance(text, str) else ""


def _is_unnamed(item: Any) -> bool:
    """Whether it is an object without a kind."""
    return isinstance(item, dict) and not (_text(item, "kind") or _text(item, "apiVersion"))


def _implied(head: Mapping[str, Any]) -> dict[str, str]:
    """What a list from an API server leaves out of its items."""
    kind = _text(head, "kind").removesuffix("List")
    return {"apiVersion": _text(head, "apiVersion"), "kind": kind}


def repeated(entry: Entry, first: str) -> Flaw:
    """The flaw that an object is defined already, at the place `first`."""
    kind, key = entry.id
    flaw = f"{kind.value} {key} is defined in {first} already, which counts; remove one of them"
    return Flaw(entry.place, flaw)


def _read(place: Position, value: Any, size: int, asked: _Asked) -> Iterator[_Found]:
    """The objects of a document, or of a list's item."""
    if not isinstance(value, dict):
        yield Flaw(str(place), "is not an object; it must be a mapping with apiVersion and kind")
        return
    _refuse_cut(place.line, value, size)
    api_version, kind_text = _text(value, "apiVersion"), _text(value, "kind")
    if kind_text and _is_list(place, value):
        if size > OBJECT_SIZE_MAX:
            raise _cut(place.line, "put the items of a list within a list into the outer one")
        yield _Other.LIST
        implied = _implied(value)
        for index, item in enumerate(value["items"] or ()):
            whole = item | implied if _is_unnamed(item) else item
            yield from _read(place.item(index), whole, size, asked)
    elif not (api_version and kind_text):
        yield Flaw(str(place), "is not an object; it needs apiVersion and kind, both text")
    else:
        kind = kind_of(api_version, kind_text)
        if kind is None or kind not in asked.kinds:
            if kind is None:
                yield _misspelt(place, api_version, kind_text, asked.kinds) or _Other.UNASKED
            else:
                yield _Other.UNASKED
            return
        whole = _in_namespace(value, asked.namespace)
        asked.look(place, kind, whole)
        yield _entry(place, kind, whole, size)


def _is_list(place: Position, value: dict[str, Any]) -> bool:
    """Whether kubectl reads it as a list, whatever its kind is called.

    To its decoder of documents, `items: null` are no items; to that of items, they are a field.
    """
    return isinstance(value.get("items", 0), list if place.items else list | None)


def _misspelt(
    place: Position, api_version: str, kind: str, kinds: AbstractSet[Kind]
) -> Flaw | None:
    """The flaw of an object that was likely meant to be of a wanted kind, but is not."""
    meant = likely_kind(api_version, kind)
    if meant is None or meant not in kinds:
        return None
    if kind == meant.value:
        flaw = f"apiVersion {quoted(api_version)} has no version; write {NEWEST_API_VERSION}"
    else:
        flaw = f"there is no kind {quoted(kind)} in {GROUP}; did you mean {meant.value}?"
    return Flaw(str(place), flaw)


def _in_namespace(value: dict[str, Any], namespace: str) -> dict[str, Any]:
    """The object, in `namespace` unless it names its own. An empty name does not count."""
    metadata = value.get("metadata")
    if namespace == DEFAULT_NAMESPACE or not isinstance(metadata, dict):
        return value
    if metadata.get("namespace") not in (None, ""):
        return value
    return value | {"metadata": metadata | {"namespace": namespace}}


def _entry(place: Position, kind: Kind, value: Any, size: int) -> Entry | Flaw:
    try:
        if size > OBJECT_SIZE_MAX:
            raise unread(kind, value, _TOO_LARGE)
        object_ = parse(kind, value)
    except ParseError as error:
        if error.key is not None:
            return Entry((kind, error.key), str(place), Malformed(kind, error.key, error.problem))
        if size > OBJECT_SIZE_MAX:
            raise _cut(place.line, "put apiVersion, kind and metadata.name first") from None
        return Flaw(str(place), f"{kind.value} (unnamed): {error.problem}")
    return Entry((kind, object_.key), str(place), Apply(object_))
