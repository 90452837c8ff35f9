"""Which states are fed: the newest, or, by policy, the last good ones. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from vmsvc.feed.policies import Policies, Policy
from vmsvc.model import ServiceState
from vmsvc.state import Disconnected, Event, Synced, deleted, gone


class Held:
    """The states to feed, as far as they are known.

    A lost stream changes nothing. Nothing is fed before every service has been answered once,
    unless there are states of an earlier feed: what is written whole would lack services.
    """

    def __init__(
        self, named: Collection[str], policies: Policies, earlier: Iterable[ServiceState] = ()
    ) -> None:
        """`named` are the services asked for by name; of others only those that exist are kept."""
        self._named = frozenset(named)
        self._policies = policies
        self._fed = {state.service: state for state in earlier}
        self._kept: set[str] = set()
        self._unanswered = self._named - self._fed.keys()
        self.known = bool(self._fed)

    @property
    def kept(self) -> int:
        """How many services are fed by an earlier state, by policy."""
        return len(self._kept)

    @property
    def unanswered(self) -> Collection[str]:
        """Named services of which nothing is known: no state of an earlier feed, nor an answer."""
        return self._unanswered

    def fed(self) -> Mapping[str, ServiceState]:
        """The states to feed now, by service; a copy."""
        return dict(self._fed)

    def take(self, event: Event, complete: Mapping[str, ServiceState]) -> bool:
        """Take in an event; whether there is something new to feed.

        `complete` are the states of the watch that it comes from.
        """
        match event:
            case Disconnected():
                return False
            case Synced():
                first, self.known = not self.known, True
                # A watch forgets a deleted service once it has yielded that; what it said stays.
                unanswered = [
                    name
                    for name, state in self._fed.items()
                    if name not in complete and not deleted(state)
                ]
                changed = [self._put(gone(name)) for name in unanswered]
                return first or any(changed)
            case ServiceState():
                return self._put(event) and self.known

    def applied(self, states: Mapping[str, ServiceState]) -> None:
        """These states have been fed. Forget services that are gone and were not named."""
        for name, state in states.items():
            if name not in self._named and deleted(state) and self._fed.get(name) is state:
                del self._fed[name]

    def _put(self, state: ServiceState) -> bool:
        before = self._fed.get(state.service)
        first = state.service in self._unanswered
        self._unanswered -= {state.service}
        self._kept.discard(state.service)
        if self._policy(state) is Policy.KEEP:
            if before is not None and _serves(before):
                self._kept.add(state.service)
            # Not known, or not good either: it stays as it is, whatever that is.
            return first
        if before is None and deleted(state) and state.service not in self._named:
            return False
        self._fed[state.service] = state
        return before != state

    def _policy(self, state: ServiceState) -> Policy:
        if not state.present:
            return self._policies.absent
        return Policy.EMPTY if _serves(state) else self._policies.no_endpoints


def _serves(state: ServiceState) -> bool:
    return any(endpoint.ready for endpoint in state.endpoints)
