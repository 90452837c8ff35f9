"""What should be held for a VMService, and its own finalizer and status. Pure.

The rules are those of VM Operator's `virtualmachineservice_controller.go`, so that its
controller and ours write the same, and neither undoes the other's work. Some of ours go further
(foreign Services, selectors, traffic policy), but these undo nothing of its work either.
Knows neither I/O nor how a change is carried out.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial

from vmsvc_grpc.model.endpoints import Endpoint
from vmsvc_grpc.model.objects import (
    NEWEST_API_VERSION,
    ServiceSpec,
    StoredEndpointSlice,
    VirtualMachineService,
)
from vmsvc_grpc.model.ownership import is_controlled, is_controlled_by, is_left_behind
from vmsvc_grpc.reconciler.endpoints import endpoint_ports, endpoints_of
from vmsvc_grpc.reconciler.held import Failure, HeldObjects
from vmsvc_grpc.reconciler.owners import (
    being_deleted,
    endpoints_in_the_way,
    owner_of,
    service_in_the_way,
    without,
)
from vmsvc_grpc.reconciler.rules import Rules
from vmsvc_grpc.reconciler.service import freed, marked, mirrored, service_of
from vmsvc_grpc.reconciler.slices import slices
from vmsvc_grpc.reconciler.vmservice import claimed, released, reported


@dataclass(frozen=True, slots=True)
class Desired:
    """The objects as they should be. One that is to be left alone equals the observed one.

    A child that replaces an observed one of a former VMService has no uid yet.
    """

    objects: HeldObjects
    failures: tuple[Failure, ...] = ()
    """Things that we cannot or may not do, for example because another's object is in the way."""


def desired(
    observed: HeldObjects,
    spec: ServiceSpec | None,
    endpoints: tuple[Endpoint, ...],
    rules: Rules,
    *,
    now: str = "",
    handed_over: bool = True,
    standing: tuple[Failure, ...] = (),
    taken: Collection[str] = (),
) -> Desired:
    """Everything that should be held for the observed VMService, by its last valid `spec`.

    `endpoints` are all of them, ready or not, sorted. Without a valid spec the children stay
    as they are. If the VMService is being deleted or does not exist, the children that it controls
    go, and so does our finalizer. `now` is RFC 3339, for a condition that changes. Slices of ours
    that Kubernetes is to replace by its own stay until `handed_over`.
    `standing` are failures that the VMService reports beside those found here; `taken` are the
    names of others' slices.
    O(endpoints). Never raises.
    """
    vmservice = observed.vmservice
    if vmservice is None:
        # EndpointSlices stay: Kubernetes collects them, by their owner.
        left = replace(without(observed, is_controlled), slices=observed.slices)
        return Desired(left, standing)
    if vmservice.meta.deleting:
        left = without(observed, partial(is_controlled_by, uid=vmservice.meta.uid))
        if not rules.vmservices_held:
            return Desired(replace(left, vmservice=vmservice), standing)
        leaving = released(vmservice)
        wanted = Desired(replace(left, vmservice=leaving), standing)
        return _with_status(wanted, leaving, None, now) if standing else wanted
    wanted = _with_children(
        observed, vmservice, spec, endpoints, rules, handed_over=handed_over, taken=taken
    )
    going = being_deleted(observed)
    wanted = replace(wanted, failures=(*wanted.failures, *going, *standing))
    if not rules.vmservices_held:
        return wanted
    claiming = claimed(vmservice, spec, rules) if spec else vmservice
    return _with_status(wanted, claiming, spec, now)


def undone(
    observed: HeldObjects,
    spec: ServiceSpec | None,
    failures: tuple[Failure, ...],
    rules: Rules,
    *,
    now: str,
) -> Desired:
    """What should be held after a change failed: all as observed, and the VMService says why."""
    kept, vmservice = Desired(observed, failures), observed.vmservice
    if vmservice is None or not rules.vmservices_held:
        return kept
    return _with_status(kept, vmservice, spec, now)


def _with_status(
    wanted: Desired, vmservice: VirtualMachineService, spec: ServiceSpec | None, now: str
) -> Desired:
    """The same, with the status of the VMService."""
    service = wanted.objects.service
    own = service if service and is_controlled_by(service.meta, vmservice.meta.uid) else None
    failures = (*refusals(vmservice), *wanted.failures)
    reporting = reported(vmservice, spec, own, failures, now)
    return replace(wanted, objects=replace(wanted.objects, vmservice=reporting))


def _with_children(
    observed: HeldObjects,
    vmservice: VirtualMachineService,
    spec: ServiceSpec | None,
    endpoints: tuple[Endpoint, ...],
    rules: Rules,
    *,
    handed_over: bool,
    taken: Collection[str],
) -> Desired:
    """The children of a VMService that is not being deleted, as they should be."""
    if spec is None:
        return Desired(observed)
    uid = vmservice.meta.uid
    api_version = vmservice.api_version if rules.vmservices_held else NEWEST_API_VERSION
    owner = owner_of(vmservice, observed, api_version)
    stored, held = observed.service, observed.endpoints
    if failure := service_in_the_way(stored, uid):
        return Desired(observed, (failure,))
    if stored is not None and is_left_behind(stored.meta, uid):
        stored = None
    service = service_of(vmservice, spec, stored, owner, rules)
    if not spec.selector:
        # They are the user's, or left from when there was a selector; so are slices.
        service, left = mirrored(vmservice, service, rules), freed(vmservice, held, rules)
        slices_left = () if handed_over else observed.slices
        return Desired(replace(observed, service=service, endpoints=left, slices=slices_left))
    if failure := endpoints_in_the_way(held, uid):
        return Desired(replace(observed, service=service), (failure,))
    if held is not None and is_left_behind(held.meta, uid):
        held = None
    service = marked(service) if rules.direct_slices else mirrored(vmservice, service, rules)
    new = endpoints_of(owner, spec, endpoints, service, held)
    keeps_slices = rules.direct_slices or (observed.slices and not handed_over)
    direct: tuple[StoredEndpointSlice, ...] = ()
    if keeps_slices:
        direct = slices(
            service.key,
            owner,
            endpoint_ports(spec),
            endpoints,
            observed.slices,
            families=service.ip_families,
            headless=service.cluster_ip == "None",
            taken=taken,
        )
    return Desired(replace(observed, service=service, endpoints=new, slices=direct))


def refusals(vmservice: VirtualMachineService) -> tuple[Failure, ...]:
    """What is wrong with the VMService itself, each flaw beginning with its field."""
    return tuple(Failure("Invalid", str(problem)) for problem in vmservice.problems)
