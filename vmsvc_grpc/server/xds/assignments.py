"""Load assignments: the VMs of a service behind one of its ports, for clients of xDS."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from envoy.config.core.v3.address_pb2 import Address, SocketAddress
from envoy.config.core.v3.base_pb2 import Locality
from envoy.config.core.v3.health_check_pb2 import HealthStatus
from envoy.config.endpoint.v3.endpoint_components_pb2 import Endpoint as AnyEndpoint
from envoy.config.endpoint.v3.endpoint_components_pb2 import LbEndpoint, LocalityLbEndpoints
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from google.protobuf.wrappers_pb2 import UInt32Value

from vmsvc_grpc.model.address import canonical
from vmsvc_grpc.model.endpoints import Endpoint
from vmsvc_grpc.model.objects import ServicePort
from vmsvc_grpc.server.encoding import bytes_field, header, number_field, varint


def _numbers(message: Any, *names: str) -> tuple[int, ...]:
    fields = message.DESCRIPTOR.fields_by_name
    return tuple(fields[name].number for name in names)


_CLUSTER_NAME, _ENDPOINTS = _numbers(ClusterLoadAssignment, "cluster_name", "endpoints")
_LOCALITY, _MEMBERS, _WEIGHT = _numbers(
    LocalityLbEndpoints, "locality", "lb_endpoints", "load_balancing_weight"
)
(_VALUE,) = _numbers(UInt32Value, "value")
_ENDPOINT, _HEALTH = _numbers(LbEndpoint, "endpoint", "health_status")
_ADDRESS, _OTHERS = _numbers(AnyEndpoint, "address", "additional_addresses")
(_OTHER,) = _numbers(AnyEndpoint.AdditionalAddress, "address")
(_SOCKET,) = _numbers(Address, "socket_address")
_PROTOCOL, _HOST, _PORT = _numbers(SocketAddress, "protocol", "address", "port_value")

# At some 300 B each: the addresses of 20,000 VMs, ready and not ready.
_MEMBERS_MAX = 65_536

AT_ONCE = 256
"""So many endpoints take 1 to 2 ms, for which no others need have their turn."""

# To find the locality of a VM takes 1 µs and less, three times; to encode it 4 µs at first.
_LOCATED_A_STEP = 64
_ENCODED_A_STEP = 16

# A missing field has the first value of its enum.
_OF_PROTOCOL = {"TCP": b"", "UDP": number_field(_PROTOCOL, SocketAddress.UDP)}
_OF_HEALTH = {
    True: number_field(_HEALTH, HealthStatus.HEALTHY),
    False: number_field(_HEALTH, HealthStatus.UNHEALTHY),
}


def load_assignment(name: str, port: ServicePort, localities: Localities) -> bytes:
    """A ClusterLoadAssignment of these localities, encoded."""
    number = varint(port.target_port)
    located = localities.around_port(port.protocol, len(number))
    parts = [bytes_field(_ENDPOINTS, number.join(around)) for around in located]
    return b"".join((no_endpoints(name), *parts))


def steps(port: ServicePort, localities: Localities) -> Iterator[None]:
    """What is to be done before `load_assignment` has little to do: see `Localities`."""
    return localities.steps(port.protocol, len(varint(port.target_port)))


def no_endpoints(name: str) -> bytes:
    """A ClusterLoadAssignment without endpoints, encoded."""
    return bytes_field(_CLUSTER_NAME, name.encode())


class Machine(NamedTuple):
    """A VM in a load assignment: its addresses, that of the service's primary family first."""

    addresses: tuple[str, ...]
    ready: bool


_PortLength = tuple[str, int]
"""The protocol of a port, and how many bytes its number takes."""

_Located = list[tuple[tuple[str, str], list[Machine]]]
"""The VMs of each region and zone."""

_Around = dict[_PortLength, Sequence[Sequence[bytes]]]
"""Of each locality, the bytes around its ports."""


class Localities:
    """The VMs of a service by locality, encoded once for all its ports, in steps if there are many.

    Each address occurs once, as gRPC refuses repeated ones: of several VMs with it, a ready one
    wins, then the lower uid.
    """

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        """Nothing is encoded yet."""
        self._large = len(endpoints) > AT_ONCE
        self._located: _Located = []
        self._locating = _locate(endpoints, self._located)
        self._encoding: dict[_PortLength, Iterator[None]] = {}
        self._around: _Around = {}

    def steps(self, protocol: str, port_bytes: int) -> Iterator[None]:
        """The steps, of some 0.1 ms each, after which `around_port` has little to do.

        All who take steps take them from the same ones. A small service has none.
        """
        port = protocol, port_bytes
        if not self._large or port in self._around:
            return iter(())
        return self._encode(port)

    def around_port(self, protocol: str, port_bytes: int) -> Sequence[Sequence[bytes]]:
        """Each as a LocalityLbEndpoints: the bytes before, between and after ports of that length.

        O(VMs), and once for all ports of the same length, as a service may have 1,000 ports.
        """
        port = protocol, port_bytes
        if port not in self._around:
            for _ in self._encode(port):
                pass
        return self._around[port]

    def _encode(self, port: _PortLength) -> Iterator[None]:
        encoding = self._encoding.get(port)
        if encoding is None:
            encoding = _encode(self._locating, self._located, port, self._around)
            self._encoding[port] = encoding
        return encoding


