"""What the Service and the Endpoints of a VMService should be. Pure.

The rules are those of VM Operator's `virtualmachineservice_controller.go`, so that its
controller and ours write the same and neither undoes the other's work; where ours are
better (foreign Services, selectors, traffic policy), nothing of its own is undone either.
Knows no I/O, and not how a change is carried out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from vmsvc_grpc.model.endpoints import Endpoint
from vmsvc_grpc.model.objects import (
    NEWEST_API_VERSION,
    OwnerReference,
    ServiceSpec,
    StoredEndpointSlice,
    StoredService,
    VirtualMachineService,
)
from vmsvc_grpc.model.ownership import is_controlled, is_controlled_by, is_left_behind
from vmsvc_grpc.reconciler.endpoints import endpoint_ports, endpoints_of
from vmsvc_grpc.reconciler.held import Children, Failure
from vmsvc_grpc.reconciler.owners import (
    endpoints_in_the_way,
    owner_of,
    service_in_the_way,
    without,
)
from vmsvc_grpc.reconciler.service import freed, marked, mirrored, service_of
from vmsvc_grpc.reconciler.slices import slices


@dataclass(frozen=True, slots=True)
class Desired:
    """What the children should be. One that is to be left alone is as it was observed.

    A child that replaces an observed one of a former VMService has no uid yet.
    """

    children: Children
    failure: Failure | None = None
    """What we may not do, if there is something: another's object is in the way."""


def desired(
    vmservice: VirtualMachineService,
    spec: ServiceSpec | None,
    endpoints: tuple[Endpoint, ...],
    observed: Children,
    *,
    load_balancer_provider: str = "",
    direct_slices: bool = False,
    handed_over: bool = True,
    api_version: str = NEWEST_API_VERSION,
) -> Desired:
    """The children of an existing VMService, by its last valid `spec`.

    `endpoints` are all of them, ready or not, sorted. Without a valid spec everything
    stays as it is. Those of a VMService that is being deleted are gone, as far as it
    controls them. With `direct_slices`, EndpointSlices are among them, and the Endpoints
    are marked not to be mirrored to others. `api_version` is the newest one that is served,
    for references to VM Operator's objects. O(endpoints). Never raises.
    """
    uid = vmservice.meta.uid
    if vmservice.meta.deleting:
        return Desired(without(observed, partial(is_controlled_by, uid=uid)))
    if spec is None:
        return Desired(observed)
    owner = owner_of(vmservice, observed, api_version)
    stored, held = observed.service, observed.endpoints
    if failure := service_in_the_way(stored, uid):
        return Desired(observed, failure)
    if stored is not None and is_left_behind(stored.meta, uid):
        stored = None
    service = service_of(vmservice, spec, stored, owner, load_balancer_provider)
    if not spec.selector:
        # They are the user's, or what is left of the time with a selector; so are slices.
        left = freed(vmservice, held)
        slices_left = () if handed_over else observed.slices
        return Desired(
            Children(service=mirrored(vmservice, service), endpoints=left, slices=slices_left)
        )
    if failure := endpoints_in_the_way(held, uid):
        return Desired(replace(observed, service=service), failure)
    if held is not None and is_left_behind(held.meta, uid):
        held = None
    service = marked(service) if direct_slices else mirrored(vmservice, service)
    new = endpoints_of(owner, spec, endpoints, service, held)
    keeps_slices = direct_slices or (observed.slices and not handed_over)
    direct = _slices(owner, spec, endpoints, service, observed) if keeps_slices else ()
    return Desired(Children(service=service, endpoints=new, slices=direct))


def abandoned(observed: Children) -> Children:
    """What stays where there is no VMService of that name: what none such controls.

    EndpointSlices stay, too: Kubernetes collects them, by their owner.
    """
    return replace(without(observed, is_controlled), slices=observed.slices)


def refusals(vmservice: VirtualMachineService) -> tuple[Failure, ...]:
    """What is wrong with the VMService itself, each flaw beginning with its field."""
    return tuple(Failure("Invalid", str(problem)) for problem in vmservice.problems)


def _slices(
    owner: OwnerReference,
    spec: ServiceSpec,
    endpoints: tuple[Endpoint, ...],
    service: StoredService,
    observed: Children,
) -> tuple[StoredEndpointSlice, ...]:
    return slices(
        service.key,
        owner,
        endpoint_ports(spec),
        endpoints,
        observed.slices,
        families=service.ip_families,
        headless=service.cluster_ip == "None",
    )
