"""What each VM contributes to a service, and what all of that comes to."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field

from vmsvc_grpc.model.endpoints import Assembly, Endpoint, EndpointDiff
from vmsvc_grpc.model.objects import Key


@dataclass(slots=True)
class Contributions:
    """The endpoints of each VM, and of all. Read it; only the cache changes it."""

    contributions: dict[Key, tuple[Endpoint, ...]] = field(init=False, default_factory=dict)
    """Each selected VM's endpoints; empty if it has no usable address, or there is no spec."""

    members: list[Key] = field(init=False, default_factory=list)
    """The selected VMs, sorted by name."""

    ready: int = field(init=False, default=0)
    """How many of them have endpoints that are ready."""

    not_ready: int = field(init=False, default=0)
    """How many of them have endpoints that are not ready: a VM's are all ready or all not."""

    _assembly: Assembly = field(init=False, default_factory=Assembly)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """All endpoints, ready or not, sorted."""
        return self._assembly.endpoints

    def _put(
        self, vm: Key, before: tuple[Endpoint, ...] | None, after: tuple[Endpoint, ...] | None
    ) -> None:
        """Replace what a VM contributes, `before`; None if it is not selected. `_show` is next."""
        if after is None:
            self.contributions.pop(vm, None)
        else:
            self.contributions[vm] = after
        self._count(before, -1)
        self._count(after, 1)

    def _count(self, given: tuple[Endpoint, ...] | None, times: int) -> None:
        if given:
            if given[0].ready:
                self.ready += times
            else:
                self.not_ready += times

    def _show(
        self, vm: Key, before: tuple[Endpoint, ...] | None, after: tuple[Endpoint, ...] | None
    ) -> EndpointDiff | None:
        """Bring members and endpoints up to date, which show `before`; the difference that makes.

        O(what the VM contributes), and copies the pointers to all endpoints.
        """
        if before is None and after is not None:
            insort(self.members, vm)
        elif before is not None and after is None:
            del self.members[bisect_left(self.members, vm)]
        before, after = before or (), after or ()
        return self._assembly.exchange(before, after) if before != after else None

    def _take_over(self, other: Contributions) -> None:
        """Have what `other` has, which must not be used any more."""
        self.contributions, self.members = other.contributions, other.members
        self.ready, self.not_ready = other.ready, other.not_ready
        self._assembly = other._assembly
