"""Names that our slices would have, but that others' objects have already. Pure.

We may not see such an object in any list, as it may lack the label by which we list slices. Only
the attempt to create ours reveals it. Time is an argument: seconds of a clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.reconciler.held import Failure

# One may be a person's doing. Whoever takes a third one would take all.
_LOST_MAX = 3


@dataclass(slots=True)
class _Taken:
    """Another's slice: when it was last seen, and who took it if it was ours ("": unknown)."""

    at: float
    lost_to: str | None = None


class TakenNames:
    """Others' EndpointSlices in the way of a service's, and when each was last seen."""

    def __init__(self, *, recheck_s: float) -> None:
        """After `recheck_s`, it is time to look whether such an object is still there."""
        self._recheck_s = recheck_s
        self._slices: dict[Key, dict[Key, _Taken]] = {}

    def seen(self, service: Key, slice_: Key, now: float) -> None:
        """Note another's slice."""
        self._slices.setdefault(service, {}).setdefault(slice_, _Taken(now)).at = now

    def lost(self, service: Key, slice_: Key, by: str) -> None:
        """Note that a slice that was seen had been ours; "" if nobody knows who made it theirs."""
        self._slices[service][slice_].lost_to = by

    def loses(self, service: Key) -> bool:
        """Whether somebody goes on taking slices from us: further ones would be taken, too."""
        slices = self._slices.get(service, {})
        lost = sum(taken.lost_to is not None for taken in slices.values())
        return lost >= _LOST_MAX

    def gone(self, service: Key, slice_: Key) -> None:
        """Forget a slice that is gone, or is ours."""
        slices = self._slices.get(service, {})
        slices.pop(slice_, None)
        if not slices:
            self._slices.pop(service, None)

    def forget(self, service: Key) -> None:
        """Forget a service that is gone."""
        self._slices.pop(service, None)

    def of(self, service: Key) -> frozenset[str]:
        """The names that its slices cannot have."""
        return frozenset(slice_.name for slice_ in self._slices.get(service, ()))

    def doubtful(self, service: Key, now: float) -> list[Key]:
        """The slices to look at again."""
        slices = self._slices.get(service, {})
        return [slice_ for slice_, taken in slices.items() if now >= taken.at + self._recheck_s]

    def due(self, service: Key) -> float | None:
        """When to look again; None if there are no such slices."""
        slices = self._slices.get(service)
        if not slices:
            return None
        return min(taken.at for taken in slices.values()) + self._recheck_s

    def failures(self, service: Key) -> tuple[Failure, ...]:
        """A failure for each slice in the way."""
        slices = self._slices.get(service, {})
        return tuple(_failure(slice_, slices[slice_]) for slice_ in sorted(slices))


def _failure(slice_: Key, taken: _Taken) -> Failure:
    if taken.lost_to is not None:
        return Failure(
            "EndpointSliceTaken",
            f"EndpointSlice {slice_} was ours until its controller or its managed-by label was "
            f"changed by {taken.lost_to or 'another writer'}; it stays as it is, ours has the next "
            f"name, and none is made after {_LOST_MAX} of these; see who changes them, and delete "
            "them",
        )
    return Failure(
        "EndpointSliceNotOurs",
        f"EndpointSlice {slice_} is not this service's, by its controller and its managed-by "
        "label, and stays as it is; ours has the next name; delete it if nobody needs it",
    )
