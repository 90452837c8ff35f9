"""How often a reconciler did what, as its metrics count it."""

from __future__ import annotations

from collections import Counter

from vmsvc_grpc.histogram import Histogram
from vmsvc_grpc.model.objects import Kind
from vmsvc_grpc.reconciler.counts import Attempt, ReconcilerCounts, Turn
from vmsvc_grpc.reconciler.plan import Verb


def turns(counts: ReconcilerCounts, *ended: Turn) -> int:
    """How many turns have ended so; in any way, if none is named."""
    return sum(_observed(counts.turns[turn]) for turn in ended or Turn)


def attempts(counts: ReconcilerCounts, ended: Attempt) -> Counter[tuple[Kind, Verb]]:
    """How many attempts to write have ended so."""
    found = Counter[tuple[Kind, Verb]]()
    for (kind, verb, attempt), taken in counts.attempts.items():
        if attempt is ended:
            found[kind, verb] += _observed(taken)
    return found


def _observed(taken: Histogram) -> int:
    _, all_of_them = taken.buckets()[-1]
    return int(all_of_them)
