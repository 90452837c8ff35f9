"""Where objects come from and where they are held: a directory, or a cluster.

Each place wires the source and the reconciler that belong together. The rest of the process knows
only this interface.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.source import Emit


class SourceState(NamedTuple):
    """Something that is read."""

    what: str
    how: str
    """How that goes, in a sentence."""
    well: bool
    silence_s: float | None = None
    """How long ago something last came of it; None: it is not known, or does not matter."""


class Place(Protocol):
    """A place that is read, and where objects may be held."""

    def __str__(self) -> str:
        """What it is, for a person."""

    @property
    def sources(self) -> Iterable[SourceState]:
        """What is read, each with how that goes."""

    @property
    def writing(self) -> str:
        """Who writes the objects that are held, in a sentence."""

    @property
    def troubles(self) -> tuple[str, ...]:
        """Sentences that say what cannot be read or written now; empty while all is well.

        Some hundred at most, however much is wrong.
        """

    def remarks(self, kind: Kind, key: Key) -> Iterable[str]:
        """Sentences about an object that its events do not carry, as where else it is defined."""

    def origin(self, kind: Kind, key: Key) -> str:
        """The file or namespace that log lines about the object belong to."""

    async def run(self, emit: Emit) -> None:
        """Read and hold until cancelled. Raises an error that it cannot recover from."""

    def changed(self, services: Iterable[Key]) -> None:
        """The objects of these services may need work. Does not wait."""
