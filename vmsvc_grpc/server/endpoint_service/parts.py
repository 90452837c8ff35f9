"""What is made of each endpoint of a large service, in pieces, and kept for its next versions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from vmsvc_grpc.model.endpoints import Endpoint

LARGE = 2_000
"""A service with more endpoints is encoded in pieces: of so many, it takes some 8 ms."""

_MADE_MAX = 1_000  # How many parts are made in one piece: some 2 ms.
_LOOKED_MAX = 1_000  # How many endpoints are looked at before it is seen how many were made.

_Part = TypeVar("_Part")


class Parts(Generic[_Part]):
    """A part of each endpoint. A change of the service leaves those of all other endpoints."""

    __slots__ = ("_at", "_endpoints", "_make", "_parts")

    def __init__(self, make: Callable[[Endpoint], _Part]) -> None:
        """Nothing is made yet."""
        self._make = make
        self._parts: dict[Endpoint, _Part] = {}
        self._endpoints: Sequence[Endpoint] = ()
        self._at = 0

    def proceed(self, endpoints: Sequence[Endpoint]) -> bool:
        """Make some of the parts that are missing, in some milliseconds; whether none is then."""
        if endpoints is not self._endpoints:
            self._endpoints, self._at = endpoints, 0
        left = _MADE_MAX
        while left > 0 and self._at < len(endpoints):
            piece = endpoints[self._at : self._at + _LOOKED_MAX]
            missing = [endpoint for endpoint in piece if endpoint not in self._parts]
            for endpoint in missing:
                self._parts[endpoint] = self._make(endpoint)
            left -= len(missing)
            self._at += len(piece)
        return self._at == len(endpoints)

    def of(self, endpoints: Sequence[Endpoint]) -> list[_Part]:
        """The part of each endpoint, none of which is missing. Drops others, if they are many."""
        parts = list(map(self._parts.__getitem__, endpoints))
        if len(self._parts) > 2 * len(endpoints):
            self._parts = dict(zip(endpoints, parts, strict=True))
        return parts
