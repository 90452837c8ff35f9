"""The reconciler's bounds."""

from __future__ import annotations

from dataclasses import dataclass, field

from vmsvc_grpc.backoff import Backoff
from vmsvc_grpc.reconciler.yielding import Patience

HANG_S = 1.0
"""An API server means to answer 99 of 100 requests within that time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcilerBounds:
    """Bounds of the reconciler.

    `cooldown_s`: how long a service rests after a write, as the controller that mirrors Endpoints
    reads each of them whole, and every node reads the slices. Streams do not wait. `retries_max`:
    after so many failed attempts in a row, the VMService reports even a transient failure.
    `recheck_s`: when to look again whether another's object is still in the place of one of ours.
    `lead_poll_s`: how often to look whether writing is allowed again. `hang_s`: a service hangs
    once it has waited so long for one answer, which must be shorter than the store's patience.
    `hand_over_s`: longest wait for Kubernetes to mirror a service whose slices we hand over.
    """

    workers: int = 4
    writes_per_s: float = 50.0
    writes_burst: int = 200
    retries_max: int = 10
    recheck_s: float = 60.0
    patience: Patience = field(default_factory=Patience)
    cooldown_s: float = 1.0
    backoff: Backoff = field(default_factory=lambda: Backoff(first_s=0.1, max_s=60.0))
    lead_poll_s: float = 0.5
    hang_s: float = HANG_S
    hand_over_s: float = 10.0
