"""The names of xDS resources: from a name to a service's port, and back.

The port 80, named `http`, of the service `web` in `shop` is `web.shop:80`, its canonical
name, or `web.shop:http`. The part before the colon may have a DNS suffix
(`web.shop.svc.cluster.local`) and a dot at the end; for a service with one port, the port may be
left out. All other names, xdstp names included, are opaque and name nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from vmsvc_grpc.model.objects import Key, ServicePort

WILDCARD = "*"

_SERVICE_NAME_MAX = 3 * 63 + len("..svc..:")  # Service, namespace and port are labels.
_REFERENCES_MAX = 65_536
_PROTOCOLS = ("TCP", "UDP")  # If both have a port of that number, the name refers to the first.


class Reference(NamedTuple):
    """A service, and its port by number or name ("" if the name has none).

    `name` is the text itself: mostly one object for all who ask for the same.
    """

    service: Key
    port: str
    name: str


class References:
    """What names refer to in a cluster of one DNS domain."""

    def __init__(self, domain: str) -> None:
        """Names may end with `svc` and this domain."""
        self._name_max = _SERVICE_NAME_MAX + len(domain)
        self._suffixes = ((), ("svc",), ("svc", *domain.split(".")))
        # A change of a service looks at the same few names on each stream.
        self._kept = lru_cache(maxsize=_REFERENCES_MAX)(self._read)

    def of(self, name: str) -> Reference | None:
        """What a resource's name refers to; None if it does not have the form of a service's."""
        return self._kept(name) if len(name) <= self._name_max else None

    def forget(self) -> None:
        """Drop what is known of names: all are read anew."""
        self._kept.cache_clear()

    def _read(self, name: str) -> Reference | None:
        host, colon, port = name.partition(":")
        service, _, rest = host.removesuffix(".").partition(".")
        namespace, *suffix = rest.split(".")
        if not service or not namespace or tuple(suffix) not in self._suffixes:
            return None
        if colon and not port:
            return None
        return Reference(Key(namespace, service), port, name)


CLUSTER_LOCAL = References("cluster.local")
"""The references in a cluster of the default domain."""


def ports_by_text(ports: Sequence[ServicePort]) -> Mapping[str, ServicePort]:
    """The ports by each text that refers to one; a number wins over an equal name. O(ports).

    "" refers to the only port. SCTP ports have no names, as no xDS client speaks SCTP.
    """
    named = [port for port in ports if port.protocol in _PROTOCOLS]
    # Of two ports with the same name, or number and protocol, the first counts; so it is put in
    # last.
    found = {port.name: port for port in reversed(named)}
    found.pop("", None)
    for protocol in reversed(_PROTOCOLS):
        found.update({str(p.port): p for p in reversed(named) if p.protocol == protocol})
    if len(named) == 1:
        found[""] = named[0]
    return found


def canonical_names(service: Key, ports: Sequence[ServicePort]) -> Iterator[str]:
    """The names that a wildcard covers: one for each port number, in the order of the ports."""
    numbers = dict.fromkeys(port.port for port in ports if port.protocol in _PROTOCOLS)
    return (f"{service.name}.{service.namespace}:{number}" for number in numbers)
