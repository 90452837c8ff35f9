"""The characters of a file's bytes, a window at a time.

They are decoded as kubectl decodes them: UTF-16 after its byte order mark, else UTF-8, with U+FFFD
in place of invalid bytes. A window is small, so that no step takes long and
no second copy of a large file is made.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator

WINDOW = 65_536
"""How many characters are decoded at a time, about: 0.1 ms of work."""


class Characters:
    """A position in a content, and a window of the text from there on.

    `text[at:]` comes next, as far as it is decoded; `text[at - 1]` exists too, and is a line feed
    at the beginning. `ended`: nothing comes after `text`.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.text = "\n"
        self.at = 1
        self.ended = False
        self._pieces = _pieces(content)
        self._dropped = -1
        # How many lines begin before `text[_counted]`; None if that is not known, as most readers
        # ask for few lines, and to count them takes a fifth as long as reading JSON.
        self._lines = 0
        self._counted: int | None = 0
        # How many bytes are decoded, and how many line feeds are among the first of these.
        self._decoded = 0
        self._feeds_counted = 0
        self._feeds = 0
        # That of `text[0]`.
        self._column = 0

    @property
    def offset(self) -> int:
        """How many characters of the content come before the position."""
        return self._dropped + self.at

    @property
    def line(self) -> int:
        """The line of the place, from 1."""
        if self._counted is None:
            start, self._feeds_counted = self._feeds_counted, self._decoded
            self._feeds += self.content.count(b"\n", start, self._decoded)
            self._lines = 1 + self._feeds - self.text.count("\n", self.at)
        else:
            self._lines += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._lines

    @property
    def column(self) -> int:
        """The column of the place, from 1."""
        line_end = self.text.rfind("\n", 0, self.at)
        return self.at - line_end if line_end >= 0 else self.at + self._column

    def more(self) -> None:
        """Decode more, and drop the text before the position. Changes `at`."""
        if self.ended:
            return
        if _is_utf_16(self.content):  # Its bytes do not show where lines end.
            self._lines, self._counted = self.line, 1
        else:
            self._counted = None
        self._column = self.column - 1
        self._dropped += self.at - 1
        piece = next(self._pieces, None)
        self._decoded = min(self._decoded + WINDOW, len(self.content))
        self.ended = piece is None
        self.text = self.text[self.at - 1 :] + (piece or "")
        self.at = 1

    def skip(self, offset: int) -> Iterator[None]:
        """Go forward to `offset`, in steps."""
        while self.offset < offset and not (self.ended and self.at == len(self.text)):
            self.at = min(len(self.text), self.at + offset - self.offset)
            self.more()
            yield

    def begin_line(self) -> None:
        """Treat the position as the beginning of a line, whatever comes before it."""
        if self.text[self.at - 1] != "\n":
            self._lines, self._counted = self.line, 1
            self._dropped += self.at - 1
            self.text = "\n" + self.text[self.at :]
            self.at = 1


def _is_utf_16(content: bytes) -> bool:
    return content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def decoded(content: bytes) -> str:
    """All characters of a content, in one go: for callers that hold up nobody."""
    return "".join(_pieces(content))


def _pieces(content: bytes) -> Iterator[str]:
    codec = "utf-16" if _is_utf_16(content) else "utf-8-sig"
    decoder = codecs.getincrementaldecoder(codec)("replace")
    view = memoryview(content)
    for start in range(0, len(content), WINDOW):
        yield decoder.decode(view[start : start + WINDOW])
    yield decoder.decode(b"", final=True)
