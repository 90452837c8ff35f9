"""Where objects come from and where they are held: a directory, or a cluster.

Each place wires the source and the reconciler that belong to it. The rest of the process
knows only this much of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.source import Emit


class Place(Protocol):
    """A place that is read, and where objects may be held."""

    def __str__(self) -> str:
        """What it is, for a person."""

    @property
    def troubles(self) -> tuple[str, ...]:
        """Sentences that say what cannot be read now; none while all is well."""

    async def run(self, emit: Emit) -> None:
        """Read, and hold, until cancelled. Raises what it cannot begin or go on with."""

    def changed(self, services: Iterable[Key]) -> None:
        """The objects of these services may need work. Does not wait."""
