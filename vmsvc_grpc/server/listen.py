"""The server as a whole: its listeners, its services, and how it stops."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2

import vmsvc.v1
from vmsvc.v1 import endpoint_service_pb2
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.logs.origins import LinesPerOrigin
from vmsvc_grpc.model.problem import system_reason
from vmsvc_grpc.server.access.gate import Gate, ShutGate
from vmsvc_grpc.server.access.needs import AUTHENTICATED, Needs
from vmsvc_grpc.server.admission import Admission, client_of, draining
from vmsvc_grpc.server.call import Call, Method, RequestBound, Stream, StreamMethod, Wake
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.endpoint_service import lookup, needs
from vmsvc_grpc.server.endpoint_service.encode import Encoder
from vmsvc_grpc.server.endpoint_service.explain import Remarks, no_remarks
from vmsvc_grpc.server.endpoint_service.lookup import Lookup
from vmsvc_grpc.server.endpoint_service.watch import WatchStream
from vmsvc_grpc.server.fields import shape_of
from vmsvc_grpc.server.followed import FollowedNames
from vmsvc_grpc.server.introspection import channelz, health, reflection, version
from vmsvc_grpc.server.introspection.reflection import Reflection
from vmsvc_grpc.server.leaving import Leaving
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.session import Sessions
from vmsvc_grpc.server.transport import Listener, MakeTransport, Transport
from vmsvc_grpc.server.xds import service as xds
from vmsvc_grpc.server.xds.following import XdsScope
from vmsvc_grpc.server.xds.names import CLUSTER_LOCAL, References
from vmsvc_grpc.server.xds.stream import XdsStream

# Described by reflection. The last two have the messages in the details of our errors.
_FILES = (
    endpoint_service_pb2.DESCRIPTOR,
    version.FILE,
    health_pb2.DESCRIPTOR,
    channelz.FILE,
    status_pb2.DESCRIPTOR,
    error_details_pb2.DESCRIPTOR,
)

_PORT_MAX = 65_535

# Streams end in steps this far apart while the server drains, some in each.
_DRAIN_STEP_S = 0.05


MethodLabels = tuple[str, str, str]
"""A method's kind, service and name, as gRPC's metrics have them."""

_UNKNOWN: MethodLabels = ("unknown", "unknown", "unknown")


class ListenError(Exception):
    """The address cannot be listened on. Its text is one line that says what to do."""


class Server:
    """Answers from a cache on some addresses: vmsvc.v1, xDS, health, reflection and channelz.

    Life: `start`, then `drain` or `stop`. One event loop owns it and the cache.
    `counts` counts what it does; `lookup` answers its look-ups.
    """

    def __init__(
        self,
        cache: Cache,
        listeners: Sequence[Listener],
        make_transport: MakeTransport,
        limits: Limits | None = None,
        *,
        xds_scope: XdsScope = XdsScope.ALL,
        xds_references: References = CLUSTER_LOCAL,
        remarks: Remarks = no_remarks,
        gate: Gate | None = None,
    ) -> None:
        """It will listen at each of `listeners`, of which there is at least one.

        `gate` is for callers of guarded listeners. Raises ValueError if there is such a listener,
        and no gate.
        """
        self.counts = ServerCounts()
        self._cache = cache
        self._listeners = tuple(listeners)
        if gate is None and any(listener.guarded for listener in self._listeners):
            raise ValueError("a guarded listener needs a gate")
        self._limits = limits or Limits()
        self._encoder = Encoder(self.counts)
        self.lookup = Lookup(cache, self._encoder, self._limits, remarks)
        self._gate: Gate = gate or ShutGate()
        self._names = FollowedNames(self._limits, self.counts.refusals)
        self._leaving = Leaving()
        self._watches: dict[WatchStream, Call] = {}
        self._xds = xds.Xds(
            cache,
            xds_scope,
            xds_references,
            self._limits,
            self.counts,
            names=self._names,
            leaving=self._leaving,
        )
        services = [service for file in _FILES for service in file.services_by_name.values()]
        names = [service.full_name for service in (*services, *xds.services())]
        self._services = (*names, *reflection.SERVICES)
        self._health = health.Health(cache, self._services)
        self._reflection = Reflection(names, _described())
        self._admission = Admission(
            self._limits,
            self.counts,
            # grpcurl asks for the description of health before the health itself.
            while_draining=frozenset((health.CHECK_PATH, health.LIST_PATH, *reflection.PATHS)),
        )
        self._make_transport = make_transport
        self._transport: Transport | None = None
        self._labels: dict[str, MethodLabels] = {}

    async def start(self) -> tuple[str, ...]:
        """Listen; `host:port` of each listener as bound, in their order. Raises ListenError."""
        sessions = Sessions(self._admission, self.counts, self._limits, self._gate)
        transport = self._transport = self._make_transport(sessions, self._limits)
        self.counts.deliveries.send_by(transport.line)
        methods = (
            *self._methods(),
            *channelz.methods(transport.channelz),
            *version.methods(self._services, transport.name, datetime.now(UTC)),
        )
        self._labels = {method.path: _labels(method) for method in methods}
        transport.serve(methods)
        bound = tuple(_bound(transport, listener) for listener in self._listeners)
        await transport.start()
        return bound

    async def drain(self, drain_s: float) -> None:
        """Stop gently, within `drain_s` and `stop_grace_s`.

        Health goes down, new calls are refused, and the streams end with UNAVAILABLE, evenly over
        `drain_s`, so that clients move to other replicas a few at a time. Ends sooner if no stream
        is left. Safe to cancel, with a `stop` after it.
        """
        assert self._transport is not None, "drain comes after start"
        self._admission.drain()
        self._health.drain()
        for keep in slope(self._transport.streams_open, math.ceil(drain_s / _DRAIN_STEP_S)):
            if not self._transport.streams_open:
                break
            await asyncio.sleep(_DRAIN_STEP_S)
            surplus = max(0, self._transport.streams_open - keep)
            self._transport.end_streams(surplus, draining())
            self.counts.drained += surplus
        await self._transport.stop(self._limits.stop_grace_s)

    async def stop(self) -> None:
        """End every open call, and stop. May be called after `drain`, or twice."""
        if self._transport is not None:
            await self._transport.stop(0)

    def taken(self) -> Mapping[str, int]:
        """How much is taken of bounds that are for all connections, by their names in `Limits`."""
        return {} if self._transport is None else self._transport.taken()

    @property
    def paths(self) -> Collection[str]:
        """The paths of all methods; none before `start`."""
        return self._labels.keys()

    def labels_of(self, path: str) -> MethodLabels:
        """What metrics call the method of a path; all unknown ones are called the same."""
        return self._labels.get(path, _UNKNOWN)

    def _methods(self) -> tuple[Method, ...]:
        return (
            *self.lookup.methods(),
            StreamMethod(
                f"/{lookup.SERVICE}/WatchEndpoints",
                self._watch,
                RequestBound.MANY_NAMES,
                shape_of(endpoint_service_pb2.WatchEndpointsRequest.DESCRIPTOR),
                Needs(AUTHENTICATED, needs.of_watch),
                client_streaming=False,
            ),
            *self._xds.methods(),
            *self._health.methods(),
            *self._reflection.methods(),
        )

    @property
    def client_lines(self) -> LinesPerOrigin:
        """The log lines that clients cause. Run it while the server does."""
        return self._xds.lines

    @property
    def names(self) -> FollowedNames:
        """The names that clients follow."""
        return self._names

    def streams(self) -> Iterator[tuple[Call, WatchStream | XdsStream]]:
        """The streams of endpoints that are open, and their callers: watches, then xDS."""
        yield from ((call, stream) for stream, call in self._watches.items())
        yield from ((call, stream) for stream, call in self._xds.open.items())

    @property
    def streams_open(self) -> int:
        """How many `streams` there are."""
        return len(self._watches) + len(self._xds.open)

    @property
    def connections(self) -> int:
        """How many connections there are; on grpc_aio, those with such streams."""
        known = self.taken().get("connections_max")
        return len({call.peer for call, _ in self.streams()}) if known is None else known

    def _watch(self, call: Call, wake: Wake) -> Stream:
        names = self._names.of(client_of(call.peer, call.username))
        stream = WatchStream(
            self._cache,
            self._encoder,
            self._limits,
            self.counts,
            wake,
            names=names,
            let_go=self._leaving.let_go,
            on_close=self._watches.pop,
        )
        self._watches[stream] = call
        return stream


def _labels(method: Method) -> MethodLabels:
    _, service, name = method.path.split("/")
    return method.kind, service, name


def _bound(transport: Transport, listener: Listener) -> str:
    """Bind a listener; its `host:port` then. Raises ListenError."""
    address = listener.address
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > _PORT_MAX:
        raise ListenError(
            f"cannot listen on {address!r}: write it as host:port, as in 127.0.0.1:50051"
        )
    try:
        return f"{host}:{transport.bind(listener)}"
    except OSError as error:
        raise ListenError(
            f"cannot listen on {address}: {system_reason(error)}; "
            "choose another address or port with --listen"
        ) from error


def _described() -> Iterator[FileDescriptorProto]:
    # The stubs have no comments, and those are our API's documentation.
    commented = resources.files(vmsvc.v1).joinpath("descriptor_set.binpb").read_bytes()
    yield from FileDescriptorSet.FromString(commented).file
    yield from reflection.with_imports(*_FILES, *xds.files())


def slope(streams: int, steps: int) -> Iterator[int]:
    """How many streams may be left after each step, evenly down to none. At least one step."""
    steps = max(1, steps)
    for step in range(1, steps + 1):
        yield streams - streams * step // steps
