"""Which services' EndpointSlices may be left to Kubernetes, that are ours still. Pure.

Kubernetes takes its time to mirror Endpoints (its controller makes 20 requests a second by
default); slices of ours that went before it has would leave their services without any.
"""

from __future__ import annotations

from vmsvc_grpc.model.objects import Key


class HandOver:
    """Notes what Kubernetes has mirrored. Time is an argument: seconds of a clock."""

    def __init__(self, *, patience_s: float) -> None:
        """`patience_s` is how long nothing need be mirrored for ours to go all the same.

        It may be that nobody mirrors in this cluster. While one service after another is
        handed over, the others are waited for.
        """
        self._patience_s = patience_s
        self._asked: dict[Key, float] = {}
        self._last = float("-inf")
        self._over: set[Key] = set()

    def over(self, service: Key) -> bool:
        """Whether its slices may go."""
        return service in self._over

    def asked(self, service: Key, now: float, *, mirrored: bool) -> bool:
        """Somebody has looked whether its Endpoints are mirrored; whether its slices may go."""
        since = self._asked.setdefault(service, now)
        if mirrored:
            self._last = now
        elif now < max(since, self._last) + self._patience_s:
            return False
        del self._asked[service]
        self._over.add(service)
        return True

    def forget(self, service: Key) -> None:
        """It has no slices of ours, or is to have them."""
        self._asked.pop(service, None)
        self._over.discard(service)
