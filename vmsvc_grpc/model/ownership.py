"""Which stored object is ours: the one rule, for sources, reconciler and server. Pure.

The words are Kubernetes' own. An object has owners (`metadata.ownerReferences`), and at most
one of them controls it. A Service or Endpoints is ours if the VMService of its name controls
it; an EndpointSlice is ours if a VMService controls it and its managed-by label says so.

A VMService in a manifest may have no uid to refer to. The model refers to the uid that we made
up for it, so that the rules here are the same; no such reference is ever written
(`is_to_nobody`), and in a directory an annotation (`HELD_FOR`) stands for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum

from vmsvc_grpc.model.objects import (
    GROUP,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    SERVICE_NAME_LABEL,
    Key,
    Kind,
    ObjectMeta,
    OwnerReference,
    StoredEndpoints,
    StoredEndpointSlice,
    StoredService,
    made_uid,
)

HELD_FOR = "vmsvc-grpc/held-for"
"""The annotation that names the VMService of an object in a directory, in place of a reference."""

# Its Service and Endpoints have no owner and no selector, so both look like objects to adopt.
_API_SERVER = Key("default", "kubernetes")


def is_vmservice(owner: OwnerReference) -> bool:
    """Whether an owner reference is to a VMService, of any version, name and uid."""
    group = owner.api_version.rpartition("/")[0]
    return group == GROUP and owner.kind == Kind.VIRTUAL_MACHINE_SERVICE.value


def is_to_nobody(owner: OwnerReference, meta: ObjectMeta) -> bool:
    """Whether an owner reference of the object is to a VMService whose uid we made up.

    In a cluster it would refer to nobody, and the garbage collector would delete the object.
    """
    vmservice = Key(meta.key.namespace, owner.name)
    made = made_uid(Kind.VIRTUAL_MACHINE_SERVICE, vmservice)
    return is_vmservice(owner) and owner.uid == made


def is_owned(meta: ObjectMeta) -> bool:
    """Whether a VMService, whichever, is among the owners. It need not be the controller."""
    return any(map(is_vmservice, meta.owner_references))


def is_of_namesake(owner: OwnerReference, meta: ObjectMeta) -> bool:
    """Whether an owner is the VMService of the object's own name, now or before."""
    return is_vmservice(owner) and owner.name == meta.key.name


def is_controlled(meta: ObjectMeta) -> bool:
    """Whether a VMService of the object's name controls it, one that is gone included."""
    owner = meta.controller
    return owner is not None and is_of_namesake(owner, meta)


def is_controlled_by(meta: ObjectMeta, uid: str) -> bool:
    """Whether the VMService of that uid, and of the object's name, controls it."""
    owner = meta.controller
    return owner is not None and is_of_namesake(owner, meta) and owner.uid == uid


def is_left_behind(meta: ObjectMeta, uid: str) -> bool:
    """Whether a former VMService of the name controls it, and not the one of that uid."""
    return is_controlled(meta) and not is_controlled_by(meta, uid)


def is_adoptable(service: StoredService) -> bool:
    """Whether a VMService of the name may become its controller: it has none, and no selector."""
    return service.meta.controller is None and not service.selector


# One for all: most of what is stored is others'.
_NO_MARKS: Mapping[str, str] = {}
# What is kept of the selector of a Service that is not ours: that it has one.
_SOME_SELECTOR: Mapping[str, str] = {"": ""}


def service_trace(service: StoredService) -> StoredService:
    """What is kept of a stored Service: all of ours, and of one that may be adopted.

    Of another's, only what shows that it is in the way of a VMService of its name, which may be
    created at any time, and the families, which decide what that VMService's streams hold. Two
    states of such a Service with the same trace are equal to us. A trace depends on the Service
    alone, so the order of events does not matter. With usual labels and annotations the trace takes
    0.4 kB, the whole Service 3.8 kB.
    """
    if is_owned(service.meta) or is_adoptable(service):
        return service
    selector = _SOME_SELECTOR if service.selector else _NO_MARKS
    meta = _controller_only(service.meta)
    return StoredService(meta=meta, selector=selector, ip_families=service.ip_families)


def endpoints_trace(endpoints: StoredEndpoints) -> StoredEndpoints:
    """The same of stored Endpoints; their addresses count if a VMService owns them."""
    meta = endpoints.meta
    if is_owned(meta):
        return endpoints
    if meta.controller is not None:
        return StoredEndpoints(meta=_controller_only(meta))
    # They may be adopted: other owners' references are kept then, labels are not.
    return StoredEndpoints(meta=replace(meta, labels=_NO_MARKS, annotations=_NO_MARKS))


def _controller_only(meta: ObjectMeta) -> ObjectMeta:
    return ObjectMeta(
        key=meta.key,
        uid="",
        resource_version=meta.resource_version,
        labels=_NO_MARKS,
        annotations=_NO_MARKS,
        owner_references=(meta.controller,) if meta.controller else (),
    )


class Obstacle(Enum):
    """Why an object that has the name of one of ours is not ours to write."""

    API_SERVER = "it is the API server's own"
    CONTROLLER = "another object controls it"
    SELECTOR = "nobody owns it and it has a selector, so it serves somebody's pods"


def obstacle(child: StoredService | StoredEndpoints, uid: str) -> Obstacle | None:
    """Why the VMService of the object's name and of that uid may not write it; None if it may."""
    owner = child.meta.controller
    if child.key == _API_SERVER:
        return Obstacle.API_SERVER
    if owner is not None:
        return None if is_of_namesake(owner, child.meta) else Obstacle.CONTROLLER
    if isinstance(child, StoredEndpoints) or not child.selector:
        return None
    owned = any(reference.uid == uid for reference in child.meta.owner_references)
    return None if owned else Obstacle.SELECTOR


def service_of_slice(slice_: StoredEndpointSlice) -> Key:
    """The service that a slice is of: the VMService that controls it, or what its label says."""
    owner = slice_.meta.controller
    named = owner.name if owner is not None and is_vmservice(owner) else None
    if named is None:
        named = slice_.meta.labels.get(SERVICE_NAME_LABEL, "")
    return Key(slice_.key.namespace, named)


def is_our_slice_of(slice_: StoredEndpointSlice, service: Key) -> bool:
    """Whether we wrote a slice, and for that service; one for another service is in the way."""
    return is_our_slice(slice_) and service_of_slice(slice_) == service


def is_our_slice(slice_: StoredEndpointSlice) -> bool:
    """Whether we wrote a slice: by its controller and its managed-by label, and by no name.

    One of the name that ours would have, without these, is somebody else's: it is left as
    it is, and ours takes the next name.
    """
    owner = slice_.meta.controller
    controlled = owner is not None and is_vmservice(owner)
    return controlled and slice_.meta.labels.get(MANAGED_BY_LABEL) == MANAGED_BY
