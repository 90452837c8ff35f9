"""How much work the reconciler has done."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from vmsvc_grpc.model.objects import Kind
from vmsvc_grpc.reconciler.plan import Verb


@dataclass(slots=True)
class ReconcilerCounts:
    """How much work was done, for tests and metrics. Only rises."""

    reconciles: int = 0
    errors: int = 0
    conflicts: int = 0
    writes: Counter[tuple[Kind, Verb]] = field(default_factory=Counter)
