"""What gRPC tells of services, folded, and held against the objects that are held. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from tests.conformance.case import Manifest
from tests.conformance.expectation import ACCEPTED
from vmsvc.v1 import endpoint_service_pb2 as pb


class ToldPort(NamedTuple):
    """A port as gRPC tells it."""

    name: str
    port: int
    target_port: int
    protocol: str


class ToldEndpoint(NamedTuple):
    """An endpoint as gRPC tells it, without its zone, which Endpoints does not have."""

    address: str
    vm_uid: str
    vm_name: str
    ready: bool


@dataclass(frozen=True, slots=True)
class Told:
    """A service that exists."""

    version: int
    revision: str
    ports: tuple[ToldPort, ...]
    endpoints: frozenset[ToldEndpoint]


@dataclass(frozen=True, slots=True)
class NotTold:
    """A service that there is nothing to tell of; `refused` is the reason if it is that."""

    refused: str | None


def told(endpoint_set: pb.EndpointSet) -> Told:
    """An EndpointSet's content."""
    return Told(
        endpoint_set.version,
        endpoint_set.revision,
        tuple(_port(port) for port in endpoint_set.ports),
        frozenset(_endpoint(endpoint) for endpoint in endpoint_set.endpoints),
    )


def _port(port: pb.Port) -> ToldPort:
    return ToldPort(port.name, port.port, port.target_port, port.protocol)


def _endpoint(endpoint: pb.Endpoint) -> ToldEndpoint:
    return ToldEndpoint(endpoint.address, endpoint.vm_uid, endpoint.vm_name, endpoint.ready)


class ContractError(Exception):
    """A stream broke what the proto's comments promise."""


class Fold:
    """One WatchEndpoints stream's messages as the state that they lead to.

    `services` maps "namespace/name". Raises ContractError for a message that the
    contract does not allow there.
    """

    def __init__(self) -> None:
        """Nothing told yet."""
        self.services: dict[str, Told | NotTold] = {}
        self.synced = False

    def take(self, message: pb.WatchEndpointsResponse) -> None:
        """Take in the stream's next message."""
        match message.WhichOneof("event"):
            case "snapshot":
                self._rise(message.snapshot.service, message.snapshot.version)
                self.services[message.snapshot.service] = told(message.snapshot)
            case "delta":
                self._rise(message.delta.service, message.delta.version)
                self.services[message.delta.service] = self._changed(message.delta)
            case "absent":
                refused = message.absent.reason == pb.Absent.REASON_REFUSED
                reason = message.absent.message if refused else None
                self.services[message.absent.service] = NotTold(reason)
            case "synced" if not self.synced:
                self.synced = True
            case event:
                raise ContractError(f"{event} is not to be sent here: {message}")

    def _rise(self, service: str, version: int) -> None:
        held = self.services.get(service)
        if isinstance(held, Told) and version <= held.version:
            raise ContractError(f"{service}: version {version} follows {held.version}")

    def _changed(self, delta: pb.Delta) -> Told:
        held = self.services.get(delta.service)
        if not isinstance(held, Told):
            raise ContractError(f"{delta.service}: a delta, and nothing held that it changes")
        endpoints = {(e.address, e.vm_uid): e for e in held.endpoints}
        for key in delta.removed:
            if endpoints.pop((key.address, key.vm_uid), None) is None:
                raise ContractError(f"{delta.service}: {key.address} is removed but not held")
        endpoints.update({(e.address, e.vm_uid): _endpoint(e) for e in delta.upserted})
        if delta.ports and not delta.ports_changed:
            raise ContractError(f"{delta.service}: ports that have not changed")
        return replace(
            held,
            version=delta.version,
            revision=delta.revision,
            ports=tuple(_port(p) for p in delta.ports) if delta.ports_changed else held.ports,
            endpoints=frozenset(endpoints.values()),
        )


