"""The services that one stream of xDS follows by name, and which of them may have news."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from enum import Enum

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.topic import Topic
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.call import Wake
from vmsvc_grpc.server.xds.requests import Node
from vmsvc_grpc.server.xds.visible import Visible


class XdsScope(Enum):
    """Which services a client may see; the value is that of the setting."""

    ALL = "all"
    NAMESPACE = "namespace"
    """Those of the namespace that its node's metadata names."""

    def bound(self, node: Node) -> str | None:
        """The namespace that a client may see; None: all of them."""
        return None if self is XdsScope.ALL else node.namespace


class Following:
    """The topics of one stream. For the cache it is a Subscription.

    News is only noted, and looked at when the stream asks: `noted` are services that may have some,
    and `loose` those that may not be needed any more. Do not change either.
    """

    __slots__ = (
        "_cache",
        "_covered",
        "_gained",
        "_hidden",
        "_namespaces",
        "_node",
        "_scope",
        "_topics",
        "_visible",
        "_wake",
        "_withheld",
        "loose",
        "noted",
    )

    def __init__(
        self, cache: Cache, scope: XdsScope, wake: Wake, visible: Visible | None = None
    ) -> None:
        """`wake` is called when there is something to look at, after there was nothing.

        Services that are not `visible` are followed once they are; None: all are.
        """
        self._visible = visible
        self._gained = 0
        self._hidden: dict[Key, None] = {}
        self._covered: dict[Key, None] = {}  # Of those, the ones to be looked at once more.
        self._withheld: set[Key] = set()  # And those of which the client was not told anything.
        self._namespaces: Counter[str] = Counter()  # How many services of each, if not all show.
        self._cache = cache
        self._scope = scope
        self._wake = wake
        self._node: Node | None = None
        self._topics: dict[Key, Topic] = {}
        self.loose: dict[Key, None] = {}
        # In order, so that no service waits for ever. Taking the first of a plain dict
        # again and again is quadratic.
        self.noted: OrderedDict[Key, None] = OrderedDict()

    def begin(self, node: Node) -> None:
        """Set the client, which bounds what may be followed. Once, before all other calls."""
        self._node = node
        self._cache.await_synced(self._wake)

    def close(self) -> Iterator[None]:
        """Follow nothing any more; the steps release the topics, one each."""
        self._cache.forget(self._wake)
        topics, self._topics = self._topics, {}
        self._hidden, self._covered = {}, {}
        self._withheld.clear()
        self.noted.clear()
        return self._let_go_of(topics)

    def _let_go_of(self, topics: dict[Key, Topic]) -> Iterator[None]:
        while topics:
            self._cache.unsubscribe(topics.popitem()[1], self)
            yield

    # -- What is followed --

    def follow(self, service: Key) -> None:
        """Follow a service, if the client may see it. It need not exist."""
        if self._has(service) or not self._in_scope(service):
            return
        if self._visible is not None:
            if not self._namespaces[service.namespace]:
                self._visible.hold(service.namespace)
            self._namespaces[service.namespace] += 1
        self._follow(service)

    def _has(self, service: Key) -> bool:
        return service in self._topics or service in self._hidden or service in self._covered

    def _follow(self, service: Key) -> None:
        if self._visible is not None and not self._visible.shows(service.namespace):
            self._hidden[service] = None
            return
        assert self._node is not None, "begin comes before all else"
        topic = self._cache.subscribe(service, self._node.filter_class, self)
        # By the topic's own key, which all its streams share.
        self._topics[topic.service] = topic

    @property
    def still(self) -> bool:
        """Whether nothing is left to follow, or to release, until the stream is woken."""
        if self.loose or self._covered:
            return False
        visible = self._visible
        return visible is None or (visible.still and visible.gained == self._gained)

    def uncover(self, visible: Visible, most: int) -> bool:
        """Follow what has become visible, and note it, after so many looks; whether that is all."""
        if self._gained != visible.gained:
            self._gained = visible.gained
            self._covered, self._hidden = self._covered | self._hidden, {}
        for _ in range(min(most, len(self._covered))):
            service, _ = self._covered.popitem()
            self._follow(service)
            told = service in self._withheld and not visible.is_unknown(service.namespace)
            if service in self._topics or told:
                self.noted[service] = None
        return not self._covered

    def withholds(self, service: Key) -> bool:
        """Whether nothing is said of a service now, as nobody can say whether it may be.

        It is noted once somebody can.
        """
        if service in self._topics or self._visible is None:
            return False
        if not self._in_scope(service) or not self._visible.is_unknown(service.namespace):
            return False
        self._withheld.add(service)
        return True

    def take_withheld(self, service: Key) -> bool:
        """Whether something was to be said of a service and was not, up to now."""
        if service in self._withheld:
            self._withheld.remove(service)
            return True
        return False

    def topic(self, service: Key) -> Topic | None:
        """The topic of a service; None if it is not followed."""
        return self._topics.get(service)

    def loosen(self, service: Key) -> None:
        """Note that a service may not be needed any more; `release` finds out."""
        self.loose[service] = None

    def release(self, needed: Callable[[Key], bool], most: int) -> bool:
        """Release topics that are not needed any more, after so many looks; whether all are."""
        if not self.loose:
            return True
        for _ in range(min(most, len(self.loose))):
            service, _ = self.loose.popitem()
            topic = self._topics.get(service)
            if needed(service):
                continue
            if self._visible is not None and self._has(service):
                self._let_go(self._visible, service.namespace)
            self._hidden.pop(service, None)
            self._covered.pop(service, None)
            self._withheld.discard(service)
            if topic is not None:
                self._cache.unsubscribe(topic, self)
                del self._topics[service]
        if self.loose:
            return False
        self.loose = {}  # One that was full is as large when it is empty.
        return True

    def _let_go(self, visible: Visible, namespace: str) -> None:
        """Follow one service less of a namespace."""
        self._namespaces[namespace] -= 1
        if not self._namespaces[namespace]:
            del self._namespaces[namespace]
            visible.let_go(namespace)

    def _in_scope(self, service: Key) -> bool:
        assert self._node is not None, "begin comes before all else"
        return self._scope.bound(self._node) in (None, service.namespace)

    # -- News --

    def take_noted(self) -> Key | None:
        """A service that may have news, once until it is noted again; None if there is no other."""
        while self.noted:
            service, _ = self.noted.popitem(last=False)
            if service in self._topics or service in self._withheld:
                return service
        self.noted = OrderedDict()  # One that was full is as large when it is empty.
        return None

    @property
    def sole(self) -> Topic | None:
        """The topic of the only service that may have news, which is left to be taken.

        None if there are others, or one of which nothing was said up to now.
        """
        if len(self.noted) != 1 or self._withheld:
            return None
        return self._topics.get(next(iter(self.noted)))

    def note(self, topic: Topic) -> None:
        """Note that a service has news, while the stream is being asked."""
        if topic.service in self._topics:
            self.noted[topic.service] = None

    def wake(self, topic: Topic) -> None:
        """Note that a service has news. The cache calls this."""
        if topic.service not in self._topics:
            return  # It is being released.
        if not self.noted:
            self._wake()
        self.noted[topic.service] = None
