"""A client of xDS as the protocol asks for it, in both forms, over a stream without a server."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.address_pb2 import SocketAddress
from envoy.config.core.v3.base_pb2 import Locality
from envoy.config.core.v3.health_check_pb2 import HealthStatus
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.service.discovery.v3 import discovery_pb2 as pb

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.endpoints import Endpoint, EndpointSet, FilterClass
from vmsvc_grpc.model.objects import Key, ServicePort
from vmsvc_grpc.server.access.caller import Caller
from vmsvc_grpc.server.access.gate import EVERYTHING, Access, Gate
from vmsvc_grpc.server.call import LATER, Later
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.followed import FollowedNames
from vmsvc_grpc.server.guarded import Clearance
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.xds import resources as xds_resources
from vmsvc_grpc.server.xds.following import XdsScope
from vmsvc_grpc.server.xds.listing import Listings
from vmsvc_grpc.server.xds.names import CLUSTER_LOCAL, ports_by_text
from vmsvc_grpc.server.xds.namespaces import Namespaces
from vmsvc_grpc.server.xds.resources import Resource, Resources, TypeUrl
from vmsvc_grpc.server.xds.shared import LOOKS_MAX, Form, Nack, XdsShared
from vmsvc_grpc.server.xds.stream import XdsStream

CDS, EDS, LDS, RDS = TypeUrl.CLUSTER, TypeUrl.ENDPOINT, TypeUrl.LISTENER, TypeUrl.ROUTE
WHOLE = (CDS, LDS)

Told = tuple[str, ...]
"""A response in short: its type's short name, resources, and `-name` for what is removed."""

_TURNS_MAX = 10_000  # No message takes nearly as many; nor are there so many at a time.

_CANONICAL = re.compile(r"[^.]+\.[^.]+:\d+")
"""A name that wildcards cover."""

_KINDS = {
    CDS: Cluster,
    EDS: ClusterLoadAssignment,
    LDS: Listener,
    RDS: RouteConfiguration,
}


def node(user_agent: str = "gRPC Python", node_id: str = "n1", **metadata: str) -> Any:
    """A Node as a client sends it."""
    message = pb.DiscoveryRequest().node
    message.id = node_id
    message.user_agent_name = user_agent
    for key, value in metadata.items():
        message.metadata[key] = value
    return message


@dataclass
class Asked:
    """What the client wants of one type, and what it holds of it."""

    names: set[str] = field(default_factory=set)
    wildcard: bool = False
    named: bool = False
    held: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    version: str = ""
    nonce: str = ""
    refused: set[str] = field(default_factory=set)
    """Names whose newest state it has refused, and so does not hold."""

    def wants(self, name: str) -> bool:
        return self.wildcard or name in self.names


