"""The newest state of one service for one filter class, and its subscriptions.

A change is stored once. A subscription keeps the version that it was last sent, never
a queue: whatever it missed is in the newest state.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import msgspec

from vmsvc_grpc.model.endpoints import Endpoint, EndpointDiff, EndpointSet, FilterClass
from vmsvc_grpc.model.objects import Key, ServicePort


class Absence(Enum):
    """Why a service has no endpoints to serve."""

    NOT_FOUND = "not found"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Absent:
    """The service does not exist, is being deleted, or is refused; `message` says why."""

    service: Key
    absence: Absence
    message: str


class Publication(msgspec.Struct, gc=False):
    """One state of a topic. Immutable but for what encoders keep: it must not refer back to it.

    `base` is the EndpointSet published just before, if there was one: a delta starts from it.
    `change` leads from it to this one, if that is known without a look at all endpoints. In
    `encoded`, encoders keep the messages that they made of this publication, under names of their
    own, so that each is made once for all readers; `kept` is what an encoder keeps from one
    publication of a topic to the next.
    """

    version: int
    state: EndpointSet | Absent
    base: EndpointSet | None
    change: EndpointDiff | None = None
    encoded: dict[str, Any] = msgspec.field(default_factory=dict)
    kept: Any = None


class Subscription(Protocol):
    """A reader of a topic, woken by each publication. It must only take note, and not call back."""

    def wake(self, topic: Topic) -> None:
        """`topic` has published."""


class Topic:
    """The newest publication of one service and filter class, and its subscriptions."""

    __slots__ = ("current", "filter_class", "service", "subscriptions")

    def __init__(self, service: Key, filter_class: FilterClass, first: Publication) -> None:
        """A topic that begins with `first`, without subscriptions."""
        self.service = service
        self.filter_class = filter_class
        self.current = first
        # A dict keeps the order of subscription, so that waking is fair and repeatable.
        self.subscriptions: dict[Subscription, None] = {}

    @property
    def version(self) -> int:
        """The version of the newest publication."""
        return self.current.version

    @property
    def there(self) -> bool:
        """Whether the service exists, refused or not, and is not being deleted."""
        state = self.current.state
        return not (isinstance(state, Absent) and state.absence is Absence.NOT_FOUND)

    def publish(
        self, version: int, state: EndpointSet | Absent, change: EndpointDiff | None = None
    ) -> None:
        """Store a newer state and wake every subscription. O(subscriptions).

        `change` leads to it from the state before, if that is known.
        """
        assert version > self.current.version, "versions of a topic only rise"
        before = self.current.state
        base = before if isinstance(before, EndpointSet) else None
        self.current = Publication(version, state, base, change, kept=self.current.kept)
        for subscription in self.subscriptions:
            subscription.wake(self)


class OnPublished(Protocol):
    """Called at each publication that shows a change. Must only take note."""

    def __call__(self, topic: Topic, /, *, was_there: bool) -> bool | None:
        """`topic` has published; `was_there` says whether its service was there before.

        Returns whether somebody follows it without naming it, if that is known here.
        """


class Topics:
    """The topics of all services, two for each, and those of names that somebody waits for.

    `version` is that of the newest publication; `followed` counts publications that somebody
    follows.
    """

    def __init__(self, services: Container[Key], on_published: OnPublished) -> None:
        """`services` are those that exist; other topics last while they have subscriptions."""
        self.publications = 0
        self.followed = 0
        self.version = 0
        self._services = services
        self._on_published = on_published
        self._topics: dict[tuple[Key, FilterClass], Topic] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._topics)

    def get(self, filter_class: FilterClass, service: Key) -> Topic:
        """The topic of a service; if there is none, an absent one that is not kept."""
        topic = self._topics.get((service, filter_class))
        return topic or Topic(service, filter_class, self._first(not_found(service)))

    def subscribe(
        self, service: Key, filter_class: FilterClass, subscription: Subscription
    ) -> Topic:
        """The topic of a service, which wakes `subscription` from now on.

        The service need not exist; its topic then is absent until it does.
        """
        topic = self._topics.get((service, filter_class))
        if topic is None:
            topic = Topic(service, filter_class, self._first(not_found(service)))
            self._topics[service, filter_class] = topic
        topic.subscriptions[subscription] = None
        return topic

    def unsubscribe(self, topic: Topic, subscription: Subscription) -> None:
        """Do not wake `subscription` any more; also if it was not subscribed."""
        topic.subscriptions.pop(subscription, None)
        if not topic.subscriptions:
            topic.subscriptions.clear()  # One that was full is as large when it is empty.
        self._drop_if_idle(topic)

    def publish(
        self, service: Key, ports: tuple[ServicePort, ...], endpoints: tuple[Endpoint, ...]
    ) -> None:
        """Publish this state of a service; a topic that shows no change of it stays silent."""
        ready = tuple([e for e in endpoints if e.ready])
        if len(ready) == len(endpoints):
            ready = endpoints  # So most services keep one tuple, and not two.
        self._publish_set(service, FilterClass.ALL, ports, endpoints)
        self._publish_set(service, FilterClass.READY_ONLY, ports, ready)

    def publish_change(
        self, service: Key, endpoints: tuple[Endpoint, ...], change: EndpointDiff
    ) -> None:
        """Publish this change of the endpoints of a service that is served.

        `endpoints` are the result. A topic that shows none of the change stays silent. O(change),
        and copies the pointers to the ready endpoints.
        """
        topic = self._topics[service, FilterClass.ALL]
        ready_topic = self._topics[service, FilterClass.READY_ONLY]
        shown, ready = topic.current.state, ready_topic.current.state
        assert isinstance(shown, EndpointSet), "a service that is served shows its endpoints"
        assert isinstance(ready, EndpointSet), "and those that are ready"
        self._publish_later(topic, shown, change, endpoints)
        if (of_ready := change.of_ready()) is not None:
            all_ready = of_ready is change and ready.endpoints is shown.endpoints
            later = endpoints if all_ready else of_ready.patched(ready.endpoints)
            self._publish_later(ready_topic, ready, of_ready, later)

    def _publish_later(
        self, topic: Topic, base: EndpointSet, change: EndpointDiff, endpoints: tuple[Endpoint, ...]
    ) -> None:
        version = self._next_version()
        self._publish_on(topic, version, base.changed(version, change, endpoints), change)

    def _publish_on(
        self,
        topic: Topic,
        version: int,
        state: EndpointSet | Absent,
        change: EndpointDiff | None = None,
    ) -> None:
        self.publications += 1
        was_there = topic.there
        topic.publish(version, state, change)
        if self._on_published(topic, was_there=was_there) or topic.subscriptions:
            self.followed += 1

    def publish_absent(self, absent: Absent) -> None:
        """Publish that a service is absent, and why."""
        for filter_class in FilterClass:
            topic = self._topics.get((absent.service, filter_class))
            if topic is None:
                if absent.service in self._services:
                    self._begin(filter_class, self._first(absent))
            else:
                if not _same_absence(topic.current.state, absent):
                    self._publish_on(topic, self._next_version(), absent)
                self._drop_if_idle(topic)

    def _begin(self, filter_class: FilterClass, first: Publication) -> None:
        """Begin a topic of a service that had none."""
        topic = Topic(first.state.service, filter_class, first)
        self._topics[topic.service, filter_class] = topic
        if topic.there and self._on_published(topic, was_there=False):
            self.followed += 1

    def _publish_set(
        self,
        service: Key,
        filter_class: FilterClass,
        ports: tuple[ServicePort, ...],
        endpoints: tuple[Endpoint, ...],
    ) -> None:
        topic = self._topics.get((service, filter_class))
        if topic is not None:
            state = topic.current.state
            if (
                isinstance(state, EndpointSet)
                and state.ports == ports
                and state.endpoints == endpoints
            ):
                return
        version = self._next_version()
        new = EndpointSet(service, version, ports, endpoints)
        if topic is None:
            self.publications += 1
            self._begin(filter_class, Publication(version, new, None))
        else:
            self._publish_on(topic, version, new)

    def _drop_if_idle(self, topic: Topic) -> None:
        name = topic.service, topic.filter_class
        # One that is dropped already may have a successor.
        if (
            not topic.subscriptions
            and topic.service not in self._services
            and self._topics.get(name) is topic
        ):
            del self._topics[name]

    def _next_version(self) -> int:
        self.version += 1
        return self.version

    def _first(self, absent: Absent) -> Publication:
        return Publication(self._next_version(), absent, None)


def not_found(service: Key) -> Absent:
    """There is no service of that name."""
    return Absent(service, Absence.NOT_FOUND, f"there is no VirtualMachineService {service}")


def _same_absence(state: EndpointSet | Absent, absent: Absent) -> bool:
    # First "is being deleted", then "there is none": to a client that is one event.
    if not isinstance(state, Absent) or state.absence is not absent.absence:
        return False
    return absent.absence is Absence.NOT_FOUND or state == absent
