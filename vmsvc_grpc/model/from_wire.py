"""From the wire's shapes to the model: which value each field becomes, by the object's version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from vmsvc_grpc.model import validate, wire
from vmsvc_grpc.model.objects import (
    GROUP,
    KNOWN_VERSIONS,
    Condition,
    EndpointPort,
    Ingress,
    IPFamily,
    IPFamilyPolicy,
    Key,
    Kind,
    Object,
    ObjectMeta,
    OwnerReference,
    Probe,
    Readiness,
    ReadyWords,
    ReportedAddress,
    ServicePort,
    ServiceSpec,
    ServiceType,
    StoredEndpoints,
    StoredEndpointSlice,
    StoredPort,
    StoredService,
    Subset,
    VirtualMachine,
    VirtualMachineService,
    made_uid,
)
from vmsvc_grpc.model.problem import (
    VALUE_CHARACTERS_MAX,
    Problem,
    bounded,
    escaped,
    quoted,
)

_TIME_CHARACTERS_MAX = 64  # RFC 3339, with nanoseconds, takes 35.
_UID_CHARACTERS_MAX = 253  # An API server's take 36; each endpoint carries its VM's.

DEFAULT_NAMESPACE = "default"
ZONE_LABEL = "topology.kubernetes.io/zone"
REGION_LABEL = "topology.kubernetes.io/region"


class ParseError(Exception):
    """An object cannot be read. `key` is None if not even its name can.

    `problem` names the field and says what is wrong.
    """

    def __init__(self, kind: Kind, key: Key | None, problem: Problem) -> None:
        super().__init__(f"{kind.value} {key or '(unnamed)'}: {problem}")
        self.kind = kind
        self.key = key
        self.problem = problem


def model(given: Any) -> Object:
    """The model of an object that has been decoded as its shape in SHAPES. Raises ParseError."""
    match given:
        case wire.VirtualMachineShape():
            return _virtual_machine(given)
        case wire.VirtualMachineServiceShape():
            return _virtual_machine_service(given)
        case wire.ServiceShape():
            return _stored_service(given)
        case wire.EndpointsShape():
            return _stored_endpoints(given)
        case wire.EndpointSliceShape():
            return _stored_slice(given)
    raise AssertionError(f"no shape of an object: {given!r}")


def key_of(kind: Kind, meta: wire.MetaShape) -> Key:
    """Namespace and name of an object. Raises ParseError if one of them is not valid."""
    try:
        return _valid_key(meta.namespace or DEFAULT_NAMESPACE, meta.name)
    except _NameError as error:
        raise ParseError(kind, None, error.problem) from None


class _NameError(Exception):
    def __init__(self, field: str, flaw: str) -> None:
        super().__init__(flaw)
        self.problem = Problem(field, flaw)


# Most events repeat the name of an object. A name that raises is not kept, however long it is.
@lru_cache(maxsize=65_536)
def _valid_key(namespace: str, name: str) -> Key:
    if not validate.is_dns_1123_subdomain(name):
        raise _NameError("metadata.name", _name_flaw(name))
    if not validate.is_dns_1123_label(namespace):
        raise _NameError("metadata.namespace", _name_flaw(namespace))
    return Key(namespace, name)


def _name_flaw(name: str) -> str:
    return f"{quoted(name)} is not a name that Kubernetes takes" if name else "is missing; name it"


def _uid(kind: Kind, key: Key, meta: wire.MetaShape) -> str:
    uid = meta.uid or made_uid(kind, key)
    if len(uid) > _UID_CHARACTERS_MAX:
        text = f"{quoted(uid)} is too long; use at most {_UID_CHARACTERS_MAX} characters, or none"
        raise ParseError(kind, key, Problem("metadata.uid", text))
    return uid


def object_meta(kind: Kind, meta: wire.MetaShape) -> ObjectMeta:
    """The model of an object's metadata. Raises ParseError."""
    key = key_of(kind, meta)
    return ObjectMeta(
        key=key,
        uid=_uid(kind, key, meta),
        resource_version=meta.resource_version or "",
        generation=meta.generation or 0,
        deleting=validate.is_time(meta.deletion_timestamp or ""),
        labels=meta.labels or {},
        annotations=meta.annotations or {},
        finalizers=tuple(meta.finalizers or ()),
        owner_references=tuple(
            OwnerReference(
                o.api_version,
                o.kind,
                o.name,
                o.uid,
                bool(o.controller),
                bool(o.block_owner_deletion),
            )
            for o in meta.owner_references or ()
        ),
    )


def meta_problems(meta: wire.MetaShape) -> Iterator[Problem]:
    """The parts of an object's metadata that no API server accepts, times included."""
    yield from validate.time_problems("metadata.creationTimestamp", meta.creation_timestamp)
    yield from validate.time_problems("metadata.deletionTimestamp", meta.deletion_timestamp)
    yield from validate.metadata_problems(
        meta.labels or {}, meta.annotations or {}, meta.finalizers or ()
    )


