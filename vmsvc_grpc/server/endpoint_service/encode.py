"""Endpoint sets as messages of vmsvc.v1: each is made once a version, for all readers."""

from __future__ import annotations

from collections.abc import Callable

from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.cache.topic import Absence, Absent, Publication
from vmsvc_grpc.model.endpoints import Endpoint, EndpointSet, diff
from vmsvc_grpc.model.objects import ServicePort
from vmsvc_grpc.server.counts import ServerCounts

SYNCED: bytes = pb.WatchEndpointsResponse(synced=pb.Synced()).SerializeToString()
"""The message that says that every service has had its first answer."""

_REASONS = {
    Absence.NOT_FOUND: pb.Absent.REASON_NOT_FOUND,
    Absence.REFUSED: pb.Absent.REASON_REFUSED,
}


class Encoder:
    """Makes each message of a publication at most once, and keeps it with the publication."""

    def __init__(self, counts: ServerCounts) -> None:
        """Counts what it makes in `counts.encodings`."""
        self._counts = counts

    def snapshot(self, publication: Publication) -> bytes:
        """The whole EndpointSet, as a WatchEndpointsResponse.

        It is a ResolveEndpointsResponse as well: both have it in field 1, so its bytes serve
        look-ups too.
        """
        return self._once("snapshot", publication, _snapshot)

    def delta(self, publication: Publication) -> bytes:
        """The delta from `publication.base`, which must exist, to its EndpointSet."""
        return self._once("delta", publication, _delta)

    def current(self, publication: Publication) -> bytes:
        """The message that the revision of its EndpointSet is still current."""
        return self._once("current", publication, _current)

    def absent(self, publication: Publication) -> bytes:
        """The message that the service is absent, and why."""
        return self._once("absent", publication, _absent)

    def _once(
        self,
        kind: str,
        publication: Publication,
        message: Callable[[Publication], pb.WatchEndpointsResponse],
    ) -> bytes:
        encoded: bytes | None = publication.encoded.get(kind)
        if encoded is None:
            encoded = publication.encoded[kind] = message(publication).SerializeToString()
            self._counts.encodings[kind] += 1
        return encoded


def port_message(port: ServicePort) -> pb.Port:
    """A service's port as a message."""
    return pb.Port(
        name=port.name, port=port.port, target_port=port.target_port, protocol=port.protocol
    )


def endpoint_message(endpoint: Endpoint) -> pb.Endpoint:
    """An endpoint as a message."""
    return pb.Endpoint(
        address=endpoint.address,
        ready=endpoint.ready,
        vm_name=endpoint.vm_name,
        vm_uid=endpoint.vm_uid,
        zone=endpoint.zone,
    )


def _endpoint_set(publication: Publication) -> EndpointSet:
    assert isinstance(publication.state, EndpointSet)
    return publication.state


def _snapshot(publication: Publication) -> pb.WatchEndpointsResponse:
    state = _endpoint_set(publication)
    message = pb.EndpointSet(
        service=str(state.service),
        version=state.version,
        revision=state.revision,
        ports=map(port_message, state.ports),
        endpoints=map(endpoint_message, state.endpoints),
    )
    return pb.WatchEndpointsResponse(snapshot=message)


def _delta(publication: Publication) -> pb.WatchEndpointsResponse:
    state, base = _endpoint_set(publication), publication.base
    assert base is not None
    change = publication.change or diff(base, state)
    state.follow(base, change)
    message = pb.Delta(
        service=str(state.service),
        version=state.version,
        revision=state.revision,
        removed=(pb.EndpointKey(address=a, vm_uid=uid) for a, uid in change.removed),
        upserted=map(endpoint_message, change.upserted),
        ports_changed=change.ports is not None,
        ports=map(port_message, change.ports or ()),
    )
    return pb.WatchEndpointsResponse(delta=message)


def _current(publication: Publication) -> pb.WatchEndpointsResponse:
    state = _endpoint_set(publication)
    message = pb.Current(service=str(state.service), version=state.version, revision=state.revision)
    return pb.WatchEndpointsResponse(current=message)


def _absent(publication: Publication) -> pb.WatchEndpointsResponse:
    assert isinstance(publication.state, Absent)
    state = publication.state
    message = pb.Absent(
        service=str(state.service), reason=_REASONS[state.absence], message=state.message
    )
    return pb.WatchEndpointsResponse(absent=message)
