"""Which change of a service comes next, by what the cache holds. Never waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.reconciler.desired import Desired, desired, undone
from vmsvc_grpc.reconciler.handover import HandOver
from vmsvc_grpc.reconciler.held import Failure, HeldObjects
from vmsvc_grpc.reconciler.names import TakenNames
from vmsvc_grpc.reconciler.plan import Change, Verb, plan
from vmsvc_grpc.reconciler.rules import Rules
from vmsvc_grpc.reconciler.store import ChangeError, NotWriting
from vmsvc_grpc.reconciler.yielding import Yielding


class Planning:
    """Observes services in the cache, and plans what is to be done for each."""

    def __init__(
        self,
        cache: Cache,
        rules: Rules,
        *,
        yielding: Yielding,
        taken: TakenNames,
        hand_over: HandOver,
        all_listed: Callable[[], bool],
        now: Callable[[], str],
    ) -> None:
        """`all_listed` says whether every VMService that exists could be read."""
        self._cache = cache
        self._rules = rules
        self._yielding = yielding
        self._taken = taken
        self._hand_over = hand_over
        self._all_listed = all_listed
        self._now = now
        # Services with objects whose VMService was seen since this process may write.
        self._seen: set[Key] = set()

    def next_change(
        self, key: Key, failed: Failure | None
    ) -> tuple[Change | None, tuple[Failure, ...]]:
        """The next change to make, and the failures that stand.

        Raises NotWriting while it is not known yet which endpoints the service has.
        """
        service = self._cache.services.get(key)
        if service is not None and not service.evaluated:
            raise NotWriting
        now = asyncio.get_running_loop().time()
        observed = self._observed(key)
        while True:
            disputes = self._yielding.failures(key)
            wanted = self._desired(key, observed, failed, disputes)
            changes = self._yielding.allowed(key, self._planned(key, wanted, observed), now)
            # When a dispute begins or ends, the VMService should report something else.
            if self._yielding.failures(key) == disputes:
                return (changes[0] if changes else None), wanted.failures

    def _planned(self, key: Key, wanted: Desired, observed: HeldObjects) -> Iterator[Change]:
        """The changes, without new slices if somebody takes them from us as soon as they are made.

        There would be ever more of them.
        """
        for change in plan(wanted.objects, observed):
            creates_slice = change.verb is Verb.CREATE and change.kind is Kind.ENDPOINT_SLICE
            if not (creates_slice and self._taken.loses(key)):
                yield change

    def _observed(self, key: Key) -> HeldObjects:
        service = self._cache.services.get(key)
        return HeldObjects(
            vmservice=service.object if service else None,
            service=self._cache.stored_services.get(key),
            endpoints=self._cache.stored_endpoints.get(key),
            slices=self._cache.stored_slices.of(key),
        )

    def _desired(
        self,
        key: Key,
        observed: HeldObjects,
        failed: Failure | None,
        disputes: tuple[Failure, ...],
    ) -> Desired:
        service = self._cache.services.get(key)
        spec = service.spec if service else None
        if failed is not None:
            failures = (failed, *disputes)
            return undone(observed, spec, failures, self._rules, now=self._now())
        wanted = desired(
            observed,
            spec,
            service.endpoints if service else (),
            self._rules,
            now=self._now(),
            handed_over=self._hand_over.over(key),
            standing=(*disputes, *self._taken.failures(key)),
            taken=self._taken.of(key),
        )
        if service is not None:
            self._seen.add(key)
        elif wanted.objects == observed:
            self._seen.discard(key)
        elif key not in self._seen and not self._all_listed():
            raise ChangeError(
                "VirtualMachineServiceUnread",
                f"the objects of {key} stay although no VirtualMachineService {key} was read: "
                "not everything could be read, and it may be among the rest",
            )
        return wanted
