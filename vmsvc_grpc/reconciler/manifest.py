"""What is written, as manifests: untyped, and as YAML that a person reads. Pure.

What `model.parse` makes of a manifest is the object that it was made of, but for what only
an API server gives (uid, resource version, generation, references to a VMService without a
uid): a manifest with these could not be applied to a cluster.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from vmsvc_grpc.model.objects import (
    Condition,
    EndpointPort,
    Ingress,
    ObjectMeta,
    OwnerReference,
    SliceEndpoint,
    StoredAddress,
    StoredEndpoints,
    StoredEndpointSlice,
    StoredPort,
    StoredService,
    Subset,
    TargetRef,
    VirtualMachineService,
)
from vmsvc_grpc.model.ownership import is_to_nobody
from vmsvc_grpc.reconciler.held import Held

Untyped = dict[str, Any]


def manifest(held: Held) -> Untyped:
    """The object as mappings and lists, its keys in the order in which one reads them.

    What is absent is left out, but for the subsets of an Endpoints: that there are none
    is worth saying. Of a VMService, only what we write: metadata and status.
    """
    match held:
        case VirtualMachineService():
            return {**_head(held, held.api_version), **_present(status=_vmservice_status(held))}
        case StoredService():
            spec = _service_spec(held)
            return {**_head(held), "spec": spec, **_present(status=_service_status(held))}
        case StoredEndpoints():
            return {**_head(held), "subsets": [_subset(subset) for subset in held.subsets]}
        case StoredEndpointSlice():
            return {
                **_head(held, "discovery.k8s.io/v1"),
                "addressType": held.address_type,
                "endpoints": [_slice_endpoint(endpoint) for endpoint in held.endpoints],
                "ports": [_endpoint_port(port) for port in held.ports],
            }


def _head(held: Held, api_version: str = "v1") -> Untyped:
    return {
        "apiVersion": api_version,
        "kind": held.kind.value,
        "metadata": _metadata(held.meta),
    }


def _present(**fields: Any) -> Untyped:
    """The fields that hold something. False does, in a field that may also be absent."""
    return {key: value for key, value in fields.items() if value or value is False}


def _metadata(meta: ObjectMeta) -> Untyped:
    return _present(
        name=meta.key.name,
        namespace=meta.key.namespace,
        labels=_sorted(meta.labels),
        annotations=_sorted(meta.annotations),
        finalizers=list(meta.finalizers),
        ownerReferences=[
            _owner_reference(o) for o in meta.owner_references if not is_to_nobody(o, meta)
        ],
    )


def ownerless_note(held: Held) -> str:
    """A line of comment where the manifest has no reference to its VMService; else nothing."""
    if not any(is_to_nobody(owner, held.meta) for owner in held.meta.owner_references):
        return ""
    return (
        f"# No owner reference: VirtualMachineService {held.meta.key} has no metadata.uid in its "
        "manifest, and Kubernetes deletes what refers to an owner that does not exist.\n"
    )


def _sorted(pairs: Mapping[str, str]) -> dict[str, str]:
    return dict(sorted(pairs.items()))


def _owner_reference(owner: OwnerReference) -> Untyped:
    return {
        "apiVersion": owner.api_version,
        "kind": owner.kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": owner.controller,
        "blockOwnerDeletion": owner.block_owner_deletion,
    }


def _service_spec(service: StoredService) -> Untyped:
    return _present(
        type=service.type,
        selector=_sorted(service.selector),
        clusterIP=service.cluster_ip,
        clusterIPs=list(service.cluster_ips),
        ipFamilies=list(service.ip_families),
        ipFamilyPolicy=service.ip_family_policy,
        externalName=service.external_name,
        loadBalancerIP=service.load_balancer_ip,
        loadBalancerSourceRanges=list(service.load_balancer_source_ranges),
        loadBalancerClass=service.load_balancer_class,
        allocateLoadBalancerNodePorts=service.allocate_load_balancer_node_ports,
        externalTrafficPolicy=service.external_traffic_policy,
        healthCheckNodePort=service.health_check_node_port,
        ports=[_service_port(port) for port in service.ports],
    )


def _service_port(port: StoredPort) -> Untyped:
    return _present(
        name=port.name,
        protocol=port.protocol,
        port=port.port,
        targetPort=port.target_port,
        nodePort=port.node_port,
        appProtocol=port.app_protocol,
    )


def _service_status(service: StoredService) -> Untyped:
    return _present(
        loadBalancer=_load_balancer(service.ingress),
        conditions=[_condition(service.ready)] if service.ready else [],
    )


def _vmservice_status(vmservice: VirtualMachineService) -> Untyped:
    # Its schema asks for a message, be it empty.
    conditions = [{**_condition(c), "message": c.message} for c in vmservice.conditions]
    return _present(loadBalancer=_load_balancer(vmservice.ingress), conditions=conditions)


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
        addresses=[_address(address) for address in subset.addresses],
        notReadyAddresses=[_address(address) for address in subset.not_ready_addresses],
        ports=[_endpoint_port(port) for port in subset.ports],
    )


def _address(address: StoredAddress) -> Untyped:
    untyped = _present(ip=address.ip, hostname=address.hostname, nodeName=address.node_name)
    if address.target_ref:
        untyped["targetRef"] = _target_ref(address.target_ref)
    return untyped


def _target_ref(target: TargetRef) -> Untyped:
    return _present(
        apiVersion=target.api_version,
        kind=target.kind,
        namespace=target.namespace,
        name=target.name,
        uid=target.uid,
    )


def _slice_endpoint(endpoint: SliceEndpoint) -> Untyped:
    target = endpoint.target_ref
    return _present(
        addresses=list(endpoint.addresses),
        conditions=_present(
            ready=endpoint.ready, serving=endpoint.serving, terminating=endpoint.terminating
        ),
        zone=endpoint.zone,
        hostname=endpoint.hostname,
        nodeName=endpoint.node_name,
        targetRef=_target_ref(target) if target else None,
    )


def _endpoint_port(port: EndpointPort) -> Untyped:
    return _present(
        name=port.name, port=port.port, protocol=port.protocol, appProtocol=port.app_protocol
    )


# -- YAML. PyYAML takes 105 ms for 1,000 endpoints with libyaml, 400 ms without; the streams
# -- would stand still that long at each write. This takes 9 ms.

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._/-]*")
_PLAIN_WITH_DIGIT = re.compile(
    r"\d+\.\d+\.\d+\.\d+"  # IPv4 addresses: more dots than a number has.
    r"|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"  # uids
)
_NOT_TEXT = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "null"})
# Legal in a JSON string, but not as such in YAML.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def yaml_document(mapping: Untyped) -> str:
    """Mappings, lists, texts, whole numbers and booleans as a block of YAML, in their order.

    Texts that YAML could take for something else are quoted. Ends with a line feed.
    """
    return "\n".join(_block(mapping, "")) + "\n"


def _block(mapping: Untyped, indent: str) -> Iterator[str]:
    for key, value in mapping.items():
        head = f"{indent}{_scalar(key)}:"
        if not isinstance(value, dict | list):
            yield f"{head} {_scalar(value)}"
        elif not value:
            yield f"{head} {'{}' if isinstance(value, dict) else '[]'}"
        elif isinstance(value, dict):
            yield head
            yield from _block(value, indent + "  ")
        else:
            yield head
            for entry in value:
                yield from _entry(entry, indent)


def _entry(entry: Untyped | str, indent: str) -> Iterator[str]:
    if isinstance(entry, str):
        yield f"{indent}- {_scalar(entry)}"
    elif not entry:
        yield f"{indent}- {{}}"
    else:
        lines = _block(entry, indent + "  ")
        yield f"{indent}- {next(lines).lstrip()}"
        yield from lines


def _scalar(value: str | int) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _NOT_TEXT:
        return value
    if _PLAIN_WITH_DIGIT.fullmatch(value):
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda found: f"\\U{ord(found[0]):08x}", quoted)
