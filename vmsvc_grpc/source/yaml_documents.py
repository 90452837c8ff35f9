"""The documents of a text in YAML, as kubectl reads them.

kubectl first splits a text at each line that begins with `---`, and then reads the first
document that YAML finds in each part. PyYAML's loaders read some texts differently from kubectl,
and a few kilobytes of aliases or brackets crash them. So documents are built from libyaml's events
here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import count
from typing import Any, Protocol

import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from yaml.reader import Reader, ReaderError

from vmsvc_grpc.model.integers import INT64_MAX
from vmsvc_grpc.model.problem import Problem, quoted
from vmsvc_grpc.model.yaml_scalars import (
    Scalar,
    TagError,
    is_merge_key,
    is_unsigned,
    key_text,
    plain_scalar,
    tagged_scalar,
)
from vmsvc_grpc.source.builder import DEPTH_MAX, Builder, Open
from vmsvc_grpc.source.characters import WINDOW, Characters
from vmsvc_grpc.source.documents import OBJECT_SIZE_MAX, Document, ManifestError, Step

TOKEN_SIZE_MAX = 4 * 1024 * 1024
"""How many characters libyaml may read for one event, during which all else waits.

It takes some 30 ns for each. No object has a text that long.
"""

ANCHORS_MAX = 100_000
"""How many anchors a document may have: the value of each is kept to the end."""

EVENTS_MAX = 7_500_000
"""How many events libyaml may give for a file: one for each scalar and alias, two for each
mapping or list. Each takes some 4 µs.

