"""Which services one stream of xDS follows, and which of them may have something new."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from enum import Enum

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.topic import Absence, Absent, Topic
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.call import Wake
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.xds.requests import Node

_NOTHING: Iterator[Key] = iter(())


class XdsScope(Enum):
    """Which services a client may see; the value is the setting's."""

    ALL = "all"
    NAMESPACE = "namespace"
    """Those of the namespace that its node's metadata names."""


class Following:
    """The topics of one stream. To the cache it is a Subscription and a ScopeWatcher.

    It follows the services that it is told to, and, while it covers everything, all that the
    client may see. What may be new is only noted, and looked at when the stream asks.
    """

    __slots__ = (
        "_cache",
        "_everything",
        "_loose",
        "_node",
        "_noted",
        "_noted_max",
        "_scan_due",
        "_scanning",
        "_scope",
        "_scope_due",
        "_topics",
        "_wake",
    )

    def __init__(self, cache: Cache, scope: XdsScope, limits: Limits, wake: Wake) -> None:
        """`wake` is called when there is something to look at, and was nothing before."""
        self._cache = cache
        self._scope = scope
        self._noted_max = limits.services_per_stream_max
        self._wake = wake
        self._node: Node | None = None
        self._everything = False
        self._topics: dict[Key, Topic] = {}
        self._loose: dict[Key, None] = {}
        # In order, so that no service waits for ever. Taking the first of a plain dict
        # again and again is quadratic.
        self._noted: OrderedDict[Key, None] = OrderedDict()
        self._scan_due = False
        self._scanning = _NOTHING
        self._scope_due = False

    def begin(self, node: Node) -> None:
        """This is the client, which bounds what is followed. Comes before all else, once."""
        self._node = node
        self._scope_due = True

    def close(self) -> None:
        """Let go of every topic, and of the cache."""
        self._cache.unwatch_scope(self)
        for topic in self._topics.values():
            self._cache.unsubscribe(topic, self)
        self._topics.clear()
        self._noted.clear()
        self._scan_due, self._scanning = False, _NOTHING

    # -- What is followed --

    def cover(self, everything: bool) -> None:
        """Follow all that the client may see, and note all of it; or only what is told."""
        if everything:
            self._scan_due = True
        else:
            self.loosen(self._topics)
        self._everything = everything
        self._scope_due = True

    def follow(self, service: Key) -> None:
        """Follow a service, if the client may see it. It need not exist."""
        if service not in self._topics and self._visible(service):
            assert self._node is not None, "begin comes before all else"
            topic = self._cache.subscribe(service, self._node.filter_class, self)
            self._topics[service] = topic

    def topic(self, service: Key) -> Topic | None:
        """The topic of a service, followed from now on; None if there is none for the client."""
        if service not in self._topics and service in self._cache.services:
            self.follow(service)
        return self._topics.get(service)

    def loosen(self, services: Iterable[Key]) -> None:
        """These may not be needed any more: `settle` finds out."""
        self._loose.update(dict.fromkeys(services))

    def settle(self, needed: Callable[[Key], bool]) -> None:
        """Let go of what is not needed any more, and of hearing what is created."""
        if self._scope_due:
            self._choose_scope()
        if self._loose:
            self._let_go(needed)

    def _choose_scope(self) -> None:
        """Hear of new services only if all are followed; and of the cache's sync before it."""
        assert self._node is not None, "begin comes before all else"
        self._scope_due = False
        if self._cache.synced and not self._everything:
            self._cache.unwatch_scope(self)
        else:
            anywhere = self._scope is XdsScope.ALL
            self._cache.watch_scope(self, None if anywhere else self._node.namespace)

    def _let_go(self, needed: Callable[[Key], bool]) -> None:
        loose, self._loose = self._loose, {}
        for service in loose:
            topic = self._topics.get(service)
            if topic is None or needed(service):
                continue
            state = topic.current.state
            gone = isinstance(state, Absent) and state.absence is Absence.NOT_FOUND
            if gone or not self._everything:
                # The cache tells who follows all when it is there again.
                self._cache.unsubscribe(topic, self)
                del self._topics[service]

    def _visible(self, service: Key) -> bool:
        if self._scope is XdsScope.ALL:
            return True
        return self._node is not None and service.namespace == self._node.namespace

    # -- What may be new --

    @property
    def noted(self) -> bool:
        """Whether there is something to look at."""
        return bool(self._noted) or self._scan_due or self._scanning is not _NOTHING

    def take_noted(self) -> Iterator[Topic]:
        """The topics that may have something new, each once until it is noted again."""
        if self._scan_due:
            self._scan_due = False
            self._scanning = iter(tuple(self._cache.services))
        for service in self._scanning:
            if self._visible(service):
                yield from self._look(service)
        self._scanning = _NOTHING
        while self._noted:
            yield from self._look(self._noted.popitem(last=False)[0])

    def _look(self, service: Key) -> Iterator[Topic]:
        topic = self.topic(service) if self._everything else self._topics.get(service)
        if topic is not None:
            if isinstance(topic.current.state, Absent):
                self._loose[service] = None
            yield topic

    # -- What the cache calls --

    def wake(self, topic: Topic) -> None:
        """Note that a service has something newer."""
        self._note(topic.service)

    def created(self, service: Key) -> None:
        """Note a service that exists now, if all are followed."""
        if self._everything:
            if len(self._noted) < self._noted_max:
                self._note(service)
            else:
                # The client does not read, and most of what is noted may be gone again.
                self._scan_due = True

    def cache_synced(self) -> None:
        """The cache is complete: answers can be given."""
        self._scope_due = True
        self._wake()

    def _note(self, service: Key) -> None:
        if not self._noted:
            self._wake()
        self._noted[service] = None
