"""The objects that the text of a manifest defines.

Pure: knows no file and no directory.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from vmsvc_grpc.model.events import Apply, Malformed
from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.model.parse import DEFAULT_NAMESPACE, ParseError, kind_of, parse
from vmsvc_grpc.model.problem import Problem
from vmsvc_grpc.source.documents import document_steps

ObjectId = tuple[Kind, Key]
"""Which object; one file defines it, and if there are more, the first counts."""


class Place(NamedTuple):
    """Where an object stands: its document and the line where that begins, both from 1.

    In a list, `items` are the indexes of the item, the outermost first.
    """

    document: int
    line: int
    items: tuple[int, ...] = ()

    def __str__(self) -> str:
        items = "".join(f" items[{index}]" for index in self.items)
        return f"document {self.document} (line {self.line}){items}"


Look = Callable[[Place, Kind, dict[str, Any]], None]
"""Is shown each object of a kind that was asked for as it stands in the text, untyped."""


class Entry(NamedTuple):
    """An object of a text: where it stands, and the event that tells of it."""

    id: ObjectId
    place: str
    event: Apply | Malformed


class Flaw(NamedTuple):
    """Something wrong in a text that parses, and where it is."""

    place: str
    message: str


@dataclass(frozen=True, slots=True)
class Contents:
    """The objects that a text defines, in its order, and what it holds besides.

    `ignored` counts objects of kinds that were not asked for.
    """

    entries: Mapping[ObjectId, Entry] = field(default_factory=dict)
    flaws: tuple[Flaw, ...] = ()
    ignored: int = 0

    @property
    def empty(self) -> bool:
        """Whether no object could be read in it, of our kinds or another."""
        return not self.entries and not self.ignored

    def malformed(self, message: str) -> Contents:
        """The same objects, where a newer text cannot be read: they exist, somehow."""
        problem = Problem("(file)", message)
        entries = {
            entry.id: entry._replace(event=Malformed(*entry.id, problem))
            for entry in self.entries.values()
        }
        return Contents(entries)


def read_objects(
    text: str,
    kinds: AbstractSet[Kind],
    look: Look = lambda *_: None,
    *,
    namespace: str = DEFAULT_NAMESPACE,
) -> Contents:
    """The objects of `kinds` that a text defines, in `namespace` if they name none.

    Raises ManifestError.

    The items of a `List`, or of a list of one kind (`VirtualMachineList`), are objects
    as any other. An object that cannot be read is a `Malformed` entry, or a flaw if not
    even its name can; the others are not affected. Of two objects with one name, the
    first counts.
    """
    steps = reading(text, kinds, look, namespace=namespace)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            contents: Contents = end.value
            return contents


def reading(
    text: str,
    kinds: AbstractSet[Kind],
    look: Look = lambda *_: None,
    *,
    namespace: str = DEFAULT_NAMESPACE,
) -> Generator[None, None, Contents]:
    """`read_objects` in steps of a millisecond or so, so that a big text holds up no one."""
    entries: dict[ObjectId, Entry] = {}
    flaws: list[Flaw] = []
    ignored = 0
    for document in document_steps(text):
        yield
        if document is None or document.value is None:
            continue
        place = Place(document.index, document.line)
        for found in _read(place, document.value, kinds, look, namespace):
            yield
            match found:
                case Flaw():
                    flaws.append(found)
                case Entry():
                    first = entries.setdefault(found.id, found)
                    if first is not found:
                        flaws.append(repeated(found, first.place))
                case None:
                    ignored += 1
    return Contents(entries, tuple(flaws), ignored)


def repeated(entry: Entry, first: str) -> Flaw:
    """The flaw of defining an object that is defined already, at the place `first`."""
    kind, key = entry.id
    flaw = f"{kind.value} {key} is defined in {first} already, which counts; remove one of them"
    return Flaw(entry.place, flaw)


def _read(
    place: Place, value: Any, kinds: AbstractSet[Kind], look: Look, namespace: str
) -> Iterator[Entry | Flaw | None]:
    """The objects of a document, or of a list's item; None for each that is ignored."""
    if not isinstance(value, dict):
        yield Flaw(str(place), "is not an object; it must be a mapping with apiVersion and kind")
        return
    api_version, kind_text = value.get("apiVersion"), value.get("kind")
    if not isinstance(api_version, str) or not isinstance(kind_text, str):
        yield Flaw(str(place), "is not an object; it needs apiVersion and kind, both text")
    elif kind_text.endswith("List") and isinstance(value.get("items"), list):
        item_kind = kind_text.removesuffix("List")
        # A list of one kind, as the API server gives it, leaves them out of its items.
        implied = {"apiVersion": api_version, "kind": item_kind} if item_kind else {}
        for index, item in enumerate(value["items"]):
            whole = implied | item if isinstance(item, dict) else item
            below = place._replace(items=(*place.items, index))
            yield from _read(below, whole, kinds, look, namespace)
    else:
        kind = kind_of(api_version, kind_text)
        if kind is None or kind not in kinds:
            yield None
            return
        whole = _in_namespace(value, namespace)
        look(place, kind, whole)
        yield _entry(place, kind, whole)


def _in_namespace(value: dict[str, Any], namespace: str) -> dict[str, Any]:
    """The object, in a namespace unless it names its own. An empty name is none."""
    metadata = value.get("metadata")
    if namespace == DEFAULT_NAMESPACE or not isinstance(metadata, dict):
        return value
    if metadata.get("namespace") not in (None, ""):
        return value
    return value | {"metadata": metadata | {"namespace": namespace}}


def _entry(place: Place, kind: Kind, value: Any) -> Entry | Flaw:
    try:
        object_ = parse(kind, value)
    except ParseError as error:
        if error.key is None:
            return Flaw(str(place), f"{kind.value} (unnamed): {error.problem}")
        return Entry((kind, error.key), str(place), Malformed(kind, error.key, error.problem))
    return Entry((kind, object_.key), str(place), Apply(object_))
