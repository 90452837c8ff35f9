"""All that a reconciler has to do, and remembers, from when it may write until it may not.

Whatever it keeps of a service belongs here: a new term begins with nothing, so that nothing is kept
by a replica that does not write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.reconciler.asking import Asking, Mirrored
from vmsvc_grpc.reconciler.bounds import ReconcilerBounds
from vmsvc_grpc.reconciler.counts import ReconcilerCounts
from vmsvc_grpc.reconciler.handover import HandOver
from vmsvc_grpc.reconciler.names import TakenNames
from vmsvc_grpc.reconciler.notice import OnNotice
from vmsvc_grpc.reconciler.planning import Planning
from vmsvc_grpc.reconciler.queue import Queue, QueueMeasures
from vmsvc_grpc.reconciler.rules import Rules
from vmsvc_grpc.reconciler.store import Store, Witness
from vmsvc_grpc.reconciler.telling import OnFailure, Telling
from vmsvc_grpc.reconciler.work import Work
from vmsvc_grpc.reconciler.yielding import Yielding


class Term:
    """The queue, the failures, what was written and found in the way, and who works by these."""

    def __init__(
        self,
        cache: Cache,
        store: Store,
        *,
        bounds: ReconcilerBounds,
        rules: Rules,
        mirrored: Mirrored,
        witness: Witness | None,
        on_failure: OnFailure | None,
        on_notice: OnNotice,
        all_listed: Callable[[], bool],
        may_write: Callable[[], bool],
        random: Callable[[], float],
        now: Callable[[], str],
        counts: ReconcilerCounts,
        measures: QueueMeasures,
        enqueue: Callable[[Iterable[Key]], None],
        asked: Callable[[Key], AbstractContextManager[None]],
    ) -> None:
        """All are as for `Reconciler` and `Work`. `counts` and `measures` outlive the term."""
        self.queue = Queue(
            cooldown_s=bounds.cooldown_s,
            backoff=bounds.backoff,
            # The other half of the workers is for services that do not hang. One is for all.
            hanging_max=max(1, bounds.workers // 2),
            random=random,
            measures=measures,
        )
        self.telling = Telling(on_failure, on_notice)
        self.yielding = Yielding(bounds.patience)
        self.taken = TakenNames(recheck_s=bounds.recheck_s)
        hand_over = HandOver(patience_s=bounds.hand_over_s)
        self.work = Work(
            cache,
            store,
            Planning(
                cache,
                rules,
                yielding=self.yielding,
                taken=self.taken,
                hand_over=hand_over,
                all_listed=all_listed,
                now=now,
            ),
            Asking(
                cache,
                rules,
                witness=witness,
                mirrored=mirrored,
                yielding=self.yielding,
                taken=self.taken,
                hand_over=hand_over,
            ),
            bounds=bounds,
            counts=counts,
            telling=self.telling,
            yielding=self.yielding,
            taken=self.taken,
            hand_over=hand_over,
            may_write=may_write,
            enqueue=enqueue,
            asked=asked,
        )
