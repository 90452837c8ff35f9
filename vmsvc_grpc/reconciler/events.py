"""Writes notices as events of Kubernetes (events.k8s.io/v1), for `kubectl describe`.

An event that cannot be written is lost, and nothing waits for it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from vmsvc_grpc.kube.client import ApiServer
from vmsvc_grpc.kube.connector import NotSent
from vmsvc_grpc.kube.errors import NAMESPACE_TERMINATING, ApiServerError
from vmsvc_grpc.kube.times import micro_time_text
from vmsvc_grpc.model.objects import Key, VirtualMachineService
from vmsvc_grpc.reconciler.notice import Notice
from vmsvc_grpc.reconciler.queue import TokenBucket

CONTROLLER = "vmsvc-grpc"
"""Who reports: the same for every replica."""

# The API's bound on a note.
_NOTE_BYTES_MAX = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class EventBounds:
    """How many events are written: client-go's own bounds for one object.

    About one VMService, `burst` at once and then one every `refill_s`. Only the last `objects_max`
    VMServices are remembered. At most `waiting_max` events wait, and each is given up after
    `write_s`.
    """

    burst: int = 25
    refill_s: float = 300.0
    objects_max: int = 4096
    waiting_max: int = 1000
    write_s: float = 4.0


class EventRecorder:
    """Records Events, in order, one at a time. `counts` counts them by outcome."""

    def __init__(
        self,
        api: ApiServer,
        *,
        instance: str,
        may_write: Callable[[], bool] = lambda: True,
        bounds: EventBounds = EventBounds(),
        on_lost: Callable[[Key, str], object] = lambda *_: None,
    ) -> None:
        """`instance` names this replica. If too many wait, the oldest is dropped.

        `on_lost` is called with a sentence that says why an event was lost.
        """
        self.counts: Counter[str] = Counter(written=0, dropped=0)
        self._api = api
        self._instance = instance
        self._may_write = may_write
        self._waiting: deque[tuple[VirtualMachineService, Notice, datetime]] = deque()
        self._on_lost = on_lost
        self._bounds = bounds
        # By the uid of the VMService; the one with the newest event is at the end.
        self._allowances: dict[str, TokenBucket] = {}
        self._wake = asyncio.Event()

    def record(self, about: VirtualMachineService, notice: Notice) -> None:
        """Record an Event soon, unless there have been too many. Does not wait."""
        if not self._allowed(about):
            self.counts["dropped"] += 1
            return
        if len(self._waiting) == self._bounds.waiting_max:
            self._waiting.popleft()
            self.counts["dropped"] += 1
        self._waiting.append((about, notice, datetime.now(UTC)))
        self._wake.set()

    def _allowed(self, about: VirtualMachineService) -> bool:
        bounds, uid = self._bounds, about.meta.uid
        allowance = self._allowances.pop(uid, None)
        if allowance is None:
            allowance = TokenBucket(per_s=1 / bounds.refill_s, burst=bounds.burst)
            if len(self._allowances) == bounds.objects_max:
                del self._allowances[next(iter(self._allowances))]
        self._allowances[uid] = allowance
        return allowance.take_now(asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Write until cancelled. Never fails."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                written = await self._write(*self._waiting[0])
                self.counts["written" if written else "dropped"] += 1
                self._waiting.popleft()

    async def _write(self, about: VirtualMachineService, notice: Notice, at: datetime) -> bool:
        path = f"/apis/events.k8s.io/v1/namespaces/{about.key.namespace}/events"
        try:
            async with asyncio.timeout(self._bounds.write_s):
                event = self._event(about, notice, at)
                await self._api.request("POST", path, body=event, may_send=self._may_write)
        except NotSent:
            return False
        except TimeoutError:
            self._lost(about, notice, "no answer")
            return False
        except ApiServerError as error:
            # In a namespace that is being deleted, nobody will look for events.
            if NAMESPACE_TERMINATING not in error.causes:
                self._lost(about, notice, str(error))
            return False
        return True

    def _lost(self, about: VirtualMachineService, notice: Notice, why: str) -> None:
        self._on_lost(about.key, f"no event for {about.key} ({notice.reason}): {why}")

    def _event(self, about: VirtualMachineService, notice: Notice, at: datetime) -> dict[str, Any]:
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": f"{about.key.name}.{secrets.token_hex(8)}",
                "namespace": about.key.namespace,
            },
            "eventTime": micro_time_text(at),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
            "type": "Warning" if notice.warning else "Normal",
            "action": notice.action,
            "reason": notice.reason,
            "note": _cut(notice.note),
            "regarding": {
                "apiVersion": about.api_version,
                "kind": about.kind.value,
                "namespace": about.key.namespace,
                "name": about.key.name,
                "uid": about.meta.uid,
                "resourceVersion": about.meta.resource_version,
            },
        }


def _cut(note: str) -> str:
    """The note, cut to what an event may hold."""
    if len(note.encode()) <= _NOTE_BYTES_MAX:
        return note
    return note.encode()[: _NOTE_BYTES_MAX - 3].decode(errors="ignore") + "..."
