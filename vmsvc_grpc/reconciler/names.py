"""Names that our slices would have, but that others' objects have already. Pure.

Such an object need not be in any list that we read, as it may lack the label by which we list. Only
the attempt to create ours shows it. Time is an argument: seconds of a clock.
"""

from __future__ import annotations

from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.reconciler.held import Failure


class TakenNames:
    """Others' EndpointSlices in the way of a service's, and when each was last seen."""

    def __init__(self, *, recheck_s: float) -> None:
        """For `recheck_s` we believe that one is there without looking again."""
        self._recheck_s = recheck_s
        self._seen: dict[Key, dict[Key, float]] = {}

    def seen(self, service: Key, slice_: Key, now: float) -> None:
        """Note another's slice."""
        self._seen.setdefault(service, {})[slice_] = now

    def gone(self, service: Key, slice_: Key) -> None:
        """Forget a slice that is gone, or is ours."""
        slices = self._seen.get(service, {})
        slices.pop(slice_, None)
        if not slices:
            self._seen.pop(service, None)

    def forget(self, service: Key) -> None:
        """Forget a service that is gone."""
        self._seen.pop(service, None)

    def of(self, service: Key) -> frozenset[str]:
        """The names that its slices cannot have."""
        return frozenset(slice_.name for slice_ in self._seen.get(service, ()))

    def doubtful(self, service: Key, now: float) -> list[Key]:
        """The slices to look at again."""
        slices = self._seen.get(service, {})
        return [slice_ for slice_, at in slices.items() if now >= at + self._recheck_s]

    def due(self, service: Key) -> float | None:
        """When to look again; None if there are no such slices."""
        slices = self._seen.get(service)
        return min(slices.values()) + self._recheck_s if slices else None

    def failures(self, service: Key) -> tuple[Failure, ...]:
        """A failure for each slice in the way."""
        return tuple(
            Failure(
                "EndpointSliceNotOurs",
                f"EndpointSlice {slice_} is not this service's, by its controller and its "
                "managed-by label, and stays as it is; ours has the next name; delete it if nobody "
                "needs it",
            )
            for slice_ in sorted(self._seen.get(service, ()))
        )
