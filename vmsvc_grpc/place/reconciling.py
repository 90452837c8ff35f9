"""What both places say and count of their reconciler."""

from __future__ import annotations

import logging

from vmsvc_grpc.metrics import Metric, Metrics
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.reconciler.held import Failure
from vmsvc_grpc.reconciler.loop import Reconciler

_log = logging.getLogger(__name__)


def log_failure(key: Key, failure: Failure | None) -> None:
    """Say in the log that a service's objects are not as they should be, or are again."""
    if failure is None:
        _log.info("objects of %s are as they should be again", key)
    else:
        _log.warning("objects of %s: %s: %s", key, failure.reason, failure.message)


def bind_reconciler(metrics: Metrics, reconciler: Reconciler) -> None:
    """Bind the metrics of writing to who writes."""
    counts = reconciler.counts
    metrics.bind_one(Metric.RECONCILES, lambda: counts.reconciles)
    metrics.bind(
        Metric.WRITES,
        lambda: {(kind.value, verb.value): n for (kind, verb), n in counts.writes.items()},
    )
    metrics.bind_one(Metric.CONFLICTS, lambda: counts.conflicts)
    metrics.bind_one(Metric.FAILURES, lambda: counts.errors)
    metrics.bind_one(Metric.QUEUE, lambda: reconciler.queue_depth)
