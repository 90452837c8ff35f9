"""The newest state of one service for one filter class, and who wants to hear of it.

A change is stored once. A subscription keeps the version that it was last sent, never
a queue: whatever it missed is in the newest state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from vmsvc_grpc.model.endpoints import EndpointSet, FilterClass
from vmsvc_grpc.model.objects import Key


class Absence(Enum):
    """Why there is nothing to tell of a service."""

    NOT_FOUND = "not found"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Absent:
    """The service does not exist, is being deleted, or is refused, with the sentence why."""

    service: Key
    absence: Absence
    message: str


@dataclass(slots=True)
class Publication:
    """One state of a topic. Immutable but for `encoded`.

    `base` is the EndpointSet published just before, if it was one: what a delta
    starts from. `encoded` is where encoders keep what they made of this publication,
    by a name of theirs, so that it is made once for all readers.
    """

    version: int
    state: EndpointSet | Absent
    base: EndpointSet | None
    encoded: dict[str, Any] = field(default_factory=dict)


class Subscription(Protocol):
    """Who is told that a topic has something newer. Must only take note, and not call back."""

    def wake(self, topic: Topic) -> None:
        """`topic` has a newer publication than before."""


class Topic:
    """The newest publication of one service and filter class, and its subscriptions."""

    __slots__ = ("current", "filter_class", "service", "subscriptions")

    def __init__(self, service: Key, filter_class: FilterClass, first: Publication) -> None:
        """A topic that begins with `first`, and nobody subscribed."""
        self.service = service
        self.filter_class = filter_class
        self.current = first
        # A dict keeps the order of subscription, so that waking is fair and repeatable.
        self.subscriptions: dict[Subscription, None] = {}

    def publish(self, version: int, state: EndpointSet | Absent) -> None:
        """Store a newer state and wake every subscription. O(subscriptions)."""
        assert version > self.current.version, "versions of a topic only rise"
        before = self.current.state
        base = before if isinstance(before, EndpointSet) else None
        self.current = Publication(version, state, base)
        for subscription in self.subscriptions:
            subscription.wake(self)