16 MiB of VMs have 2.9 million, and of mappings in mappings 6.9; only lists of single characters
have more. So this bounds the time for a file, however large its bound in bytes is.
"""

_STEP_EVENTS = 500  # About a millisecond of work.
_EVENT_LEVELS = 200  # How many open levels cost libyaml as much as an event.
_EVENT_MERGED = 40  # How many keys that '<<' copies cost as much as an event.

_SEPARATOR = "\n---"
_SEPARATOR_LINE = re.compile(r"---(?P<blank>[^\S\n]*+)(?:#|\r?$|(?P<value>.))", re.MULTILINE)
_END = re.compile(r"\.\.\.(?:\s|\Z)")
# Blank lines, comments and directives: before a document they mean nothing.
# To YAML more ends a line than a line feed; there libyaml goes on.
_BREAKS = "\r\n\x85\u2028\u2029"
_COMMENT, _DIRECTIVE = f"#[^{_BREAKS}]*+", f"%[^{_BREAKS}]*+"
_HEAD_LINES = re.compile(rf"(?:(?: *+(?:{_COMMENT})?+|{_DIRECTIVE})\r?+\n)*+")
# Such a line that does not end within the window; a carriage return may be half of its end.
_HEAD_LINE = re.compile(
    rf"(?: *+(?P<comment>{_COMMENT})?+|(?P<directive>{_DIRECTIVE}))(?P<half>\r?+)\Z"
)
_LINE_END = re.compile("\n")
_COMMENT_END = re.compile(f"(?=[{_BREAKS}])")


def document_steps(characters: Characters, read: int) -> Iterator[Step]:
    """The documents from the position on, empty ones too; `read` is how many came before.

    Raises ManifestError, having yielded the documents before it. A step may take as long as libyaml
    does for TOKEN_SIZE_MAX characters of one value or comment.
    """
    characters.begin_line()
    numbers = count(1)
    begun: int | None = None  # The line of the separator, once there was one.
    flaw = _flaw_of_first_line(characters)  # Of the next object, by what stands before it.
    while True:
        part = _Part(characters)
        yield from part.skip_head()
        flaw = flaw or part.flaw
        line = characters.line if begun is None else begun
        if begun is not None and _END.match(characters.text, characters.at):
            # Nothing came before it, so the document is empty.
            read += 1
            yield Document(read, line, None)
            yield from part.skip_rest()
        elif not part.ended:
            read += 1
            builder = _YAMLBuilder(read, line, characters.line)
            if flaw is not None:
                builder.refuse(flaw)
                flaw = None
            yield from _part_steps(part, characters, builder, numbers)
            yield from part.skip_rest()
        elif begun is not None:
            read += 1
            yield Document(read, line, None)
        if characters.at == len(characters.text):
            if flaw is not None:  # There was no object after it.
                yield Document(read + 1, line, None, flaw=Problem("(object)", flaw))
            return
        begun = characters.line
        value_line = characters.line
        yield from _skip_separator(characters)
        if characters.text[characters.at - 1] != "\n":
            flaw = _ON_SEPARATOR.format(line=value_line)


_ON_SEPARATOR = "begins on the line of '---', which kubectl refuses (line {line})"


def _flaw_of_first_line(characters: Characters) -> str | None:
    first = _SEPARATOR_LINE.match(characters.text, characters.at)
    if first is None or characters.offset or first["value"] is None:
        return None
    return _ON_SEPARATOR.format(line=1)


def _skip_separator(characters: Characters) -> Iterator[None]:
    """Go to the line after a separator, or to a value on its line.

    Raises ManifestError if a line only begins like a separator.
    """
    if len(characters.text) - characters.at < WINDOW:
        characters.more()  # Blanks are looked over as far as that.
    separator = _SEPARATOR_LINE.match(characters.text, characters.at)
    assert separator is not None, "a separator is there"
    if separator["value"] is None:
        yield from _skip_past(_LINE_END, characters)
    elif separator["blank"]:
        characters.at = separator.end("blank")
    else:
        message = "a line that begins with '---' ends a document; put the value on the next line"
        raise ManifestError(message, characters.line, 1)


def _skip_past(end: re.Pattern[str], characters: Characters) -> Iterator[None]:
    while (found := end.search(characters.text, characters.at)) is None and not characters.ended:
        characters.at = len(characters.text)
        characters.more()
        yield
    characters.at = found.end() if found else len(characters.text)


class _Part:
    """The text up to the next separator, as a file for libyaml."""

    def __init__(self, characters: Characters) -> None:
        self.size_unanswered = 0
        """How much was read since the last event of libyaml."""
        self.flaw: str | None = None
        """Why kubectl refuses what comes after the head."""
        self._characters = characters
        self._last = ""

    @property
    def ended(self) -> bool:
        """Whether nothing is left of it."""
        characters = self._characters
        while not characters.ended and len(characters.text) - characters.at < len(_SEPARATOR):
            characters.more()
        # To kubectl, a line that begins a file separates nothing, so it is libyaml's to read.
        at_separator = characters.offset and characters.text.startswith(
            _SEPARATOR, characters.at - 1
        )
        return bool(at_separator) or characters.at == len(characters.text)

    def skip_head(self) -> Iterator[None]:
        """Skip blank lines, comments and directives, in steps."""
        characters = self._characters
        while not self.ended:
            lines = _HEAD_LINES.match(characters.text, characters.at)
            assert lines is not None, "no lines are some"
            if lines.end() > characters.at:
                self._note_directive(lines.end())
                characters.at, self._last = lines.end(), "\n"
            last = _HEAD_LINE.match(characters.text, characters.at)
            if last is None or self.ended:
                return
            if last["half"] and not characters.ended:
                characters.more()
                yield
            elif last["comment"] or last["directive"] or characters.ended:
                self._note_directive(last.end())
                yield from _skip_past(_COMMENT_END, characters)
            elif len(characters.text) - characters.at > WINDOW:
                return  # libyaml will refuse so many blanks.
            else:
                characters.more()
                yield

    def _note_directive(self, end: int) -> None:
        """Note a directive among the next lines: kubectl splits it from its document."""
        characters = self._characters
        if characters.text.find("\n%", characters.at - 1, end) >= 0:
            self.flaw = f"has a directive of YAML, which kubectl refuses (line {characters.line})"

    def skip_rest(self) -> Iterator[None]:
        """Skip the rest, in steps."""
        while self._piece():
            yield

    def read(self, _: int = 0, /) -> str:
        """The next piece of it; "" at its end. Raises ManifestError."""
        piece = self._piece()
        # A byte order mark may begin a line, as where two files were joined. kubectl reads it as a
        # character; libyaml does so only for its newer code point.
        piece = (self._last + piece).replace("\n\ufeff", "\n\u2060")[len(self._last) :]
        self._last = piece[-1:] or self._last
        self.size_unanswered += len(piece)
        if self.size_unanswered > TOKEN_SIZE_MAX:
            message = f"more than {TOKEN_SIZE_MAX} characters are one text, or comments; split it"
            raise ManifestError(message, self._characters.line, 1)
        if piece or self._last in ("", "\n"):
            return piece
        # kubectl adds a missing last line feed, which shows in the value of a block.
        self._last = "\n"
        return self._last

    def _piece(self) -> str:
        characters = self._characters
        while True:
            line_end = characters.at - 1 if characters.offset else characters.at
            found = characters.text.find(_SEPARATOR, line_end)
            if found >= 0:
                end = found + 1
            elif characters.ended:
                end = len(characters.text)
            else:  # The last characters may be half of a separator.
                end = max(characters.at, len(characters.text) - len(_SEPARATOR) + 1)
            if end > characters.at or found >= 0 or characters.ended:
                piece = characters.text[characters.at : end]
                characters.at = end
                return piece
            characters.more()


def _part_steps(
    part: _Part, characters: Characters, builder: _YAMLBuilder, numbers: Iterator[int]
) -> Iterator[Step]:
    """The document that a part begins with. `numbers` has one for each event of the file."""
    offset, first_line = characters.offset, characters.line
    unread: int | None = None
    try:
        events = iter(yaml.CSafeLoader(part).get_event, None)
        pause_at = merged = 0
        for event, number in zip(events, numbers, strict=False):
            part.size_unanswered = 0
            if event.__class__ is DocumentEndEvent:
                unread = _unread(event, events)
                break
            builder.take(event, number)
            if builder.ready:
                yield from builder.ready
                builder.ready.clear()
            if builder.merged != merged:
                by_merging, merged_rest = divmod(builder.merged - merged, _EVENT_MERGED)
                merged = builder.merged - merged_rest
                pause_at -= by_merging
            if number >= pause_at:
                # libyaml looks at each level that is open.
                pause_at = number + _STEP_EVENTS // (1 + builder.depth // _EVENT_LEVELS)
                yield None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark else (0, 0)
        message = error.problem or "is not YAML"
        raise ManifestError(message, first_line + line, column + 1) from None
    except ReaderError as error:
        yield from _refuse_characters(characters.content, offset, error.reason)
    yield builder.document(None if unread is None else first_line + unread)


def _unread(end: DocumentEndEvent, events: Iterator[yaml.Event]) -> int | None:
    """The line of a text after the document's end; None if there is none."""
    mark: _Mark | None = end.end_mark
    try:
        following = next(events, None)
        if following is None or isinstance(following, StreamEndEvent):
            return None
        mark = following.start_mark
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
    except (ReaderError, ManifestError):
        pass  # It is close behind.
    return mark.line if mark else 0


