"""Whose an object is that is held for a VMService, and what is in the way. Pure."""

from __future__ import annotations

import re

from vmsvc_grpc.model.objects import (
    GROUP,
    Key,
    Kind,
    OwnerReference,
    StoredEndpoints,
    StoredService,
    VirtualMachineService,
)
from vmsvc_grpc.reconciler.held import Child, Children, Failure

# Nobody owns it and it selects nothing, so it looks like one to adopt.
_API_SERVER = Key("default", "kubernetes")


def _is_vmservice(owner: OwnerReference, child: Child) -> bool:
    """Whether an owner is a VMService, of this uid or a former one, that has such a child."""
    return (
        owner.api_version.rpartition("/")[0] == GROUP
        and owner.kind == Kind.VIRTUAL_MACHINE_SERVICE.value
        and owner.name == child.key.name
    )


def controlled(child: Child | None, uid: str | None) -> bool:
    """Whether a VMService of the child's name controls it; that of `uid`, where one is given."""
    owner = child.meta.controller if child else None
    if child is None or owner is None or not _is_vmservice(owner, child):
        return False
    return uid is None or owner.uid == uid


def without(observed: Children, uid: str | None) -> Children:
    """What is held but for the children that a VMService controls; that of `uid`, if given."""
    return Children(
        service=None if controlled(observed.service, uid) else observed.service,
        endpoints=None if controlled(observed.endpoints, uid) else observed.endpoints,
    )


def outlived(child: Child, uid: str) -> bool:
    """Whether a former VMService of that name left this child: it goes, and a new one comes."""
    return controlled(child, None) and not controlled(child, uid)


def _foreign_controller(child: Child) -> OwnerReference | None:
    owner = child.meta.controller
    return None if owner is None or _is_vmservice(owner, child) else owner


def service_in_the_way(stored: StoredService | None, uid: str) -> Failure | None:
    """Why the Service stays as it is: it is not for the VMService of `uid`."""
    if stored is None:
        return None
    if stored.key == _API_SERVER:
        message = (
            f"Service {stored.key} is the API server's own and stays as it is; "
            "give the VirtualMachineService another name"
        )
        return Failure("ServiceNotOurs", message)
    if owner := _foreign_controller(stored):
        message = (
            f"Service {stored.key} is controlled by {owner.kind} {owner.name} and stays as it is; "
            "delete it, or give the VirtualMachineService another name"
        )
        return Failure("ServiceNotOurs", message)
    owned = any(owner.uid == uid for owner in stored.meta.owner_references)
    if stored.selector and not owned and not controlled(stored, None):
        message = (
            f"Service {stored.key} has a selector and no owner, so it serves somebody's pods and "
            "stays as it is; delete it, or give the VirtualMachineService another name"
        )
        return Failure("ServiceNotOurs", message)
    return None


def endpoints_in_the_way(stored: StoredEndpoints | None) -> Failure | None:
    """Why the Endpoints stay as they are: another controls them."""
    owner = _foreign_controller(stored) if stored else None
    if stored is None or owner is None:
        return None
    message = (
        f"Endpoints {stored.key} are controlled by {owner.kind} {owner.name} and stay as they are; "
        "delete them, or give the VirtualMachineService another name"
    )
    return Failure("EndpointsNotOurs", message)


def owners(child: Child, ours: OwnerReference) -> tuple[OwnerReference, ...]:
    """The owner references that are there, in their order, with ours as it should be.

    Ours takes the place of any to a VMService of the name. What has no uid refers to
    nothing; an API server admits none, but somebody may cut a file short.
    """
    kept = [
        ours if owner.uid == ours.uid or _is_vmservice(owner, child) else owner
        for owner in child.meta.owner_references
        if owner.uid
    ]
    return tuple(dict.fromkeys((*kept, ours)))


def owner_of(
    vmservice: VirtualMachineService, observed: Children, api_version: str
) -> OwnerReference:
    """The reference to the VMService, by the newest version.

    That may be one that we do not know: a VM Operator that is newer than we are puts its
    own into every reference, and would do so again after each of our writes.
    """
    uid, name = vmservice.meta.uid, vmservice.key.name
    kind = Kind.VIRTUAL_MACHINE_SERVICE.value
    written = (
        owner.api_version
        for child in (observed.service, observed.endpoints)
        for owner in (child.meta.owner_references if child else ())
        if owner.uid == uid and owner.kind == kind and owner.api_version.startswith(f"{GROUP}/")
    )
    newest = max((api_version, *written), key=_age)
    return OwnerReference(newest, kind, name, uid, True, True)


_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")


def _age(api_version: str) -> tuple[bool, str, int, int]:
    """Sorts as Kubernetes does: alpha, beta, stable; what is no version comes first."""
    found = _VERSION.fullmatch(api_version.rpartition("/")[2])
    if found is None:
        return False, "", 0, 0
    return True, found[2] or "stable", int(found[1]), int(found[3] or 0)
