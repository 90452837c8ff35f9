"""The documents of a text in YAML or JSON, as untyped values.

Pure: knows no file. It reads as `kubectl` does: JSON if that is what the text is, else
YAML 1.1 without its numbers to the base of 60; a key that occurs twice is an error, keys
are text whatever they look like, and a timestamp stays text. PyYAML's loaders do none of
these, and a few kilobytes of aliases or brackets bring them down; so libyaml's events are
put together here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.reader import ReaderError

ALIASED_VALUES_MAX = 100_000
"""How many values all aliases of one document may stand for together.

Nine lines of aliases of aliases can stand for a billion values; an honest manifest
repeats a few labels.
"""

DEPTH_MAX = 100
"""How deep mappings and lists may nest; Kubernetes objects stay below 30."""

_STEP_EVENTS = 500  # About a millisecond of work.


class ManifestError(Exception):
    """A text is neither YAML nor JSON, or breaks a rule of ours; nothing of it counts.

    `line` and `column` are where, from 1.
    """

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.message = message
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a text: its number and the line where it begins, both from 1.

    `value` is mappings (with text as keys), lists and scalars; None if it is empty.
    Values that aliases stand for are shared: change none of it.
    """

    index: int
    line: int
    value: Any


def read_documents(text: str) -> Iterator[Document]:
    """The documents of a text, empty ones too.

    Raises ManifestError at the first thing that does not parse, having yielded the
    documents before it.
    """
    return (document for document in document_steps(text) if document is not None)


def document_steps(text: str) -> Iterator[Document | None]:
    """`read_documents` with a None after each millisecond of work or so, to take breaks at."""
    text = text.removeprefix("\ufeff")
    if text.lstrip()[:1] in ("{", "["):
        documents = _json_documents(text)
        if documents is not None:
            return iter(documents)
    return _yaml_documents(text)


# -- JSON --


class _NotJSONError(Exception):
    """The text may still be YAML, which also finds the better words for what is wrong."""


def _json_documents(text: str) -> list[Document] | None:
    """The JSON values of a text, one after another; None if it is not JSON throughout."""
    decoder = json.JSONDecoder(object_pairs_hook=_json_object, parse_constant=_json_constant)
    documents: list[Document] = []
    line, counted, start = 1, 0, _after_blanks(text, 0)
    try:
        while start < len(text):
            line += text.count("\n", counted, start)
            counted = start
            value, end = decoder.raw_decode(text, start)
            if "\\u" in text[start:end]:
                # Half of a surrogate pair is JSON, but no message could carry it.
                json.dumps(value, ensure_ascii=False).encode()
            documents.append(Document(len(documents) + 1, line, value))
            start = _after_blanks(text, end)
    except (_NotJSONError, ValueError, RecursionError):
        return None
    return documents


def _after_blanks(text: str, start: int) -> int:
    while start < len(text) and text[start] in " \t\r\n":
        start += 1
    return start


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _NotJSONError
    return value


def _json_constant(_: str) -> Any:
    raise _NotJSONError


# -- YAML --


def _yaml_documents(text: str) -> Iterator[Document | None]:
    index, builder = 0, _Builder()
    try:
        for count, event in enumerate(yaml.parse(text, Loader=yaml.CSafeLoader)):
            match event:
                case yaml.DocumentStartEvent():
                    index, builder = index + 1, _Builder()
                    builder.line = _place(event)[0]
                case yaml.DocumentEndEvent():
                    yield Document(index, builder.line, builder.root)
                case yaml.NodeEvent() | yaml.CollectionEndEvent():
                    builder.take(event)
            if count % _STEP_EVENTS == 0:
                yield None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise ManifestError(error.problem or "is not YAML", line, column) from None
    except ReaderError as error:
        before = text.encode()[: error.position].decode(errors="replace")
        line = before.count("\n") + 1
        raise ManifestError(error.reason, line, len(before) - before.rfind("\n")) from None


class _Open:
    """A mapping or list whose end has not come yet."""

    __slots__ = ("anchor", "key", "merged", "merging", "value", "weight")

    def __init__(self, value: dict[str, Any] | list[Any], anchor: str | None) -> None:
        self.value = value
        self.anchor = anchor
        self.key: str | None = None
        self.merging = False
        self.merged: list[dict[str, Any]] = []
        self.weight = 1


_Tagged = yaml.ScalarEvent | yaml.MappingStartEvent | yaml.SequenceStartEvent

_MERGE = "<<"
_TAG = "tag:yaml.org,2002:"


