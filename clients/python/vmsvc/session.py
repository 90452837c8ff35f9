"""One watch over all its streams, without I/O: what to ask, what to yield, when to retry."""

from __future__ import annotations

import logging
from collections import deque

import grpc

from vmsvc.errors import (
    InvalidArgumentError,
    ProtocolError,
    UnauthenticatedError,
    UnavailableError,
    VmsvcError,
)
from vmsvc.retry import Retry, RetryPolicy, is_final
from vmsvc.state import Disconnected, Event, Scope, Synced, WatchState
from vmsvc.v1 import endpoint_service_pb2 as pb

_log = logging.getLogger("vmsvc")


class Session:
    """What the async and the sync watch share. Not thread-safe; never waits.

    `pending` are the events not yet yielded; without a stream, `retry_at` is when the next one may
    be opened, on the caller's clock.
    """

    def __init__(
        self,
        server: str,
        scope: Scope,
        policy: RetryPolicy,
        renewable: bool = False,
        proxy: str = "",
    ) -> None:
        """`renewable`: the next stream may be opened with another token than the last one.

        `proxy` is the variable that names the one on the way, if there is one.
        """
        self.state = WatchState(scope)
        self.pending: deque[Event] = deque()
        self.retry_at = 0.0
        self.server = server
        self.proxy = proxy
        self._retry = Retry(policy)
        self._tries = 0
        self._renewable = renewable
        self._renewed = False

    def begin(self) -> pb.WatchEndpointsRequest:
        """The request of the next stream."""
        self._tries += 1
        return self.state.begin()

    def receive(self, message: pb.WatchEndpointsResponse, now: float) -> None:
        """Take in a message. Raises ProtocolError; give the stream up then."""
        self._renewed = False
        events = self.state.receive(message)
        self.pending.extend(events)
        if Synced() in events:
            if self._tries > 1:
                _log.info("server %s answers again", self.server)
            self._tries = 0
            self._retry.synced(now)

    def interrupted(self) -> None:
        """The reader gave the stream up; the next one may be opened at once."""
        self.state.lost()
        self.retry_at = 0.0

    def ended(self, error: VmsvcError | None, now: float, chance: float) -> None:
        """The stream ended with `error`, or with OK. Raises it if a retry cannot help.

        `chance` is uniform in [0, 1).
        """
        if error is None:
            error = UnavailableError(
                f"server {self.server} ended the stream", code=grpc.StatusCode.OK
            )
        if isinstance(error, UnauthenticatedError) and self._renewable and not self._renewed:
            # It has expired, or been replaced: try at once, and once, with the one of now.
            self._renewed = True
            self.state.lost()
            self.retry_at = now
            self.pending.append(Disconnected(error, 0.0))
            return
        # More services may be held than a request may name: ask for all anew.
        names_too_many = isinstance(error, InvalidArgumentError) and self.state.can_ask_less
        if is_final(error) and not names_too_many:
            raise error
        self.state.lost(resume=not (names_too_many or isinstance(error, ProtocolError)))
        delay_s = self._retry.delay_s(error, now, chance)
        self.retry_at = now + delay_s
        self.pending.append(Disconnected(error, delay_s))
        # Log once an outage. That a server drained its streams is none, if the next stream opens.
        if self._tries == 1:
            _log.warning("%s; trying until it answers", error)
