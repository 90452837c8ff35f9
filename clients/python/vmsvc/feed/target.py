"""Which port of which service a backend follows, and the servers that follow from a state. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from vmsvc.addresses import reached
from vmsvc.model import Port, ServiceState

_NAME = r"[A-Za-z0-9_.-]{1,128}"
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_SERVICE = rf"{_LABEL}/{_LABEL}"
_FOLLOWED = rf"(?P<service>{_SERVICE})(:(?P<port>[A-Za-z0-9-]{{1,63}}))?"
_TARGET = re.compile(rf"(?P<name>{_NAME})={_FOLLOWED}")
_UNNAMED = re.compile(_FOLLOWED)

_PORT_MAX = 65535

_PORTS_SHOWN_MAX = 10
_ADDRESS_CHARACTERS_SHOWN_MAX = 100


class TargetError(ValueError):
    """A target is not written well, or its service has no such port; the text is one sentence."""


@dataclass(frozen=True, slots=True)
class Target:
    """A backend, or upstream, `name` and what it follows.

    `service` is "namespace/name"; `port` the name or number of one of its ports, "" for its only
    one.
    """

    name: str
    service: str
    port: str = ""

    @classmethod
    def of(cls, text: str) -> Target:
        """The target of NAME=NAMESPACE/SERVICE[:PORT]. Raises TargetError."""
        found = _TARGET.fullmatch(text)
        if not found:
            raise TargetError(
                f"{text[:200]!r} is not NAME=NAMESPACE/SERVICE or NAME=NAMESPACE/SERVICE:PORT"
            )
        return cls(found["name"], found["service"], found["port"] or "")

    @classmethod
    def unnamed(cls, text: str) -> Target:
        """The target of NAMESPACE/SERVICE[:PORT], which has no name. Raises TargetError."""
        found = _UNNAMED.fullmatch(text)
        if not found:
            raise TargetError(f"{text[:200]!r} is not NAMESPACE/SERVICE or NAMESPACE/SERVICE:PORT")
        return cls("", found["service"], found["port"] or "")

    def port_in(self, state: ServiceState) -> Port:
        """The port that it follows. Raises TargetError if the service has no such port."""
        found = [
            port
            for port in state.ports
            if not self.port or self.port in (port.name, str(port.port))
        ]
        if len(found) == 1:
            return found[0]
        names = [port.name or str(port.port) for port in state.ports[:_PORTS_SHOWN_MAX]]
        more = " ..." if len(state.ports) > _PORTS_SHOWN_MAX else ""
        has = f"it has {', '.join(names)}{more}" if names else "it has none"
        asked = f"no port {self.port!r}" if self.port else "not one port"
        if len(found) > 1 and self.port:
            asked = f"more than one port {self.port!r}"
        of = f"{self.name}: " if self.name else ""
        raise TargetError(f"{of}service {self.service} has {asked}: {has}")

    def servers(self, state: ServiceState) -> tuple[Server, ...]:
        """The servers of a state, by address and port; none if the service is absent.

        Two VMs that report one address are one server, that is ready if either is. Raises
        TargetError if it has no such port, or has an endpoint that is none: outputs write them
        where other text would be an instruction.
        """
        if not state.endpoints:
            return ()
        port = self.port_in(state).target_port
        if not 0 < port <= _PORT_MAX:
            raise TargetError(f"{self.name}: service {self.service} has endpoints on port {port}")
        found: dict[str, Server] = {}
        for endpoint in state.endpoints:
            if not _is_address(endpoint.address):
                shown = endpoint.address[:_ADDRESS_CHARACTERS_SHOWN_MAX]
                raise TargetError(
                    f"{self.name}: service {self.service} has {shown!r} for an address"
                )
            before = found.get(endpoint.address)
            if before is None or (endpoint.ready and not before.ready):
                found[endpoint.address] = Server(
                    endpoint.address, port, endpoint.ready, endpoint.zone, endpoint.vm_name
                )
        return tuple(found.values())


def _is_address(text: str) -> bool:
    if "%" in text:
        # A zone of IPv6: one of this machine's interfaces, or any other text.
        return False
    try:
        return bool((IPv6Address if ":" in text else IPv4Address)(text))
    except AddressValueError:
        return False


@dataclass(frozen=True, slots=True)
class Server:
    """Where a backend sends requests.

    `address` is IPv4 or IPv6, `zone` may be "", `vm_name` is that of the service's namespace.
    """

    address: str
    port: int
    ready: bool
    zone: str
    vm_name: str

    @property
    def reached(self) -> str:
        """Address and port as in a URL."""
        return reached(self.address, self.port)
