"""The owner references of the objects held for a VMService, and objects in its way. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from vmsvc_grpc.model.objects import (
    ObjectMeta,
    OwnerReference,
    StoredEndpoints,
    StoredService,
    VirtualMachineService,
)
from vmsvc_grpc.model.ownership import Obstacle, is_of_namesake, is_vmservice, obstacle
from vmsvc_grpc.reconciler.held import Child, Failure, HeldObjects


def without(observed: HeldObjects, ours: Callable[[ObjectMeta], bool]) -> HeldObjects:
    """The objects held, without the children that are ours by a rule of `model.ownership`."""
    service, endpoints = observed.service, observed.endpoints
    return replace(
        observed,
        service=None if service and ours(service.meta) else service,
        endpoints=None if endpoints and ours(endpoints.meta) else endpoints,
        slices=(),
    )


def service_in_the_way(stored: StoredService | None, uid: str) -> Failure | None:
    """Why the VMService of `uid` may not write the Service; None if it may."""
    found = obstacle(stored, uid) if stored else None
    if stored is None or found is None:
        return None
    reason, remedy = "is the API server's own", ""
    if found is Obstacle.CONTROLLER:
        reason, remedy = f"is controlled by {_controller(stored)}", "delete it, or "
    elif found is Obstacle.SELECTOR:
        reason = "has a selector and no owner, so it serves somebody's pods"
        remedy = "delete it, or "
    message = (
        f"Service {stored.key} {reason} and stays as it is; "
        f"{remedy}give the VirtualMachineService another name"
    )
    return Failure("ServiceNotOurs", message)


def endpoints_in_the_way(stored: StoredEndpoints | None, uid: str) -> Failure | None:
    """Why the VMService of `uid` may not write the Endpoints; None if it may."""
    found = obstacle(stored, uid) if stored else None
    if stored is None or found is None:
        return None
    reason, remedy = "are the API server's own", ""
    if found is Obstacle.CONTROLLER:
        reason, remedy = f"are controlled by {_controller(stored)}", "delete them, or "
    message = (
        f"Endpoints {stored.key} {reason} and stay as they are; "
        f"{remedy}give the VirtualMachineService another name"
    )
    return Failure("EndpointsNotOurs", message)


def being_deleted(observed: HeldObjects) -> tuple[Failure, ...]:
    """A failure for each child that is being deleted: there is no new one before it is gone."""
    ours = (c for c in (observed.service, observed.endpoints) if c and obstacle(c, "") is None)
    return tuple(
        Failure(
            f"{child.kind.value}BeingDeleted",
            f"{child.kind.value} {child.key}: deleted, and kept by metadata.finalizers "
            f"({', '.join(child.meta.finalizers)}) until somebody removes them; it is not made "
            "anew before; see whose they are",
        )
        for child in (*ours, *observed.slices)
        if child.meta.deleting and child.meta.finalizers
    )


def _controller(child: Child) -> str:
    owner = child.meta.controller
    assert owner is not None, "who controls it is in the way"
    return f"{owner.kind} {owner.name}"


def owners(child: Child, ours: OwnerReference) -> tuple[OwnerReference, ...]:
    """The owner references of the child, in their order, with ours as it should be.

    Ours replaces any reference to a VMService of the name. A reference without a uid refers to
    nothing; an API server admits none, but a file may have been cut short.
    """
    kept = [
        ours if owner.uid == ours.uid or is_of_namesake(owner, child.meta) else owner
        for owner in child.meta.owner_references
        if owner.uid
    ]
    return tuple(dict.fromkeys((*kept, ours)))


def owner_of(
    vmservice: VirtualMachineService, observed: HeldObjects, api_version: str
) -> OwnerReference:
    """The reference to the VMService, by the newest version.

    The version may be one that we do not know: a newer VM Operator puts its own into every
    reference, and would do so again after each of our writes.
    """
    uid = vmservice.meta.uid
    written = (
        owner.api_version
        for child in (observed.service, observed.endpoints)
        for owner in (child.meta.owner_references if child else ())
        if owner.uid == uid and is_vmservice(owner)
    )
    newest = max((api_version, *written), key=_age)
    return OwnerReference(newest, vmservice.kind.value, vmservice.key.name, uid, True, True)


_VERSION = re.compile(r"v([0-9]{1,9})(?:(alpha|beta)([0-9]{1,9}))?")


def _age(api_version: str) -> tuple[bool, str, int, int]:
    """Sorts as Kubernetes does: alpha, beta, stable; what is no version comes first."""
    found = _VERSION.fullmatch(api_version.rpartition("/")[2])
    if found is None:
        return False, "", 0, 0
    return True, found[2] or "stable", int(found[1]), int(found[3] or 0)
