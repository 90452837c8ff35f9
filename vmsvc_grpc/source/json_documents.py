"""The JSON values of a text, one after another, as kubectl reads them.

Small values are decoded in one go, by `json`. Of a value larger than a window, brackets and keys
are read here, until a small value comes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator
from enum import Enum, auto
from typing import Any

from vmsvc_grpc.model.integers import is_int64
from vmsvc_grpc.source.builder import CONTAINER_SIZE, DEPTH_MAX, Builder
from vmsvc_grpc.source.characters import WINDOW, Characters
from vmsvc_grpc.source.documents import OBJECT_SIZE_MAX, Document, Step


class NotJSONError(Exception):
    """The text at the position is not JSON. It may still be YAML."""


_INT64_CHARACTERS_MAX = 20
_NUMBER_CUT_MAX = len("e+")  # What may remain of a number whose end is cut off.
_STEP_SIZE = 20_000  # Characters decoded in a step, about: 0.2 ms.
_TOKEN_SIZE = 50  # What a token costs beside its characters, in the same unit.

_BLANKS = re.compile(r"[ \t\r\n]*+")
_COMMA = re.compile(r"[ \t\r\n]*+,[ \t\r\n]*+")
_HIGH, _LOW = r"[dD][89abAB][0-9a-fA-F]{2}", r"[dD][c-fC-F][0-9a-fA-F]{2}"
# The part of a string that is whole: a surrogate pair is not split.
_STRING_PART = re.compile(
    r'(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]'
    rf"|\\u(?!{_HIGH})[0-9a-fA-F]{{4}}|\\u{_HIGH}\\u{_LOW}"
    rf"|\\u{_HIGH}(?=[^\\]|\\[^u]|\\u(?!{_LOW})[0-9a-fA-F]{{4}}))*+"
)
_ESCAPES_MAX = 12  # Characters of a pair.
_MAYBE_SURROGATE = re.compile(r"\\u[dD]")
# Each escape in turn; the group holds half of a surrogate pair that stands alone.
_ESCAPES = re.compile(rf"\\(?:u{_HIGH}\\u{_LOW}|u({_HIGH}|{_LOW})|.)", re.DOTALL)


class _State(Enum):
    VALUE = auto()
    VALUE_OR_END = auto()
    KEY = auto()
    KEY_OR_END = auto()
    COLON = auto()
    COMMA_OR_END = auto()


def skip_blanks(characters: Characters) -> Iterator[None]:
    """Skip blanks, in steps."""
    while True:
        blanks = _BLANKS.match(characters.text, characters.at)
        assert blanks is not None, "no blanks are some"
        characters.at = blanks.end()
        if characters.at < len(characters.text) or characters.ended:
            return
        characters.more()
        yield


def value_steps(characters: Characters, index: int) -> Iterator[Step]:
    """The JSON value at the position, its items first; `index` is the document's number.

    Raises NotJSONError; the position is then where JSON ends.
    """
    line = characters.line
    if _fill(characters):
        yield None
    found, value, size = _small_value(characters, alone=True)
    if found:
        yield Document(index, line, value, size)
        return
    builder = Builder(index, line)
    reader = _TokenReader(characters, builder)
    work = characters.offset
    yield from reader.large_value()
    work = characters.offset - work + _TOKEN_SIZE
    while not builder.complete:
        yield from skip_blanks(characters)
        before = characters.offset
        yield from reader.token()
        if builder.ready:
            yield from builder.ready
            builder.ready.clear()
        work += characters.offset - before + _TOKEN_SIZE
        if work > _STEP_SIZE:
            work = 0
            yield None
    yield builder.document()


def _small_value(characters: Characters, *, alone: bool) -> tuple[bool, Any, int]:
    """Whether a value ends within the window, the value, and its size; moves past it.

    `alone`: it is a whole object. Then its mappings and lists are not counted in its size, which
    would take a tenth of the time: two windows full of them are still no too large object.
    """
    text, at = characters.text, characters.at
    try:
        value, end = _DECODER.raw_decode(text, at)
        if _MAYBE_SURROGATE.search(text, at, end):
            value = _DECODER.decode(_whole_characters(text[at:end]))
    except (NotJSONError, ValueError, RecursionError):
        return False, None, 0
    if len(text) - end <= _NUMBER_CUT_MAX and not characters.ended:
        return False, None, 0  # It may be half of a number.
    characters.at = end
    size = end - at
    if not alone:
        size += (text.count("{", at, end) + text.count("[", at, end)) * CONTAINER_SIZE
    return True, value, size


def _fill(characters: Characters) -> bool:
    """Fill the window, as far as there is text; whether more was decoded.

    A value that ends behind the window would be decoded in vain, as far as it is there.
    """
    news = False
    while not characters.ended and len(characters.text) - characters.at < WINDOW:
        characters.more()
        news = True
    return news


class _TokenReader:
    """Reads a value into a builder, token by token, or whole where it is small."""

    def __init__(self, characters: Characters, builder: Builder) -> None:
        self._characters = characters
        self._builder = builder
        self._state = _State.VALUE

    def token(self) -> Iterator[None]:
        """Read the next token. Raises NotJSONError."""
        char = self._next
        match self._state, char:
            case (_State.VALUE_OR_END, "]") | (_State.KEY_OR_END, "}"):
                self._end()
            case (_State.VALUE | _State.VALUE_OR_END, _):
                yield from self._value(char)
            case (_State.KEY | _State.KEY_OR_END, '"'):
                yield from self._key()
            case (_State.COLON, ":"):
                self._pass(_State.VALUE)
            case (_State.COMMA_OR_END, ","):
                self._pass(_State.KEY if self._builder.in_mapping else _State.VALUE)
            case (_State.COMMA_OR_END, "}" | "]") if (char == "}") is self._builder.in_mapping:
                self._end()
            case _:
                raise NotJSONError

    @property
    def _next(self) -> str:
        characters = self._characters
        return characters.text[characters.at : characters.at + 1]

    def _pass(self, state: _State) -> None:
        self._characters.at += 1
        self._state = state

    def _end(self) -> None:
        self._pass(_State.COMMA_OR_END)
        self._builder.end()

    def _value(self, char: str) -> Iterator[None]:
        if _fill(self._characters):
            yield
        if char == "[" and self._builder.at_items:
            # Most items are small, and the list as a whole most likely is not.
            self._begin([])
            return
        found, value, size = _small_value(self._characters, alone=self._builder.between_items)
        if found:
            self._builder.put(value, size)
            if not self._builder.in_mapping:
                self._further_values()
            self._state = _State.COMMA_OR_END
        else:
            yield from self.large_value()

    def large_value(self) -> Iterator[None]:
        """Read a value that is not a small one, or its beginning. Raises NotJSONError."""
        char = self._next
        if char == '"':
            text, size = yield from self._long_string()
            self._builder.put(text, size)
            self._state = _State.COMMA_OR_END
        elif char in ("{", "[") and self._builder.depth < DEPTH_MAX:
            self._begin({} if char == "{" else [])
            yield  # Finding out that it is not small took as long as reading a window.
        else:
            raise NotJSONError

    def _begin(self, value: dict[str, Any] | list[Any]) -> None:
        self._builder.begin(value)
        self._pass(_State.KEY_OR_END if isinstance(value, dict) else _State.VALUE_OR_END)

    def _further_values(self) -> None:
        """The next values of a list, as long as they are small and within the window."""
        characters, alone = self._characters, self._builder.between_items
        end = characters.at + _STEP_SIZE
        for _ in range(_STEP_SIZE // _TOKEN_SIZE):
            comma = _COMMA.match(characters.text, characters.at)
            if comma is None or comma.end() > end:
                return
            before, characters.at = characters.at, comma.end()
            found, value, size = _small_value(characters, alone=alone)
            if not found:
                characters.at = before
                return
            self._builder.put(value, size)

    def _key(self) -> Iterator[None]:
        if _fill(self._characters):
            yield
        # Text has no mappings or lists, though it may have brackets.
        found, key, size = _small_value(self._characters, alone=True)
        if not found:
            key, size = yield from self._long_string()
        self._builder.key(key, size)
        self._state = _State.COLON

    def _long_string(self) -> Generator[None, None, tuple[str, int]]:
        """A string longer than the window, cut to what an object may hold."""
        characters = self._characters
        parts: list[str] = []
        size = 0
        characters.at += 1
        while True:
            part = _STRING_PART.match(characters.text, characters.at)
            assert part is not None, "no characters are some"
            size += len(part[0])
            if size <= OBJECT_SIZE_MAX:
                parts.append(json.loads(_whole_characters(f'"{part[0]}"')))
            characters.at = part.end()
            if self._next == '"':
                characters.at += 1
                return "".join(parts), size
            left = len(characters.text) - characters.at
            if characters.ended or left >= _ESCAPES_MAX:
                raise NotJSONError
            characters.more()
            yield


def _whole_characters(text: str) -> str:
    """JSON with U+FFFD in place of each half of a surrogate pair, which no message could carry."""
    return _ESCAPES.sub(lambda escape: "\\ufffd" if escape[1] else escape[0], text)


def _int(digits: str) -> int | float:
    """A whole number; beyond 64 bits it is rounded as by kubectl."""
    if len(digits) <= _INT64_CHARACTERS_MAX and is_int64(number := int(digits)):
        return number
    return float(digits)


def _constant(_: str) -> Any:
    raise NotJSONError


_DECODER = json.JSONDecoder(parse_int=_int, parse_constant=_constant)
