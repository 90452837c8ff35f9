"""The changes that lead from the objects held to those desired. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

from vmsvc_grpc.model.objects import (
    Key,
    Kind,
    StoredEndpoints,
    StoredEndpointSlice,
    Subset,
)
from vmsvc_grpc.reconciler.held import Child, Held, HeldObjects

_Dependent = Child | StoredEndpointSlice


class Verb(Enum):
    """What a change does; the value is Kubernetes' word for it."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Change:
    """One write: from `before`, as it was observed, to `after`. One of them may be None.

    An update keeps uid and resource version, so that a store can tell whether the
    object is still the one that was observed. A VMService is only ever updated.
    """

    before: Held | None
    after: Held | None

    def __post_init__(self) -> None:
        assert self.before is not None or self.after is not None, "a change changes something"

    @property
    def object(self) -> Held:
        """The object after the change; the one before, if it is a deletion."""
        object_ = self.after or self.before
        assert object_ is not None
        return object_

    @property
    def verb(self) -> Verb:
        """Whether this creates, updates or deletes."""
        if self.before is None:
            return Verb.CREATE
        return Verb.UPDATE if self.after is not None else Verb.DELETE

    @property
    def kind(self) -> Kind:
        """The kind of the object."""
        return self.object.kind

    @property
    def key(self) -> Key:
        """Namespace and name of the object."""
        return self.object.key

    def __str__(self) -> str:
        return f"{self.verb.value} {self.kind.value} {self.key}"


def plan(desired: HeldObjects, observed: HeldObjects) -> tuple[Change, ...]:
    """The changes, in the order in which they are to be made; none if all is as it should be.

    The finalizer is added before the first object, and removed after the last; the status of the
    VMService comes at the end. O(endpoints), and O(endpoints log endpoints) where their order
    differs.
    """
    children = _of_children(desired, observed)
    held, wanted = observed.vmservice, desired.vmservice
    if held is None or wanted is None:
        return children
    claimed = replace(held, meta=wanted.meta)
    claim = (Change(held, claimed),) if claimed != held else ()
    status = (Change(claimed, wanted),) if wanted != claimed else ()
    if wanted.meta.deleting:
        return (*children, *claim, *status)
    return (*claim, *children, *status)


def _of_children(desired: HeldObjects, observed: HeldObjects) -> tuple[Change, ...]:
    """Deletions first, the Service's last among them; then writes, the Service's first.

    So nothing points to addresses that nobody keeps up to date, and the Service has the labels and
    annotations that Endpoints take from it. Slices come before the Endpoints, and surplus
    ones go after them: an endpoint is briefly in two, never missing.
    """
    service = tuple(_changes(desired.service, observed.service))
    endpoints = tuple(_changes(desired.endpoints, observed.endpoints))
    held = {slice_.key: slice_ for slice_ in observed.slices}
    wanted = {slice_.key: slice_ for slice_ in desired.slices}
    slices = tuple(
        change
        for key in sorted(held.keys() | wanted.keys())
        for change in _changes(wanted.get(key), held.get(key))
    )
    too_many = _deletions(slices)
    last = (*too_many, *_deletions(service)) if desired.service is None else _deletions(service)
    surplus = () if desired.service is None else too_many
    return (
        *_deletions(endpoints),
        *last,
        *_writes(service),
        *_writes(slices),
        *_writes(endpoints),
        *surplus,
    )


def _deletions(changes: tuple[Change, ...]) -> tuple[Change, ...]:
    return tuple(change for change in changes if change.after is None)


def _writes(changes: tuple[Change, ...]) -> tuple[Change, ...]:
    return tuple(change for change in changes if change.after is not None)


def _changes(wanted: _Dependent | None, held: _Dependent | None) -> Iterator[Change]:
    if held is not None and (wanted is None or wanted.meta.uid != held.meta.uid):
        # An object with finalizers stays for a while after its deletion; a new one must wait.
        if held.meta.deleting:
            return
        yield Change(held, None)
        held = None
    if wanted is not None and not same(wanted, held):
        yield Change(held, wanted)


def same(one: _Dependent, other: _Dependent | None) -> bool:
    """Whether two objects say the same: the order within Endpoints does not count.

    VM Operator's controller sorts ports by a hash; its order stays once it is written.
    The order of a Service's ports counts, as it is the user's.
    """
    if one == other or not isinstance(one, StoredEndpoints):
        return one == other
    if not isinstance(other, StoredEndpoints) or one.meta != other.meta:
        return False
    return _unordered(one.subsets) == _unordered(other.subsets)


def _unordered(subsets: Iterable[Subset]) -> Counter[tuple[Hashable, ...]]:
    """How often each subset occurs, whatever the order in it."""
    return Counter(
        (_counted(s.addresses), _counted(s.not_ready_addresses), _counted(s.ports)) for s in subsets
    )


def _counted(entries: Iterable[Hashable]) -> frozenset[tuple[Hashable, int]]:
    return frozenset(Counter(entries).items())