def _version(kind: Kind, key: Key, api_version: str) -> str:
    version = api_version.rpartition("/")[2]
    if version not in KNOWN_VERSIONS:
        known = f"{KNOWN_VERSIONS[0]} to {KNOWN_VERSIONS[-1]}"
        problem = Problem("apiVersion", f"{quoted(api_version)} is not known; use {GROUP}/{known}")
        raise ParseError(kind, key, problem)
    return version


def _virtual_machine(given: wire.VirtualMachineShape) -> VirtualMachine:
    kind, meta = Kind.VIRTUAL_MACHINE, given.metadata
    key = key_of(kind, meta)
    version = _version(kind, key, given.api_version)
    status = given.status or wire.VirtualMachineStatusShape()
    labels = meta.labels or {}
    condition = _ready_condition(status.conditions)
    return VirtualMachine(
        key=key,
        uid=_uid(kind, key, meta),
        labels=labels,
        deleting=validate.is_time(meta.deletion_timestamp or ""),
        addresses=_reported_addresses(version, status),
        zone=_place(labels.get(ZONE_LABEL) or status.zone),
        region=_place(labels.get(REGION_LABEL)),
        probe=_probe(version, given.spec),
        ready=_readiness(condition),
        ready_words=_ready_words(condition),
    )


def _reported_addresses(
    version: str, status: wire.VirtualMachineStatusShape
) -> tuple[ReportedAddress, ...]:
    if version == "v1alpha1":
        return (ReportedAddress("status.vmIp", status.vm_ip, None),) if status.vm_ip else ()
    network = status.network
    if network is None:
        return ()
    reports = []
    if network.primary_ip4:
        field = "status.network.primaryIP4"
        reports.append(ReportedAddress(field, network.primary_ip4, IPFamily.IPV4))
    if network.primary_ip6:
        field = "status.network.primaryIP6"
        reports.append(ReportedAddress(field, network.primary_ip6, IPFamily.IPV6))
    return tuple(reports)


def _probe(version: str, spec: wire.VirtualMachineSpecShape | None) -> Probe | None:
    probe = spec.readiness_probe if spec else None
    if probe is None:
        return None
    if probe.tcp_socket is not None:
        return Probe.TCP_SOCKET
    if probe.guest_heartbeat is not None:
        return Probe.GUEST_HEARTBEAT
    if probe.guest_info and version != "v1alpha1":
        return Probe.GUEST_INFO
    return None


def _ready_condition(given: Sequence[wire.ConditionShape] | None) -> wire.ConditionShape | None:
    for condition in given or ():
        if condition.type == "Ready":
            return condition
    return None


_READINESS = {readiness.value: readiness for readiness in Readiness}


def _readiness(condition: wire.ConditionShape | None) -> Readiness | None:
    # v1alpha1's schema allows any text; only True means ready.
    return _READINESS.get(condition.status, Readiness.UNKNOWN) if condition else None


def _ready_words(condition: wire.ConditionShape | None) -> ReadyWords | None:
    """The words, cut and escaped: they are the VM's own, and 20,000 VMs have them."""
    if condition is None:
        return None
    return ReadyWords(
        escaped(condition.reason or "", VALUE_CHARACTERS_MAX),
        escaped(condition.message or "", VALUE_CHARACTERS_MAX),
        (condition.last_transition_time or "")[:_TIME_CHARACTERS_MAX],
    )


def _place(name: str | None) -> str:
    """A zone or region. Every endpoint carries it, so a text too long for a name is dropped."""
    return name if name and len(name) <= validate.SUBDOMAIN_MAX else ""


def _virtual_machine_service(given: wire.VirtualMachineServiceShape) -> VirtualMachineService:
    kind = Kind.VIRTUAL_MACHINE_SERVICE
    meta = object_meta(kind, given.metadata)
    status = given.status or wire.ServiceStatusShape()
    declared = escaped((given.spec and given.spec.type) or ServiceType.CLUSTER_IP.value)
    try:
        version = _version(kind, meta.key, given.api_version)
    except ParseError as error:
        return VirtualMachineService(
            meta=meta,
            spec=None,
            problems=(error.problem,),
            declared_type=declared,
            declared_selector=declared_selector(given.spec),
        )
    spec, problems = _service_spec(
        given.metadata, version, given.spec or wire.VirtualMachineServiceSpecShape()
    )
    return VirtualMachineService(
        meta=meta,
        api_version=given.api_version,
        spec=spec,
        problems=problems,
        declared_type=declared,
        declared_selector={} if spec else declared_selector(given.spec),
        ingress=ingress_of(status.load_balancer),
        conditions=tuple(condition_of(c) for c in status.conditions or ()),
    )


def declared_selector(
    given: wire.VirtualMachineServiceSpecShape | wire.SelectorOnlyShape | None,
) -> Mapping[str, str]:
    """The selector, if a VM could have such labels, so that it is clear which VMs it means."""
    selector = (given.selector if given else None) or {}
    return {} if any(validate.selector_problems(selector)) else selector


