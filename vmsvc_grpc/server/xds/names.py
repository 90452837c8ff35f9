"""What xDS resources are called: from a name to a service's port, and back.

The port 80, named `http`, of the service `web` in `shop` is `web.shop:80`, its canonical
name, or `web.shop:http`; the part before the colon may go on as in DNS
(`web.shop.svc.cluster.local`), and a service with one port needs no port. All other
names, those of xdstp among them, are opaque and name nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from vmsvc_grpc.model.objects import Key, ServicePort

WILDCARD = "*"

_DNS_SUFFIXES = ((), ("svc",), ("svc", "cluster", "local"))
_NAME_MAX = 3 * 63 + len("..svc.cluster.local:")  # Service, namespace and port are labels.
_PROTOCOLS = ("TCP", "UDP")  # Where both have a number, its name is the first one's.


class Reference(NamedTuple):
    """What a name says: a service, and its port by number or name ("" where it names none)."""

    service: Key
    port: str


def reference(name: str) -> Reference | None:
    """What a resource's name refers to; None if it is not of the form that services have."""
    return _parsed(name) if len(name) <= _NAME_MAX else None


# A change of a service looks at the same few names on each stream.
@lru_cache(maxsize=65_536)
def _parsed(name: str) -> Reference | None:
    host, colon, port = name.partition(":")
    service, _, rest = host.partition(".")
    namespace, *suffix = rest.split(".")
    if not service or not namespace or tuple(suffix) not in _DNS_SUFFIXES:
        return None
    if colon and not port:
        return None
    return Reference(Key(namespace, service), port)


def port_of(ports: Sequence[ServicePort], text: str) -> ServicePort | None:
    """The port that `text` refers to, by number before by name; None if there is none.

    Without a text it is the only port. SCTP has no name here: no xDS client speaks it.
    """
    named = [port for port in ports if port.protocol in _PROTOCOLS]
    if not text:
        return named[0] if len(named) == 1 else None
    for protocol in _PROTOCOLS:
        for port in named:
            if port.protocol == protocol and str(port.port) == text:
                return port
    return next((port for port in named if port.name == text), None)


def canonical_names(service: Key, ports: Sequence[ServicePort]) -> Iterator[str]:
    """The names that a wildcard lists: one for each number, in the order of the ports."""
    numbers = dict.fromkeys(port.port for port in ports if port.protocol in _PROTOCOLS)
    return (f"{service.name}.{service.namespace}:{number}" for number in numbers)
