"""Log lines and metrics of a reconciler, for both places."""

from __future__ import annotations

import logging
from collections.abc import Callable

from vmsvc_grpc.logs import LinesPerOrigin
from vmsvc_grpc.metrics import Metric, Metrics
from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.reconciler.held import Failure
from vmsvc_grpc.reconciler.loop import Reconciler


def failure_log(
    lines: LinesPerOrigin, origin: Callable[[Kind, Key], str]
) -> Callable[[Key, Failure | None], None]:
    """Logs that a service's objects are not as they should be, or are so again."""

    def log(key: Key, failure: Failure | None) -> None:
        of = origin(Kind.VIRTUAL_MACHINE_SERVICE, key)
        if failure is None:
            lines.log(of, logging.INFO, f"objects of {key} are as they should be again")
        else:
            lines.log(of, logging.WARNING, failure_text(key, failure))

    return log


def failure_text(key: Key, failure: Failure) -> str:
    """A sentence that says why the objects of a service are not as they should be."""
    return f"objects of {key}: {failure.reason}: {failure.message}"


def bind_reconciler(metrics: Metrics, reconciler: Reconciler) -> None:
    """Bind the metrics of writing to the reconciler."""
    counts = reconciler.counts
    metrics.bind_one(Metric.RECONCILES, lambda: counts.reconciles)
    metrics.bind(
        Metric.WRITES,
        lambda: {(kind.value, verb.value): n for (kind, verb), n in counts.writes.items()},
    )
    metrics.bind_one(Metric.CONFLICTS, lambda: counts.conflicts)
    metrics.bind_one(Metric.FAILURES, lambda: counts.errors)
    metrics.bind_one(Metric.QUEUE, lambda: reconciler.queue_depth)
    metrics.bind_one(Metric.WORKING, lambda: reconciler.working)
