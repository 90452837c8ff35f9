"""Bounds the calls a second of each caller of a guarded listener. Pure: time is an argument."""

from __future__ import annotations

from collections import OrderedDict

from vmsvc_grpc.server.admission import words_for
from vmsvc_grpc.server.call import Code, RpcError

_PER_S = "calls_per_second_max"


class Pace:
    """A bucket of calls for each client, which fills again with time.

    Of a client whose bucket is full nothing is kept, so that it is bounded by who calls: after
    `burst / per_s` seconds without a call, a bucket is full for sure.
    """

    def __init__(self, per_s: float, burst: float) -> None:
        """A client may make `burst` calls at once, and `per_s` a second in the long run."""
        self._per_s = per_s
        self._burst = burst
        # What each has left, and when that was. The one that called last is at the end.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """How many clients something is kept of."""
        return len(self._left)

    def has(self, client: str, now: float) -> bool:
        """Whether a client has a call left."""
        return self._left_of(client, now) >= 1

    def check(self, client: str, now: float) -> None:
        """Raise RpcError (RESOURCE_EXHAUSTED) if a client has no call left."""
        if not self.has(client, now):
            words = words_for(client)
            raise RpcError(
                Code.RESOURCE_EXHAUSTED,
                f"{words.who} {words.make} more than {self._per_s:g} calls a second, which is the "
                f"limit ({_PER_S}); "
                f"{words.instead or 'keep a watch instead of asking again and again'}",
                limit=_PER_S,
            )

    def take(self, client: str, now: float) -> None:
        """Count one call of a client. Raises RpcError as `check` does, and counts none then."""
        self.check(client, now)
        self._left[client] = self._left_of(client, now) - 1, now
        self._left.move_to_end(client)
        self._drop_full(now)

    def _left_of(self, client: str, now: float) -> float:
        left, since = self._left.get(client, (self._burst, now))
        return min(self._burst, left + (now - since) * self._per_s)

    def _drop_full(self, now: float) -> None:
        """Drop the buckets that have been left alone long enough. O(1) for each call."""
        for _ in range(2):
            client, (_, since) = next(iter(self._left.items()))
            if (now - since) * self._per_s < self._burst:
                return
            del self._left[client]
