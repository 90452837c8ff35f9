"""Load assignments: the VMs of a service behind one of its ports, as clients of xDS read them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from envoy.config.core.v3.address_pb2 import Address, SocketAddress
from envoy.config.core.v3.health_check_pb2 import HealthStatus
from envoy.config.endpoint.v3.endpoint_components_pb2 import LbEndpoint, LocalityLbEndpoints
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from vmsvc_grpc.model.address import canonical
from vmsvc_grpc.model.endpoints import Endpoint
from vmsvc_grpc.model.objects import ServicePort

_Message: TypeAlias = Any
"""A message of Envoy's API, which come without types."""

# VMs, and addresses, at some 300 B each: those of 20,000 VMs, ready and not.
_MEMBERS_MAX = 65_536

_SEVEN_BITS = 0x7F

_SOCKET_PROTOCOLS = {"TCP": SocketAddress.TCP, "UDP": SocketAddress.UDP}


def load_assignment(name: str, port: ServicePort, localities: Localities) -> _Message:
    """A ClusterLoadAssignment of these localities; without one, of none.

    A VM is one endpoint, with its other address, if it has two, as an additional one. A
    locality weighs as much as its healthy endpoints, and never nothing: clients drop one
    without weight.
    """
    assignment = ClusterLoadAssignment(cluster_name=name)
    for (region, zone), machines in localities:
        members = (_member(m.addresses, m.ready, port.protocol, port.target_port) for m in machines)
        locality = assignment.endpoints.add()
        locality.MergeFromString(b"".join(members))
        locality.locality.region = region
        locality.locality.zone = zone
        locality.locality.SetInParent()  # Clients refuse one without, and both may be "".
        locality.load_balancing_weight.value = max(1, sum(m.ready for m in machines))
    return assignment


class Machine(NamedTuple):
    """A VM in a load assignment: its addresses, that of the service's primary family first."""

    addresses: tuple[str, ...]
    ready: bool


Localities = tuple[tuple[tuple[str, str], tuple[Machine, ...]], ...]
"""The VMs of each region and zone, sorted by these."""


def localities(endpoints: Iterable[Endpoint]) -> Localities:
    """The VMs of each region and zone. O(endpoints).

    An address occurs once in all, as gRPC refuses what repeats one: a ready VM has it before
    one that is not, then the lower uid.
    """
    found: dict[tuple[str, str], list[Machine]] = defaultdict(list)
    for first, *others in _machines(endpoints):
        addresses = (canonical(first.address), *(canonical(other.address) for other in others))
        found[first.region, first.zone].append(Machine(addresses, first.ready))
    return tuple((where, tuple(machines)) for where, machines in sorted(found.items()))


def _machines(endpoints: Iterable[Endpoint]) -> Iterable[list[Endpoint]]:
    """The endpoints of each VM, every address once in all of them; in the order of addresses.

    Those of one VM are in the order of the service's families.
    """
    holders: dict[str, Endpoint] = {}
    for endpoint in endpoints:
        address = canonical(endpoint.address)
        holder = holders.get(address)
        if holder is None or _comes_before(endpoint, holder):
            holders[address] = endpoint
    held: dict[tuple[str, bool, str, str], list[Endpoint]] = {}
    for endpoint in holders.values():
        machine = (endpoint.vm_uid, endpoint.ready, endpoint.region, endpoint.zone)
        others = held.setdefault(machine, [])
        others.append(endpoint)
        if len(others) > 1:
            others.sort(key=_by_family)
    return held.values()


def _by_family(endpoint: Endpoint) -> tuple[bool, str]:
    return endpoint.secondary, endpoint.address


def _comes_before(endpoint: Endpoint, other: Endpoint) -> bool:
    return (not endpoint.ready, endpoint.vm_uid) < (not other.ready, other.vm_uid)


def _member(addresses: Sequence[str], ready: bool, protocol: str, port: int) -> bytes:
    """A VM as the field `lb_endpoints` of a LocalityLbEndpoints with it alone."""
    number = varint(port)
    return number.join(_around_port(addresses, ready, protocol, len(number)))


def varint(number: int) -> bytes:
    """A number as protobuf writes it: seven bits a byte, the lowest first."""
    if number <= _SEVEN_BITS:
        return bytes((number,))
    encoded = []
    while number > _SEVEN_BITS:
        encoded.append(number & _SEVEN_BITS | 0x80)
        number >>= 7
    return bytes((*encoded, number))


# Two ports that take one, two or three bytes, and differ in each of them.
_UNLIKE_PORTS = {1: (1, 0x7F), 2: (0x80, 0x3FFF), 3: (0x4000, 0xFFFF)}


# A change leaves most VMs as they were, and making one costs more than all else here. It is made
# once for all ports of as many bytes: a service may have 1,000.
@lru_cache(maxsize=_MEMBERS_MAX)
def _around_port(
    addresses: Sequence[str], ready: bool, protocol: str, port_bytes: int
) -> tuple[bytes, ...]:
    """What stands before, between and behind the ports of a VM, which are that long."""
    one, other = (
        _encoded_member(addresses, ready, protocol, port) for port in _UNLIKE_PORTS[port_bytes]
    )
    differing = [
        place for place, pair in enumerate(zip(one, other, strict=True)) if len({*pair}) > 1
    ]
    begins = [0, *(place + port_bytes for place in differing[::port_bytes])]
    ends = [*differing[::port_bytes], len(one)]
    return tuple(one[begin:end] for begin, end in zip(begins, ends, strict=True))


def _encoded_member(addresses: Sequence[str], ready: bool, protocol: str, port: int) -> bytes:
    first, *others = (
        Address(
            socket_address=SocketAddress(
                protocol=_SOCKET_PROTOCOLS[protocol], address=address, port_value=port
            )
        )
        for address in addresses
    )
    member = LbEndpoint(health_status=HealthStatus.HEALTHY if ready else HealthStatus.UNHEALTHY)
    member.endpoint.address.CopyFrom(first)
    for other in others:
        member.endpoint.additional_addresses.add().address.CopyFrom(other)
    encoded: bytes = LocalityLbEndpoints(lb_endpoints=[member]).SerializeToString()
    return encoded
