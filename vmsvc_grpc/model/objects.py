"""The objects that we read, slim: only the fields that something here uses.

All are immutable, and may be kept by anybody. Mappings in them are never changed
after construction.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from operator import attrgetter
from typing import Any, ClassVar, NamedTuple

import msgspec

from vmsvc_grpc.model.address import canonical
from vmsvc_grpc.model.problem import Problem

GROUP = "vmoperator.vmware.com"
KNOWN_VERSIONS = ("v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4", "v1alpha5", "v1alpha6")
NEWEST_API_VERSION = f"{GROUP}/{KNOWN_VERSIONS[-1]}"

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
MANAGED_BY_LABEL = "endpointslice.kubernetes.io/managed-by"
MANAGED_BY = "vmsvc-grpc"
"""The value of that label on slices that we write; nobody else uses it."""

ACCEPTED = "VirtualMachineServiceAccepted"
"""Our condition of a VMService: whether we hold what it asks for."""


class Kind(Enum):
    """The kinds of object that the cache holds; the value is Kubernetes' `kind`."""

    # Each member exists once. Enum's own hash is that of the name, by a call in Python.
    __hash__ = object.__hash__

    VIRTUAL_MACHINE = "VirtualMachine"
    VIRTUAL_MACHINE_SERVICE = "VirtualMachineService"
    SERVICE = "Service"
    ENDPOINTS = "Endpoints"
    ENDPOINT_SLICE = "EndpointSlice"


class IPFamily(Enum):
    """An address family; the value is Kubernetes' name for it."""

    IPV4 = "IPv4"
    IPV6 = "IPv6"


class Key(NamedTuple):
    """Namespace and name: which object of a kind. Sorts by namespace, then name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


# The namespace of the uids that we make up: an object has the same one each time.
_UID_NAMESPACE = uuid.UUID("7f3bd2f4-2b61-4f0c-9d2c-6c9b3c1d8a10")


def made_uid(kind: Kind, key: Key) -> str:
    """The uid of an object that has none: made from its kind and name.

    No cluster has an object of this uid, so nothing in a manifest may refer to it.
    """
    return str(uuid.uuid5(_UID_NAMESPACE, f"{kind.value}/{key}"))


class OwnerReference(NamedTuple):
    """One of `metadata.ownerReferences`."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False
    block_owner_deletion: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectMeta:
    """The part of `metadata` that we use. `resource_version` is empty outside an API server."""

    key: Key
    uid: str
    resource_version: str = ""
    generation: int = 0
    deleting: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[OwnerReference, ...] = ()

    @property
    def controller(self) -> OwnerReference | None:
        """The owner reference that has `controller: true`, if any."""
        return next((o for o in self.owner_references if o.controller), None)


class Readiness(Enum):
    """The status of a VM's `Ready` condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class ReadyWords(msgspec.Struct, frozen=True, gc=False):
    """What a VM's `Ready` condition says beside its status; each may be empty.

    `reason` and `message` are cut and escaped. `since` is its `lastTransitionTime`, cut.
    """

    reason: str
    message: str
    since: str


class Probe(Enum):
    """Which readiness probe a VM has; the value is its field's name."""

    TCP_SOCKET = "tcpSocket"
    GUEST_HEARTBEAT = "guestHeartbeat"
    GUEST_INFO = "guestInfo"


