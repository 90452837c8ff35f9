"""A client of a watch, as the proto's comments ask for it, and a cache to watch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.endpoints import EndpointSet, FilterClass
from vmsvc_grpc.model.events import Apply, Delete, Init, InitDone
from vmsvc_grpc.model.objects import Key, Kind, Object
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.server.call import LATER
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.endpoint_service.encode import Encoder
from vmsvc_grpc.server.endpoint_service.watch import WatchStream
from vmsvc_grpc.server.followed import FollowedNames
from vmsvc_grpc.server.limits import Limits

KINDS = (Kind.VIRTUAL_MACHINE, Kind.VIRTUAL_MACHINE_SERVICE)

Told = tuple[str, str]
"""A message in short: which event, and of which service ("" for `synced`)."""


def listed(cache: Cache, *objects: Object) -> None:
    """Tell the cache a complete list of both kinds."""
    for kind in KINDS:
        cache.apply(Init(kind))
    for one in objects:
        cache.apply(Apply(one))
    for kind in KINDS:
        cache.apply(InitDone(kind))


def synced_cache(*objects: Object) -> Cache:
    """A cache that has listed these objects, and nothing else."""
    cache = Cache(AddressRules())
    listed(cache, *objects)
    return cache


def emptied(cache: Cache) -> None:
    """Delete every object of the cache."""
    for key in sorted(cache.services):
        cache.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, key))
    for key in sorted(cache.vms.keys()):
        cache.apply(Delete(Kind.VIRTUAL_MACHINE, key))


@dataclass(frozen=True)
class Held:
    """What a client holds of one service."""

    version: int
    revision: str
    ports: tuple[tuple[str, str, int, int], ...]
    endpoints: frozenset[tuple[str, str, bool, str, str]]


@dataclass
class Reader:
    """Folds a watch's messages into what its client holds, and checks the contract on the way."""

    held: dict[str, Held] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    """Revisions that the request named: what a `current` may speak of."""
    synced: int = 0
    taken: int = 0
    """How many messages were taken in."""
    versions: dict[str, int] = field(default_factory=dict)

    def take(self, raw: bytes) -> Told:
        """Take in the next message; what it was, in short."""
        self.taken += 1
        message = pb.WatchEndpointsResponse.FromString(raw)
        event = message.WhichOneof("event")
        match event:
            case "snapshot":
                self._rise(message.snapshot.service, message.snapshot.version)
                self.held[message.snapshot.service] = held(message.snapshot)
            case "delta":
                self._rise(message.delta.service, message.delta.version)
                self.held[message.delta.service] = self._changed(message.delta)
            case "current":
                told = message.current
                self._rise(told.service, told.version)
                assert self.revisions.pop(told.service) == told.revision
                if told.service in self.held:
                    before = self.held[told.service]
                    assert before.revision == told.revision
                    self.held[told.service] = replace(before, version=told.version)
            case "absent":
                assert message.absent.message
                self.held.pop(message.absent.service, None)
            case "synced":
                self.synced += 1
                assert self.synced == 1, "it is sent once"
                return "synced", ""
        assert event is not None
        return event, getattr(message, event).service

    def _rise(self, service: str, version: int) -> None:
        assert version > self.versions.get(service, 0), "versions only rise"
        self.versions[service] = version

    def _changed(self, delta: pb.Delta) -> Held:
        before = self.held[delta.service]
        endpoints = {(e[0], e[1]): e for e in before.endpoints}
        for key in delta.removed:
            del endpoints[key.address, key.vm_uid]
        for endpoint in delta.upserted:
            endpoints[endpoint.address, endpoint.vm_uid] = _endpoint(endpoint)
        assert delta.ports_changed or not delta.ports
        return Held(
            delta.version,
            delta.revision,
            tuple(map(_port, delta.ports)) if delta.ports_changed else before.ports,
            frozenset(endpoints.values()),
        )


def held(endpoint_set: pb.EndpointSet) -> Held:
    """What a client holds after a snapshot."""
    return Held(
        endpoint_set.version,
        endpoint_set.revision,
        tuple(map(_port, endpoint_set.ports)),
        frozenset(map(_endpoint, endpoint_set.endpoints)),
    )


def truth(cache: Cache, filter_class: FilterClass) -> dict[str, Held]:
    """What a client that knows everything holds."""
    states = (cache.state(key, filter_class).state for key in cache.services)
    return {
        str(state.service): Held(
            state.version,
            state.revision,
            tuple((p.name, p.protocol, p.port, p.target_port) for p in state.ports),
            frozenset((e[0], e[1], e[2], e[3], e[4]) for e in state.endpoints),
        )
        for state in states
        if isinstance(state, EndpointSet)
    }


def _port(port: pb.Port) -> tuple[str, str, int, int]:
    return port.name, port.protocol, port.port, port.target_port


def _endpoint(endpoint: pb.Endpoint) -> tuple[str, str, bool, str, str]:
    return endpoint.address, endpoint.vm_uid, endpoint.ready, endpoint.vm_name, endpoint.zone


class Watcher:
    """A watch without a server: its stream, and a reader that takes what it is asked to."""

    def __init__(
        self,
        cache: Cache,
        request: pb.WatchEndpointsRequest,
        limits: Limits | None = None,
        names: FollowedNames | None = None,
    ) -> None:
        """Open the stream and send the request; nothing is read yet."""
        self.counts = ServerCounts()
        limits = limits or Limits()
        names = names or FollowedNames(limits, self.counts.refusals)
        self.wakes = 0
        self.slices = 0
        self.reader = Reader(revisions={s.service: s.revision for s in request.services})
        encoder = Encoder(self.counts)
        self.left: list[Iterator[None]] = []
        self.stream = WatchStream(
            cache,
            encoder,
            limits,
            self.counts,
            self._wake,
            names=names.of("ipv4:192.0.2.1"),
            let_go=self.left.append,
        )
        self.stream.receive(request.SerializeToString())
        self.stream.half_close()

    def _wake(self) -> None:
        self.wakes += 1

    def close(self) -> None:
        """Close the stream, and let it let go of everything."""
        self.stream.close()
        for steps in self.left:
            list(steps)
        self.left.clear()

    def read(self) -> Told | None:
        """Read one message; None if there is none."""
        while (message := self.stream.next_message()) is LATER:
            self.slices += 1
        return None if message is None else self.reader.take(message)

    def read_all(self) -> list[Told]:
        """Read until there is nothing more to say."""
        return list(iter(self.read, None))


def watch(cache: Cache, *services: str | tuple[str, str], **fields: object) -> Watcher:
    """Watch services by name, or by name and revision, and what `fields` of the request ask."""
    return Watcher(cache, request(*services, **fields))


def request(*services: str | tuple[str, str], **fields: object) -> pb.WatchEndpointsRequest:
    """A request that names services, some with the revision held."""
    pairs = [(s, "") if isinstance(s, str) else s for s in services]
    named = [pb.WatchedService(service=s, revision=r) for s, r in pairs]
    return pb.WatchEndpointsRequest(services=named, **fields)  # type: ignore[arg-type]  # as given


def key(text: str) -> Key:
    """The service of that name."""
    return Key(*text.split("/"))
