"""From untyped objects, or the bytes of an API server, to the model.

One path serves both: the shapes below say which fields are read, everything else is
skipped. An object is read by the version that it names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache, partial
from itertools import chain
from typing import Any, Protocol, TypeVar

import msgspec

from vmsvc_grpc.model import validate, wire
from vmsvc_grpc.model.decoding import ShapeError, converted, decoder
from vmsvc_grpc.model.objects import (
    GROUP,
    KNOWN_VERSIONS,
    NEWEST_API_VERSION,
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

T = TypeVar("T")

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


def kind_of(api_version: str, kind: str) -> Kind | None:
    """Which of our kinds this is; None if it is none of them.

    A VM Operator object of a version that we do not know is one of ours, and fails
    in `parse`.
    """
    group, _, version = api_version.rpartition("/")
    if group == GROUP and version and kind in ("VirtualMachine", "VirtualMachineService"):
        return Kind(kind)
    if api_version == "v1" and kind in ("Service", "Endpoints"):
        return Kind(kind)
    if api_version == "discovery.k8s.io/v1" and kind == "EndpointSlice":
        return Kind.ENDPOINT_SLICE
    return None


_CLOSE = 0.92  # As `VirtualMachineServices` is; `VirtualMachineImage`, a kind of its own, is not.
_KIND_CHARACTERS_MAX = 63


def likely_kind(api_version: str, kind: str) -> Kind | None:
    """Which of VM Operator's kinds is likely meant by one that `kind_of` does not know."""
    if api_version.partition("/")[0] != GROUP or len(kind) > _KIND_CHARACTERS_MAX:
        return None
    known = {
        meant.value.lower(): meant for meant in (Kind.VIRTUAL_MACHINE, Kind.VIRTUAL_MACHINE_SERVICE)
    }
    likely = get_close_matches(kind.lower(), known, n=1, cutoff=_CLOSE)
    return known[likely[0]] if likely else None


def parse(kind: Kind, untyped: Any) -> Object:
    """The model of an object given as mappings and lists, as YAML and JSON give them.

    A missing namespace is `default`; a missing uid is made from kind and name. A
    VMService that breaks a rule is returned with its problems, and so is one of the
    wrong shape as long as its name can be read. Raises ParseError, also for a VM whose
    labels or annotations no API server takes.
    """
    try:
        given = converted(untyped, SHAPES[kind])
    except ShapeError as error:
        return _unreadable(kind, partial(converted, untyped), error)
    object_ = model(given)
    if isinstance(given, wire.VirtualMachineShape):
        # Those that an API server gives have passed this there.
        for problem in _meta_problems(given.metadata):
            raise ParseError(kind, _key(kind, given.metadata), problem)
    return object_


def unread(kind: Kind, untyped: Any, problem: Problem) -> ParseError:
    """What is wrong with an object of which no more than the name is to be read."""
    try:
        named = converted(untyped, wire.BarelyNamedShape).metadata
        key = _key(kind, wire.MetaShape(name=named.name, namespace=named.namespace))
    except (ShapeError, ParseError):
        return ParseError(kind, None, problem)
    return ParseError(kind, key, problem)


def parse_json(kind: Kind, raw: bytes | msgspec.Raw) -> Object:
    """The same for an object's bytes in JSON. Raises ParseError."""
    try:
        given = _DECODERS[kind](raw)
    except ShapeError as error:
        return _unreadable(kind, lambda shape: decoder(shape)(raw), error)
    except msgspec.DecodeError as error:
        raise ParseError(kind, None, Problem("(document)", str(error))) from error
    return model(given)


def parse_meta(kind: Kind, raw: bytes | msgspec.Raw) -> ObjectMeta:
    """Only the metadata of an object's bytes in JSON: the rest is skipped. Raises ParseError."""
    try:
        given = _decode_named(raw)
    except ShapeError as error:
        meta = _readable_meta(kind, lambda shape: decoder(shape)(raw), error)
        raise ParseError(kind, _key(kind, meta), _shape_problem(error)) from error
    except msgspec.DecodeError as error:
        raise ParseError(kind, None, Problem("(document)", str(error))) from error
    return object_meta(kind, given.metadata)


SHAPES: Mapping[Kind, type[wire.Shape]] = {
    Kind.VIRTUAL_MACHINE: wire.VirtualMachineShape,
    Kind.VIRTUAL_MACHINE_SERVICE: wire.VirtualMachineServiceShape,
    Kind.SERVICE: wire.ServiceShape,
    Kind.ENDPOINTS: wire.EndpointsShape,
    Kind.ENDPOINT_SLICE: wire.EndpointSliceShape,
}
"""The shape of an object of each kind."""

_DECODERS = {kind: decoder(shape) for kind, shape in SHAPES.items()}
_decode_named = decoder(wire.NamedShape)


# -- From the wire's shapes to the model's. --


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


def _key(kind: Kind, meta: wire.MetaShape) -> Key:
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
    key = _key(kind, meta)
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


def unfit_metadata(untyped: Any) -> tuple[Problem, ...]:
    """What of an object's metadata no API server takes; nothing if it has another shape."""
    try:
        return tuple(_meta_problems(converted(untyped, wire.NamedShape).metadata))
    except ShapeError:
        return ()


def _meta_problems(meta: wire.MetaShape) -> Iterator[Problem]:
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
    key = _key(kind, meta)
    version = _version(kind, key, given.api_version)
    status = given.status or wire.VirtualMachineStatusShape()
    labels = meta.labels or {}
    condition = next((c for c in status.conditions or () if c.type == "Ready"), None)
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