class XdsClient:
    """One stream, and what its client holds. Responses wait in `flying` until they are read."""

    def __init__(
        self,
        cache: Cache,
        form: Form = Form.SOTW,
        *,
        who: Any = None,
        implied: TypeUrl | None = None,
        scope: XdsScope = XdsScope.ALL,
        limits: Limits | None = None,
        resources: Resources | None = None,
        listings: Listings | None = None,
        looks_max: int = LOOKS_MAX,
        names: FollowedNames | None = None,
        gate: Gate | None = None,
        namespaces: Namespaces | None = None,
    ) -> None:
        """With `gate`, it may hear of what the user of token "t" may."""
        self._gate = gate
        self.soon: list[Callable[[], None]] = []
        self.cache = cache
        self.form = form
        self.who = who or node()
        self.counts = ServerCounts()
        self.refusals: list[Nack] = []
        self.wakes = 0
        self.types: dict[TypeUrl, Asked] = {}
        self._changed: set[str] = set()
        self.flying: deque[bytes] = deque()
        self.sizes: list[int] = []
        self.slices = 0
        resources = resources or Resources(self.counts)
        limits = limits or Limits()
        self.left: list[Iterator[None]] = []
        self._implied = implied
        self.excess: list[tuple[str, str, str]] = []
        self.names = names or FollowedNames(limits, self.counts.refusals)
        self._shared = XdsShared(
            cache,
            resources,
            Listings(cache, resources) if listings is None else listings,
            namespaces or Namespaces(cache, self.soon.append),
            scope,
            CLUSTER_LOCAL,
            limits,
            self.counts,
            self.refusals.append,
            lambda *excess: self.excess.append(excess),
            self.left.append,
            looks_max,
        )
        self.connect()

    def connect(self) -> None:
        """Open a stream; what was held stays held."""
        access: Access = EVERYTHING
        if self._gate is not None:
            caller = Caller("ipv4:192.0.2.1:1", guarded=True, token="t")
            access = self.clearance = Clearance(self._gate, caller, self._wake)
        names = self.names.of("ipv4:192.0.2.1")
        self.stream = XdsStream(
            self.form,
            self._implied,
            self._shared,
            names,
            self._wake,
            access=access,
            on_close=lambda _stream: None,
        )
        self.flying.clear()
        self._first = True
        for asked in self.types.values():
            asked.nonce = ""
            asked.refused.clear()

    def _wake(self) -> None:
        self.wakes += 1

    def close(self) -> None:
        """Close the stream, and let it let go of everything."""
        self.stream.close()
        if self._gate is not None:
            self.clearance.close()
        for steps in self.left:
            list(steps)
        self.left.clear()

    def upgrade(self, resources: Resources) -> None:
        """Its next stream is to another release of the server."""
        self.close()
        listings = Listings(self.cache, resources)
        self._shared = replace(self._shared, resources=resources, listings=listings)
        self.connect()

    @property
    def warming(self) -> set[str]:
        """Clusters that changed, and whose load assignment has not come since: Envoy waits.

        Not of one that it has refused: nothing more is said of that until it changes.
        """
        assignments = self.asked(EDS)
        return {
            name
            for name in self._changed & self.held(CDS).keys() - assignments.refused
            if name in assignments.names or (assignments.wildcard and _CANONICAL.fullmatch(name))
        }

    def _note(self, type_url: TypeUrl, got: Mapping[str, Any], gone: Iterable[str] = ()) -> None:
        if type_url is CDS:
            held = self.held(CDS)
            self._changed.update(name for name in got if held.get(name) != got[name])
        elif type_url is EDS:
            self._changed.difference_update(got, gone)

    # -- Asking --

    def asked(self, type_url: TypeUrl) -> Asked:
        return self.types.setdefault(type_url, Asked())

    def ask(self, type_url: TypeUrl, *names: str, **fields: Any) -> XdsClient:
        """State-of-the-world: from now on want these names of a type."""
        asked = self.asked(type_url)
        asked.named = asked.named or bool(names)
        asked.wildcard = "*" in names or not asked.named
        asked.names = set(names) - {"*"}
        for name in [name for name in asked.held if not asked.wants(name)]:
            del asked.held[name]
        self._send_sotw(type_url, names, **fields)
        return self

    def _send_sotw(self, type_url: TypeUrl, names: Iterable[str], **fields: Any) -> None:
        asked = self.asked(type_url)
        given = {"version_info": asked.version, "response_nonce": asked.nonce, **fields}
        url = "" if self._implied else type_url.value
        self._send(pb.DiscoveryRequest(type_url=url, resource_names=names, **given))

    def change(
        self,
        type_url: TypeUrl,
        subscribe: Iterable[str] = (),
        unsubscribe: Iterable[str] = (),
        held: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> XdsClient:
        """Delta: want these names too, and those no more."""
        asked = self.asked(type_url)
        if not (asked.names or asked.named):
            asked.wildcard = not subscribe
        asked.named = True
        for name in subscribe:
            if name == "*":
                asked.wildcard = True
            else:
                asked.names.add(name)
        for name in unsubscribe:
            if name == "*":
                asked.wildcard = False
            asked.names.discard(name)
        for name in [name for name in asked.held if not asked.wants(name)]:
            del asked.held[name], asked.versions[name]
        self._send(
            pb.DeltaDiscoveryRequest(
                type_url=type_url.value,
                resource_names_subscribe=subscribe,
                resource_names_unsubscribe=unsubscribe,
                initial_resource_versions=held or {},
                **fields,
            )
        )
        return self

    def reconnect(self, between: int = 0) -> None:
        """Close the stream and ask on another for all that is wanted, as held from before.

        It reads so many messages before it asks for the next type, as Envoy waits for its clusters,
        and asks for these first. (Load assignments that were sent before their clusters had
        changed, and claimed on yet another stream, could not be told from those sent after them.)
        """
        self.close()
        self.connect()
        for type_url in TypeUrl:
            if (asked := self.types.get(type_url)) is None:
                continue
            for _ in range(between):
                self.read()
            wanted = [*sorted(asked.names), *(["*"] if asked.wildcard else [])]
            if not wanted:
                asked.named = False  # It says nothing: the next stream knows of no names either.
                continue
            if self.form is Form.SOTW:
                if type_url not in WHOLE:
                    # Nothing could say that one has gone which it does not name.
                    asked.held = {
                        name: asked.held[name] for name in asked.held.keys() & asked.names
                    }
                legacy = wanted == ["*"] and not asked.named
                self._send_sotw(type_url, [] if legacy else wanted)
            else:
                self._send(
                    pb.DeltaDiscoveryRequest(
                        type_url=type_url.value,
                        resource_names_subscribe=wanted,
                        initial_resource_versions=asked.versions,
                    )
                )

    def _send(self, request: Any) -> None:
        stream = self.stream
        while self.stream._intake.under_way:
            self.turn()  # As a transport: no request is handed in while another is taken in.
        if self.stream is not stream:
            return  # That one has ended, and on the next everything has been asked for.
        if self._first:
            request.node.CopyFrom(self.who)
            self._first = False
        self.stream.receive(request.SerializeToString())

    # -- Reading --

    def turn(self) -> None:
        """One turn, as a transport gives it: what comes of it flies."""
        message = self._asked()
        if isinstance(message, bytes):
            self.flying.append(message)

    def said(self) -> bytes | None:
        """The stream's next message, in as many turns as it takes."""
        for _ in range(_TURNS_MAX):
            if (message := self._asked()) is not LATER:
                return message
            self.slices += 1
        raise AssertionError("the stream always asks for another turn")

    def _asked(self) -> bytes | Later | None:
        """What the stream says in one turn."""
        self._do_soon()
        return self.stream.next_message()

    def _do_soon(self) -> None:
        while self.soon:
            self.soon.pop(0)()

    def pump(self) -> bool:
        """Take one message from the stream into what flies; whether there was one."""
        message = self.said()
        if message is not None:
            self.sizes.append(len(message))
            self.flying.append(message)
        return message is not None

    def read(self, refuse: str = "") -> Told | None:
        """Read one message and answer it, with a NACK if told to; None if there is none."""
        if not self.flying and not self.pump():
            return None
        raw = self.flying.popleft()
        return self._sotw(raw, refuse) if self.form is Form.SOTW else self._delta(raw, refuse)

    def read_all(self) -> list[Told]:
        """Read until there is nothing more to say."""
        read: list[Told] = []
        while (told := self.read()) is not None:
            read.append(told)
            assert len(read) < _TURNS_MAX, "the stream always has more to say"
        return read

    def _sotw(self, raw: bytes, refuse: str) -> Told:
        response = pb.DiscoveryResponse.FromString(raw)
        type_url = TypeUrl(response.type_url)
        asked = self.asked(type_url)
        once(unpacked(resource)[0] for resource in response.resources)
        got = {name: m for name, m in map(unpacked, response.resources) if asked.wants(name)}
        asked.nonce = response.nonce
        names = [*sorted(asked.names), *(["*"] if asked.wildcard and asked.named else [])]
        if refuse:
            gone = asked.held.keys() if type_url in WHOLE else ()
            asked.refused.update(got, gone)
            self._send_sotw(type_url, names, error_detail={"message": refuse})
        else:
            self._note(type_url, got)
            if type_url in WHOLE:
                asked.held.clear()
                asked.refused.clear()
            asked.held.update(got)
            asked.refused -= got.keys()
            asked.version = response.version_info
            self._send_sotw(type_url, names)
        return (type_url.label, *sorted(unpacked(r)[0] for r in response.resources))

    def _delta(self, raw: bytes, refuse: str) -> Told:
        response = pb.DeltaDiscoveryResponse.FromString(raw)
        type_url = TypeUrl(response.type_url)
        asked = self.asked(type_url)
        once([*(resource.name for resource in response.resources), *response.removed_resources])
        answer = pb.DeltaDiscoveryRequest(type_url=type_url.value, response_nonce=response.nonce)
        names = {*(resource.name for resource in response.resources), *response.removed_resources}
        if refuse:
            asked.refused |= names
            answer.error_detail.message = refuse
        else:
            got = dict(unpacked(resource.resource) for resource in response.resources)
            self._note(type_url, got, response.removed_resources)
            for resource in response.resources:
                name, message = unpacked(resource.resource)
                assert name == resource.name
                if asked.wants(name):
                    asked.held[name], asked.versions[name] = message, resource.version
            for name in response.removed_resources:
                asked.held.pop(name, None)
                asked.versions.pop(name, None)
            asked.refused -= names
        self._send(answer)
        removed = (f"-{name}" for name in sorted(response.removed_resources))
        return (type_url.label, *sorted(r.name for r in response.resources), *removed)

    def held(self, type_url: TypeUrl) -> dict[str, Any]:
        """What it holds of a type."""
        return self.asked(type_url).held


class Release(Resources):
    """The resources of another release: its clusters differ.

    In those with an odd number a load assignment's version says nothing of its cluster.
    """

    def __init__(self, number: int) -> None:
        super().__init__(ServerCounts())
        self._number = number

    def _content(self, type_url: TypeUrl, name: str) -> bytes:
        content = super()._content(type_url, name)
        if type_url is CDS:
            changed: bytes = self.cluster(content, self._number).SerializeToString()
            return changed
        return content

    def _assignment(self, name: str, content: bytes, cluster: int) -> Resource:
        return super()._assignment(name, content, 0 if self._number % 2 else cluster)

    @staticmethod
    def cluster(content: bytes, number: int) -> Any:
        made: Any = Cluster.FromString(content)
        if number:
            made.alt_stat_name = str(number)
        return made


def once(names: Iterable[str]) -> None:
    """Fail if a name comes twice in one response: clients refuse that."""
    told = list(names)
    assert len(told) == len(set(told))


def unpacked(packed: Any) -> tuple[str, Any]:
    """A resource's name and message."""
    message = _KINDS[TypeUrl(packed.type_url)]()
    assert packed.Unpack(message)
    return getattr(message, "name", "") or message.cluster_name, message


def truth(
    cache: Cache, type_url: TypeUrl, name: str, filter_class: FilterClass = FilterClass.READY_ONLY
) -> Any:
    """What a client that knows everything holds of a name, for gRPC; None if it does not exist."""
    asked = CLUSTER_LOCAL.of(name)
    state = cache.state(asked.service, filter_class).state if asked else None
    if asked is None or not isinstance(state, EndpointSet):
        return None
    port = ports_by_text(state.ports).get(asked.port)
    if port is None:
        return None
    if type_url is EDS:
        return assignment(name, port, state.endpoints)
    return _KINDS[type_url].FromString(xds_resources._CONTENTS[type_url](name))


def assignment(name: str, port: ServicePort, endpoints: Iterable[Endpoint]) -> Any:
    """The load assignment of these endpoints, as plainly as it can be said."""
    by_address: dict[Any, Endpoint] = {}
    for one in endpoints:
        address = ip_address(one.address)
        known = by_address.get(address, one)
        by_address[address] = min(one, known, key=lambda each: (not each.ready, each.vm_uid))
    places: dict[tuple[str, str], dict[tuple[str, bool], list[tuple[bool, str]]]] = {}
    for address, one in by_address.items():
        machines = places.setdefault((one.region, one.zone), {})
        machines.setdefault((one.vm_uid, one.ready), []).append((one.secondary, str(address)))
    made = ClusterLoadAssignment(cluster_name=name)
    for (region, zone), machines in sorted(places.items()):
        locality = made.endpoints.add(locality=Locality(region=region, zone=zone))
        locality.load_balancing_weight.value = max(1, sum(ready for _, ready in machines))
        for (_, ready), held in machines.items():
            member = locality.lb_endpoints.add()
            member.health_status = HealthStatus.HEALTHY if ready else HealthStatus.UNHEALTHY
            (_, first), *others = sorted(held)
            _set_address(member.endpoint.address, first, port)
            for _, other in others:
                _set_address(member.endpoint.additional_addresses.add().address, other, port)
    return made


def _set_address(address: Any, host: str, port: ServicePort) -> None:
    protocol = SocketAddress.UDP if port.protocol == "UDP" else SocketAddress.TCP
    socket = SocketAddress(protocol=protocol, address=host, port_value=port.target_port)
    address.socket_address.CopyFrom(socket)


def addresses(assignment: Any) -> list[str]:
    """The addresses of a load assignment, `address:port`, in its order."""
    return [
        f"{e.endpoint.address.socket_address.address}:{e.endpoint.address.socket_address.port_value}"
        for locality in assignment.endpoints
        for e in locality.lb_endpoints
    ]


def key(name: str) -> Key:
    """The service of a resource's name."""
    asked = CLUSTER_LOCAL.of(name)
    assert asked is not None
    return asked.service