def _refuse_characters(content: bytes, offset: int, reason: str) -> Iterator[None]:
    """Raises ManifestError for the first character from `offset` on that YAML does not allow."""
    characters = Characters(content)
    yield from characters.skip(offset)
    while not (found := Reader.NON_PRINTABLE.search(characters.text, characters.at)):
        assert not characters.ended, "libyaml found one"
        characters.at = len(characters.text)
        characters.more()
        yield
    characters.at = found.start()
    raise ManifestError(reason, characters.line, characters.column)


_ALIASES_MIN, _DECODED_MIN = 100, 1_000
_DECODED_FEW, _DECODED_MANY = 400_000, 4_000_000


def _aliased_share_max(decoded: int) -> float:
    """The part of so many values that aliases may stand for, as in go-yaml.

    Nine lines of aliases of aliases can stand for a billion values; an honest manifest
    repeats a few labels.
    """
    beyond = (decoded - _DECODED_FEW) / (_DECODED_MANY - _DECODED_FEW)
    return 0.99 - 0.89 * min(1.0, max(0.0, beyond))


_LOST_ITEMS = (
    f"an alias or '<<' in an object of more than {OBJECT_SIZE_MAX} characters; "
    "write out what it stands for"
)
"""Only the beginning of such an object is kept, and the rest may be the items of a list."""


