"""The stored EndpointSlices that are ours."""

from __future__ import annotations

from vmsvc_grpc.model.objects import Key, StoredEndpointSlice
from vmsvc_grpc.model.ownership import service_of_slice


class SliceIndex:
    """EndpointSlices by name, and by service."""

    def __init__(self) -> None:
        """An empty index."""
        self._by_key: dict[Key, StoredEndpointSlice] = {}
        self._by_service: dict[Key, dict[Key, StoredEndpointSlice]] = {}

    def get(self, key: Key) -> StoredEndpointSlice | None:
        """The slice of that name, or None."""
        return self._by_key.get(key)

    def keys(self) -> set[Key]:
        """The names of all slices, as a new set."""
        return set(self._by_key)

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
        """Remove a slice, and return it, or None. O(1)."""
        old = self._by_key.pop(key, None)
        if old is not None:
            service = service_of_slice(old)
            held = self._by_service[service]
            del held[key]
            if not held:
                del self._by_service[service]
        return old
