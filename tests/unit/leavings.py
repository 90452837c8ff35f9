"""What an object of the cache still holds when it should hold nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

# Their entries are as many as there are kinds and listed namespaces: only what is in these counts.
_BY_SCOPE = ("_controlled", "_answered", "_before")

# These hold such a scope, or a number for it.
_OF_SCOPES = ("_emitted", "_unlisted")


def leavings(root: object) -> list[str]:
    """The fields in it, and in its parts, that hold something, be it entries without content.

    Whatever is added to the cache is looked at by itself: only objects of its own modules are, and
    all their dicts, lists, sets and deques.
    """
    return list(_leavings(root, type(root).__name__, set()))


def _leavings(one: object, path: str, seen: set[int]) -> Iterator[str]:
    if id(one) in seen:
        return
    seen.add(id(one))
    for name, value in _fields(one):
        inner = f"{path}.{name}"
        if name in _BY_SCOPE:
            assert isinstance(value, Mapping)
            yield from (f"{inner}[{key}]" for key, held in value.items() if held)
        elif isinstance(value, Mapping | AbstractSet | list | deque):
            if value and name not in _OF_SCOPES:
                yield inner
        elif type(value).__module__.startswith("vmsvc_grpc.cache."):
            yield from _leavings(value, inner, seen)


def _fields(one: object) -> Iterator[tuple[str, object]]:
    yield from getattr(one, "__dict__", {}).items()
    for cls in type(one).__mro__:
        for name in getattr(cls, "__slots__", ()):
            if hasattr(one, name):
                yield name, getattr(one, name)
