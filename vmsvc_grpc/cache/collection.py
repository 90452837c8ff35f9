"""All services there are, of a namespace or of all: their names in order, and what changes.

A name is in it while its service exists and is not being deleted, refused or not.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from functools import partial

from vmsvc_grpc.cache.changes import CHANGES_KEPT, ChangeLog, Reader
from vmsvc_grpc.cache.topic import Topic, Topics
from vmsvc_grpc.model.endpoints import EndpointSet, FilterClass
from vmsvc_grpc.model.objects import Key

ServiceReader = Reader[Key, Topic]
"""Who follows all services, or those of a namespace: it is handed out their topics."""

_Scope = tuple[str | None, FilterClass | None]
"""A namespace, or all (None); and a filter class, or None: only which ports services have."""

# Both classes show the same ports; of this one fewer changes come by.
_CLASS_OF_PORTS = FilterClass.READY_ONLY


class Collection:
    """The names of the services, sorted by namespace and name. Only the cache changes it.

    Of each namespace that somebody follows, and of all, there is one log of changes a filter
    class, and one of services that come, go or change their ports, for all who follow it.
    """

    def __init__(self, changes_kept: int = CHANGES_KEPT) -> None:
        """There are none yet. Each log looks back so many changes at least."""
        self._changes_kept = changes_kept
        self._names: list[Key] = []
        self._logs: dict[_Scope, ChangeLog[Key, Topic]] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._names)

    def empty(self) -> bool:
        """Whether there are no services, and nobody follows them."""
        return not self._names and not self._logs

    def follow(
        self,
        namespace: str | None,
        filter_class: FilterClass | None,
        topics: Topics,
        wake: Callable[[], None],
    ) -> ServiceReader:
        """A reader of all services of a namespace, or of all (None). To be closed.

        Without a filter class it hears of nothing but services that come, go or change their
        ports, and may be handed out one that did not.
        """
        scope = namespace, filter_class
        log = self._logs.get(scope)
        if log is None:
            log = self._logs[scope] = ChangeLog(
                topics.version,
                partial(self._of, namespace),
                partial(topics.get, filter_class or _CLASS_OF_PORTS),
                changes_kept=self._changes_kept,
                on_left=partial(self._logs.pop, scope),
            )
        return Reader(log, wake)

    def record(self, topic: Topic, *, was_there: bool) -> None:
        """A topic has published; the service `was_there` before that. Wakes who waits for it."""
        if not self._logs:
            return
        classes: tuple[FilterClass | None, ...] = (topic.filter_class,)
        if topic.filter_class is _CLASS_OF_PORTS and _shows_ports(topic, was_there=was_there):
            classes = topic.filter_class, None
        for namespace in (None, topic.service.namespace):
            for filter_class in classes:
                log = self._logs.get((namespace, filter_class))
                if log is not None:
                    log.record(topic.service, topic, was_there=was_there)

    def page(self, namespace: str | None, after: Key | None, size: int) -> list[Key]:
        """The next names of a namespace, or of all (None), beyond `after`: at most `size`.

        Costs the page, however many there are before and behind it.
        """
        names = self._names
        start, end = self._range(namespace)
        if after is not None:
            start = max(start, bisect_right(names, after))
        return names[start : min(end, start + size)]

    def _of(self, namespace: str | None) -> tuple[Key, ...]:
        start, end = self._range(namespace)
        return tuple(self._names[start:end])

    def _range(self, namespace: str | None) -> tuple[int, int]:
        """From where to where the names of a namespace are, or all of them."""
        if namespace is None:
            return 0, len(self._names)
        # No text sorts between a namespace and the same with a zero character behind it.
        first, behind = Key(namespace, ""), Key(namespace + "\0", "")
        return bisect_left(self._names, first), bisect_left(self._names, behind)

    def add(self, name: Key) -> None:
        """This service is there from now on; also if it was before."""
        place = bisect_left(self._names, name)
        if self._names[place : place + 1] != [name]:
            self._names.insert(place, name)

    def discard(self, name: Key) -> None:
        """This service is not there any more; also if it was not before."""
        place = bisect_left(self._names, name)
        if self._names[place : place + 1] == [name]:
            del self._names[place]


def _shows_ports(topic: Topic, *, was_there: bool) -> bool:
    """Whether the newest publication shows that a service comes, goes, or has other ports.

    O(ports); O(1) where the publication says itself that it is about endpoints alone.
    """
    publication = topic.current
    if publication.change is not None:
        return False
    state, base = publication.state, publication.base
    ports = state.ports if isinstance(state, EndpointSet) else ()
    return topic.there is not was_there or ports != (base.ports if base else ())
