"""Endpoint sets as messages of vmsvc.v1: each is made once a version, for all readers.

That of a large service is made in pieces, between which others have their turn, and of parts that
most of its next versions have, too.
"""

from __future__ import annotations

from collections.abc import Callable

from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.cache.topic import Absence, Absent, Publication
from vmsvc_grpc.model.endpoints import (
    Endpoint,
    EndpointDiff,
    EndpointSet,
    diff,
    diff_within,
    digest,
)
from vmsvc_grpc.model.objects import ServicePort
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.encoding import header
from vmsvc_grpc.server.endpoint_service.parts import LARGE, Parts

_SNAPSHOT = pb.WatchEndpointsResponse.SNAPSHOT_FIELD_NUMBER

SYNCED: bytes = pb.WatchEndpointsResponse(synced=pb.Synced()).SerializeToString()
"""The message that says that every service has had its first answer."""

_REASONS = {
    Absence.NOT_FOUND: pb.Absent.REASON_NOT_FOUND,
    Absence.REFUSED: pb.Absent.REASON_REFUSED,
}


class _LargeParts:
    """What is kept of a large service: its endpoints as bytes, and their digests."""

    __slots__ = ("digests", "fields")

    def __init__(self) -> None:
        self.digests = Parts(digest)
        self.fields = Parts(_endpoint_field)


class Encoder:
    """Makes each message of a publication at most once, and keeps it with the publication."""

    def __init__(self, counts: ServerCounts) -> None:
        """Counts what it makes in `counts.encodings`."""
        self._counts = counts

    def prepare(self, publication: Publication, *, whole: bool = False) -> bool:
        """Do a piece of work on a large EndpointSet, some ms; whether there is no more to be done.

        Then its revision is known, and a delta or `current` takes no longer than a piece;
        `whole`: neither does a snapshot.
        """
        state = _endpoint_set(publication)
        endpoints = state.endpoints
        if len(endpoints) <= LARGE:
            return True
        if publication.kept is None:
            publication.kept = _LargeParts()
        parts: _LargeParts = publication.kept
        base = publication.base
        follows = not state.digested and base is not None and base.digested
        if follows and self.has_delta(publication):
            assert base is not None, "it is followed"
            state.follow(base, _change(publication, base))
        if not state.digested:
            # The digests stay: between this version and the newest there may be others, none of
            # which knows its own, and other streams may be waiting for those.
            if parts.digests.proceed(endpoints):
                state.learn(parts.digests.of(endpoints))
            return False
        return not whole or "snapshot" in publication.encoded or parts.fields.proceed(endpoints)

    def has_delta(self, publication: Publication) -> bool:
        """Whether it may be sent as a delta from its base: not where most of a large one changed.

        There is a base. O(endpoints), if nobody knows the change.
        """
        if publication.change is not None:
            return True
        state, base = _endpoint_set(publication), publication.base
        assert base is not None
        if max(_size(state), _size(base)) <= LARGE:
            return True
        encoded = publication.encoded
        if "change" not in encoded:
            encoded["change"] = diff_within(base, state, LARGE)
        return encoded["change"] is not None

    def snapshot(self, publication: Publication) -> bytes:
        """The whole EndpointSet, as a WatchEndpointsResponse.

        It is a ResolveEndpointsResponse as well: both have it in field 1, so its bytes serve
        look-ups too.
        """
        return self._once("snapshot", publication, _snapshot)

    def delta(self, publication: Publication) -> bytes:
        """The delta from `publication.base`, which must exist, to its EndpointSet."""
        return publication.encoded.get("delta") or self._once("delta", publication, _delta)

    def current(self, publication: Publication) -> bytes:
        """The message that the revision of its EndpointSet is still current."""
        return self._once("current", publication, _current)

    def absent(self, publication: Publication) -> bytes:
        """The message that the service is absent, and why."""
        publication.kept = None
        return self._once("absent", publication, _absent)

    def _once(
        self,
        kind: str,
        publication: Publication,
        message: Callable[[Publication], bytes],
    ) -> bytes:
        encoded: bytes | None = publication.encoded.get(kind)
        if encoded is None:
            encoded = publication.encoded[kind] = message(publication)
            self._counts.deliveries.made(publication.version)
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


def _size(state: EndpointSet) -> int:
    return len(state.endpoints)


def _endpoint_field(endpoint: Endpoint) -> bytes:
    """An endpoint as bytes of an EndpointSet, which may stand anywhere in it."""
    return pb.EndpointSet(endpoints=[endpoint_message(endpoint)]).SerializeToString()


def _snapshot(publication: Publication) -> bytes:
    state = _endpoint_set(publication)
    message = pb.EndpointSet(
        service=str(state.service),
        version=state.version,
        revision=state.revision,
        ports=map(port_message, state.ports),
    )
    if _size(state) <= LARGE:
        publication.kept = None  # Of when it was larger.
    if publication.kept is None:
        message.endpoints.extend(map(endpoint_message, state.endpoints))
        return pb.WatchEndpointsResponse(snapshot=message).SerializeToString()
    parts: _LargeParts = publication.kept
    fields = parts.fields.of(state.endpoints)
    # Protobuf: messages one after the other are one that has all their fields. They are merged
    # only here, as bytes: to build so large a message would take as long as to make it anew.
    head = message.SerializeToString()
    size = len(head) + sum(map(len, fields))
    return b"".join((header(_SNAPSHOT, size), head, *fields))


def _change(publication: Publication, base: EndpointSet) -> EndpointDiff:
    known: EndpointDiff | None = publication.change or publication.encoded.get("change")
    return known or diff(base, _endpoint_set(publication))


def _delta(publication: Publication) -> bytes:
    state, base = _endpoint_set(publication), publication.base
    assert base is not None
    change = _change(publication, base)
    if base.digested:
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
    return pb.WatchEndpointsResponse(delta=message).SerializeToString()


def _current(publication: Publication) -> bytes:
    state = _endpoint_set(publication)
    message = pb.Current(service=str(state.service), version=state.version, revision=state.revision)
    return pb.WatchEndpointsResponse(current=message).SerializeToString()


def _absent(publication: Publication) -> bytes:
    assert isinstance(publication.state, Absent)
    state = publication.state
    message = pb.Absent(
        service=str(state.service), reason=_REASONS[state.absence], message=state.message
    )
    return pb.WatchEndpointsResponse(absent=message).SerializeToString()
