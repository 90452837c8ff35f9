"""The fields of the objects that we write, and the part of the model behind each. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

from vmsvc_grpc.model.objects import (
    Condition,
    EndpointPort,
    Ingress,
    OwnerReference,
    StoredEndpoints,
    StoredEndpointSlice,
    StoredPort,
    StoredService,
    Subset,
    VirtualMachineService,
)
from vmsvc_grpc.model.ownership import is_to_nobody
from vmsvc_grpc.reconciler.held import Held

Untyped = dict[str, Any]


class Field(NamedTuple):
    """One field of a manifest: `path` is where it stands, `part` returns its part of the model.

    A field that renders as empty is left out, unless `always`: then being empty means something.
    """

    path: tuple[str, ...]
    part: Callable[[Any], Any]
    render: Callable[[Any], Any] = lambda part: part
    always: bool = False

    def rendered(self, held: Held) -> Any:
        """Its value for an object; None if it is left out."""
        value = self.render(self.part(held))
        return value if value or value is False or self.always else None


def body(held: Held) -> Untyped:
    """The object as mappings and lists, its keys in the order in which one reads them.

    Addresses of Endpoints and endpoints of slices are not rendered, as JSON writes them as they
    are. Of a VMService there is only what we write: metadata and status.
    """
    whole: Untyped = {"apiVersion": _api_version(held), "kind": held.kind.value}
    for field in fields_of(held):
        if (value := field.rendered(held)) is not None:
            put(whole, field.path, value)
    return whole


def _api_version(held: Held) -> str:
    if isinstance(held, VirtualMachineService):
        return held.api_version
    return "discovery.k8s.io/v1" if isinstance(held, StoredEndpointSlice) else "v1"


def put(whole: Untyped, path: tuple[str, ...], value: Any) -> None:
    """Set a field."""
    for key in path[:-1]:
        whole = whole.setdefault(key, {})
    whole[path[-1]] = value


def fields_of(held: Held) -> tuple[Field, ...]:
    """The fields of an object of that kind, in the order in which one reads them."""
    return _FIELDS[type(held)]


def _present(**fields: Any) -> Untyped:
    """The fields that are not empty. False is a value, in a field that may also be absent."""
    return {key: value for key, value in fields.items() if value or value is False}


def _sorted(pairs: Mapping[str, str]) -> dict[str, str]:
    return dict(sorted(pairs.items()))


def _owner_references(held: Held) -> tuple[OwnerReference, ...]:
    """Owner references to write: none to a made-up uid, or Kubernetes would delete the object."""
    meta = held.meta
    return tuple(owner for owner in meta.owner_references if not is_to_nobody(owner, meta))


def _owner_reference(owner: OwnerReference) -> Untyped:
    return {
        "apiVersion": owner.api_version,
        "kind": owner.kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": owner.controller,
        "blockOwnerDeletion": owner.block_owner_deletion,
    }


def _service_port(port: StoredPort) -> Untyped:
    return _present(
        name=port.name,
        protocol=port.protocol,
        port=port.port,
        targetPort=port.target_port,
        nodePort=port.node_port,
        appProtocol=port.app_protocol,
    )


def _load_balancer(ingress: tuple[Ingress, ...]) -> Untyped:
    return _present(ingress=[_ingress(entry) for entry in ingress])


def _ingress(entry: Ingress) -> Untyped:
    return _present(ip=entry.ip, hostname=entry.hostname)


def _condition(condition: Condition) -> Untyped:
    return _present(
        type=condition.type,
        status=condition.status,
        reason=condition.reason,
        message=condition.message,
        lastTransitionTime=condition.last_transition_time,
        observedGeneration=condition.observed_generation,
    )


def _subset(subset: Subset) -> Untyped:
    return _present(
        addresses=list(subset.addresses),
        notReadyAddresses=list(subset.not_ready_addresses),
        ports=[_endpoint_port(port) for port in subset.ports],
    )


def _endpoint_port(port: EndpointPort) -> Untyped:
    return _present(
        name=port.name, port=port.port, protocol=port.protocol, appProtocol=port.app_protocol
    )


def _vmservice_condition(condition: Condition) -> Untyped:
    # Its schema requires a message, which may be empty.
    return {**_condition(condition), "message": condition.message}


def _service_conditions(ready: Condition | None) -> list[Untyped]:
    return [_condition(ready)] if ready else []


def _metadata(name: str, part: str, render: Callable[[Any], Any] = lambda part: part) -> Field:
    return Field(("metadata", name), attrgetter(f"meta.{part}"), render)


def _spec(name: str, part: str, render: Callable[[Any], Any] = lambda part: part) -> Field:
    return Field(("spec", name), attrgetter(part), render)


def _each(render: Callable[[Any], Untyped]) -> Callable[[Iterable[Any]], list[Untyped]]:
    return lambda entries: [render(entry) for entry in entries]


_METADATA = (
    _metadata("name", "key.name"),
    _metadata("namespace", "key.namespace"),
    _metadata("labels", "labels", _sorted),
    _metadata("annotations", "annotations", _sorted),
    _metadata("finalizers", "finalizers", list),
    Field(("metadata", "ownerReferences"), _owner_references, _each(_owner_reference)),
)
_INGRESS = Field(("status", "loadBalancer"), attrgetter("ingress"), _load_balancer)
_PORTS = Field(("ports",), attrgetter("ports"), _each(_endpoint_port), always=True)

_FIELDS: Mapping[type[Held], tuple[Field, ...]] = {
    VirtualMachineService: (
        *_METADATA,
        _INGRESS,
        Field(("status", "conditions"), attrgetter("conditions"), _each(_vmservice_condition)),
    ),
    StoredService: (
        *_METADATA,
        _spec("type", "type"),
        _spec("selector", "selector", _sorted),
        _spec("clusterIP", "cluster_ip"),
        _spec("clusterIPs", "cluster_ips", list),
        _spec("ipFamilies", "ip_families", list),
        _spec("ipFamilyPolicy", "ip_family_policy"),
        _spec("externalName", "external_name"),
        _spec("loadBalancerIP", "load_balancer_ip"),
        _spec("loadBalancerSourceRanges", "load_balancer_source_ranges", list),
        _spec("loadBalancerClass", "load_balancer_class"),
        _spec("allocateLoadBalancerNodePorts", "allocate_load_balancer_node_ports"),
        _spec("externalTrafficPolicy", "external_traffic_policy"),
        _spec("healthCheckNodePort", "health_check_node_port"),
        _spec("ports", "ports", _each(_service_port)),
        _INGRESS,
        Field(("status", "conditions"), attrgetter("ready"), _service_conditions),
    ),
    StoredEndpoints: (
        *_METADATA,
        Field(("subsets",), attrgetter("subsets"), _each(_subset), always=True),
    ),
    StoredEndpointSlice: (
        *_METADATA,
        Field(("addressType",), attrgetter("address_type"), always=True),
        Field(("endpoints",), attrgetter("endpoints"), list, always=True),
        _PORTS,
    ),
}