def _service_spec(
    meta: wire.MetaShape, version: str, given: wire.VirtualMachineServiceSpecShape
) -> tuple[ServiceSpec | None, tuple[Problem, ...]]:
    type_text = given.type or ServiceType.CLUSTER_IP.value
    named = chain(validate.name_problems(meta.name), meta_problems(meta))
    if type_problems := tuple(validate.type_problems(type_text)):
        # Rules of other fields depend on the type, so they would only confuse.
        return None, bounded(chain(named, type_problems))
    cluster_ip, cluster_ip_path = given.cluster_ip or "", "spec.clusterIp"
    if not cluster_ip and given.cluster_ip_documented:
        cluster_ip, cluster_ip_path = given.cluster_ip_documented, "spec.clusterIP"
    ports = tuple(_service_port(port) for port in given.ports or ())
    ranges = tuple(given.load_balancer_source_ranges or ())
    selector = given.selector or {}
    # Families came with v1alpha6; an older object cannot mean them.
    newest = version == KNOWN_VERSIONS[-1]
    family_texts = tuple(given.ip_families or ()) if newest else ()
    policy_text = (given.ip_family_policy or "") if newest else ""
    problems = bounded(
        chain(
            named,
            validate.port_problems(ports, headless=cluster_ip == "None"),
            validate.cluster_ip_problems(cluster_ip_path, cluster_ip, type_text),
            validate.source_range_problems(ranges, type_text),
            validate.selector_problems(selector),
            validate.family_problems(family_texts, policy_text),
        )
    )
    if problems:
        return None, problems
    spec = ServiceSpec(
        type=ServiceType(type_text),
        selector=selector,
        ports=ports,
        cluster_ip=cluster_ip,
        load_balancer_ip=given.load_balancer_ip or "",
        load_balancer_source_ranges=ranges,
        ip_families=tuple(IPFamily(text) for text in family_texts),
        ip_family_policy=IPFamilyPolicy(policy_text) if policy_text else None,
    )
    return spec, ()


def _service_port(given: wire.VirtualMachineServicePortShape) -> ServicePort:
    port = given.port or 0
    return ServicePort(
        name=given.name or "",
        protocol=given.protocol or "TCP",
        port=port,
        target_port=given.target_port or port,
    )


def ingress_of(given: wire.LoadBalancerShape | None) -> tuple[Ingress, ...]:
    """The entries of a `status.loadBalancer`."""
    entries = (given.ingress or ()) if given else ()
    return tuple(Ingress(entry.ip or "", entry.hostname or "") for entry in entries)


def condition_of(given: wire.ConditionShape) -> Condition:
    """One of `status.conditions`."""
    return Condition(
        type=given.type,
        status=given.status,
        reason=given.reason or "",
        message=given.message or "",
        last_transition_time=given.last_transition_time or "",
        observed_generation=given.observed_generation or 0,
    )


def _stored_service(given: wire.ServiceShape) -> StoredService:
    spec, status = given.spec or wire.ServiceSpecShape(), given.status or wire.ServiceStatusShape()
    ready = _ready_condition(status.conditions)
    return StoredService(
        meta=object_meta(Kind.SERVICE, given.metadata),
        type=spec.type or "",
        selector=spec.selector or {},
        ports=tuple(_stored_port(port) for port in spec.ports or ()),
        cluster_ip=spec.cluster_ip or "",
        cluster_ips=tuple(spec.cluster_ips or ()),
        ip_families=tuple(spec.ip_families or ()),
        ip_family_policy=spec.ip_family_policy or "",
        load_balancer_ip=spec.load_balancer_ip or "",
        load_balancer_source_ranges=tuple(spec.load_balancer_source_ranges or ()),
        load_balancer_class=spec.load_balancer_class or "",
        allocate_load_balancer_node_ports=spec.allocate_load_balancer_node_ports,
        external_traffic_policy=spec.external_traffic_policy or "",
        external_name=spec.external_name or "",
        health_check_node_port=spec.health_check_node_port or 0,
        ingress=ingress_of(status.load_balancer),
        ready=condition_of(ready) if ready else None,
    )


def _stored_port(given: wire.ServicePortShape) -> StoredPort:
    return StoredPort(
        name=given.name or "",
        protocol=given.protocol or "TCP",
        port=given.port,
        target_port=given.target_port or given.port,
        node_port=given.node_port or 0,
        app_protocol=given.app_protocol or "",
    )


def _stored_endpoints(given: wire.EndpointsShape) -> StoredEndpoints:
    return StoredEndpoints(
        meta=object_meta(Kind.ENDPOINTS, given.metadata),
        subsets=tuple(
            Subset(
                tuple(subset.addresses or ()),
                tuple(subset.not_ready_addresses or ()),
                tuple(_endpoint_port(p) for p in subset.ports or ()),
            )
            for subset in given.subsets or ()
        ),
    )


def _endpoint_port(given: wire.EndpointPortShape) -> EndpointPort:
    return EndpointPort(
        given.name or "", given.port, given.protocol or "TCP", given.app_protocol or ""
    )


def _stored_slice(given: wire.EndpointSliceShape) -> StoredEndpointSlice:
    return StoredEndpointSlice(
        meta=object_meta(Kind.ENDPOINT_SLICE, given.metadata),
        address_type=given.address_type,
        endpoints=tuple(given.endpoints or ()),
        ports=tuple(_endpoint_port(port) for port in given.ports or ()),
    )
