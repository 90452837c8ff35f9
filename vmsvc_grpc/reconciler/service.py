"""The Service of a VMService, as it should be. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from vmsvc_grpc.model.objects import (
    IPFamilyPolicy,
    ObjectMeta,
    OwnerReference,
    ServiceSpec,
    ServiceType,
    StoredEndpoints,
    StoredPort,
    StoredService,
    VirtualMachineService,
)
from vmsvc_grpc.model.ownership import is_controlled_by
from vmsvc_grpc.model.resolve import as_held, families
from vmsvc_grpc.reconciler.owners import owners
from vmsvc_grpc.reconciler.rules import NSX_T_LB, Rules

EXTERNAL_TRAFFIC_POLICY = (
    "virtualmachineservice.vmoperator.vmware.com/service.externalTrafficPolicy"
)
HEALTH_CHECK_NODE_PORT = "virtualmachineservice.vmoperator.vmware.com/service.healthCheckNodePort"

# Removed from the Service when removed from the VMService; other keys stay.
_MANAGED_ANNOTATIONS = (EXTERNAL_TRAFFIC_POLICY, HEALTH_CHECK_NODE_PORT)

_NSX_PROXY_LABEL = "service.kubernetes.io/service-proxy-name"
_NSX_PROXY = "nsx-t"
_NSX_HEALTH_CHECK_ANNOTATION = "ncp/healthCheckNodePort"
_NSX_HOSTNAME_ANNOTATION = "nsx.vmware.com/hostname"
_NSX_LABELS = frozenset({_NSX_PROXY_LABEL})
_NSX_ANNOTATIONS = frozenset({_NSX_HEALTH_CHECK_ANNOTATION, _NSX_HOSTNAME_ANNOTATION})

SKIP_MIRROR_LABEL = "endpointslice.kubernetes.io/skip-mirror"
"""On Endpoints: keeps Kubernetes from mirroring them to EndpointSlices."""

_SLICES_ANNOTATION = "vmsvc-grpc/endpoint-slices"
_DIRECT = "direct"

_LOCAL = "Local"
_CLUSTER = "Cluster"
_EXTERNAL_NAME = "ExternalName"


def service_of(
    vmservice: VirtualMachineService,
    spec: ServiceSpec,
    stored: StoredService | None,
    owner: OwnerReference,
    rules: Rules,
) -> StoredService:
    """The Service as it should be, from the stored one: others' fields stay."""
    base = stored or StoredService(meta=ObjectMeta(key=vmservice.key, uid=""))
    balanced = spec.type is ServiceType.LOAD_BALANCER
    labels, annotations = provider_marks(vmservice, spec, rules)
    policy = _traffic_policy(vmservice, base, balanced=balanced)
    family_policy = spec.ip_family_policy.value if spec.ip_family_policy else base.ip_family_policy
    # It can be chosen only at creation; afterwards the stored one stays.
    cluster_ip = base.cluster_ip if stored else spec.cluster_ip
    return replace(
        base,
        meta=replace(
            base.meta,
            labels=_labels(vmservice, base, labels, rules),
            annotations=_annotations(vmservice, base, annotations, rules),
            owner_references=owners(base, owner),
        ),
        type=spec.type.value,
        selector={},
        ports=_ports(spec, base, balanced=balanced),
        cluster_ip=cluster_ip,
        ip_families=_families(as_held(spec, cluster_ip, family_policy), base, family_policy, rules),
        ip_family_policy=family_policy,
        load_balancer_ip=spec.load_balancer_ip,
        load_balancer_source_ranges=_source_ranges(spec, base),
        load_balancer_class=base.load_balancer_class if balanced else "",
        allocate_load_balancer_node_ports=False if balanced else None,
        external_traffic_policy=policy,
        # VM Operator copies it even to a type that does not use it, where it does no harm.
        external_name="" if base.type == _EXTERNAL_NAME else base.external_name,
        # If the policy is Local, the API server chooses it.
        health_check_node_port=base.health_check_node_port if policy == _LOCAL else 0,
        ingress=base.ingress if balanced else (),
    )


def _ports(spec: ServiceSpec, base: StoredService, *, balanced: bool) -> tuple[StoredPort, ...]:
    """The ports. We never ask for node ports, nor remove one: we would only get another."""
    node_ports = {port.name: port.node_port for port in base.ports} if balanced else {}
    return tuple(
        StoredPort(p.name, p.protocol, p.port, p.target_port, node_ports.get(p.name, 0))
        for p in spec.ports
    )


