"""What has been listed and told: which of two tellings is the newer, and slices by service."""

from __future__ import annotations

from collections.abc import Sequence

from vmsvc_grpc.model.objects import Key, Kind, StoredEndpointSlice
from vmsvc_grpc.model.ownership import service_of_slice

# As many as 64 bits have: etcd counts no further. Python refuses to read 5,000.
_DIGITS_MAX = 20


class Freshness:
    """Resource versions told by the source, and those answered that it has not told yet.

    Both come over connections of their own, so either may overtake the other. An API
    server's resource versions are numbers that rise with each change of any object of a
    kind (KEP-5504); where there are none, whatever comes last counts.
    """

    def __init__(self, namespaces: Sequence[str]) -> None:
        """`namespaces` are those that are listed one by one; none: all at once."""
        self._scoped = bool(namespaces)
        # How far the source has come, by what it follows by itself.
        self._told: dict[tuple[Kind, str | None], int] = {}
        self._answered: dict[tuple[Kind, Key], int] = {}

    def listing(self, kind: Kind, namespace: str | None) -> None:
        """A list begins: it may be of a server whose resource versions begin anew."""
        self._told.pop((kind, namespace), None)
        for answered in [a for a in self._answered if a[0] is kind]:
            if namespace in (None, answered[1].namespace):
                del self._answered[answered]

    def listed(self, kind: Kind, namespace: str | None, resource_version: str) -> None:
        """The list that began is of that resource version, whatever it held."""
        self._told[kind, namespace] = _number(resource_version) or 0

    def overtaken(self, kind: Kind, key: Key) -> bool:
        """Whether an answer told of a later time than the list that ends just now."""
        told = self._told.get(self._scope(kind, key), 0)
        return self._answered.get((kind, key), 0) > told

    def told(self, kind: Kind, key: Key, resource_version: str) -> bool:
        """Whether what the source tells is to be taken in: no answer was newer."""
        version = _number(resource_version)
        if version is None:
            return True
        scope = self._scope(kind, key)
        self._told[scope] = max(version, self._told.get(scope, 0))
        if version < self._answered.get((kind, key), 0):
            return False
        self._answered.pop((kind, key), None)
        return True

    def answered(self, kind: Kind, key: Key, resource_version: str) -> bool:
        """Whether an answer is to be taken in: the source has not told of that time yet.

        If it has, it has told this very state, or one after it: the object may be gone.
        """
        version = _number(resource_version)
        if version is None:
            return True
        known = max(self._told.get(self._scope(kind, key), 0), self._answered.get((kind, key), 0))
        if version <= known:
            return False
        self._answered[kind, key] = version
        return True

    def gone(self, kind: Kind, key: Key) -> None:
        """There is no such object any more."""
        self._answered.pop((kind, key), None)

    def idle(self) -> bool:
        """Whether everything that was answered has been told."""
        return not self._answered

    def _scope(self, kind: Kind, key: Key) -> tuple[Kind, str | None]:
        return kind, key.namespace if self._scoped else None


def _number(resource_version: str) -> int | None:
    counts = resource_version.isdecimal() and len(resource_version) <= _DIGITS_MAX
    return int(resource_version) if counts else None


class SliceIndex:
    """EndpointSlices by name, and by the service that each is of."""

    def __init__(self) -> None:
        """An empty index."""
        self._by_key: dict[Key, StoredEndpointSlice] = {}
        self._by_service: dict[Key, dict[Key, StoredEndpointSlice]] = {}

    def get(self, key: Key) -> StoredEndpointSlice | None:
        """The slice of that name, or None."""
        return self._by_key.get(key)

    def keys(self) -> set[Key]:
        """The names of all slices, as a set of the caller's own."""
        return set(self._by_key)

    def services(self) -> set[Key]:
        """The names of all services with slices, as a set of the caller's own."""
        return set(self._by_service)

    def of(self, service: Key) -> tuple[StoredEndpointSlice, ...]:
        """A service's slices, sorted by name. O(slices of the service)."""
        held = self._by_service.get(service, {})
        return tuple(held[key] for key in sorted(held))

    def put(self, slice_: StoredEndpointSlice) -> StoredEndpointSlice | None:
        """Add or replace a slice; the one that it replaces, if any. O(1)."""
        old = self.remove(slice_.key)
        self._by_key[slice_.key] = slice_
        self._by_service.setdefault(service_of_slice(slice_), {})[slice_.key] = slice_
        return old

    def remove(self, key: Key) -> StoredEndpointSlice | None:
        """Drop a slice; what it was, or None. O(1)."""
        old = self._by_key.pop(key, None)
        if old is not None:
            service = service_of_slice(old)
            held = self._by_service[service]
            del held[key]
            if not held:
                del self._by_service[service]
        return old

    def empty(self) -> bool:
        """Whether nothing is held."""
        return not self._by_key