def disagreements(
    state: Told | NotTold, service: Manifest | None, endpoints: Manifest | None
) -> Iterator[str]:
    """Each way in which what is told of a service is not what is held of it.

    `service` and `endpoints` are the objects held; None where there is none.
    """
    if isinstance(state, NotTold):
        for kind, held in (("Service", service), ("Endpoints", endpoints)):
            if held is not None:
                yield f"gRPC tells nothing of the service, but its {kind} is held"
        return
    if service is None:
        yield "gRPC tells of the service, but no Service is held"
    else:
        ports = tuple(
            ToldPort(p.get("name", ""), p["port"], p["targetPort"], p["protocol"])
            for p in service["spec"].get("ports") or ()
        )
        if ports != state.ports:
            yield f"gRPC tells the ports {state.ports}, the Service has {ports}"
    held_endpoints = _held(endpoints or {})
    if held_endpoints.keys() != state.endpoints:
        yield f"gRPC tells {sorted(state.endpoints)}, the Endpoints has {sorted(held_endpoints)}"
    target_ports = {(p.name, p.target_port, p.protocol) for p in state.ports}
    for endpoint, their_ports in held_endpoints.items():
        if their_ports != target_ports:
            yield (
                f"{endpoint.address}: gRPC tells the target ports {sorted(target_ports)}, "
                f"the Endpoints has {sorted(their_ports)}"
            )


def disagreements_on_server(
    state: Told | NotTold,
    vm_service: Manifest | None,
    uids: Collection[str],
    service: Manifest | None,
    endpoints: Manifest | None,
) -> Iterator[str]:
    """The same on an API server, where objects of a service's name may be somebody else's.

    `uids` are those that VMServices of that name have had: who controls what is ours. An
    Endpoints says nothing of a VMService without selector; and no object need be held
    where somebody else's is in the way and we say so, or the API server will not take ours.
    """
    in_the_way = service is not None and _controller(service) not in uids
    theirs = endpoints is not None and _controller(endpoints) not in uids
    service = service if service and _controller(service) in uids else None
    endpoints = endpoints if endpoints and not theirs else None
    if isinstance(state, Told):
        refused = _is_refused(vm_service or {})
        if in_the_way or (service is None and refused):
            return
        if theirs and refused:
            state = replace(state, endpoints=frozenset())
        if not ((vm_service or {}).get("spec") or {}).get("selector"):
            endpoints = None
    yield from disagreements(state, service, endpoints)


def _is_refused(vm_service: Manifest) -> bool:
    """Whether the VMService says that what it asks for is not held."""
    conditions = (vm_service.get("status") or {}).get("conditions") or ()
    return any(c["type"] == ACCEPTED and c["status"] == "False" for c in conditions)


def _controller(manifest: Manifest) -> str | None:
    """The uid of the object that controls this one."""
    references = manifest["metadata"].get("ownerReferences") or ()
    return next((r["uid"] for r in references if r.get("controller")), None)


def ready_only(state: Told | NotTold) -> Told | NotTold:
    """What the class of ready endpoints would be told of the same service."""
    if isinstance(state, NotTold):
        return state
    return replace(state, endpoints=frozenset(e for e in state.endpoints if e.ready))


def content(state: Told | NotTold) -> Told | NotTold:
    """The state without version and revision, of which each filter class has its own."""
    return state if isinstance(state, NotTold) else replace(state, version=0, revision="")


def _held(endpoints: Manifest) -> Mapping[ToldEndpoint, set[tuple[str, int, str]]]:
    """Each address of an Endpoints as gRPC would tell it, with its ports."""
    held: dict[ToldEndpoint, set[tuple[str, int, str]]] = {}
    for subset in endpoints.get("subsets") or ():
        ports = {(p.get("name", ""), p["port"], p["protocol"]) for p in subset.get("ports") or ()}
        for ready, key in ((True, "addresses"), (False, "notReadyAddresses")):
            for address in subset.get(key) or ():
                target = address.get("targetRef") or {}
                uid, name = target.get("uid", ""), target.get("name", "")
                endpoint = ToldEndpoint(address["ip"], uid, name, ready)
                held.setdefault(endpoint, set()).update(ports)
    return held