def _locate(endpoints: Sequence[Endpoint], located: _Located) -> Iterator[None]:
    """Find the VMs of each region and zone, sorted by these."""
    holders: dict[str, Endpoint] = {}
    for number, endpoint in enumerate(endpoints, 1):
        address = canonical(endpoint.address)
        holder = holders.get(address)
        if holder is None or _comes_before(endpoint, holder):
            holders[address] = endpoint
        if number % _LOCATED_A_STEP == 0:
            yield
    # Each VM (its uid, whether it is ready, its region and zone) with its addresses, and
    # whether they are of the service's secondary family. In the order of addresses.
    held: dict[tuple[str, bool, str, str], list[tuple[bool, str]]] = {}
    for number, (address, holder) in enumerate(holders.items(), 1):
        machine = (holder.vm_uid, holder.ready, holder.region, holder.zone)
        held.setdefault(machine, []).append((holder.secondary, address))
        if number % _LOCATED_A_STEP == 0:
            yield
    found: dict[tuple[str, str], list[Machine]] = defaultdict(list)
    for number, ((_, ready, region, zone), addresses) in enumerate(held.items(), 1):
        if len(addresses) > 1:
            addresses.sort()
        by_family = tuple([address for _, address in addresses])
        found[region, zone].append(Machine(by_family, ready))
        if number % _LOCATED_A_STEP == 0:
            yield
    located += sorted(found.items())


def _encode(
    locating: Iterator[None], located: _Located, port: _PortLength, around: _Around
) -> Iterator[None]:
    """Encode the VMs of all localities for ports of one protocol and length."""
    for _ in locating:  # `yield from` would close it with this.
        yield
    encoded = []
    for where, machines in located:
        parts: list[bytes] = []
        for _ in _encode_locality(where, machines, port, parts):
            yield
        encoded.append(parts)
    around[port] = encoded


def _encode_locality(
    where: tuple[str, str], machines: Sequence[Machine], port: _PortLength, parts: list[bytes]
) -> Iterator[None]:
    """A VM is one endpoint; its second address, if any, is an additional address of that.

    The weight is the number of healthy endpoints, but at least 1: clients drop a locality without
    weight.
    """
    # Clients refuse a locality without this field, and both texts may be "".
    region, zone = where
    before = bytes_field(_LOCALITY, Locality(region=region, zone=zone).SerializeToString())
    for number, (addresses, ready) in enumerate(machines, 1):
        first, *between, last = _member(addresses, ready, *port)
        parts += (before + first, *between)
        before = last
        if number % _ENCODED_A_STEP == 0:
            yield
    weight = number_field(_VALUE, max(1, sum(machine.ready for machine in machines)))
    parts.append(before + bytes_field(_WEIGHT, weight))


def _comes_before(endpoint: Endpoint, other: Endpoint) -> bool:
    return (not endpoint.ready, endpoint.vm_uid) < (not other.ready, other.vm_uid)


# A change leaves most VMs as they were.
@lru_cache(maxsize=_MEMBERS_MAX)
def _member(
    addresses: Sequence[str], ready: bool, protocol: str, port_bytes: int
) -> tuple[bytes, ...]:
    """A VM as the field `lb_endpoints`: the bytes before, between and after its ports."""
    first, *others = (_address(address, protocol, port_bytes) for address in addresses)
    endpoint = [header(_ADDRESS, len(first) + port_bytes) + first]
    for other in others:
        size = len(other) + port_bytes
        of_other = header(_OTHER, size)
        endpoint.append(header(_OTHERS, len(of_other) + size) + of_other + other)
    size = sum(map(len, endpoint)) + port_bytes * len(endpoint)
    of_endpoint = header(_ENDPOINT, size)
    size += len(of_endpoint) + len(_OF_HEALTH[ready])
    endpoint[0] = header(_MEMBERS, size) + of_endpoint + endpoint[0]
    return (*endpoint, _OF_HEALTH[ready])


def forget_members() -> None:
    """Drop all VMs as they are encoded, to be encoded anew."""
    _member.cache_clear()
    canonical.cache_clear()


def _address(address: str, protocol: str, port_bytes: int) -> bytes:
    """An Address with a SocketAddress, up to its port, which comes last."""
    host = bytes_field(_HOST, address.encode())
    socket = b"%b%b%c" % (_OF_PROTOCOL[protocol], host, _PORT << 3)
    return header(_SOCKET, len(socket) + port_bytes) + socket
