"""All services of a namespace or of all: their names in order, and their changes.

A name is in it while its service exists and is not being deleted, refused or not.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from functools import partial

from vmsvc_grpc.cache.changes import ChangeLog, Reader
from vmsvc_grpc.cache.topic import Topic, Topics
from vmsvc_grpc.model.endpoints import EndpointSet, FilterClass
from vmsvc_grpc.model.objects import Key

ServiceReader = Reader[Key, Topic]
"""Follows all services, or those of a namespace, and hands out their topics."""

_Scope = tuple[str | None, FilterClass | None]
"""A namespace, or all (None); and a filter class, or None: only the ports of services."""

# Both classes show the same ports; this one has fewer changes.
_CLASS_OF_PORTS = FilterClass.READY_ONLY


class Collection:
    """The names of the services, sorted by namespace and name. Only the cache changes it.

    For each namespace that somebody follows, and for all together, there is one log of changes a
    filter class, and one of services that come, go or change their ports; all readers share these.
    """

    def __init__(self) -> None:
        """Empty."""
        self._names: list[Key] = []
        self._logs: dict[_Scope, ChangeLog[Key, Topic]] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._names)

    def follow(
        self,
        namespace: str | None,
        filter_class: FilterClass | None,
        topics: Topics,
        wake: Callable[[], None],
    ) -> ServiceReader:
        """A reader of all services of a namespace, or of all (None). Close it at the end.

        Without a filter class it hands out only services that come, go or change their ports, and
        perhaps one that did not.
        """
        scope = namespace, filter_class
        log = self._logs.get(scope)
        if log is None:
            log = self._logs[scope] = ChangeLog(
                topics.version,
                partial(self._of, namespace),
                partial(topics.get, filter_class or _CLASS_OF_PORTS),
                on_left=partial(self._logs.pop, scope),
            )
        return Reader(log, wake)

    def record(self, topic: Topic, *, was_there: bool) -> bool:
        """A topic has published; `was_there`: its service was there before. Wakes readers.

        Returns whether there are any.
        """
        if not self._logs:
            return False
        read = False
        classes: tuple[FilterClass | None, ...] = (topic.filter_class,)
        if topic.filter_class is _CLASS_OF_PORTS and _shows_ports(topic, was_there=was_there):
            classes = topic.filter_class, None
        for namespace in (None, topic.service.namespace):
            for filter_class in classes:
                log = self._logs.get((namespace, filter_class))
                if log is not None:
                    log.record(topic.service, topic, was_there=was_there)
                    read = True
        return read

    def page(self, namespace: str | None, after: Key | None, size: int) -> list[Key]:
        """At most `size` names of a namespace, or of all (None), that come after `after`.

        O(size), however many names come before and after the page.
        """
        names = self._names
        start, end = self._range(namespace)
        if after is not None:
            start = max(start, bisect_right(names, after))
        return names[start : min(end, start + size)]

    def namespaces(self) -> Iterator[str]:
        """The namespaces that have services, in order. O(log of the services) for each."""
        place = 0
        while place < len(self._names):
            namespace = self._names[place].namespace
            yield namespace
            _, place = self._range(namespace)

    def _of(self, namespace: str | None) -> tuple[Key, ...]:
        start, end = self._range(namespace)
        return tuple(self._names[start:end])

    def _range(self, namespace: str | None) -> tuple[int, int]:
        """The range of the names of a namespace, or of all (None)."""
        if namespace is None:
            return 0, len(self._names)
        # No text sorts between a namespace and the same with a zero character behind it.
        first, behind = Key(namespace, ""), Key(namespace + "\0", "")
        return bisect_left(self._names, first), bisect_left(self._names, behind)

    def add(self, name: Key) -> None:
        """Add a service, if it is not there."""
        place = bisect_left(self._names, name)
        if self._names[place : place + 1] != [name]:
            self._names.insert(place, name)

    def discard(self, name: Key) -> None:
        """Remove a service, if it is there."""
        place = bisect_left(self._names, name)
        if self._names[place : place + 1] == [name]:
            del self._names[place]


def _shows_ports(topic: Topic, *, was_there: bool) -> bool:
    """Whether the newest publication shows that a service comes, goes, or changes its ports.

    O(ports); O(1) where the publication says itself that it is about endpoints alone.
    """
    publication = topic.current
    if publication.change is not None:
        return False
    state, base = publication.state, publication.base
    ports = state.ports if isinstance(state, EndpointSet) else ()
    return topic.there is not was_there or ports != (base.ports if base else ())
