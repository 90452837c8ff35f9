"""How much work the reconciler has done, and how long it took."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from vmsvc_grpc.histogram import Histogram
from vmsvc_grpc.model.objects import Kind
from vmsvc_grpc.reconciler.plan import Verb

_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Turn(Enum):
    """How a turn on a service ended."""

    DONE = "done"
    """All is as it should be, or says why it cannot be."""

    AGAIN = "again"
    """It goes on later: it met something newer, waits for Kubernetes, or may not write any more."""

    FAILED = "failed"


class Attempt(Enum):
    """How an attempt to write an object ended."""

    WRITTEN = "written"
    CONFLICT = "conflict"
    GONE = "gone"
    FAILED = "failed"


@dataclass(slots=True)
class ReconcilerCounts:
    """How much work was done. Only rises."""

    turns: dict[Turn, Histogram] = field(
        default_factory=lambda: {turn: Histogram(_BOUNDS_S) for turn in Turn}
    )
    """How long turns took."""

    attempts: dict[tuple[Kind, Verb, Attempt], Histogram] = field(default_factory=dict)
    """How long writes took, from the request to its answer."""

    def attempted(self, kind: Kind, verb: Verb, attempt: Attempt, seconds: float) -> None:
        """Count an attempt to write."""
        taken = self.attempts.get((kind, verb, attempt))
        if taken is None:
            taken = self.attempts[kind, verb, attempt] = Histogram(_BOUNDS_S)
        taken.observe(seconds)
