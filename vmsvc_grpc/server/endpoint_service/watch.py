"""WatchEndpoints: the state of one stream, without its transport.

A stream owns a cursor for each service that it names (the version that it was last sent), and one
version for each collection that it follows: a namespace, or everything. It never holds a message:
each is worked out when the transport asks, from the newest state.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.topic import Absence, Absent, Publication, Topic
from vmsvc_grpc.model.endpoints import EndpointSet, FilterClass
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.call import LATER, Code, Later, RpcError, Shared, Wake
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.endpoint_service import requests
from vmsvc_grpc.server.endpoint_service.encode import SYNCED, Encoder
from vmsvc_grpc.server.endpoint_service.parts import LARGE
from vmsvc_grpc.server.followed import StreamNames
from vmsvc_grpc.server.leaving import LetGo
from vmsvc_grpc.server.limits import Limits

# So many looks before others have their turn, some 4 ms: at names to read or to begin to follow,
# and at collections without news.
_LOOKS_MAX = 1_000

_NOTHING_HELD: Iterator[tuple[Key, str]] = iter(())


@dataclass(slots=True)
class _Cursor:
    """What the client was last sent about one service: a version, or that it is absent."""

    topic: Topic
    version: int = 0
    absent: Absent | None = None

    @property
    def behind(self) -> bool:
        """Whether the topic has published since. An absence may turn out to be the same one."""
        newest = self.topic.current
        return newest.state is not self.absent and newest.version != self.version


class _Making(NamedTuple):
    """A message about a large service that is being made, in pieces.

    The client was last sent version `before`, or has none but says that it holds the revision
    `held`. `cursor` is that of a service that is named.
    """

    publication: Publication
    before: int
    held: str | None
    cursor: _Cursor | None = None


class _Followed:
    """One collection that a stream follows: its reader, and the revisions that the client holds.

    Services with a revision are answered first; then the revisions are dropped.
    """

    __slots__ = ("_held", "_stream", "reader")

    def __init__(
        self,
        stream: WatchStream,
        cache: Cache,
        namespace: str | None,
        filter_class: FilterClass,
        held: Mapping[Key, str],
    ) -> None:
        """`held` are services of the namespace, or of any (None), each with its revision or ""."""
        self._stream = stream
        self._held = iter(held.items())
        self.reader = cache.follow(namespace, filter_class, self.wake)

    def wake(self) -> None:
        """Note that this collection has news."""
        self._stream.rouse(self)

    @property
    def answered(self) -> bool:
        """Whether each service has had its first answer."""
        return self._held is _NOTHING_HELD and self.reader.answered

    def take(self) -> tuple[Publication, int, str | None] | None:
        """The next publication to send, the version sent before it, and the revision held.

        None if there is none, or if others should have their turn first.
        """
        for name, revision in self._held:
            return self.reader.take_first(name).cell.current, 0, revision
        self._held = _NOTHING_HELD
        due = self.reader.take()
        return due and (due.cell.current, due.since, None)


def _nobody_asks(_stream: WatchStream) -> None:
    """Nobody wants to know which streams are open."""


class WatchStream:
    """The stream of one WatchEndpoints call: a `call.Stream`.

    For the cache it is a Subscription: `wake` only takes note. For a transport it is `Shared` while
    it follows one service that it names.
    """

    # There are many streams.
    __slots__ = (
        "_beginning",
        "_begun",
        "_cache",
        "_counts",
        "_cursors",
        "_encoder",
        "_followed",
        "_followed_first",
        "_held",
        "_last",
        "_let_go",
        "_limits",
        "_making",
        "_names",
        "_noted",
        "_on_close",
        "_request",
        "_roused",
        "_synced_sent",
        "_taking",
        "_unanswered",
        "_wake",
    )

    def __init__(
        self,
        cache: Cache,
        encoder: Encoder,
        limits: Limits,
        counts: ServerCounts,
        wake: Wake,
        *,
        names: StreamNames,
        let_go: LetGo,
        on_close: Callable[[WatchStream], object] = _nobody_asks,
    ) -> None:
        """Watches nothing before `receive`. The names that it follows count in `names`.

        When it is over, `let_go` releases its topics, and `on_close` is called.
        """
        self._on_close = on_close
        self._cache = cache
        self._encoder = encoder
        self._limits = limits
        self._counts = counts
        self._names = names
        self._let_go = let_go
        self._wake = wake
        self._request: requests.WatchQuery | None = None
        self._begun = False
        # The steps left of reading the request, or of following what it names.
        self._beginning: Iterator[None] | None = None
        self._synced_sent = False
        self._held: dict[Key, str] = {}
        self._cursors: dict[Key, _Cursor] = {}
        # Services with news, in order; those being handled come before them. So no service waits
        # for ever, and a stream without news holds next to nothing.
        self._noted: dict[Key, None] = {}
        self._taking: Iterator[Key] | None = None
        self._followed: Sequence[_Followed] = ()
        self._unanswered: list[_Followed] = []
        self._roused: dict[_Followed, None] = {}  # In order, as above.
        self._followed_first = False
        self._last = "synced"  # The kind of its last message.
        self._making: _Making | None = None

    # -- What the transport calls --

    def receive(self, request: bytes) -> None:
        """Take in the request, as much as one turn allows.

        Raises RpcError (INVALID_ARGUMENT, RESOURCE_EXHAUSTED), as `next_message` may then.
        """
        assert self._request is None, "a server stream has one request"
        self._beginning = self._read(request)
        self._go_on()

    def _read(self, request: bytes) -> Iterator[None]:
        asked = yield from requests.watch(request, self._limits.services_per_stream_max)
        count = len(asked.held) + len(asked.namespaces)
        if setting := self._names.take_all(count, asked.names_bytes):
            raise RpcError(
                Code.RESOURCE_EXHAUSTED,
                f"the watch names {count}, and the server's limit ({setting}) leaves no room for "
                "that many; watch namespaces, or everything, which needs no names",
                limit=setting,
            )
        self._request = asked
        self._cache.await_synced(self._wake)

    def half_close(self) -> None:
        """Does nothing: the client only listens from the start."""

    def next_message(self) -> bytes | Later | None:
        """The next message."""
        if self._beginning is not None and not self._go_on():
            return LATER
        if self._making is not None:
            return self._make(self._making)
        if not self._synced_sent:
            return self._first_answer()
        if not self._followed:
            return self._of_noted()
        # Services that are named and collections take turns.
        self._followed_first = not self._followed_first
        if self._followed_first:
            return self._of_roused() or self._of_noted()
        return self._of_noted() or self._of_roused()

    @property
    def asked(self) -> requests.WatchQuery | None:
        """What it has been asked to watch, but for names; None: nothing yet."""
        return self._request

    @property
    def services(self) -> Collection[Key]:
        """The services that it follows by name. A view: do not change them."""
        return self._cursors.keys()

    @property
    def quiet(self) -> bool:
        """Whether no service and no collection has news, and all have been answered."""
        news = self._noted or self._roused or self._taking or self._making
        return self._synced_sent and not news

    @property
    def shared(self) -> Shared | None:
        """Itself, if it follows one service and has no news of it."""
        return self if len(self._cursors) == 1 and not self._followed and self.quiet else None

    @property
    def common(self) -> Topic:
        """The topic of the service."""
        return self._only.topic

    @property
    def place(self) -> tuple[int, Absent | None]:
        """The version that the client was sent last, or the absence."""
        only = self._only
        return only.version, only.absent

    def lead(self, wake: Wake) -> WatchStream:
        """A watch of the same service, as the cache and the encoder see it."""
        names = self._names.another()
        lead = WatchStream(
            self._cache,
            self._encoder,
            self._limits,
            self._counts,
            wake,
            names=names,
            let_go=self._let_go,
        )
        lead._begun = lead._synced_sent = True
        topic = self._only.topic
        lead._cursors = {topic.service: _Cursor(topic)}
        lead.resume(self.place)
        return lead

    def count(self, more: int) -> None:
        """Count its last message, by its kind."""
        self._counts.messages[self._last] += more

    def rest(self) -> None:
        """Subscribe to nothing."""
        self._cache.unsubscribe(self._only.topic, self)

    def resume(self, place: object) -> None:
        """Go on from a `place`."""
        cursor = self._only
        assert isinstance(place, tuple), "it is that of another WatchStream"
        cursor.version, cursor.absent = place
        self._cache.subscribe(cursor.topic.service, cursor.topic.filter_class, self)
        if cursor.behind:
            self.wake(cursor.topic)

    @property
    def _only(self) -> _Cursor:
        (cursor,) = self._cursors.values()
        return cursor

    def close(self) -> None:
        """Release every topic, and the cache."""
        self._names.close()
        self._on_close(self)
        self._cache.forget(self._wake)
        self._wake = _nobody_listens
        self._let_go(self._last_steps(self._cursors, self._followed))
        self._cursors = {}
        self._noted, self._taking = {}, None
        self._roused, self._followed, self._unanswered = {}, (), []
        self._beginning = self._making = None

    def _last_steps(
        self, cursors: dict[Key, _Cursor], followed: Iterable[_Followed]
    ) -> Iterator[None]:
        while cursors:
            self._cache.unsubscribe(cursors.popitem()[1].topic, self)
            yield
        for one in followed:
            one.reader.close()
            yield

    # -- What the cache calls --

    def wake(self, topic: Topic) -> None:
        """Note that a service has news."""
        if not self._noted and not self._roused:
            self._wake()
        self._noted[topic.service] = None  # One that is noted already keeps its place.

    def rouse(self, followed: _Followed) -> None:
        """Note that a collection has news."""
        if not self._noted and not self._roused:
            self._wake()
        self._roused[followed] = None

    # -- Making messages --

    def _go_on(self) -> bool:
        """Go on reading and following, as much as one turn allows; whether that is finished."""
        assert self._beginning is not None, "something is under way"
        if sum(1 for _ in islice(self._beginning, _LOOKS_MAX)) == _LOOKS_MAX:
            return False
        self._beginning = None
        return True

    def _begin(self, request: requests.WatchQuery) -> Iterator[None]:
        """Follow what the request names, in steps. `close` may come between two."""
        self._request = replace(request, held={})  # They are kept apart, below.
        namespaces = (None,) if request.all_services else sorted(request.namespaces)
        held: dict[str | None, dict[Key, str]] = {namespace: {} for namespace in namespaces}
        for name, revision in request.held.items():
            namespace = None if request.all_services else name.namespace
            held.get(namespace, self._held)[name] = revision
            yield
        self._taking = iter(dict.fromkeys(self._held))
        self._followed = followed = []
        for namespace, named in held.items():
            followed.append(_Followed(self, self._cache, namespace, request.filter_class, named))
            yield
        self._unanswered = followed[::-1]

    def _first_answer(self) -> bytes | Later | None:
        if self._request is None or not self._cache.synced:
            return None
        if not self._begun:
            self._begun = True
            self._beginning = self._begin(self._request)
            return self.next_message()
        for key in self._taking or ():
            if (message := self._of_service(key)) is not None:
                return message
        for _ in range(min(_LOOKS_MAX, len(self._unanswered))):
            followed = self._unanswered[-1]
            if (message := self._of_collection(followed)) is not None:
                return message
            if not followed.answered:
                return LATER
            self._unanswered.pop()
        if self._unanswered:
            return LATER
        self._synced_sent = True
        self._roused = {followed: None for followed in self._followed if followed.reader.behind}
        return self._sent("synced", SYNCED)

    def _of_noted(self) -> bytes | Later | None:
        """The next message about the services that are named."""
        while self._taking or self._noted:
            if self._taking is not None:
                for key in self._taking:
                    if (message := self._of_service(key)) is not None:
                        return message
                self._taking = None
            elif len(self._noted) == 1:  # As most often; and then it is known that it was the last.
                (key,), self._noted = self._noted, {}
                return self._of_service(key)
            else:
                self._taking, self._noted = iter(self._noted), {}
        return None

    def _of_roused(self) -> bytes | Later | None:
        """The next message about the collections, in turn."""
        for _ in range(_LOOKS_MAX):
            followed = next(iter(self._roused), None)
            if followed is None:
                return None
            del self._roused[followed]
            message = self._of_collection(followed)
            if followed.reader.behind:
                self._roused[followed] = None
            if message is not None:
                return message
            if followed.reader.behind:
                return LATER
        return LATER

    def _of_collection(self, followed: _Followed) -> bytes | Later | None:
        """The next message about one of its services; None if there is none, or not yet."""
        taken = followed.take()
        if taken is None:
            return None
        publication, since, held = taken
        if isinstance(publication.state, Absent):
            return self._sent("absent", self._encoder.absent(publication))
        message = self._present(publication, since, held)
        if message is LATER:
            self._making = _Making(publication, since, held)
        return message

    def _of_service(self, key: Key) -> bytes | Later | None:
        """The message about one named service; None if there is no news."""
        cursor = self._cursors.get(key)
        if cursor is None:
            assert self._request is not None, "it names the service"
            topic = self._cache.subscribe(key, self._request.filter_class, self)
            # By the topic's own key, which all its streams share.
            cursor = self._cursors[topic.service] = _Cursor(topic)
        held = self._held.pop(key, None)  # It matters for the first answer only.
        if held is not None and not self._held:
            self._held = {}  # An emptied dict takes as much memory as a full one.
        publication = cursor.topic.current
        if isinstance(publication.state, Absent):
            return self._absent(cursor, publication.state)
        if publication.version == cursor.version:
            return None
        message = self._present(publication, cursor.version, held)
        if message is LATER:
            self._making = _Making(publication, cursor.version, held, cursor)
        else:
            cursor.version, cursor.absent = publication.version, None
        return message

    def _absent(self, cursor: _Cursor, state: Absent) -> bytes | None:
        before = cursor.absent
        # "Is being deleted" and "is gone" are one event.
        gone = state.absence is Absence.NOT_FOUND
        same = before is not None and before.absence is state.absence and (gone or before == state)
        message = None if same else self._sent("absent", self._encoder.absent(cursor.topic.current))
        cursor.version, cursor.absent = 0, state
        return message

    def _make(self, making: _Making) -> bytes | Later:
        """Go on making a message, even if there is something newer by now: that comes next."""
        message = self._present(making.publication, making.before, making.held)
        if message is not LATER:
            self._making = None
            if (cursor := making.cursor) is not None:
                cursor.version, cursor.absent = making.publication.version, None
        return message

    def _present(self, publication: Publication, before: int, held: str | None) -> bytes | Later:
        """The message for a client that was last sent version `before`; LATER: not yet made."""
        state, encoder = publication.state, self._encoder
        assert isinstance(state, EndpointSet), "the service is served"
        large = len(state.endpoints) > LARGE
        if large and not encoder.prepare(publication):
            return LATER
        if held and held == state.revision:
            return self._sent("current", encoder.current(publication))
        base = publication.base
        if base is not None and base.version <= before and encoder.has_delta(publication):
            return self._sent("delta", encoder.delta(publication))
        if large and not encoder.prepare(publication, whole=True):
            return LATER
        return self._sent("snapshot", encoder.snapshot(publication))

    def _sent(self, kind: str, message: bytes) -> bytes:
        self._counts.messages[kind] += 1
        self._last = kind
        return message


def _nobody_listens() -> None:
    """Wakes nobody: the stream is over, and has yet to unsubscribe from some topics."""
