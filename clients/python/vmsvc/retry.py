"""When a watch that lost its stream opens the next one, and when it gives up. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from vmsvc.errors import VmsvcError

_FINAL = frozenset(
    {
        # The same request would fail in the same way.
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
        # A watch never ends with these; what sends them is not an endpoint server.
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
    }
)


def is_final(error: VmsvcError) -> bool:
    """Whether trying again cannot help."""
    return error.code in _FINAL


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to wait before a watch opens its next stream.

    A random part (full jitter) of `backoff_initial_s`, which doubles with each failure in a row up
    to `backoff_max_s`. A stream that was good for `healthy_s` resets the count. If the server asks
    for a delay, that comes first, up to `retry_after_max_s`.
    """

    backoff_initial_s: float = 0.25
    backoff_max_s: float = 10.0
    healthy_s: float = 10.0
    retry_after_max_s: float = 60.0


class Retry:
    """The failures in a row of one watch. Time and chance are arguments."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self._good_since: float | None = None

    def synced(self, now: float) -> None:
        """The stream has been good since `now`, in seconds of any steady clock."""
        if self._good_since is None:
            self._good_since = now

    def delay_s(self, error: VmsvcError, now: float, chance: float) -> float:
        """How long to wait before the next stream, after `error` ended this one.

        `chance` is uniform in [0, 1).
        """
        if self._good_since is not None and now - self._good_since >= self._policy.healthy_s:
            self._failures = 0
        self._good_since = None
        # 2.0**1024 would overflow; a watch retries for ever.
        ceiling_s = self._policy.backoff_initial_s * 2.0 ** min(self._failures, 64)
        self._failures += 1
        asked_s = max(0.0, min(error.retry_after_s or 0.0, self._policy.retry_after_max_s))
        return asked_s + chance * min(ceiling_s, self._policy.backoff_max_s)