_READINESS = {readiness.value: readiness for readiness in Readiness}


def _readiness(condition: wire.ConditionShape | None) -> Readiness | None:
    # v1alpha1's schema takes any text; what does not say True is not ready.
    return _READINESS.get(condition.status, Readiness.UNKNOWN) if condition else None


def _ready_words(condition: wire.ConditionShape | None) -> ReadyWords | None:
    """What is kept of the words, which are the VM's own: 20,000 VMs have them."""
    if condition is None:
        return None
    return ReadyWords(
        escaped(condition.reason or "", VALUE_CHARACTERS_MAX),
        escaped(condition.message or "", VALUE_CHARACTERS_MAX),
        (condition.last_transition_time or "")[:_TIME_CHARACTERS_MAX],
    )


def _place(name: str | None) -> str:
    """A zone or region. Every endpoint carries it: what is too long to be a name is none."""
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
            declared_selector=_declared_selector(given.spec),
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
        declared_selector={} if spec else _declared_selector(given.spec),
        ingress=_ingress(status.load_balancer),
        conditions=tuple(_condition(c) for c in status.conditions or ()),
    )


def _declared_selector(
    given: wire.VirtualMachineServiceSpecShape | wire.SelectorOnlyShape | None,
) -> Mapping[str, str]:
    """The selector, if a VM could have such labels: which VMs it means is clear then."""
    selector = (given.selector if given else None) or {}
    return {} if any(validate.selector_problems(selector)) else selector


def _service_spec(
    meta: wire.MetaShape, version: str, given: wire.VirtualMachineServiceSpecShape
) -> tuple[ServiceSpec | None, tuple[Problem, ...]]:
    type_text = given.type or ServiceType.CLUSTER_IP.value
    meta_problems = chain(validate.name_problems(meta.name), _meta_problems(meta))
    if type_problems := tuple(validate.type_problems(type_text)):
        # Rules of other fields depend on the type, so they would only confuse.
        return None, bounded(chain(meta_problems, type_problems))
    cluster_ip = given.cluster_ip or given.cluster_ip_documented or ""
    ports = tuple(_service_port(port) for port in given.ports or ())
    ranges = tuple(given.load_balancer_source_ranges or ())
    selector = given.selector or {}
    # Families came with v1alpha6; an older object cannot mean them.
    newest = version == KNOWN_VERSIONS[-1]
    family_texts = tuple(given.ip_families or ()) if newest else ()
    policy_text = (given.ip_family_policy or "") if newest else ""
    problems = bounded(
        chain(
            meta_problems,
            validate.port_problems(ports, headless=cluster_ip == "None"),
            validate.cluster_ip_problems(cluster_ip, type_text),
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


def _ingress(given: wire.LoadBalancerShape | None) -> tuple[Ingress, ...]:
    entries = (given.ingress or ()) if given else ()
    return tuple(Ingress(entry.ip or "", entry.hostname or "") for entry in entries)


def _condition(given: wire.ConditionShape) -> Condition:
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
    ready = next((c for c in status.conditions or () if c.type == "Ready"), None)
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
        ingress=_ingress(status.load_balancer),
        ready=_condition(ready) if ready else None,
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


# -- Objects of the wrong shape. --


class _Convert(Protocol):
    """Reads the object as another shape. Raises msgspec.DecodeError."""

    def __call__(self, shape: type[T]) -> T: ...


def _unreadable(kind: Kind, convert: _Convert, error: ShapeError) -> Object:
    """A VMService of the wrong shape, refused; for other kinds raises ParseError."""
    meta = _readable_meta(kind, convert, error)
    problem = _shape_problem(error)
    key = _key(kind, meta)
    if kind is not Kind.VIRTUAL_MACHINE_SERVICE:
        raise ParseError(kind, key, problem) from error
    try:
        outline = convert(wire.VirtualMachineServiceOutlineShape)
    except msgspec.DecodeError:
        outline = wire.VirtualMachineServiceOutlineShape()
    status = outline.status or wire.ServiceStatusShape()
    return VirtualMachineService(
        meta=object_meta(kind, meta),
        api_version=outline.api_version or NEWEST_API_VERSION,
        spec=None,
        problems=(problem,),
        declared_type="",
        declared_selector=_readable_selector(convert),
        ingress=_ingress(status.load_balancer),
        conditions=tuple(_condition(c) for c in status.conditions or ()),
    )


def _readable_selector(convert: _Convert) -> Mapping[str, str]:
    """The selector of a VMService of the wrong shape, if that is not where it is wrong."""
    try:
        return _declared_selector(convert(wire.SelectingShape).spec)
    except msgspec.DecodeError:
        return {}


def _readable_meta(kind: Kind, convert: _Convert, error: ShapeError) -> wire.MetaShape:
    """The metadata, or else its name and namespace, of an object of the wrong shape.

    Raises ParseError if not even those can be read.
    """
    try:
        return convert(wire.NamedShape).metadata
    except msgspec.DecodeError:
        try:
            bare = convert(wire.BarelyNamedShape).metadata
        except msgspec.DecodeError:
            raise ParseError(kind, None, _shape_problem(error)) from error
        return wire.MetaShape(name=bare.name, namespace=bare.namespace)


def _shape_problem(error: ShapeError) -> Problem:
    return Problem(error.field, error.message)
