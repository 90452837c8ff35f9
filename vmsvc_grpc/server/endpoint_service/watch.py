"""WatchEndpoints: one stream's state, and nothing of how its bytes travel.

A stream owns a cursor for each service, the version that it was last told, and notes
which services may have something newer. It never holds a message: what to say is worked
out when the transport asks, from what is newest then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.topic import Absence, Absent, Topic
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.call import Code, RpcError, Wake
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.endpoint_service import requests
from vmsvc_grpc.server.endpoint_service.encode import SYNCED, Encoder
from vmsvc_grpc.server.limits import Limits

_NOTHING: Iterator[Key] = iter(())


@dataclass(slots=True)
class _Cursor:
    """What the client was last told of one service: a version, or that it is absent."""

    topic: Topic
    version: int = 0
    absent: Absent | None = None


class WatchStream:
    """The stream of one WatchEndpoints call: a `call.Stream`.

    To the cache it is a Subscription and a ScopeWatcher, and both only take note here.
    """

    # There are many of them.
    __slots__ = (
        "_begun",
        "_cache",
        "_counts",
        "_cursors",
        "_encoder",
        "_first_answers_due",
        "_held",
        "_limits",
        "_noted",
        "_request",
        "_scan_due",
        "_synced_told",
        "_telling",
        "_wake",
    )

    def __init__(
        self, cache: Cache, encoder: Encoder, limits: Limits, counts: ServerCounts, wake: Wake
    ) -> None:
        """Nothing is watched before `receive`."""
        self._cache = cache
        self._encoder = encoder
        self._limits = limits
        self._counts = counts
        self._wake = wake
        self._request: requests.WatchQuery | None = None
        self._begun = False
        self._synced_told = False
        self._first_answers_due = 0
        self._held: dict[Key, str] = {}
        self._cursors: dict[Key, _Cursor] = {}
        # Noted ones in order, and those being told, which come before them: so no service
        # waits for ever, and one that has nothing to tell holds next to nothing.
        self._noted: dict[Key, None] = {}
        self._telling: Iterator[Key] = _NOTHING
        self._scan_due = False

    # -- What the transport calls --

    def receive(self, request: bytes) -> None:
        """Take in the request. Raises RpcError (INVALID_ARGUMENT)."""
        assert self._request is None, "a server stream has one request"
        self._request = requests.watch(request, self._limits.services_per_stream_max)
        of_one = len(self._request.namespaces) == 1
        self._cache.watch_scope(self, next(iter(self._request.namespaces)) if of_one else None)

    def half_close(self) -> None:
        """Nothing changes: the client only listens from the start."""

    def next_message(self) -> bytes | None:
        """The next thing to tell. Raises RpcError (RESOURCE_EXHAUSTED) at a limit."""
        if self._request is None or not self._cache.synced:
            return None
        if not self._begun:
            self._begin(self._request)
        if self._scan_due:
            self._scan(self._request)
        while True:
            if not self._synced_told and not self._first_answers_due:
                self._synced_told = True
                return self._told("synced", SYNCED)
            key = next(self._telling, None)
            if key is None:
                self._telling = _NOTHING
                if not self._noted:
                    return None
                self._telling, self._noted = iter(self._noted), {}
                continue
            # Those that the first answers are due for were noted before all others.
            self._first_answers_due = max(0, self._first_answers_due - 1)
            if (message := self._answer(self._request, key)) is not None:
                return message

    def close(self) -> None:
        """Let go of every topic, and of the cache."""
        self._cache.unwatch_scope(self)
        for cursor in self._cursors.values():
            self._cache.unsubscribe(cursor.topic, self)
        self._cursors.clear()
        self._noted, self._telling = {}, _NOTHING

    # -- What the cache calls --

    def wake(self, topic: Topic) -> None:
        """Note that a service has something newer."""
        self._note(topic.service)

    def created(self, service: Key) -> None:
        """Note a service that exists now, if it is one of those asked for."""
        if self._begun and self._request is not None and self._request.covers(service):
            if len(self._noted) < self._limits.services_per_stream_max:
                self._note(service)
            else:
                # The client does not read, and most of what is noted may be gone again:
                # looking through the cache later is cheaper than notes without end.
                self._scan_due = True

    def cache_synced(self) -> None:
        """The cache is complete: the first answers can be given."""
        self._wake()

    def _note(self, service: Key) -> None:
        if not self._noted:
            self._wake()
        self._noted[service] = None  # One that is noted already keeps its place.

    # -- What to tell --

    def _begin(self, request: requests.WatchQuery) -> None:
        self._begun = True
        self._held = dict(request.held)
        self._request = replace(request, held={})  # Not needed any more once it is answered.
        self._noted.update(dict.fromkeys(self._held))
        if request.all_services or request.namespaces:
            self._scan(request)
        else:
            self._cache.unwatch_scope(self)
        self._first_answers_due = len(self._noted)

    def _scan(self, request: requests.WatchQuery) -> None:
        """Note each service that is covered without being named, and not told yet. O(services)."""
        self._scan_due = False
        covered = [
            key
            for key, service in self._cache.services.items()
            if request.covers(key) and not service.object.meta.deleting
        ]
        if len(covered) > self._limits.services_per_stream_max:
            raise self._too_many()
        for key in covered:
            if key not in self._cursors:
                self._noted[key] = None

    def _answer(self, request: requests.WatchQuery, key: Key) -> bytes | None:
        """The message about one service; None if there is nothing new to the client."""
        cursor = self._cursors.get(key)
        if cursor is None:
            topic = self._cache.subscribe(key, request.filter_class, self)
            # By the topic's own key, which all its streams share.
            cursor = self._cursors[topic.service] = _Cursor(topic)
        # None if the request does not name it; that counts for the first answer only.
        held = self._held.pop(key, None)
        if held is not None and not self._held:
            self._held = {}  # One that was emptied takes as much as one that is full.
        publication = cursor.topic.current
        if isinstance(publication.state, Absent):
            return self._absent(cursor, publication.state, request.covers(key), held is not None)
        if len(self._cursors) > self._limits.services_per_stream_max:
            raise self._too_many()
        if publication.version == cursor.version:
            return None
        before, cursor.version, cursor.absent = cursor.version, publication.version, None
        if held and held == publication.state.revision:
            return self._told("current", self._encoder.current(publication))
        if publication.base is not None and publication.base.version == before:
            return self._told("delta", self._encoder.delta(publication))
        return self._told("snapshot", self._encoder.snapshot(publication))

    def _absent(self, cursor: _Cursor, state: Absent, covered: bool, named: bool) -> bytes | None:
        gone = state.absence is Absence.NOT_FOUND
        told, cursor.absent = cursor.absent, state
        heard_of = named or told is not None or cursor.version > 0
        cursor.version = 0
        if gone and covered:
            # The cache tells when it is there again; until then it costs nothing.
            self._cache.unsubscribe(cursor.topic, self)
            del self._cursors[cursor.topic.service]
            if not heard_of:
                return None
        if told is not None and told.absence is state.absence and (gone or told == state):
            return None
        return self._told("absent", self._encoder.absent(cursor.topic.current))

    def _told(self, kind: str, message: bytes) -> bytes:
        self._counts.messages[kind] += 1
        return message

    def _too_many(self) -> RpcError:
        most = self._limits.services_per_stream_max
        return RpcError(
            Code.RESOURCE_EXHAUSTED,
            f"the watch covers more than {most} services, which is the server's limit "
            "(services_per_stream_max); open one stream for each namespace",
            limit="services_per_stream_max",
        )
