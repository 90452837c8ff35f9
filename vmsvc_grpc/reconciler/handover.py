"""The services whose EndpointSlices of ours may be deleted, as Kubernetes has made its own. Pure.

Kubernetes needs time to mirror Endpoints (its controller makes 20 requests a second by default). If
ours were deleted before that, the services would have no slices.
"""

from __future__ import annotations

from vmsvc_grpc.model.objects import Key


class HandOver:
    """Notes what Kubernetes has mirrored. Time is an argument: seconds of a clock."""

    def __init__(self, *, patience_s: float) -> None:
        """If nothing is mirrored for `patience_s`, ours are deleted all the same.

        In that case, nothing may mirror Endpoints in this cluster. As long as one service after
        another is handed over, the others wait.
        """
        self._patience_s = patience_s
        self._asked: dict[Key, float] = {}
        self._last = float("-inf")
        self._over: set[Key] = set()

    def over(self, service: Key) -> bool:
        """Whether its slices may go."""
        return service in self._over

    def asked(self, service: Key, now: float, *, mirrored: bool) -> bool:
        """Note whether its Endpoints were found mirrored; whether its slices may go."""
        since = self._asked.setdefault(service, now)
        if mirrored:
            self._last = now
        elif now < max(since, self._last) + self._patience_s:
            return False
        del self._asked[service]
        self._over.add(service)
        return True

    def forget(self, service: Key) -> None:
        """Forget a service that has no slices of ours, or is to keep them."""
        self._asked.pop(service, None)
        self._over.discard(service)
