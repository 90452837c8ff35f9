"""What the shapes of objects have in common."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import inspect

from vmsvc_grpc.model import wire


def numbers(shape: type[msgspec.Struct]) -> Iterator[tuple[str, inspect.IntType]]:
    described = inspect.type_info(shape)
    assert isinstance(described, inspect.StructType)
    for field in described.fields:
        types = field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,)
        for one in types:
            if isinstance(one, inspect.IntType):
                yield f"{shape.__name__}.{field.name}", one


def test_every_number_has_bounds() -> None:
    shapes = [s for s in vars(wire).values() if isinstance(s, type) and issubclass(s, wire.Shape)]
    found = dict(number for shape in shapes for number in numbers(shape))
    assert "ServicePortShape.target_port" in found
    assert [name for name, number in found.items() if number.ge is None or number.le is None] == []
