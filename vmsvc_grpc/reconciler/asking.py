"""Questions that a service's turn asks the store, beyond what is read all the time.

They are: which object has the name of a slice of ours, who else writes an object, and what
Kubernetes has mirrored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.objects import MANAGED_BY_LABEL, IPFamily, Key, Kind, StoredEndpointSlice
from vmsvc_grpc.model.ownership import is_our_slice_of
from vmsvc_grpc.reconciler.handover import HandOver
from vmsvc_grpc.reconciler.names import TakenNames
from vmsvc_grpc.reconciler.patch import PatchPath
from vmsvc_grpc.reconciler.rules import Rules
from vmsvc_grpc.reconciler.store import Witness
from vmsvc_grpc.reconciler.yielding import Yielding

# By these a slice is ours.
_MARKS: tuple[PatchPath, ...] = (
    ("metadata", "labels", MANAGED_BY_LABEL),
    ("metadata", "ownerReferences"),
)

Mirrored = Callable[[Key], Awaitable[frozenset[str]]]
"""The address types of the EndpointSlices that Kubernetes has mirrored for a service.

Raises ChangeError.
"""


async def all_mirrored(_: Key) -> frozenset[str]:
    """All of them: for stores beside which Kubernetes mirrors nothing."""
    return frozenset(family.value for family in IPFamily)


class Asking:
    """Asks only if the answer decides something, and notes the answer."""

    def __init__(
        self,
        cache: Cache,
        rules: Rules,
        *,
        witness: Witness | None,
        mirrored: Mirrored,
        yielding: Yielding,
        taken: TakenNames,
        hand_over: HandOver,
    ) -> None:
        """Without a witness, other writers stay unknown."""
        self._cache = cache
        self._rules = rules
        self._witness = witness
        self._mirrored = mirrored
        self._yielding = yielding
        self._taken = taken
        self._hand_over = hand_over

    async def look_at_taken(self, key: Key) -> None:
        """Look again at others' slices that were seen long ago. Raises ChangeError."""
        if self._taken.of(key) and key not in self._cache.services:
            self._taken.forget(key)
        for slice_ in self._taken.doubtful(key, asyncio.get_running_loop().time()):
            assert self._witness is not None, "slices are held where it can be asked for them"
            found = await self._witness.find(Kind.ENDPOINT_SLICE, slice_)
            if isinstance(found, StoredEndpointSlice) and not is_our_slice_of(found, key):
                self._taken.seen(key, slice_, asyncio.get_running_loop().time())
            else:
                self._taken.gone(key, slice_)

    async def look_who_took(self, key: Key, slice_: Key) -> None:
        """Find out who made a slice that we had written another's."""
        assert self._witness is not None, "slices are held where it can be asked for them"
        by = await self._witness.other_writer(Kind.ENDPOINT_SLICE, slice_, _MARKS)
        self._taken.lost(key, slice_, by)

    async def found_writers(self, key: Key) -> bool:
        """Find out who else writes the objects newly in dispute; whether there were any."""
        undecided = list(self._yielding.undecided(key))
        for about, fields in undecided:
            asked = self._witness
            writer = await asked.other_writer(about.kind, about.key, fields) if asked else ""
            self._yielding.found(key, about, writer)
        return bool(undecided)

    def leaves_slices(self, key: Key) -> bool:
        """Whether there are slices of ours that Kubernetes is to replace by its own."""
        service = self._cache.services.get(key)
        if not self._cache.stored_slices.of(key) or service is None or service.spec is None:
            self._hand_over.forget(key)
            return False
        direct = self._rules.direct_slices and service.spec.selector
        return not (direct or service.object.meta.deleting or self._hand_over.over(key))

    async def handed_over(self, key: Key) -> bool:
        """Whether our slices may go, as Kubernetes has mirrored the Endpoints."""
        stored = self._cache.stored_endpoints.get(key)
        held = stored.address_types() if stored else frozenset()
        mirrored = not held or held <= await self._mirrored(key)
        return self._hand_over.asked(key, asyncio.get_running_loop().time(), mirrored=mirrored)
