"""What the Service and the Endpoints of a VMService should be. Pure.

The rules are those of VM Operator's `virtualmachineservice_controller.go`, so that its
controller and ours write the same and neither undoes the other's work; where ours are
better (foreign Services, selectors, traffic policy), nothing of its own is undone either.
Knows no I/O, and not how a change is carried out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from vmsvc_grpc.model.endpoints import Endpoint
from vmsvc_grpc.model.objects import (
    GROUP,
    NEWEST_API_VERSION,
    EndpointPort,
    IPFamilyPolicy,
    Key,
    Kind,
    ObjectMeta,
    OwnerReference,
    ServiceSpec,
    ServiceType,
    StoredAddress,
    StoredEndpoints,
    StoredEndpointSlice,
    StoredPort,
    StoredService,
    Subset,
    TargetRef,
    VirtualMachineService,
)
from vmsvc_grpc.reconciler.slices import slices

NSX_T_LB = "nsx-t-lb"
"""The load balancer provider that wants marks of its own on a Service."""

EXTERNAL_TRAFFIC_POLICY = (
    "virtualmachineservice.vmoperator.vmware.com/service.externalTrafficPolicy"
)
HEALTH_CHECK_NODE_PORT = "virtualmachineservice.vmoperator.vmware.com/service.healthCheckNodePort"

# They leave the Service when they leave the VMService; other keys that leave it stay.
_MANAGED_ANNOTATIONS = (EXTERNAL_TRAFFIC_POLICY, HEALTH_CHECK_NODE_PORT)

# They tell of the VMService itself, and would be false on another object.
_NEVER_COPIED = frozenset(
    {"kubectl.kubernetes.io/last-applied-configuration", "vmoperator.vmware.com/conversion"}
)

_NSX_PROXY_LABEL = "service.kubernetes.io/service-proxy-name"
_NSX_PROXY = "nsx-t"
_NSX_HEALTH_CHECK_ANNOTATION = "ncp/healthCheckNodePort"
_NSX_HOSTNAME_ANNOTATION = "nsx.vmware.com/hostname"

SKIP_MIRROR_LABEL = "endpointslice.kubernetes.io/skip-mirror"
"""On Endpoints: Kubernetes does not mirror them to EndpointSlices."""

_SLICES_ANNOTATION = "vmsvc-grpc/endpoint-slices"
_DIRECT = "direct"

_LOCAL = "Local"
_CLUSTER = "Cluster"

# Nobody owns it and it selects nothing, so it looks like one to adopt.
_API_SERVER = Key("default", "kubernetes")

Child = StoredService | StoredEndpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Children:
    """The objects held for one VMService; None is one that does not exist."""

    service: StoredService | None = None
    endpoints: StoredEndpoints | None = None
    slices: tuple[StoredEndpointSlice, ...] = ()
    """Those that we write ourselves, sorted by name."""


class Failure(NamedTuple):
    """Why something is not as it should be: a word in camel case, and a sentence."""

    reason: str
    message: str


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
        return Desired(_without(observed, uid))
    if spec is None:
        return Desired(observed)
    owner = _owner(vmservice, observed, api_version)
    stored, held = observed.service, observed.endpoints
    if failure := _service_in_the_way(stored, uid):
        return Desired(observed, failure)
    if stored is not None and _outlived(stored, uid):
        stored = None
    service = _service(vmservice, spec, stored, owner, load_balancer_provider)
    if not spec.selector:
        # They are the user's, or what is left of the time with a selector; so are slices.
        left = _freed(vmservice, held)
        slices_left = () if handed_over else observed.slices
        return Desired(
            Children(service=_mirrored(vmservice, service), endpoints=left, slices=slices_left)
        )
    if failure := _endpoints_in_the_way(held):
        return Desired(replace(observed, service=service), failure)
    if held is not None and _outlived(held, uid):
        held = None
    service = _marked(service) if direct_slices else _mirrored(vmservice, service)
    new = _endpoints(owner, spec, endpoints, service, held)
    keeps_slices = direct_slices or (observed.slices and not handed_over)
    direct = _slices(owner, spec, endpoints, service, observed) if keeps_slices else ()
    return Desired(Children(service=service, endpoints=new, slices=direct))


def abandoned(observed: Children) -> Children:
    """What stays where there is no VMService of that name: what none such controls.

    EndpointSlices stay, too: Kubernetes collects them, by their owner.
    """
    return replace(_without(observed, None), slices=observed.slices)


def refusals(vmservice: VirtualMachineService) -> tuple[Failure, ...]:
    """What is wrong with the VMService itself, each flaw beginning with its field."""
    return tuple(Failure("Invalid", str(problem)) for problem in vmservice.problems)


# -- Whose a child is. --


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


def _without(observed: Children, uid: str | None) -> Children:
    return Children(
        service=None if controlled(observed.service, uid) else observed.service,
        endpoints=None if controlled(observed.endpoints, uid) else observed.endpoints,
    )


def _outlived(child: Child, uid: str) -> bool:
    """Whether a former VMService of that name left this child: it goes, and a new one comes."""
    return controlled(child, None) and not controlled(child, uid)


def _foreign_controller(child: Child) -> OwnerReference | None:
    owner = child.meta.controller
    return None if owner is None or _is_vmservice(owner, child) else owner


def _service_in_the_way(stored: StoredService | None, uid: str) -> Failure | None:
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


def _endpoints_in_the_way(stored: StoredEndpoints | None) -> Failure | None:
    owner = _foreign_controller(stored) if stored else None
    if stored is None or owner is None:
        return None
    message = (
        f"Endpoints {stored.key} are controlled by {owner.kind} {owner.name} and stay as they are; "
        "delete them, or give the VirtualMachineService another name"
    )
    return Failure("EndpointsNotOurs", message)


def _owners(child: Child, ours: OwnerReference) -> tuple[OwnerReference, ...]:
    """The owner references that are there, in their order, with ours as it should be.

    Ours takes the place of any to a VMService of the name. What has no uid refers to
    nothing; an API server admits none, but somebody may cut a file short.
    """
    owners = [
        ours if owner.uid == ours.uid or _is_vmservice(owner, child) else owner
        for owner in child.meta.owner_references
        if owner.uid
    ]
    return tuple(dict.fromkeys((*owners, ours)))


def _owner(
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


# -- The Service. --


def _service(
    vmservice: VirtualMachineService,
    spec: ServiceSpec,
    stored: StoredService | None,
    owner: OwnerReference,
    load_balancer_provider: str,
) -> StoredService:
    """The Service, from what is stored: what is not ours stays as it is there."""
    base = stored or StoredService(meta=ObjectMeta(key=vmservice.key, uid=""))
    balanced = spec.type is ServiceType.LOAD_BALANCER
    labels, annotations = provider_marks(vmservice, spec, load_balancer_provider)
    policy = _traffic_policy(vmservice, base, balanced=balanced)
    family_policy = spec.ip_family_policy.value if spec.ip_family_policy else base.ip_family_policy
    return replace(
        base,
        meta=replace(
            base.meta,
            labels=_labels(vmservice, base, labels, load_balancer_provider),
            annotations=_annotations(vmservice, base, annotations, load_balancer_provider),
            owner_references=_owners(base, owner),
        ),
        type=spec.type.value,
        selector={},
        ports=_ports(spec, base, balanced=balanced),
        # It can be chosen only at creation; later, the stored one stays.
        cluster_ip=base.cluster_ip if stored else spec.cluster_ip,
        ip_families=_families(spec, base.ip_families, family_policy),
        ip_family_policy=family_policy,
        load_balancer_ip=spec.load_balancer_ip,
        load_balancer_source_ranges=spec.load_balancer_source_ranges,
        load_balancer_class=base.load_balancer_class if balanced else "",
        allocate_load_balancer_node_ports=False if balanced else None,
        external_traffic_policy=policy,
        external_name="",
        # The API server chooses it, where the policy is Local.
        health_check_node_port=base.health_check_node_port if policy == _LOCAL else 0,
        ingress=base.ingress if balanced else (),
    )


def _ports(spec: ServiceSpec, base: StoredService, *, balanced: bool) -> tuple[StoredPort, ...]:
    """The ports. Node ports are never asked for; taking one away would only get another."""
    node_ports = {port.name: port.node_port for port in base.ports} if balanced else {}
    return tuple(
        StoredPort(p.name, p.protocol, p.port, p.target_port, node_ports.get(p.name, 0))
        for p in spec.ports
    )


def _families(spec: ServiceSpec, stored: tuple[str, ...], policy: str) -> tuple[str, ...]:
    """The families asked for, with the second one that the API server adds to the first."""
    asked = tuple(family.value for family in spec.ip_families)
    single = policy == IPFamilyPolicy.SINGLE_STACK.value
    if not asked:
        return stored[:1] if single else stored
    completed = bool(policy) and not single and stored[: len(asked)] == asked
    return stored if completed else asked


def _traffic_policy(
    vmservice: VirtualMachineService, base: StoredService, *, balanced: bool
) -> str:
    if balanced:
        wanted = vmservice.meta.annotations.get(EXTERNAL_TRAFFIC_POLICY)
        return _LOCAL if wanted == _LOCAL else _CLUSTER
    # One with external IPs, somebody else's doing, is given a policy by the API server.
    of_cluster_ip = base.type == ServiceType.CLUSTER_IP.value
    return base.external_traffic_policy if of_cluster_ip else ""


def provider_marks(
    vmservice: VirtualMachineService, spec: ServiceSpec, load_balancer_provider: str
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Labels and annotations that a provider asks for, on the Service and on the VMService."""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    asked = vmservice.meta.annotations
    if load_balancer_provider == NSX_T_LB and spec.type is ServiceType.LOAD_BALANCER:
        if asked.get(EXTERNAL_TRAFFIC_POLICY) == _LOCAL:
            # kube-proxy leaves such a Service to NSX, which keeps the client's address.
            labels[_NSX_PROXY_LABEL] = _NSX_PROXY
        if HEALTH_CHECK_NODE_PORT in asked:
            annotations[_NSX_HEALTH_CHECK_ANNOTATION] = asked[HEALTH_CHECK_NODE_PORT]
    return labels, annotations


