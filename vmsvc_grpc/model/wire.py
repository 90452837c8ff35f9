"""The shapes of the objects on the wire: which fields of each kind are read.

Field names are Kubernetes', in snake case. A null counts as absent, as in Kubernetes;
fields that are not named here are skipped. `model.parse` makes the model of them.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from vmsvc_grpc.model.integers import Int64
from vmsvc_grpc.model.objects import SliceEndpoint, StoredAddress

_MANY = msgspec.Meta(max_length=10_000)

Texts = Annotated[dict[str, str], _MANY]
"""Labels, annotations or a selector: few enough to be read and checked in no time."""


class Shape(msgspec.Struct, rename="camel", gc=False):
    """Fields in camel case; unknown ones are skipped."""


class OwnerReferenceShape(Shape):
    """One of `metadata.ownerReferences`."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class MetaShape(Shape):
    """`metadata`."""

    name: str = ""
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    generation: Int64 | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: Texts | None = None
    annotations: Texts | None = None
    finalizers: Annotated[list[str], _MANY] | None = None
    owner_references: Annotated[list[OwnerReferenceShape], _MANY] | None = None


class ConditionShape(Shape):
    """One of `status.conditions`."""

    type: str = ""
    status: str = ""
    reason: str | None = None
    message: str | None = None
    last_transition_time: str | None = None
    observed_generation: Int64 | None = None


class ProbeShape(Shape):
    """A VM's `spec.readinessProbe`."""

    tcp_socket: dict[str, Any] | None = None
    guest_heartbeat: dict[str, Any] | None = None
    guest_info: list[Any] | None = None


class VirtualMachineSpecShape(Shape):
    """A VM's `spec`."""

    readiness_probe: ProbeShape | None = None


class NetworkShape(Shape):
    """A VM's `status.network`, from v1alpha2 on."""

    primary_ip4: str | None = msgspec.field(name="primaryIP4", default=None)
    primary_ip6: str | None = msgspec.field(name="primaryIP6", default=None)


class VirtualMachineStatusShape(Shape):
    """A VM's `status`; `vmIp` is v1alpha1's."""

    vm_ip: str | None = None
    network: NetworkShape | None = None
    zone: str | None = None
    conditions: Annotated[list[ConditionShape], _MANY] | None = None


class VirtualMachineShape(Shape):
    """A VM, of any version."""

    api_version: str
    metadata: MetaShape
    spec: VirtualMachineSpecShape | None = None
    status: VirtualMachineStatusShape | None = None


class IngressShape(Shape):
    """One of `status.loadBalancer.ingress`."""

    ip: str | None = None
    hostname: str | None = None


class LoadBalancerShape(Shape):
    """`status.loadBalancer`."""

    ingress: Annotated[list[IngressShape], _MANY] | None = None


class ServiceStatusShape(Shape):
    """The `status` of a VMService or Service."""

    load_balancer: LoadBalancerShape | None = None
    conditions: Annotated[list[ConditionShape], _MANY] | None = None


class VirtualMachineServicePortShape(Shape):
    """One of a VMService's `spec.ports`."""

    name: str | None = None
    protocol: str | None = None
    port: Int64 | None = None
    target_port: Int64 | None = None


class VirtualMachineServiceSpecShape(Shape):
    """A VMService's `spec`; families are v1alpha6's."""

    type: str | None = None
    selector: Texts | None = None
    ports: Annotated[list[VirtualMachineServicePortShape], _MANY] | None = None
    # On the wire it is clusterIp; VM Operator's documentation writes clusterIP.
    cluster_ip: str | None = msgspec.field(name="clusterIp", default=None)
    cluster_ip_documented: str | None = msgspec.field(name="clusterIP", default=None)
    load_balancer_ip: str | None = msgspec.field(name="loadBalancerIP", default=None)
    load_balancer_source_ranges: Annotated[list[str], _MANY] | None = None
    ip_families: Annotated[list[str], _MANY] | None = None
    ip_family_policy: str | None = None


class VirtualMachineServiceShape(Shape):
    """A VMService, of any version."""

    api_version: str
    metadata: MetaShape
    spec: VirtualMachineServiceSpecShape | None = None
    status: ServiceStatusShape | None = None


class SelectorOnlyShape(Shape):
    """The selector alone of a VMService's `spec`."""

    selector: Texts | None = None


class SelectingShape(Shape):
    """A VMService whose selector alone can be read."""

    spec: SelectorOnlyShape | None = None


class VirtualMachineServiceOutlineShape(Shape):
    """A VMService whose `spec` cannot be read."""

    api_version: str = ""
    metadata: MetaShape = msgspec.field(default_factory=MetaShape)
    status: ServiceStatusShape | None = None


class ServicePortShape(Shape):
    """One of a Service's `spec.ports`."""

    name: str | None = None
    protocol: str | None = None
    port: Int64 = 0
    target_port: Int64 | str | None = None
    node_port: Int64 | None = None
    app_protocol: str | None = None


class ServiceSpecShape(Shape):
    """A Service's `spec`."""

    type: str | None = None
    selector: Texts | None = None
    ports: Annotated[list[ServicePortShape], _MANY] | None = None
    cluster_ip: str | None = msgspec.field(name="clusterIP", default=None)
    cluster_ips: Annotated[list[str], _MANY] | None = msgspec.field(name="clusterIPs", default=None)
    ip_families: Annotated[list[str], _MANY] | None = None
    ip_family_policy: str | None = None
    load_balancer_ip: str | None = msgspec.field(name="loadBalancerIP", default=None)
    load_balancer_source_ranges: Annotated[list[str], _MANY] | None = None
    load_balancer_class: str | None = None
    allocate_load_balancer_node_ports: bool | None = None
    external_traffic_policy: str | None = None
    external_name: str | None = None
    health_check_node_port: Int64 | None = None


class ServiceShape(Shape):
    """A Service."""

    metadata: MetaShape
    spec: ServiceSpecShape | None = None
    status: ServiceStatusShape | None = None


class EndpointPortShape(Shape):
    """One port of an Endpoints' subset."""

    name: str | None = None
    port: Int64 = 0
    protocol: str | None = None
    app_protocol: str | None = None


class SubsetShape(Shape):
    """One of an Endpoints' `subsets`."""

    addresses: list[StoredAddress] | None = None
    not_ready_addresses: list[StoredAddress] | None = None
    ports: Annotated[list[EndpointPortShape], _MANY] | None = None


class EndpointsShape(Shape):
    """An Endpoints."""

    metadata: MetaShape
    subsets: list[SubsetShape] | None = None


class UnreadEndpointsShape(Shape):
    """An Endpoints whose subsets are left as bytes, as most are not ours and may be large."""

    metadata: MetaShape
    subsets: msgspec.Raw = msgspec.Raw(b"null")


class EndpointSliceShape(Shape):
    """An EndpointSlice."""

    metadata: MetaShape
    address_type: str = ""
    endpoints: list[SliceEndpoint] | None = None
    ports: Annotated[list[EndpointPortShape], _MANY] | None = None


class NamedShape(Shape):
    """An object whose `metadata` alone can be read."""

    metadata: MetaShape


class BarelyNamedMetaShape(Shape):
    """The name alone in `metadata`."""

    name: str = ""
    namespace: str | None = None


class BarelyNamedShape(Shape):
    """An object whose name alone can be read."""

    metadata: BarelyNamedMetaShape
