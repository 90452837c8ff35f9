"""The objects that one document, or one item of a list, defines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from enum import Enum, auto
from typing import Any, NamedTuple

from vmsvc_grpc.model.events import Apply, Malformed
from vmsvc_grpc.model.from_wire import DEFAULT_NAMESPACE, ParseError
from vmsvc_grpc.model.kinds import kind_of, likely_kind
from vmsvc_grpc.model.objects import GROUP, NEWEST_API_VERSION, Kind
from vmsvc_grpc.model.parse import parse, unread
from vmsvc_grpc.model.problem import Problem, quoted
from vmsvc_grpc.source.contents import Entry, Flaw
from vmsvc_grpc.source.documents import OBJECT_SIZE_MAX, ManifestError


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


Looked = dict[Position, tuple[Kind, dict[str, Any]]]
"""The objects of the wanted kinds as they are in the text, untyped, in its order."""


class Other(Enum):
    """What there may be in place of a wanted object."""

    UNASKED = auto()  # An object of another kind.
    LIST = auto()  # Its items come next.


Found = Entry | Flaw | Other
"""What a value, or a part of it, turns out to be."""


class Asked(NamedTuple):
    """The wanted kinds, where their objects are noted, and the namespace of those without one."""

    kinds: AbstractSet[Kind]
    looked: Looked | None
    namespace: str


def definitions(
    place: Position, value: Any, size: int, asked: Asked, refused: Problem | None = None
) -> Iterator[Found]:
    """The objects of a document, or of a list's item. `refused`: why kubectl takes none of them."""
    if not isinstance(value, dict):
        yield Flaw(str(place), "is not an object; it must be a mapping with apiVersion and kind")
        return
    refuse_cut(place.line, value, size)
    if refused is None and not place.items and not isinstance(value.get("items", []), list | None):
        refused = _NO_LIST
    api_version, kind_text = text_of(value, "apiVersion"), text_of(value, "kind")
    if kind_text and _is_list(place, value):
        yield from _listed(place, value, size, asked, refused)
    elif not (api_version and kind_text):
        yield Flaw(str(place), "is not an object; it needs apiVersion and kind, both text")
    elif (kind := kind_of(api_version, kind_text)) not in asked.kinds and refused is not None:
        yield Flaw(str(place), f"{kind_text}: {refused}")
    elif kind is None:
        yield _misspelt(place, api_version, kind_text, asked.kinds) or Other.UNASKED
    elif kind not in asked.kinds:
        yield Other.UNASKED
    else:
        whole = _in_namespace(value, asked.namespace)
        if asked.looked is not None:
            asked.looked[place] = kind, whole
        yield _entry(place, kind, whole, size, refused)


def _listed(
    place: Position, value: dict[str, Any], size: int, asked: Asked, refused: Problem | None
) -> Iterator[Found]:
    """The objects of a list whose items did not come one by one."""
    if size > OBJECT_SIZE_MAX:
        raise _cut(place.line, "put the items of a list within a list into the outer one")
    yield Other.LIST
    if refused is not None and not value["items"]:
        yield Flaw(str(place), f"{text_of(value, 'kind')}: {refused}")
    implied = implied_by(value)
    for index, item in enumerate(value["items"] or ()):
        whole = (item or {}) | implied if is_unnamed(item) else item
        yield from definitions(place.item(index), whole, size, asked, refused)


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


def _entry(
    place: Position, kind: Kind, value: Any, size: int, refused: Problem | None
) -> Entry | Flaw:
    try:
        if refused is not None:
            raise unread(kind, value, refused)
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


# kubectl decodes whatever has `items` as a list, and refuses what is none.
_NO_LIST = Problem("items", "must be a list; only lists have such a field")

_TOO_LARGE = Problem(
    "(object)", f"takes more than {OBJECT_SIZE_MAX} characters; no API server holds as much"
)


def refuse_cut(line: int, value: Any, size: int) -> None:
    """Raises ManifestError if it is so large that its kind was not read."""
    said = not isinstance(value, dict) or (text_of(value, "apiVersion") and text_of(value, "kind"))
    if size > OBJECT_SIZE_MAX and not said:
        raise _cut(line, "put apiVersion, kind and metadata.name first")


def _cut(line: int, advice: str) -> ManifestError:
    message = f"takes more than {OBJECT_SIZE_MAX} characters, and not all was read; {advice}"
    return ManifestError(message, line, 1)


def text_of(value: Mapping[str, Any], key: str) -> str:
    """The text of a key; empty if there is none. kubectl ignores a value that is not text."""
    text = value.get(key)
    return text if isinstance(text, str) else ""


def is_unnamed(item: Any) -> bool:
    """Whether an item is an object without a kind; a null is one, and empty."""
    if not isinstance(item, dict):
        return item is None
    return not (text_of(item, "kind") or text_of(item, "apiVersion"))


def implied_by(head: Mapping[str, Any]) -> dict[str, str]:
    """What a list from an API server leaves out of its items."""
    kind = text_of(head, "kind").removesuffix("List")
    return {"apiVersion": text_of(head, "apiVersion"), "kind": kind}
