"""Where a value does not have the type that its field needs, in our words. Pure.

A library's own messages name no key of a map, and speak of Python's types. The author of an object
knows it as a text with mappings and lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import cache
from math import isfinite, isinf, isnan
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from vmsvc_grpc.model.integers import INT64_MAX, INT64_MIN, is_int64
from vmsvc_grpc.model.problem import quoted

FieldPath = tuple[str | int, ...]
"""Where in an object: keys of mappings, and indexes of lists from 0."""

_MISSING = "is missing; it is required"

_WORDS: dict[type[inspect.Type], str] = {
    inspect.StructType: "a mapping",
    inspect.DictType: "a mapping",
    inspect.ListType: "a list",
    inspect.VarTupleType: "a list",
    inspect.StrType: "text",
    inspect.BoolType: "true or false",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.DateTimeType: "a time, as 2026-01-31T09:30:00Z is",
}
_TYPES: dict[type[inspect.Type], tuple[type, ...]] = {
    inspect.StructType: (dict,),
    inspect.DictType: (dict,),
    inspect.ListType: (list,),
    inspect.VarTupleType: (list,),
    inspect.StrType: (str,),
    inspect.BoolType: (bool,),
    inspect.IntType: (int,),
    inspect.FloatType: (int, float),
    inspect.DateTimeType: (str, datetime),
}


def field_name(path: FieldPath) -> str:
    """A path as Kubernetes writes it."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(steps).removeprefix(".") or "(object)"


def in_words(value: Any) -> str:
    """A value, for a sentence that says that it is not what is needed."""
    match value:
        case int() if not isinstance(value, bool) and value > INT64_MAX:
            return f"{quoted(value)}, which is more than {INT64_MAX}"
        case int() if not isinstance(value, bool) and value < INT64_MIN:
            return f"{quoted(value)}, which is less than {INT64_MIN}"
        case str() | int() if not isinstance(value, bool):
            return quoted(value)
        case float() if isinf(value):
            return "a number too large to be kept"
        case float() if isnan(value):
            return "what is not a number"
        case float():
            return str(value)
    return type_in_words(value)


def type_in_words(value: Any) -> str:
    """The same for a value that may be a secret."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case str():
            return "text"
        case int() | float():
            return "a number"
    return "of a type that JSON has not"


class Misfit(NamedTuple):
    """A value that does not fit: where it is, and what is wrong, with the value and without it."""

    path: FieldPath
    message: str
    secretive: str

    @property
    def field(self) -> str:
        """The path as Kubernetes writes it (`spec.ports[0].port`)."""
        return field_name(self.path)


_SOMEWHERE = Misfit((), "does not have the form that is wanted", "cannot be read")


def misfit(untyped: Any, shape: type) -> Misfit:
    """The first misfit in a value that does not fit a shape. O(value)."""
    return next(misfits(untyped, shape))


def misfits(untyped: Any, shape: type) -> Iterator[Misfit]:
    """The misfits in a value that does not fit a shape; at least one. O(value)."""
    found = _misfits(untyped, _description(shape), ())
    yield next(found, _SOMEWHERE)
    yield from found


_description = cache(inspect.type_info)


def _misfits(value: Any, wanted: inspect.Type, path: FieldPath) -> Iterator[Misfit]:
    if isinstance(wanted, inspect.UnionType):
        wanted = _likeliest(value, wanted)
    if isinstance(wanted, inspect.UnionType):
        yield _mistyped(path, " or ".join(_words(wanted)), value)
    elif isinstance(wanted, inspect.NoneType) or type(wanted) not in _TYPES:
        return
    elif not _is_a(value, wanted):
        yield _mistyped(path, _WORDS[type(wanted)], value)
    else:
        yield from _misfits_below(value, wanted, path)


def _misfits_below(value: Any, wanted: inspect.Type, path: FieldPath) -> Iterator[Misfit]:
    match wanted:
        case inspect.StructType():
            for field in wanted.fields:
                if field.encode_name in value:
                    inner = value[field.encode_name]
                    yield from _misfits(inner, field.type, (*path, field.encode_name))
                elif field.required:
                    yield Misfit((*path, field.encode_name), _MISSING, _MISSING)
        case inspect.DictType():
            yield from _too_many(value, wanted.max_length, "keys", path)
            for key, inner in value.items():
                if not isinstance(key, str):
                    yield _mistyped(path, "a mapping whose keys are text", value)
                yield from _misfits(inner, wanted.value_type, (*path, key))
        case inspect.ListType() | inspect.VarTupleType():
            yield from _too_many(value, wanted.max_length, "items", path)
            for index, inner in enumerate(value):
                yield from _misfits(inner, wanted.item_type, (*path, index))


def _too_many(
    value: dict[Any, Any] | list[Any], most: int | None, unit: str, path: FieldPath
) -> Iterator[Misfit]:
    if most is not None and len(value) > most:
        message = f"has {len(value)} {unit}, and may have {most}"
        yield Misfit(path, message, message)


def _mistyped(path: FieldPath, wanted: str, found: Any) -> Misfit:
    return Misfit(
        path,
        f"must be {wanted}, not {in_words(found)}",
        f"must be {wanted}, not {type_in_words(found)}",
    )


def _likeliest(value: Any, wanted: inspect.UnionType) -> inspect.Type:
    """The type of several that is meant; all of them, if that cannot be known."""
    types = [one for one in wanted.types if not isinstance(one, inspect.NoneType)]
    if value is None and wanted.includes_none:
        return inspect.NoneType()
    of_its_type = [one for one in types if _is_a(value, one)]
    if len(types) == 1 or of_its_type:
        return (of_its_type or types)[0]
    return wanted


def _words(wanted: inspect.UnionType) -> Iterator[str]:
    return (_WORDS[type(one)] for one in wanted.types if type(one) in _WORDS)


def _is_a(value: Any, wanted: inspect.Type) -> bool:
    if isinstance(value, bool):
        return isinstance(wanted, inspect.BoolType)
    if isinstance(wanted, inspect.IntType) and isinstance(value, int):
        return is_int64(value)
    if isinstance(wanted, inspect.FloatType) and isinstance(value, float):
        return isfinite(value)
    if isinstance(wanted, inspect.DateTimeType) and isinstance(value, str):
        return _is_time(value)
    return isinstance(value, _TYPES.get(type(wanted), object))


def _is_time(text: str) -> bool:
    try:
        msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return False
    return True
