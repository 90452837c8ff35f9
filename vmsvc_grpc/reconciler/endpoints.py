"""The Endpoints of a VMService, as they should be. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from vmsvc_grpc.model.endpoints import Endpoint
from vmsvc_grpc.model.objects import (
    EndpointPort,
    Key,
    Kind,
    ObjectMeta,
    OwnerReference,
    ServiceSpec,
    StoredAddress,
    StoredEndpoints,
    StoredService,
    Subset,
    TargetRef,
)
from vmsvc_grpc.reconciler.owners import owners


def endpoints_of(
    owner: OwnerReference,
    spec: ServiceSpec,
    endpoints: tuple[Endpoint, ...],
    service: StoredService,
    stored: StoredEndpoints | None,
) -> StoredEndpoints:
    """The Endpoints, with the labels and annotations of the Service and no others."""
    base = stored or StoredEndpoints(meta=ObjectMeta(key=service.key, uid=""))
    return replace(
        base,
        meta=replace(
            base.meta,
            labels=service.meta.labels,
            annotations=service.meta.annotations,
            owner_references=owners(base, owner),
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
    ports = endpoint_ports(spec)
    ready = _addresses(owner, key, [e for e in endpoints if e.ready])
    not_ready = _addresses(owner, key, [e for e in endpoints if not e.ready])
    return (Subset(ready, not_ready, ports),)


def endpoint_ports(spec: ServiceSpec) -> tuple[EndpointPort, ...]:
    """The ports of Endpoints and slices: numbers are those of the VMs."""
    return tuple(EndpointPort(p.name, p.target_port, p.protocol) for p in spec.ports)


def _addresses(
    owner: OwnerReference, key: Key, endpoints: Iterable[Endpoint]
) -> tuple[StoredAddress, ...]:
    # This runs at each look at a service; with 5,000 endpoints it takes 3 ms.
    version, kind, namespace = owner.api_version, Kind.VIRTUAL_MACHINE.value, key.namespace
    return tuple(
        [
            StoredAddress(address, TargetRef(version, kind, namespace, vm_name, vm_uid))
            for address, vm_uid, _, vm_name, *_ in endpoints
        ]
    )
