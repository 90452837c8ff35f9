"""Names that ours would have, and that somebody else's objects have. Pure.

An object of such a name need not show up in any list that we read (it lacks the label that
we list by): only the attempt to create ours tells. Time is an argument: seconds of a clock.
"""

from __future__ import annotations

from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.reconciler.held import Failure


class TakenNames:
    """The EndpointSlices of others that are in the way of a service's, and when each was seen."""

    def __init__(self, *, recheck_s: float) -> None:
        """`recheck_s` is how long one is believed to be there without another look."""
        self._recheck_s = recheck_s
        self._seen: dict[Key, dict[Key, float]] = {}

    def seen(self, service: Key, slice_: Key, now: float) -> None:
        """Somebody else's slice is there."""
        self._seen.setdefault(service, {})[slice_] = now

    def gone(self, service: Key, slice_: Key) -> None:
        """It is not there any more, or is ours."""
        slices = self._seen.get(service, {})
        slices.pop(slice_, None)
        if not slices:
            self._seen.pop(service, None)

    def forget(self, service: Key) -> None:
        """There is no such service any more."""
        self._seen.pop(service, None)

    def of(self, service: Key) -> frozenset[str]:
        """The names that its slices cannot have."""
        return frozenset(slice_.name for slice_ in self._seen.get(service, ()))

    def doubtful(self, service: Key, now: float) -> list[Key]:
        """Those that want another look."""
        slices = self._seen.get(service, {})
        return [slice_ for slice_, at in slices.items() if now >= at + self._recheck_s]

    def due(self, service: Key) -> float | None:
        """When one next wants a look."""
        slices = self._seen.get(service)
        return min(slices.values()) + self._recheck_s if slices else None

    def failures(self, service: Key) -> tuple[Failure, ...]:
        """What to say of each."""
        return tuple(
            Failure(
                "EndpointSliceNotOurs",
                f"EndpointSlice {slice_} is not this service's, by its controller and its "
                "managed-by label, and stays as it is; ours has the next name; delete it if nobody "
                "needs it",
            )
            for slice_ in sorted(self._seen.get(service, ()))
        )
