"""Load assignments: the VMs of a service behind one of its ports, as clients of xDS read them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from envoy.config.core.v3.address_pb2 import Address, SocketAddress
from envoy.config.core.v3.base_pb2 import Locality
from envoy.config.core.v3.health_check_pb2 import HealthStatus
from envoy.config.endpoint.v3.endpoint_components_pb2 import LbEndpoint, LocalityLbEndpoints
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from google.protobuf.wrappers_pb2 import UInt32Value

from vmsvc_grpc.model.address import canonical
from vmsvc_grpc.model.endpoints import Endpoint
from vmsvc_grpc.model.objects import ServicePort
from vmsvc_grpc.server.xds.encoding import bytes_field, number_field, varint

_FIELDS = ClusterLoadAssignment.DESCRIPTOR.fields_by_name
_CLUSTER_NAME, _ENDPOINTS = _FIELDS["cluster_name"].number, _FIELDS["endpoints"].number
_OF_LOCALITY = LocalityLbEndpoints.DESCRIPTOR.fields_by_name
_LOCALITY, _WEIGHT = _OF_LOCALITY["locality"].number, _OF_LOCALITY["load_balancing_weight"].number
_VALUE = UInt32Value.DESCRIPTOR.fields_by_name["value"].number

# VMs, and addresses, at some 300 B each: those of 20,000 VMs, ready and not.
_MEMBERS_MAX = 65_536

_SOCKET_PROTOCOLS = {"TCP": SocketAddress.TCP, "UDP": SocketAddress.UDP}


def load_assignment(name: str, port: ServicePort, localities: Localities) -> bytes:
    """A ClusterLoadAssignment of these localities, encoded.

    A VM is one endpoint, with its other address, if it has two, as an additional one. A
    locality weighs as much as its healthy endpoints, and never nothing: clients drop one
    without weight.
    """
    parts = [no_endpoints(name)]
    for (region, zone), machines in localities:
        # Clients refuse a locality that does not say where it is, and both may be "".
        where = Locality(region=region, zone=zone).SerializeToString()
        members = (_member(m.addresses, m.ready, port.protocol, port.target_port) for m in machines)
        weight = number_field(_VALUE, max(1, sum(m.ready for m in machines)))
        locality = (bytes_field(_LOCALITY, where), *members, bytes_field(_WEIGHT, weight))
        parts.append(bytes_field(_ENDPOINTS, b"".join(locality)))
    return b"".join(parts)


def no_endpoints(name: str) -> bytes:
    """A ClusterLoadAssignment without endpoints, encoded."""
    return bytes_field(_CLUSTER_NAME, name.encode())


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