class _Mark(Protocol):
    """A place in a text, counted from 0."""

    @property
    def line(self) -> int: ...


class _YAMLBuilder(Builder):
    """Builds one document from libyaml's events."""

    def __init__(self, index: int, line: int, first_line: int) -> None:
        """`first_line` is the line at which libyaml begins."""
        super().__init__(index, line)
        self.merged = 0
        """How many keys `<<` has copied."""
        self._first_line = first_line
        self._anchored: dict[str, tuple[Any, int]] = {}
        self._values = 0
        self._aliased = 0
        self._passed = 0
        # How many mappings and lists are open within one that stands in the place of a key.
        self._key_depth = 0
        self._event: yaml.Event

    def take(self, event: yaml.Event, number: int) -> None:
        """Take in the next event, the file's so many-th. Raises ManifestError."""
        mark = event.end_mark
        assert mark is not None, "libyaml marks every event"
        self._event = event
        if number > EVENTS_MAX:
            raise self._error(f"more than {EVENTS_MAX} values are in the file; split it")
        passed = mark.index
        size, self._passed = passed - self._passed, passed
        # The most frequent first; a pattern takes twice the time.
        if self._key_depth:
            self._pass_key(event, size)
        elif isinstance(event, ScalarEvent):
            self._take_scalar(event, size)
        elif isinstance(event, MappingStartEvent):
            self._take_start(event, {})
        elif isinstance(event, CollectionEndEvent):
            ended = self.end()
            if ended.anchor is not None:
                self._name(ended.anchor, ended.value, self._values - ended.values_before)
        elif isinstance(event, SequenceStartEvent):
            self._take_start(event, [])
        elif isinstance(event, AliasEvent):
            assert event.anchor is not None, "an alias is of an anchor"
            self._take_alias(event.anchor, size)

    @property
    def _expects_key(self) -> bool:
        inner = self.innermost
        return inner is not None and inner.mapping and inner.key is None

    def _take_scalar(self, event: ScalarEvent, size: int) -> None:
        text = event.value
        value: Scalar = text
        if event.tag is not None:
            value = self._tagged(event)
        elif event.implicit[0]:
            value = plain_scalar(text)
        self._values += 1
        inner = self.innermost
        if inner is not None and inner.mapping and inner.key is None:
            self.key(text if value is text else self._key_text(value, text), size)
            if is_merge_key(text, event.tag, plain=event.implicit[0]):
                inner.merging, inner.plain = True, False
        else:
            if isinstance(value, float) and inner is not None and not math.isfinite(value):
                self._refuse(f"{quoted(text)} is a number that JSON has not")
            self.put(value, size)
        if event.anchor is not None:
            self._name(event.anchor, value, 1)

    def _key_text(self, value: Scalar, text: str) -> str:
        if value is None:
            self._refuse(f"has the key {quoted(text)}, which is null; a key is text")
        elif isinstance(value, float) and is_unsigned(text):
            self._refuse(f"has the key {text}, which is more than {INT64_MAX}; put it in quotes")
        return key_text(value, text)

    def _tagged(self, event: ScalarEvent) -> Scalar:
        assert event.tag is not None, "it has a tag"
        try:
            return tagged_scalar(event.tag, event.value)
        except TagError:
            self._refuse(f"{quoted(event.value)} is not what the tag {event.tag} says")
            return event.value

    def _take_start(
        self,
        event: MappingStartEvent | SequenceStartEvent,
        empty: dict[str, Any] | list[Any],
    ) -> None:
        if self._expects_key:
            self._refuse("has a mapping or list as a key; a key is text")
            self._key_depth = 1
            return
        if self.depth >= DEPTH_MAX:
            raise self._error(f"more than {DEPTH_MAX} levels deep; no object is")
        opened = self.begin(empty, anchored=event.anchor is not None)
        opened.anchor, opened.values_before = event.anchor, self._values
        self._values += 1

    def _pass_key(self, event: yaml.Event, size: int) -> None:
        """Take in an event of a mapping or list in the place of a key: nothing of it is kept."""
        if isinstance(event, CollectionStartEvent):
            self._key_depth += 1
        elif isinstance(event, CollectionEndEvent):
            self._key_depth -= 1
        if self._key_depth == 0:
            self.key("", size)

    def _name(self, anchor: str, value: Any, weight: int) -> None:
        """Note the value of an anchor."""
        if len(self._anchored) >= ANCHORS_MAX:
            raise self._error(f"more than {ANCHORS_MAX} anchors; write out what they stand for")
        self._anchored[anchor] = (value, weight)

    def _take_alias(self, name: str, size: int) -> None:
        if name not in self._anchored:
            self._refuse(f"the alias *{name} stands for nothing that ends before it")
        value, weight = self._anchored.get(name, (None, 1))
        self._values += 1 + weight
        self._aliased += weight
        many = self._aliased > _ALIASES_MIN and self._values > _DECODED_MIN
        if many and self._aliased > self._values * _aliased_share_max(self._values):
            raise self._error("aliases stand for too many values; write them out")
        if not self._expects_key:
            self.put(value, size + weight)
            if self.depth == 1 and isinstance(value, list) and not self.has_room:
                raise self._error(_LOST_ITEMS)
        elif isinstance(value, dict | list):
            self._refuse(f"has the alias *{name} as a key, which is not text")
            self.key("", size)
        else:
            self.key(self._key_text(value, "null"), size)

    def _done(self, outer: Open | None, value: Any) -> None:
        if outer is not None and outer.merging:
            if isinstance(value, list) and isinstance(self._event, AliasEvent):
                self._refuse("is an alias of a list; '<<' merges mappings, or a list of them")
            self._merge(outer, value)
            outer.merging, outer.plain = False, outer.holds
        super()._done(outer, value)

    def _merge(self, outer: Open, value: Any) -> None:
        """Merge keys of other mappings: of several with a key, the first counts.

        A key takes the place of one that came before, as it does for kubectl.
        """
        if self.depth == 1 and not self.has_room:
            raise self._error(_LOST_ITEMS)
        if not outer.holds or not self.has_room:
            return
        sources = value if isinstance(value, list) else [value]
        if not all(isinstance(source, dict) for source in sources):
            self._refuse("is no mapping, which '<<' merges")
            return
        into = outer.value
        assert isinstance(into, dict), "only a mapping has keys"
        for source in reversed(sources):
            into.update(source)
            self.merged += len(source)
            if self.depth == 1 and "items" in source:
                self.drop_items()

    def _refuse(self, flaw: str) -> None:
        """Refuse the object that is being built, but nothing else of the file."""
        mark = self._event.start_mark
        assert mark is not None, "libyaml marks every event"
        self.refuse(f"{flaw} (line {self._first_line + mark.line})")

    def _error(self, message: str) -> ManifestError:
        mark = self._event.start_mark
        assert mark is not None, "libyaml marks every event"
        return ManifestError(message, self._first_line + mark.line, mark.column + 1)