def _source_ranges(spec: ServiceSpec, base: StoredService) -> tuple[str, ...]:
    """The ranges as given; the stored ones, if only the blanks around them differ."""
    given, stored = spec.load_balancer_source_ranges, base.load_balancer_source_ranges
    as_stored = [text.strip() for text in given] == [text.strip() for text in stored]
    return stored if as_stored else given


def _families(spec: ServiceSpec, base: StoredService, policy: str, rules: Rules) -> tuple[str, ...]:
    """The families asked for, and the second one if the API server has added it, or would.

    If none are asked for, they are left to the API server.
    """
    asked = tuple(family.value for family in spec.ip_families)
    if asked and rules.cluster_families:
        # As held, the families decide which addresses are served.
        asked = tuple(family.value for family in families(spec, (), rules.cluster_families))
    stored = base.ip_families
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
    # The API server gives a Service with external IPs, which others set, a policy.
    of_cluster_ip = base.type == ServiceType.CLUSTER_IP.value
    return base.external_traffic_policy if of_cluster_ip else ""


def provider_marks(
    vmservice: VirtualMachineService, spec: ServiceSpec, rules: Rules
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """The labels and annotations that a provider wants on the Service and on the VMService."""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    asked = vmservice.meta.annotations
    if rules.load_balancer_provider == NSX_T_LB and spec.type is ServiceType.LOAD_BALANCER:
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
    rules: Rules,
) -> Mapping[str, str]:
    labels = {**base.meta.labels, **rules.copying.labels(vmservice.meta)}
    if not rules.load_balancer_provider:
        labels = _with_others(labels, base, base.meta.labels, _NSX_LABELS)
    policy = vmservice.meta.annotations.get(EXTERNAL_TRAFFIC_POLICY)
    if rules.load_balancer_provider == NSX_T_LB and policy != _LOCAL:
        labels.pop(_NSX_PROXY_LABEL, None)
    return {**labels, **marks}


def _annotations(
    vmservice: VirtualMachineService,
    base: StoredService,
    marks: Mapping[str, str],
    rules: Rules,
) -> Mapping[str, str]:
    wanted = vmservice.meta.annotations
    copied = rules.copying.annotations(vmservice.meta)
    annotations = {**base.meta.annotations, **copied, **marks}
    if not rules.load_balancer_provider:
        annotations = _with_others(annotations, base, base.meta.annotations, _NSX_ANNOTATIONS)
    gone = {key for key in _MANAGED_ANNOTATIONS if key not in wanted}
    if rules.load_balancer_provider == NSX_T_LB:
        if HEALTH_CHECK_NODE_PORT not in wanted:
            gone.add(_NSX_HEALTH_CHECK_ANNOTATION)
        if _NSX_HOSTNAME_ANNOTATION not in wanted:
            gone.add(_NSX_HOSTNAME_ANNOTATION)
    return {key: value for key, value in annotations.items() if key not in gone}


def _with_others(
    wanted: dict[str, str], base: StoredService, stored: Mapping[str, str], keys: Iterable[str]
) -> dict[str, str]:
    """The same, but with these keys as stored: another writer with that provider sets them.

    That writer sets them on the VMService too, and removes them from the Service only. A new
    Service has those of the VMService.
    """
    if not base.meta.uid:
        return wanted
    theirs = {key: stored[key] for key in keys if key in stored}
    return {key: value for key, value in wanted.items() if key not in keys} | theirs


def marked(service: StoredService) -> StoredService:
    """The Service with the label that keeps Kubernetes from mirroring its Endpoints.

    Endpoints take their labels from it. The annotation shows later that the label is ours.
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


def mirrored(
    vmservice: VirtualMachineService, service: StoredService, rules: Rules
) -> StoredService:
    """The Service without that label, unless somebody else has set it."""
    return replace(service, meta=_unmarked(vmservice, service.meta, rules))


def freed(
    vmservice: VirtualMachineService, endpoints: StoredEndpoints | None, rules: Rules
) -> StoredEndpoints | None:
    """Endpoints that are the user's now, without the labels and annotations of the Service."""
    if endpoints is None or not is_controlled_by(endpoints.meta, vmservice.meta.uid):
        return endpoints
    return replace(endpoints, meta=_unmarked(vmservice, endpoints.meta, rules))


def _unmarked(vmservice: VirtualMachineService, meta: ObjectMeta, rules: Rules) -> ObjectMeta:
    if _SLICES_ANNOTATION not in meta.annotations:
        return meta
    asked = SKIP_MIRROR_LABEL in rules.copying.labels(vmservice.meta)
    labels = {k: v for k, v in meta.labels.items() if asked or k != SKIP_MIRROR_LABEL}
    annotations = {k: v for k, v in meta.annotations.items() if k != _SLICES_ANNOTATION}
    return replace(meta, labels=labels, annotations=annotations)