class _Builder:
    """Puts one document together from libyaml's events, without recursion."""

    def __init__(self) -> None:
        self.root: Any = None
        self.line = 1
        self._open: list[_Open] = []
        self._anchored: dict[str, tuple[Any, int]] = {}
        self._aliased = 0

    def take(self, event: yaml.Event) -> None:
        """Take in the next event. Raises ManifestError."""
        match event:
            case yaml.ScalarEvent():
                self._take_scalar(event)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._begin(event)
            case yaml.CollectionEndEvent():
                self._end(event)
            case yaml.AliasEvent():
                self._alias(event)

    def _take_scalar(self, event: yaml.ScalarEvent) -> None:
        as_key = self._expects_key()
        value = event.value if as_key else _scalar(event)
        self._keep(event.anchor, value, 1)
        if as_key:
            self._key(value, event)
        else:
            self._put(value, 1, event)

    def _expects_key(self) -> bool:
        return (
            bool(self._open)
            and isinstance(self._open[-1].value, dict)
            and (self._open[-1].key is None)
        )

    def _key(self, key: str, event: yaml.Event) -> None:
        inner = self._open[-1]
        # Quoted, it is a key as any other.
        merging = key == _MERGE and isinstance(event, yaml.ScalarEvent) and event.implicit[0]
        if inner.merged if merging else key in inner.value:
            raise _error(event, f"the key {key!r} occurs twice in one mapping; remove one of them")
        inner.key, inner.merging = key, merging

    def _begin(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        if self._expects_key():
            raise _error(event, "a mapping or list cannot be a key; use text")
        if len(self._open) >= DEPTH_MAX:
            raise _error(event, f"more than {DEPTH_MAX} levels deep; no Kubernetes object is")
        mapping = isinstance(event, yaml.MappingStartEvent)
        if event.tag not in (None, "!", _TAG + ("map" if mapping else "seq")):
            raise _unknown_tag(event)
        self._open.append(_Open({} if mapping else [], event.anchor))

    def _end(self, event: yaml.Event) -> None:
        done = self._open.pop()
        value = done.value
        if isinstance(value, dict):
            for merged in done.merged:
                for key, inherited in merged.items():
                    value.setdefault(key, inherited)
        self._keep(done.anchor, value, done.weight)
        self._put(value, done.weight, event)

    def _alias(self, event: yaml.AliasEvent) -> None:
        if event.anchor not in self._anchored:
            flaw = f"the alias *{event.anchor} stands for nothing that ends before it"
            raise _error(event, flaw)
        value, weight = self._anchored[event.anchor]
        self._aliased += weight
        if self._aliased > ALIASED_VALUES_MAX:
            flaw = f"aliases stand for more than {ALIASED_VALUES_MAX} values; write them out"
            raise _error(event, flaw)
        if self._expects_key():
            if not isinstance(value, str):
                raise _error(event, f"the alias *{event.anchor} is not text, and cannot be a key")
            self._key(value, event)
        else:
            self._put(value, weight, event)

    def _keep(self, anchor: str | None, value: Any, weight: int) -> None:
        if anchor is not None:
            self._anchored[anchor] = (value, weight)

    def _put(self, value: Any, weight: int, event: yaml.Event) -> None:
        if not self._open:
            self.root = value
            return
        inner = self._open[-1]
        inner.weight += weight
        if isinstance(inner.value, list):
            inner.value.append(value)
            return
        key, inner.key = inner.key, None
        assert key is not None, "a mapping's value comes after its key"
        if inner.merging:
            inner.merged = _merged(value, event)
        else:
            inner.value[key] = value


def _merged(value: Any, event: yaml.Event) -> list[dict[str, Any]]:
    sources = value if isinstance(value, list) else [value]
    if not all(isinstance(source, dict) for source in sources):
        raise _error(event, "'<<' merges mappings, and this is none")
    return sources


def _scalar(event: yaml.ScalarEvent) -> Any:
    plain, quoted = event.implicit
    if plain:
        return plain_scalar(event.value)
    if quoted or event.tag == _TAG + "str":
        return event.value
    value = plain_scalar(event.value)
    if type(value) is not _TAGGED.get(event.tag, _NoTag):
        raise _unknown_tag(event)
    return value


class _NoTag:
    """The type of no value: what an unknown tag stands for."""


_TAGGED: dict[str | None, type] = {
    _TAG + "int": int,
    _TAG + "float": float,
    _TAG + "bool": bool,
    _TAG + "null": type(None),
}

_WORDS: dict[str, bool | None] = {
    form: value
    for word, value in {
        "null": None,
        "true": True,
        "yes": True,
        "on": True,
        "false": False,
        "no": False,
        "off": False,
    }.items()
    for form in (word, word.capitalize(), word.upper())
} | {"": None, "~": None}

# No more digits than a 64-bit number could have in binary.
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9_]{0,63})")
_BASED = re.compile(
    r"[-+]?0(?:b[01][01_]{0,63}|o?[0-7][0-7_]{0,63}|x[0-9a-fA-F][0-9a-fA-F_]{0,63})"
)
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]{1,64}|[0-9][0-9_]{0,63}(?:\.[0-9_]{0,64})?)(?:[eE][-+]?[0-9]{1,4})?"
)


def plain_scalar(text: str) -> bool | int | float | str | None:
    """What a scalar without quotes means."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    digits = text.replace("_", "")
    if _DECIMAL.fullmatch(text):
        return int(digits)
    if _BASED.fullmatch(text):
        return _based(digits)
    if _FLOAT.fullmatch(text):
        number = float(digits)
        # An identifier such as 123e4567 is no number that anybody could mean.
        return number if math.isfinite(number) else text
    return text


def _based(digits: str) -> int:
    sign, unsigned = (-1, digits[1:]) if digits[0] == "-" else (1, digits.lstrip("+"))
    # YAML 1.1 writes octal numbers with nothing but a 0 before them.
    return sign * (int(unsigned, 8) if unsigned.isdigit() else int(unsigned, 0))


def _unknown_tag(event: _Tagged) -> ManifestError:
    return _error(event, f"the tag {event.tag} is not known here; remove it")


def _error(event: yaml.Event, message: str) -> ManifestError:
    return ManifestError(message, *_place(event))


def _place(event: yaml.Event) -> tuple[int, int]:
    """Line and column of an event, from 1."""
    mark = event.start_mark
    assert mark is not None, "libyaml marks every event"
    return mark.line + 1, mark.column + 1
