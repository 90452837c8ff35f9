"""The services of xDS v3: aggregated, one for each type, and the status of clients."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from envoy.service.cluster.v3 import cds_pb2
from envoy.service.discovery.v3 import ads_pb2, discovery_pb2
from envoy.service.endpoint.v3 import eds_pb2
from envoy.service.listener.v3 import lds_pb2
from envoy.service.route.v3 import rds_pb2
from envoy.service.status.v3 import csds_pb2
from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.logs.about import about
from vmsvc_grpc.logs.origins import LinesPerOrigin
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.problem import escaped, quoted
from vmsvc_grpc.server.access.needs import AUTHENTICATED, Needs
from vmsvc_grpc.server.admission import client_of
from vmsvc_grpc.server.call import Call, Method, RequestBound, Stream, StreamMethod, Wake
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.fields import shape_of
from vmsvc_grpc.server.followed import FollowedNames
from vmsvc_grpc.server.leaving import Leaving
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.xds import resources as xds_resources
from vmsvc_grpc.server.xds.following import XdsScope
from vmsvc_grpc.server.xds.listing import Listings
from vmsvc_grpc.server.xds.names import References
from vmsvc_grpc.server.xds.namespaces import Namespaces
from vmsvc_grpc.server.xds.resources import Resources, TypeUrl
from vmsvc_grpc.server.xds.shared import Form, Nack, XdsShared
from vmsvc_grpc.server.xds.status import ClientStatus
from vmsvc_grpc.server.xds.stream import XdsStream

_log = logging.getLogger(__name__)

_SERVICES = (
    (ads_pb2, "AggregatedDiscoveryService", None, "AggregatedResources"),
    (cds_pb2, "ClusterDiscoveryService", TypeUrl.CLUSTER, "Clusters"),
    (eds_pb2, "EndpointDiscoveryService", TypeUrl.ENDPOINT, "Endpoints"),
    (lds_pb2, "ListenerDiscoveryService", TypeUrl.LISTENER, "Listeners"),
    (rds_pb2, "RouteDiscoveryService", TypeUrl.ROUTE, "Routes"),
)

_SHAPES = {
    Form.SOTW: shape_of(discovery_pb2.DiscoveryRequest.DESCRIPTOR),
    Form.DELTA: shape_of(discovery_pb2.DeltaDiscoveryRequest.DESCRIPTOR),
}

# Most refusals are of one content, by many clients.
_REMEMBERED = 1_000
_NAMES_SHOWN = 3

# How long what is encoded for xDS is kept after the last stream: a client that is cut off is back
# within seconds.
_KEPT_S = 30.0

# How often it is logged that a client asks for too many names.
_EXCESS_S = 60.0

# Streams end up to this part of their age early, so that clients do not all come back at once.
_AGE_SPREAD = 0.2

# gRPC ends a connection up to a tenth before its age, and its streams less gently than we do.
_OF_CONNECTION_AGE = 0.9


def services() -> Iterator[ServiceDescriptor]:
    """The services of which `Xds` has methods."""
    for module, name, _, _ in _SERVICES:
        yield module.DESCRIPTOR.services_by_name[name]
    yield csds_pb2.DESCRIPTOR.services_by_name["ClientStatusDiscoveryService"]


def files() -> Iterator[FileDescriptor]:
    """The files of those services, and of the resources, for reflection."""
    yield from (service.file for service in services())
    yield from xds_resources.files()


def stream_age_s(limits: Limits) -> float:
    """The greatest age of a stream: it ends before a connection that was opened with it."""
    return min(limits.xds_stream_age_s, _OF_CONNECTION_AGE * limits.connection_age_s)


class Xds:
    """Opens the streams of xDS over a cache, and knows which are open."""

    def __init__(
        self,
        cache: Cache,
        scope: XdsScope,
        references: References,
        limits: Limits,
        counts: ServerCounts,
        *,
        names: FollowedNames,
        leaving: Leaving,
    ) -> None:
        """Its streams need a running event loop, for their age; `names` bounds their names.

        What is left of those that are over goes to `leaving`.
        """
        self._limits = limits
        self._forgetting: asyncio.TimerHandle | None = None
        # Those that are open, and when each ends for its age.
        self._streams: dict[XdsStream, asyncio.TimerHandle] = {}
        self._callers: dict[XdsStream, Call] = {}
        self._refusals: OrderedDict[tuple[TypeUrl, str, str], None] = OrderedDict()
        self._names = names
        resources = Resources(counts)
        self._excess: OrderedDict[tuple[str, str], float] = OrderedDict()
        self.lines = LinesPerOrigin(
            _log,
            lines_max=limits.client_lines_per_minute_max,
            advice=f"a client has {limits.client_lines_per_minute_max} a minute "
            "(client_lines_per_minute_max)",
            on_left_out=partial(counts.refusals.update, ("client_lines_per_minute_max",)),
        )
        self._shared = XdsShared(
            cache,
            resources,
            Listings(cache, resources),
            Namespaces(cache, _later),
            scope,
            references,
            limits,
            counts,
            self._log_refusal,
            self._log_excess,
            leaving.let_go,
        )

    def methods(self) -> Iterator[Method]:
        """The methods of all services, except the unary Fetch methods of single types."""
        for module, name, type_url, noun in _SERVICES:
            service = module.DESCRIPTOR.services_by_name[name].full_name
            for verb, form in (("Stream", Form.SOTW), ("Delta", Form.DELTA)):
                yield StreamMethod(
                    f"/{service}/{verb}{noun}",
                    partial(self._open, form, type_url),
                    RequestBound.MANY_NAMES,
                    _SHAPES[form],
                    Needs(AUTHENTICATED),  # Each stream asks for what its requests name.
                    client_streaming=True,
                    write_s=self._limits.xds_write_s,
                    on_dropped=self._log_dropped,
                )
        yield from ClientStatus(lambda: self._streams, self._limits).methods()

    def _open(self, form: Form, implied: TypeUrl | None, call: Call, wake: Wake) -> Stream:
        names = self._names.of(client_of(call.peer, call.username))
        early = random.uniform(0, _AGE_SPREAD)  # noqa: S311 - it spreads load, and is no secret
        age_s = stream_age_s(self._limits) * (1 - early)
        stream = XdsStream(
            form, implied, self._shared, names, wake, access=call.access, on_close=self._closed
        )
        timer = asyncio.get_running_loop().call_later(age_s, stream.expire)
        self._streams[stream] = timer
        self._callers[stream] = call
        if self._forgetting is not None:
            self._forgetting.cancel()
            self._forgetting = None
        return stream

    def _closed(self, stream: XdsStream) -> None:
        self._streams.pop(stream).cancel()
        del self._callers[stream]
        if not self._streams:
            loop = asyncio.get_running_loop()
            self._forgetting = loop.call_later(_KEPT_S, self.forget)

    def forget(self) -> None:
        """Drop all that is encoded for xDS, in slices, as long as nobody follows anything."""
        self._forgetting = None
        self._shared.let_go(self._forget())

    def _forget(self) -> Iterator[None]:
        cache, resources = self._shared.cache, self._shared.resources
        if not self._streams:
            resources.forget_names()
            self._shared.references.forget()
        for service in list(cache.services):
            if self._streams:
                return
            if service in cache.services:
                for filter_class in FilterClass:
                    resources.forget(cache.state(service, filter_class))
            yield

    @property
    def open(self) -> Mapping[XdsStream, Call]:
        """The streams that are open, the oldest first, and their callers. A view."""
        return self._callers

    def _log_refusal(self, refusal: Nack) -> None:
        """Log a NACK, once for all clients that refuse the same content with the same words."""
        content = (refusal.type_url, refusal.version, refusal.message)
        if content in self._refusals:
            return
        # The client's words come last, so that they cannot be mistaken for ours.
        logged = self.lines.log(
            refusal.client,
            logging.WARNING,
            f"xDS: node {quoted(refusal.node)} refuses {refusal.type_url.label} "
            f"{_some(refusal.names)}, version {refusal.version}: '{escaped(refusal.message)}'",
            about(reason="Nack", error=refusal.message, client=refusal.client, node=refusal.node),
        )
        if logged:  # Else it may be another client's line.
            self._refusals[content] = None
            if len(self._refusals) > _REMEMBERED:
                self._refusals.popitem(last=False)

    def _log_dropped(self, client: str, setting: str) -> None:
        """Log that a request was dropped at a limit: nobody else would know of it."""
        self.lines.log(
            client,
            logging.WARNING,
            f"xDS: a request of {quoted(client)} exceeds a limit ({setting}) and is dropped: the "
            "client is sent nothing of what it asks for there",
            about(reason="RequestDropped", client=client, limit=setting),
        )

    def _log_excess(self, client: str, name: str, setting: str) -> None:
        """Log that names are taken for names of nothing, as a client follows too many.

        Once a minute for a client and setting: each name is counted where it is refused.
        """
        now = asyncio.get_running_loop().time()
        before = self._excess.pop((client, setting), -math.inf)
        if now - before < _EXCESS_S:
            self._excess[client, setting] = before
            return
        self._excess[client, setting] = now
        if len(self._excess) > _REMEMBERED:
            self._excess.popitem(last=False)
        self.lines.log(
            client,
            logging.WARNING,
            f"xDS: {quoted(client)} asks for more names than are followed: the limit ({setting}) "
            f"is reached; {quoted(name)}, for one, is as a name of nothing",
            about(reason="TooManyNames", client=client, limit=setting),
        )


def _later(call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_soon(call)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(quoted(name) for name in names[:_NAMES_SHOWN])
    left = len(names) - _NAMES_SHOWN
    return f"{shown} and {left} more" if left > 0 else shown