class VirtualMachine(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A VM. `ready` is its `Ready` condition, None if there is none yet; `ready_words` its words.

    `addresses` are the primary addresses as the VM reports them, each with the
    path of its field and the families that the field may hold; not yet judged
    (`model.resolve` does that). A Struct, as most events are VMs: it is made, and compared, in a
    tenth of a dataclass's time. It cannot be part of a cycle, so the collector passes over it.
    """

    kind: ClassVar[Kind] = Kind.VIRTUAL_MACHINE

    key: Key
    uid: str
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    deleting: bool = False
    addresses: tuple[ReportedAddress, ...] = ()
    zone: str = ""
    region: str = ""
    probe: Probe | None = None
    ready: Readiness | None = None
    ready_words: ReadyWords | None = None


class ReportedAddress(msgspec.Struct, frozen=True, gc=False):
    """An address as a VM's status gives it: `field` is its path, `text` is as written."""

    field: str
    text: str
    family: IPFamily | None
    """The family that the field is for; None if it may hold either."""


class ServicePort(NamedTuple):
    """One port of a VMService, defaults filled in. `protocol` is TCP, UDP or SCTP."""

    name: str
    protocol: str
    port: int
    target_port: int


class ServiceType(Enum):
    """The types of VMService that are supported; the value is Kubernetes' name."""

    CLUSTER_IP = "ClusterIP"
    LOAD_BALANCER = "LoadBalancer"


class IPFamilyPolicy(Enum):
    """How many address families a service wants."""

    SINGLE_STACK = "SingleStack"
    PREFER_DUAL_STACK = "PreferDualStack"
    REQUIRE_DUAL_STACK = "RequireDualStack"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """A valid specification of a VMService, defaults filled in.

    `cluster_ip` is "None", an address, or empty (to be chosen by the API server).
    `ports` are in the order of the object; source ranges are as written, blanks and all. An
    empty selector selects nothing.
    """

    type: ServiceType = ServiceType.CLUSTER_IP
    selector: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[ServicePort, ...] = ()
    cluster_ip: str = ""
    load_balancer_ip: str = ""
    load_balancer_source_ranges: tuple[str, ...] = ()
    ip_families: tuple[IPFamily, ...] = ()
    ip_family_policy: IPFamilyPolicy | None = None

    @property
    def headless(self) -> bool:
        """Whether the service has no cluster address of its own (`clusterIP: None`)."""
        return self.cluster_ip == "None"


class Ingress(NamedTuple):
    """One entry of `status.loadBalancer.ingress`; either may be empty."""

    ip: str
    hostname: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One of `status.conditions`."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str = ""
    observed_generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualMachineService:
    """A VMService. `spec` is None exactly if `problems` (why it is refused) is not empty.

    `declared_type` is `spec.type` as written, cut and escaped, for showing a refused one;
    `declared_selector` is a refused one's `spec.selector` if that is valid, else empty.
    """

    kind: ClassVar[Kind] = Kind.VIRTUAL_MACHINE_SERVICE

    meta: ObjectMeta
    api_version: str = NEWEST_API_VERSION
    spec: ServiceSpec | None
    problems: tuple[Problem, ...] = ()
    declared_type: str = ServiceType.CLUSTER_IP.value
    declared_selector: Mapping[str, str] = field(default_factory=dict)
    ingress: tuple[Ingress, ...] = ()
    conditions: tuple[Condition, ...] = ()

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.meta.key


class StoredPort(NamedTuple):
    """One port of a stored Service. `target_port` keeps a name if it is one."""

    name: str
    protocol: str
    port: int
    target_port: int | str
    node_port: int = 0
    app_protocol: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredService:
    """A Service as the API server, or the output directory, holds it.

    Absent lists are empty, absent texts are "", an absent flag is None.
    """

    kind: ClassVar[Kind] = Kind.SERVICE

    meta: ObjectMeta
    type: str = ""
    selector: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[StoredPort, ...] = ()
    cluster_ip: str = ""
    cluster_ips: tuple[str, ...] = ()
    ip_families: tuple[str, ...] = ()
    ip_family_policy: str = ""
    load_balancer_ip: str = ""
    load_balancer_source_ranges: tuple[str, ...] = ()
    load_balancer_class: str = ""
    allocate_load_balancer_node_ports: bool | None = None
    external_traffic_policy: str = ""
    external_name: str = ""
    health_check_node_port: int = 0
    ingress: tuple[Ingress, ...] = ()
    ready: Condition | None = None
    """Its condition `Ready`, that a load balancer's controller may set."""

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.meta.key


class OnWire(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """Read from JSON and written back in this form, as one object may hold thousands.

    Absent texts are "". Empty fields are not written.
    """


class TargetRef(OnWire, frozen=True, gc=False):
    """The object that an address of an Endpoints belongs to."""

    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class StoredAddress(OnWire, frozen=True, gc=False):
    """One address of an Endpoints' subset."""

    ip: str = ""
    target_ref: TargetRef | None = None
    hostname: str = ""
    node_name: str = ""


class EndpointPort(NamedTuple):
    """One port of an Endpoints' subset."""

    name: str
    port: int
    protocol: str
    app_protocol: str = ""


class Subset(NamedTuple):
    """One subset of an Endpoints."""

    addresses: tuple[StoredAddress, ...]
    not_ready_addresses: tuple[StoredAddress, ...]
    ports: tuple[EndpointPort, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEndpoints:
    """An Endpoints as the API server, or the output directory, holds it."""

    kind: ClassVar[Kind] = Kind.ENDPOINTS

    meta: ObjectMeta
    subsets: tuple[Subset, ...] = ()

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.meta.key

    def address_types(self) -> frozenset[str]:
        """The families of its addresses, ready or not, as EndpointSlices call them."""
        return frozenset(
            (IPFamily.IPV6 if ":" in canonical(address.ip) else IPFamily.IPV4).value
            for subset in self.subsets
            for address in (*subset.addresses, *subset.not_ready_addresses)
        )

    def ready_uids(self) -> frozenset[str]:
        """Uids of the VMs that it lists as ready: what a new process remembers."""
        return frozenset(
            address.target_ref.uid
            for subset in self.subsets
            for address in subset.addresses
            if address.target_ref is not None and address.target_ref.uid
        )


class SliceConditions(OnWire, frozen=True, gc=False):
    """The conditions of an EndpointSlice's endpoint; None is one that it does not name."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class SliceEndpoint(OnWire, frozen=True, gc=False):
    """One endpoint of an EndpointSlice. Of several addresses, consumers use the first."""

    addresses: tuple[str, ...] = ()
    conditions: SliceConditions = SliceConditions()
    zone: str = ""
    hostname: str = ""
    node_name: str = ""
    target_ref: TargetRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEndpointSlice:
    """An EndpointSlice of ours as the API server holds it."""

    kind: ClassVar[Kind] = Kind.ENDPOINT_SLICE

    meta: ObjectMeta
    address_type: str
    endpoints: tuple[SliceEndpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.meta.key


Written = VirtualMachineService | StoredService | StoredEndpoints | StoredEndpointSlice
"""The kinds of object that somebody writes through us or beside us: all but VMs."""

Object = VirtualMachine | Written


def _all_but(kind: type[Any], left_out: str) -> Callable[[Any], Any]:
    return attrgetter(*(of.name for of in fields(kind) if of.name != left_out))


_meta_but_version = _all_but(ObjectMeta, "resource_version")
_all_but_meta = {
    of: _all_but(of, "meta")
    for of in (VirtualMachineService, StoredService, StoredEndpoints, StoredEndpointSlice)
}


def says_the_same(one: Written, other: Written) -> bool:
    """Whether two states of an object differ in their resource versions at most.

    They do if a write changed nothing that we read.
    """
    rest = _all_but_meta[type(one)]
    return (
        type(one) is type(other)
        and _meta_but_version(one.meta) == _meta_but_version(other.meta)
        and rest(one) == rest(other)
    )
