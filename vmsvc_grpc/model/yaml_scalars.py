"""The meaning of YAML's scalars to kubectl: YAML 1.1 without its numbers to the base of 60.

The rules are those of go-yaml 2 (its resolve.go), on which kubectl's reader is built.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from collections.abc import Mapping
from typing import Any

from vmsvc_grpc.model.integers import is_int64

Scalar = bool | int | float | str | None

_TAG = "tag:yaml.org,2002:"
_MERGE_TAG = _TAG + "merge"

_WORDS: Mapping[str, bool | None] = {
    form: value
    for word, value in {
        "null": None,
        "true": True,
        "yes": True,
        "y": True,
        "on": True,
        "false": False,
        "no": False,
        "n": False,
        "off": False,
    }.items()
    for form in (word, word.capitalize(), word.upper())
} | {"": None, "~": None}

# kubectl finds them and then refuses them, as JSON has none.
_NO_NUMBER_OF_JSON: Mapping[str, float] = {
    f"{sign}.{form}": float(sign + form)
    for word in ("inf", "nan")
    for form in (word, word.upper(), "Inf" if word == "inf" else "NaN")
    for sign in (("", "+", "-") if word == "inf" else ("",))
}

# No number needs more characters; so a long text costs little.
_NUMBER_CHARACTERS_MAX = 400
_NUMBER_STARTS = frozenset("+-.0123456789")
_INT = re.compile(
    r"(?P<sign>[-+]?)(?:0[bB](?P<two>[01]+)|0[oO](?P<eight>[0-7]+)|0[xX](?P<sixteen>[0-9a-fA-F]+)"
    r"|0(?P<octal>[0-7]+)|(?P<ten>0|[1-9][0-9]*))"
)
_BASES = {"two": 2, "eight": 8, "sixteen": 16, "octal": 8, "ten": 10}
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")

_UINT64_MAX = 2**64 - 1
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
    r"(?:[Tt][0-9]{1,2}(?::[0-9]{1,2}){2}(?:\.[0-9]*)?(?:Z|[-+][0-9]{2}:[0-9]{2})"
    r"| [0-9]{1,2}(?::[0-9]{1,2}){2}(?:\.[0-9]*)?)?"
)


class TagError(Exception):
    """A scalar does not fit its tag."""


def is_merge_key(text: str, tag: str | None, *, plain: bool) -> bool:
    """Whether a scalar in the place of a key merges its value's keys instead.

    `plain` is what libyaml says of it: that it has neither quotes nor a tag, or only the tag `!`.
    """
    return text == "<<" and (plain or tag == _MERGE_TAG)


def plain_scalar(text: str) -> Scalar:
    """The value of a scalar without quotes or tag."""
    if text in _WORDS:
        return _WORDS[text]
    # Most are text.
    return _in_json(_number(text)) if text[0] in _NUMBER_STARTS else text


def _in_json(value: Scalar) -> Scalar:
    """The value once kubectl has made JSON of it, which it does with each document."""
    return float(value) if isinstance(value, int) and not is_int64(value) else value


def _number(text: str) -> int | float | str:
    """The number that a text is, up to an unsigned one of 64 bits, or the text."""
    first = text[0]
    if first not in _NUMBER_STARTS or len(text) > _NUMBER_CHARACTERS_MAX:
        return text
    if (odd := _NO_NUMBER_OF_JSON.get(text)) is not None:
        return odd
    if first == ".":
        # Underscores are not skipped there.
        return text if "_" in text else _float(text, text)
    digits = text.replace("_", "")
    if found := _INT.fullmatch(digits):
        base = str(found.lastgroup)
        number = int(found["sign"] + found[base], _BASES[base])
        unsigned = number <= _UINT64_MAX and found["sign"] != "+"
        if is_int64(number) or (number > 0 and unsigned):
            return number
    return _float(digits, text)


def is_unsigned(text: str) -> bool:
    """Whether a scalar is a whole number that only takes 64 bits if none is the sign."""
    number = _number(text) if text else text
    return isinstance(number, int) and not is_int64(number)


def _float(digits: str, text: str) -> float | str:
    if not _FLOAT.fullmatch(digits):
        return text
    number = float(digits)
    # An identifier such as 123e4567 is not meant as a number.
    return number if math.isfinite(number) else text


def tagged_scalar(tag: str, text: str) -> Scalar:
    """The value of a scalar with that tag; with an unknown tag, its text. Raises TagError."""
    match tag.removeprefix(_TAG) if tag.startswith(_TAG) else None:
        case "binary":
            return _binary(text)
        case "int" | "float" | "bool" | "null" as name:
            value = _WORDS[text] if text in _WORDS else _number(text)
            if name == "float" and type(value) is int:
                return float(value)
            if type(value) is not _TYPES[name]:
                raise TagError
            return _in_json(value)
        case "timestamp" if not _TIMESTAMP.fullmatch(text):
            raise TagError
    return text


_TYPES: dict[str, type] = {"int": int, "float": float, "bool": bool, "null": type(None)}


def _binary(text: str) -> str:
    encoded = re.sub(r"[\r\n]", "", text).encode()
    try:
        return base64.b64decode(encoded, validate=True).decode(errors="replace")
    except binascii.Error:
        raise TagError from None


def key_text(value: Any, written: str) -> str:
    """The text of a key: a number as kubectl writes it, null as in the file."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _float_text(value)
    return written


_EXPONENT_MIN, _EXPONENT_MAX = -4, 6
_DIGITS_MAX = 9


def _float_text(value: float) -> str:
    """The shortest text that gives this number in 32 bits, as Go formats it."""
    try:
        # Not in the machine's own form: for a number too large, that is infinite.
        single = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        single = math.copysign(math.inf, value)
    if not math.isfinite(single):
        return ".nan" if math.isnan(single) else f"{'-' if single < 0 else ''}.inf"
    short = (f"{single:.{digits}e}" for digits in range(_DIGITS_MAX))
    text = next(
        text for text in short if struct.pack("<f", float(text)) == struct.pack("<f", single)
    )
    mantissa, _, exponent = text.partition("e")
    if _EXPONENT_MIN <= int(exponent) < _EXPONENT_MAX:
        decimals = len(mantissa.lstrip("-").replace(".", "")) - 1 - int(exponent)
        return f"{float(text):.{max(0, decimals)}f}"
    return text
