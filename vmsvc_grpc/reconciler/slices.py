"""A service's endpoints as EndpointSlices. Pure.

The limits are KEP-752's. An endpoint stays in the slice that it is in, so that a small
change is a small write; slices are not rebalanced, nor are they by Kubernetes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import count

from vmsvc_grpc.model.address import canonical
from vmsvc_grpc.model.endpoints import Endpoint, EndpointId
from vmsvc_grpc.model.objects import (
    MANAGED_BY,
    MANAGED_BY_LABEL,
    SERVICE_NAME_LABEL,
    EndpointPort,
    IPFamily,
    Key,
    Kind,
    ObjectMeta,
    OwnerReference,
    SliceConditions,
    SliceEndpoint,
    StoredEndpointSlice,
    TargetRef,
)

ENDPOINTS_MAX = 100
"""How many endpoints a slice holds at most, as with Kubernetes."""

# A VM that is being deleted is no endpoint, so none is ever terminating.
_READY = SliceConditions(ready=True, serving=True, terminating=False)
_NOT_READY = SliceConditions(ready=False, serving=False, terminating=False)

_HEADLESS_LABEL = "service.kubernetes.io/headless"

_SlicesByName = dict[str, StoredEndpointSlice]
_EndpointsBySlice = dict[str, list[SliceEndpoint]]
_EndpointsById = dict[EndpointId, SliceEndpoint]


def slices(
    service: Key,
    owner: OwnerReference,
    ports: tuple[EndpointPort, ...],
    endpoints: tuple[Endpoint, ...],
    observed: tuple[StoredEndpointSlice, ...],
    *,
    families: Collection[str],
    headless: bool,
    taken: Collection[str] = (),
) -> tuple[StoredEndpointSlice, ...]:
    """The slices that should be held, sorted by name: the observed ones, changed where necessary.

    `owner` refers to the VMService; its version is also that of references to VMs.
    Each holds at most 100 endpoints of one family. Each of `families`, those of the service, has a
    slice, even an empty one: it says that there are no endpoints. New slices avoid the names in
    `taken`. A change of one endpoint changes at most two slices. O(endpoints).
    """
    wanted = _by_id(service, owner.api_version, endpoints)
    # An address type cannot be changed, so ours cannot have its name.
    taken = {*taken, *(slice_.key.name for slice_ in observed)}
    held: _SlicesByName = {}
    for family in IPFamily:
        ipv6 = family is IPFamily.IPV6
        of_family = {id_: e for id_, e in wanted.items() if (":" in id_[0]) is ipv6}
        old = {s.key.name: s for s in observed if s.address_type == family.value}
        if of_family or family.value in families:
            held |= _of_family(service, family, of_family, old, taken)
    return tuple(
        _completed(slice_, service, owner, ports, headless=headless)
        for _, slice_ in sorted(held.items())
    )


def _by_id(service: Key, api_version: str, endpoints: tuple[Endpoint, ...]) -> _EndpointsById:
    # This runs at each look at a service: of 5,000 endpoints, for 3 ms.
    kind, namespace = Kind.VIRTUAL_MACHINE.value, service.namespace
    return {
        (address := canonical(text), uid): SliceEndpoint(
            (address,),
            _READY if ready else _NOT_READY,
            zone,
            target_ref=TargetRef(api_version, kind, namespace, name, uid),
        )
        for text, uid, ready, name, zone, *_ in endpoints
    }


def _of_family(
    service: Key,
    family: IPFamily,
    endpoints: _EndpointsById,
    observed: _SlicesByName,
    taken: Collection[str],
) -> _SlicesByName:
    """The slices of one family, by name; at least one."""
    held, waiting = _kept(endpoints, observed)
    for name, kept in held.items():
        # A slice that is written anyway may take more. An empty one would be deleted.
        if tuple(kept) != observed[name].endpoints or not kept:
            room = ENDPOINTS_MAX - len(kept)
            kept.extend(waiting[:room])
            waiting = waiting[room:]
    names = _free_names(f"{service.name}-{family.value.lower()}-", taken)
    _place(waiting, held, names)
    full = {name: kept for name, kept in held.items() if kept}
    first = min(held) if held else next(names)
    return {
        name: _slice(Key(service.namespace, name), family, observed.get(name), tuple(kept))
        for name, kept in (full or {first: []}).items()
    }


def _kept(
    endpoints: _EndpointsById, observed: _SlicesByName
) -> tuple[_EndpointsBySlice, list[SliceEndpoint]]:
    """The endpoints that stay in their slices, in their order there; and the other endpoints."""
    left = dict(endpoints)
    held: _EndpointsBySlice = {}
    for name, slice_ in sorted(observed.items()):
        ids = [id_ for id_ in dict.fromkeys(_ids(slice_)) if id_ in left]
        held[name] = [left.pop(id_) for id_ in ids[:ENDPOINTS_MAX]]
    return held, list(left.values())


def _ids(slice_: StoredEndpointSlice) -> list[EndpointId]:
    """The ids of the endpoints in a slice, whoever wrote them."""
    return [
        (e.addresses[0] if e.addresses else "", e.target_ref.uid if e.target_ref else "")
        for e in slice_.endpoints
    ]


def _place(waiting: list[SliceEndpoint], held: _EndpointsBySlice, names: Iterator[str]) -> None:
    """Put the endpoints that are in no slice into as few slices as possible."""
    while len(waiting) >= ENDPOINTS_MAX:
        held[next(names)], waiting = waiting[:ENDPOINTS_MAX], waiting[ENDPOINTS_MAX:]
    if waiting:
        roomy = [n for n, kept in held.items() if len(kept) + len(waiting) <= ENDPOINTS_MAX]
        # The fullest of them, so that the others may still be filled, or become empty.
        name = max(roomy, key=lambda n: len(held[n])) if roomy else next(names)
        held.setdefault(name, []).extend(waiting)


def _free_names(prefix: str, taken: Collection[str]) -> Iterator[str]:
    return (name for n in count() if (name := f"{prefix}{n}") not in taken)


def _slice(
    key: Key,
    family: IPFamily,
    observed: StoredEndpointSlice | None,
    endpoints: tuple[SliceEndpoint, ...],
) -> StoredEndpointSlice:
    if observed is not None:
        # An unchanged slice is the same object, so that the plan need not look into it.
        same = observed.endpoints == endpoints
        return observed if same else replace(observed, endpoints=endpoints)
    meta = ObjectMeta(key=key, uid="")
    return StoredEndpointSlice(meta=meta, address_type=family.value, endpoints=endpoints)


def _completed(
    slice_: StoredEndpointSlice,
    service: Key,
    owner: OwnerReference,
    ports: tuple[EndpointPort, ...],
    *,
    headless: bool,
) -> StoredEndpointSlice:
    """The slice with its ports, labels and annotations; others' labels stay."""
    labels = {
        **slice_.meta.labels,
        SERVICE_NAME_LABEL: service.name,
        MANAGED_BY_LABEL: MANAGED_BY,
    }
    # By this label kube-proxy knows the slices of a headless Service, which it ignores.
    labels.pop(_HEADLESS_LABEL, None)
    if headless:
        labels[_HEADLESS_LABEL] = ""
    meta = replace(slice_.meta, labels=labels, owner_references=(owner,))
    return replace(slice_, meta=meta, ports=ports)
