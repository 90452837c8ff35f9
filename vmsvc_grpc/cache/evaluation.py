"""All endpoints of one service, worked out in pieces, between which VMs may change."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Protocol, TypeVar

from vmsvc_grpc.cache.contributions import Contributions
from vmsvc_grpc.model.endpoints import Assembly, Endpoint, repeats_id
from vmsvc_grpc.model.objects import IPFamily, Key, ServiceSpec, VirtualMachine
from vmsvc_grpc.model.resolve import (
    AddressRules,
    JudgedAddress,
    Remembers,
    addresses,
    contribution,
)
from vmsvc_grpc.model.selector import matches

MATCHED_MAX = 500
"""How many VMs are matched against a service in one piece: some 3 ms."""

_SORTED_MAX = 2_000  # How many keys or endpoints are sorted in one piece: some 2 ms.
_COMPARED_MAX = 10_000  # How many endpoints are compared in one piece: some 2 ms.
_LATE_MAX = 10  # How many late changes are made in one piece: 0.3 ms each, of 40,000 endpoints.

_Value = TypeVar("_Value", bound=Any)


class _VirtualMachines(Protocol):
    """Where an evaluation finds VMs by their names."""

    def get(self, key: Key) -> VirtualMachine | None:
        """The VM of that name, or None."""


class Evaluation(Contributions):
    """What the VMs contribute to a service by a spec.

    The service itself stays as it was until it takes this over. It is what it would be had all
    been worked out when the evaluation began, and had VMs changed only afterwards.
    """

    def __init__(
        self,
        spec: ServiceSpec | None,
        selector: Mapping[str, str],
        families: tuple[IPFamily, ...],
        vms: _VirtualMachines,
        names: Sequence[Key],
        *,
        before: Mapping[Key, tuple[Endpoint, ...]],
        remembers: Remembers,
        rules: AddressRules,
    ) -> None:
        """`names` are those of the VMs that may match. Nothing is looked at yet.

        `before` are the contributions that these replace, and `remembers` goes by them. Both must
        stay as they are until the end.
        """
        super().__init__()
        self.spec = spec
        self.families = families
        self.matched = 0
        """How many VMs have been matched so far, apart from those that changed."""
        self._selector = selector
        self._vms = vms
        self._names = names
        self._before = before
        self._remembers = remembers
        self._rules = rules
        # What the members and the assembly do not show yet: VMs, each with its contribution before.
        # None while VMs are looked at, as then neither is made yet.
        self._late: dict[Key, tuple[Endpoint, ...] | None] | None = None
        self._assembled = False
        self._pieces: Generator[None] | None = None

    @property
    def large(self) -> bool:
        """Whether it takes more than one piece."""
        return len(self._names) > MATCHED_MAX

    def proceed(self) -> bool:
        """Do a piece of the work, some milliseconds; whether all is done.

        However many VMs change meanwhile, it is done after a number of pieces that is
        proportional to the VMs.
        """
        if not self.large:
            self._work_at_once()
            return True
        if self._pieces is None:
            self._pieces = self._work()
        return next(self._pieces, self) is self

    def abandon(self) -> None:
        """Stop midway: nobody wants the result any more. Leaves no reference cycle."""
        if self._pieces is not None:
            self._pieces.close()

    def vm_changed(
        self, old: VirtualMachine | None, new: VirtualMachine, judged: Sequence[JudgedAddress]
    ) -> None:
        """A VM that the selector matches has changed; `judged` are its addresses."""
        given = self.contributions.get(new.key)
        if given is None and old is not None and self._selects(old):
            given = self._given(old)
        # The VM is remembered as it was a moment ago, as it is where nothing is in pieces.
        ready = {endpoint.vm_uid for endpoint in given or () if endpoint.ready}
        after = contribution(new, judged, self.families, ready.__contains__)
        self._replace(new.key, after)

    def vm_left(self, vm: Key) -> None:
        """A VM that the selector matched has gone, or it is matched no more."""
        self._replace(vm, None)

    def _work_at_once(self) -> None:
        """The same as `_work`, in one piece: most services are small."""
        for name in self._names:
            self._look_at(name)
        self.members = sorted(self.contributions)
        self._assembly = Assembly.of(self.contributions.values())

    def _work(self) -> Generator[None]:
        """Does a piece at each step."""
        names = iter(self._names)
        while piece := list(islice(names, MATCHED_MAX)):
            for name in piece:
                self._look_at(name)
            yield
        self._late = {}
        vms, endpoints = list(self.contributions), [*chain(*self.contributions.values())]
        self.members = yield from _sorted(vms)
        endpoints = yield from _sorted(endpoints)
        repeats = yield from _repeats_id(endpoints)
        self._assembly = Assembly(endpoints, repeats=repeats)
        self._assembled = True
        while self._late:
            for _ in range(min(_LATE_MAX, len(self._late))):
                late, before = self._late.popitem()
                self._show(late, before, self.contributions.get(late))
            yield

    def _look_at(self, name: Key) -> None:
        vm = self._vms.get(name)
        # One that has changed meanwhile has been taken in already.
        if vm is not None and name not in self.contributions and self._selects(vm):
            self._put(name, None, self._given(vm))

    def _selects(self, vm: VirtualMachine) -> bool:
        return not vm.deleting and matches(self._selector, vm.labels)

    def _given(self, vm: VirtualMachine) -> tuple[Endpoint, ...]:
        self.matched += 1
        judged = addresses(vm, self._rules)
        given = contribution(vm, judged, self.families, self._remembers)
        # Endpoints that stay the same objects are compared, and told apart, in a tenth of the time.
        before = self._before.get(vm.key)
        return before if before is not None and before == given else given

    def _replace(self, vm: Key, after: tuple[Endpoint, ...] | None) -> None:
        before = self.contributions.get(vm)
        self._put(vm, before, after)
        if before == after or self._late is None:
            return
        if self._assembled and vm not in self._late:
            self._show(vm, before, after)
        else:
            self._late.setdefault(vm, before)


def _sorted(values: list[_Value]) -> Generator[None, None, list[_Value]]:
    """The values, sorted; pauses between pieces of the work. The largest is O(values)."""
    runs: deque[list[_Value]] = deque()
    for start in range(0, len(values), _SORTED_MAX):
        runs.append(sorted(values[start : start + _SORTED_MAX]))
        if len(values) > _SORTED_MAX:
            yield
    while len(runs) > 1:
        run = runs.popleft()
        run += runs.popleft()
        run.sort()  # Of two sorted runs it makes one, in some comparisons a value.
        runs.append(run)
        yield
    return runs[0] if runs else []


def _repeats_id(endpoints: list[Endpoint]) -> Generator[None, None, bool]:
    """As `repeats_id`, with pauses."""
    found = False
    for start in range(0, len(endpoints), _COMPARED_MAX):
        found = found or repeats_id(endpoints[start : start + _COMPARED_MAX + 1])
        if len(endpoints) > _COMPARED_MAX:
            yield
    return found