def _labels(
    vmservice: VirtualMachineService,
    base: StoredService,
    marks: Mapping[str, str],
    load_balancer_provider: str,
) -> Mapping[str, str]:
    labels = {**base.meta.labels, **vmservice.meta.labels}
    policy = vmservice.meta.annotations.get(EXTERNAL_TRAFFIC_POLICY)
    if load_balancer_provider == NSX_T_LB and policy != _LOCAL:
        labels.pop(_NSX_PROXY_LABEL, None)
    return {**labels, **marks}


def _annotations(
    vmservice: VirtualMachineService,
    base: StoredService,
    marks: Mapping[str, str],
    load_balancer_provider: str,
) -> Mapping[str, str]:
    wanted = vmservice.meta.annotations
    copied = {key: value for key, value in wanted.items() if key not in _NEVER_COPIED}
    annotations = {**base.meta.annotations, **copied, **marks}
    gone = {key for key in _MANAGED_ANNOTATIONS if key not in wanted}
    if load_balancer_provider == NSX_T_LB:
        if HEALTH_CHECK_NODE_PORT not in wanted:
            gone.add(_NSX_HEALTH_CHECK_ANNOTATION)
        if _NSX_HOSTNAME_ANNOTATION not in wanted:
            gone.add(_NSX_HOSTNAME_ANNOTATION)
    return {key: value for key, value in annotations.items() if key not in gone}


