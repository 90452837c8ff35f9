"""Log lines and metrics of a reconciler, for both places."""

from __future__ import annotations

import logging
from collections.abc import Callable

from vmsvc_grpc.logs.about import about
from vmsvc_grpc.logs.origins import LinesPerOrigin
from vmsvc_grpc.metrics import Metric, Metrics
from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.reconciler.held import Failure
from vmsvc_grpc.reconciler.loop import Reconciler

# The name of its queue: there is one.
_QUEUE = ("services",)


def failure_log(
    lines: LinesPerOrigin, origin: Callable[[Kind, Key], str]
) -> Callable[[Key, Failure | None], None]:
    """Logs that a service's objects are not as they should be, or are so again."""

    def log(key: Key, failure: Failure | None) -> None:
        of = origin(Kind.VIRTUAL_MACHINE_SERVICE, key)
        level, text = logging.INFO, f"objects of {key} are as they should be again"
        reason, error = "InOrder", None
        if failure is not None:
            level, text = logging.WARNING, failure_text(key, failure)
            reason, error = failure.reason, failure.message
        extra = about(Kind.VIRTUAL_MACHINE_SERVICE, key, reason=reason, error=error)
        lines.log(of, level, text, extra)

    return log


def failure_text(key: Key, failure: Failure) -> str:
    """A sentence that says why the objects of a service are not as they should be."""
    return f"objects of {key}: {failure.reason}: {failure.message}"


def bind_reconciler(metrics: Metrics, reconciler: Reconciler) -> None:
    """Bind the metrics of writing to the reconciler."""
    counts, queue = reconciler.counts, reconciler.measures
    metrics.bind_histograms(
        Metric.RECONCILES, lambda: {(turn.value,): taken for turn, taken in counts.turns.items()}
    )
    metrics.bind_histograms(
        Metric.WRITES,
        lambda: {
            (kind.value, verb.value, attempt.value): taken
            for (kind, verb, attempt), taken in counts.attempts.items()
        },
    )
    metrics.bind_one(Metric.PENDING, lambda: reconciler.queue_depth + reconciler.working)
    metrics.bind_one(Metric.FAILING, lambda: len(reconciler.failures))
    metrics.bind(Metric.QUEUE_DEPTH, lambda: {_QUEUE: reconciler.due})
    metrics.bind(Metric.QUEUE_ADDS, lambda: {_QUEUE: queue.adds})
    metrics.bind(Metric.QUEUE_RETRIES, lambda: {_QUEUE: queue.retries})
    metrics.bind_histograms(Metric.QUEUE_WAIT, lambda: {_QUEUE: queue.waited})
    metrics.bind_histograms(Metric.QUEUE_WORK, lambda: {_QUEUE: queue.worked})
    metrics.bind(Metric.QUEUE_UNFINISHED, lambda: {_QUEUE: sum(reconciler.at_work_s())})
    metrics.bind(Metric.QUEUE_LONGEST, lambda: {_QUEUE: max(reconciler.at_work_s(), default=0.0)})
