"""Whether a pattern can match the key of a label or annotation at all. Pure.

A pattern such as `[` or `a/b/c` denies nothing, which should be an error.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from vmsvc_grpc.model.validate import LABEL_MAX, SUBDOMAIN_MAX

_NAME_STARTS = string.ascii_letters + string.digits
_PREFIX_STARTS = string.ascii_lowercase + string.digits
_ALPHABET = _NAME_STARTS + "-_./"

# As `fnmatch` reads them: a bracket that is never closed is one like any other character.
_ELEMENTS = re.compile(r"\*+|\[!?+\]?+[^\]]*+\]|.", re.DOTALL)

# The longest key has so many characters; each element except a star takes one.
_ELEMENTS_MAX = SUBDOMAIN_MAX + 1 + LABEL_MAX


class _Place(NamedTuple):
    """How far a key has been spelt: before its slash or not, and after which sort of character."""

    in_prefix: bool
    can_end: bool = False
    """After a letter or a digit."""
    may_punctuate: bool = False
    """Anywhere but at the beginning of a name, or of a label of the prefix."""


_Begun = dict[_Place, str]
"""The shortest beginning of a key that ends at each place."""


def key_matching(pattern: str, *, prefix_case_counts: bool) -> str | None:
    """A key that a pattern (a shell's, for file names) matches; None if it matches none.

    A label's prefix is in lower case, so that case counts there; an annotation's need not be.
    O(the pattern's length).
    """
    starts = _PREFIX_STARTS if prefix_case_counts else _NAME_STARTS
    begun: _Begun = {_Place(in_prefix=True): "", _Place(in_prefix=False): ""}
    elements = [one[0] for one in _ELEMENTS.finditer(pattern)]
    if sum(not one.startswith("*") for one in elements) > _ELEMENTS_MAX:
        return None
    for element in elements:
        if element.startswith("*"):
            begun = _with_any_text(begun, starts)
        else:
            matched = "".join(one for one in _ALPHABET if fnmatchcase(one, element))
            begun = _spelt(begun, matched, starts)
    return begun.get(_Place(in_prefix=False, can_end=True, may_punctuate=True))


def _with_any_text(begun: _Begun, starts: str) -> _Begun:
    """The beginnings after a star: the same as before, or longer by any text."""
    while True:
        longer = _shortest(begun, _spelt(begun, _ALPHABET, starts))
        if longer == begun:
            return begun
        begun = longer


def _shortest(one: _Begun, other: _Begun) -> _Begun:
    found = dict(one)
    for place, text in other.items():
        if place not in found or len(_part(text)) < len(_part(found[place])):
            found[place] = text
    return found


def _part(text: str) -> str:
    """The part whose length is bounded: the name, or the prefix as far as it is spelt."""
    return text.rpartition("/")[2]


def _spelt(begun: _Begun, characters: str, starts: str) -> _Begun:
    """The beginnings, longer by one of these characters."""
    found: _Begun = {}
    for place, text in begun.items():
        for character in characters:
            for after in _after(place, text, character, starts):
                found = _shortest(found, {after: text + character})
    return found


def _after(place: _Place, text: str, character: str, starts: str) -> Iterator[_Place]:
    in_prefix = place.in_prefix
    if in_prefix and character == "/":
        if place.can_end:
            yield _Place(in_prefix=False)
    elif len(_part(text)) == (SUBDOMAIN_MAX if in_prefix else LABEL_MAX):
        return
    elif character in (starts if in_prefix else _NAME_STARTS):
        yield _Place(in_prefix, can_end=True, may_punctuate=True)
    elif in_prefix and character == ".":
        if place.can_end:
            yield _Place(in_prefix=True)
    elif character in ("-" if in_prefix else "-_.") and place.may_punctuate:
        yield _Place(in_prefix, may_punctuate=True)