def _marked(service: StoredService) -> StoredService:
    """The Service with the label that keeps Kubernetes from mirroring its Endpoints.

    They take their labels from it. The annotation tells later that the label is ours.
    """
    meta = service.meta
    return replace(
        service,
        meta=replace(
            meta,
            labels={**meta.labels, SKIP_MIRROR_LABEL: "true"},
            annotations={**meta.annotations, _SLICES_ANNOTATION: _DIRECT},
        ),
    )


def _mirrored(vmservice: VirtualMachineService, service: StoredService) -> StoredService:
    """The Service without that label, unless somebody else has put it there."""
    return replace(service, meta=_unmarked(vmservice, service.meta))


def _freed(
    vmservice: VirtualMachineService, endpoints: StoredEndpoints | None
) -> StoredEndpoints | None:
    """Endpoints that are the user's now, without the marks that the Service gave them."""
    if endpoints is None or not controlled(endpoints, vmservice.meta.uid):
        return endpoints
    return replace(endpoints, meta=_unmarked(vmservice, endpoints.meta))


def _unmarked(vmservice: VirtualMachineService, meta: ObjectMeta) -> ObjectMeta:
    if _SLICES_ANNOTATION not in meta.annotations:
        return meta
    asked = SKIP_MIRROR_LABEL in vmservice.meta.labels
    labels = {k: v for k, v in meta.labels.items() if asked or k != SKIP_MIRROR_LABEL}
    annotations = {k: v for k, v in meta.annotations.items() if k != _SLICES_ANNOTATION}
    return replace(meta, labels=labels, annotations=annotations)


# -- The Endpoints. --


def _endpoints(
    owner: OwnerReference,
    spec: ServiceSpec,
    endpoints: tuple[Endpoint, ...],
    service: StoredService,
    stored: StoredEndpoints | None,
) -> StoredEndpoints:
    """The Endpoints, with the marks of the Service and no others."""
    base = stored or StoredEndpoints(meta=ObjectMeta(key=service.key, uid=""))
    return replace(
        base,
        meta=replace(
            base.meta,
            labels=service.meta.labels,
            annotations=service.meta.annotations,
            owner_references=_owners(base, owner),
        ),
        subsets=_subsets(owner, service.key, spec, endpoints),
    )


def _subsets(
    owner: OwnerReference, key: Key, spec: ServiceSpec, endpoints: tuple[Endpoint, ...]
) -> tuple[Subset, ...]:
    """The endpoints as Kubernetes packs them (its `RepackSubsets`).

    It groups addresses by equal ports, and every VM has all ports of the service: so
    there is one subset, or none without an address. `endpoints` are sorted as it sorts.
    """
    if not endpoints:
        return ()
    ports = _endpoint_ports(spec)
    ready = tuple(_address(owner, key, e) for e in endpoints if e.ready)
    not_ready = tuple(_address(owner, key, e) for e in endpoints if not e.ready)
    return (Subset(ready, not_ready, ports),)


def _endpoint_ports(spec: ServiceSpec) -> tuple[EndpointPort, ...]:
    return tuple(EndpointPort(p.name, p.target_port, p.protocol) for p in spec.ports)


def _address(owner: OwnerReference, key: Key, endpoint: Endpoint) -> StoredAddress:
    target = TargetRef(
        owner.api_version,
        Kind.VIRTUAL_MACHINE.value,
        key.namespace,
        endpoint.vm_name,
        endpoint.vm_uid,
    )
    return StoredAddress(endpoint.address, target)


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
        _endpoint_ports(spec),
        endpoints,
        observed.slices,
        families=service.ip_families,
        headless=service.cluster_ip == "None",
    )
