"""What is wrong with an object, in words that are safe to print.

Text from outside is data: whoever wrote an object chose its names and values, and they
end in logs, terminals, conditions and answers. So text is cut and escaped here, once, where
it enters a `Problem`; nobody who shows a problem does it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice
from typing import NamedTuple, Self

VALUE_CHARACTERS_MAX = 200
"""How much of a value from outside is shown: enough to find it by."""

MESSAGE_CHARACTERS_MAX = 1000
"""How long a message may be: a sentence of ours with four values in it."""

PROBLEMS_MAX = 10
"""How many problems of one object are shown; the others are counted."""

_CUT = "..."

_COMPARED_CHARACTERS_MAX = 100  # To compare texts is quadratic.

_BITS_SHOWN_MAX = 640  # As many as VALUE_CHARACTERS_MAX decimal digits hold, roughly.


def escaped(text: str, characters_max: int = MESSAGE_CHARACTERS_MAX) -> str:
    r"""The text on one line, all of it printable, and at most `characters_max` long.

    A character that cannot be seen, or that changes how others are seen, is written as its
    escape (`\n`, `\x1b`, `\u202e`). What is cut ends with `...`. Escaping again changes nothing.
    O(`characters_max`), however long the text.
    """
    # What `isprintable` calls unprintable, and may turn up in our text: control characters (C0,
    # DEL, C1), line and paragraph separators, and whatever changes how the text around it is shown
    # (marks of direction, zero-width characters, tags).
    if len(text) <= characters_max and text.isprintable():
        return text
    shown = "".join(map(_escaped, text[: characters_max + 1]))
    if len(text) <= characters_max and len(shown) <= characters_max:
        return shown
    return shown[: characters_max - len(_CUT)] + _CUT


def _escaped(character: str) -> str:
    return character if character.isprintable() else repr(character)[1:-1]


def quoted(value: str | int, characters_max: int = VALUE_CHARACTERS_MAX) -> str:
    """A value from outside as a sentence shows it: text in quotes, cut and escaped.

    O(`characters_max`), however large the value.
    """
    if isinstance(value, int):
        # Python refuses to write one of 5,000 digits.
        bits = value.bit_length()
        return str(value) if bits <= _BITS_SHOWN_MAX else f"a number of {bits} bits"
    if len(value) <= characters_max:
        shown = repr(value)
        if len(shown) <= characters_max + 2:
            return shown
    return repr(value[:characters_max])[: characters_max + 1] + _CUT + "'"


def likely_meant(text: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """Which of the known names somebody who wrote `text` likely meant; None if it is like none.

    Case does not count. `likeness` is from 0 to 1, for texts that are equal.
    """
    by_lower = {name.lower(): name for name in known}
    compared = text.lower()[:_COMPARED_CHARACTERS_MAX]
    found = get_close_matches(compared, by_lower, n=1, cutoff=likeness)
    return by_lower[found[0]] if found else None


def system_reason(error: OSError) -> str:
    """Why the system refused, in a few words: without the number and the path."""
    return error.strerror or str(error)


class _Fields(NamedTuple):
    field: str
    message: str


class Problem(_Fields):
    """What is wrong with an object.

    `field` is a path as Kubernetes writes it (`spec.ports[0].port`); `message` says
    what is wrong and what to do, and does not repeat the field. Both are cut and escaped;
    a value within the message should be `quoted`, so that what comes after it is seen.
    """

    __slots__ = ()

    def __new__(cls, field: str, message: str) -> Self:
        """The problem, its text made safe to print."""
        return super().__new__(cls, escaped(field, VALUE_CHARACTERS_MAX), escaped(message))

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def bounded(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The first PROBLEMS_MAX problems of an object, and one that counts the others, if any."""
    remaining = iter(problems)
    first = tuple(islice(remaining, PROBLEMS_MAX))
    more = sum(1 for _ in remaining)
    if more:
        return (*first, Problem("(object)", f"{more} more problems; mend these first"))
    return first
