"""Values that Kubernetes accepts although they do not fit a shape. Pure.

Its decoders read a null as the zero value of a map's value, a list's item or a field, and kubectl
drops the point of a whole number: `port: 80.0` is 80. msgspec accepts neither. Shapes that allowed
both at each field would be hard to read, and would slow down every object. So an object that does
not fit is put right here, guided by its shape, and decoded once more.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from msgspec import inspect

_ZEROS: dict[type[inspect.Type], Any] = {
    inspect.StrType: "",
    inspect.IntType: 0,
    inspect.BoolType: False,
    inspect.StructType: {},
    inspect.DictType: {},
    inspect.ListType: [],
    inspect.VarTupleType: [],
}


def as_meant(untyped: Any, shape: type) -> Any:
    """`untyped` with nulls and whole numbers as `shape` wants them; what fits stays.

    The value itself is not changed; parts of it may be shared with the result. Never
    raises: what is wrong otherwise is left for the shape to refuse.
    """
    return _meant(untyped, _description(shape))


_description = cache(inspect.type_info)


def _meant(value: Any, wanted: inspect.Type) -> Any:
    if isinstance(wanted, inspect.UnionType):
        return _meant_as_one(value, wanted)
    if value is None:
        return _ZEROS.get(type(wanted))
    match wanted:
        case inspect.StructType() if isinstance(value, dict):
            return value | {
                field.encode_name: _meant(value[field.encode_name], field.type)
                for field in wanted.fields
                if field.encode_name in value
                # A required field that is null is missing.
                and not (field.required and value[field.encode_name] is None)
            }
        case inspect.DictType() | inspect.ListType() | inspect.VarTupleType() if _too_many(
            value, wanted
        ):
            return value
        case inspect.DictType() if isinstance(value, dict):
            return {key: _meant(one, wanted.value_type) for key, one in value.items()}
        case inspect.ListType() | inspect.VarTupleType() if isinstance(value, list):
            return [_meant(one, wanted.item_type) for one in value]
        case inspect.IntType() if isinstance(value, float) and value.is_integer():
            return int(value)
    return value


def _too_many(
    value: Any, wanted: inspect.DictType | inspect.ListType | inspect.VarTupleType
) -> bool:
    """Whether it has more entries than the shape allows, and is refused anyway."""
    limit = wanted.max_length
    return isinstance(value, dict | list) and limit is not None and len(value) > limit


def _meant_as_one(value: Any, wanted: inspect.UnionType) -> Any:
    """A null stays null where the shape allows one: it counts as absent."""
    if value is None and wanted.includes_none:
        return None
    for one in wanted.types:
        meant = _meant(value, one)
        if meant is not value:
            return meant
    return value
