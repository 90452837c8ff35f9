"""What xDS resources are called: from a name to a service's port, and back.

The port 80, named `http`, of the service `web` in `shop` is `web.shop:80`, its canonical
name, or `web.shop:http`. The part before the colon may go on as in DNS
(`web.shop.svc.cluster.local`), and end with a dot; a service with one port needs no port. All
other names, those of xdstp among them, are opaque and name nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from vmsvc_grpc.model.objects import Key, ServicePort

WILDCARD = "*"

_NAME_MAX = 3 * 63 + len("..svc..:")  # Service, namespace and port are labels.
_PROTOCOLS = ("TCP", "UDP")  # Where both have a number, its name is the first one's.


class Reference(NamedTuple):
    """What a name says: a service, and its port by number or name ("" where it names none)."""

    service: Key
    port: str


class _Domain:
    """The cluster's DNS domain: of the process, as its services are."""

    def __init__(self, domain: str) -> None:
        self.name_max = _NAME_MAX + len(domain)
        self.suffixes = ((), ("svc",), ("svc", *domain.split(".")))


_domain = _Domain("cluster.local")


def set_cluster_domain(domain: str) -> None:
    """From now on names may end with `svc` and this domain: `cluster.local` until it is said."""
    global _domain  # noqa: PLW0603 - one cluster a process, said once at its start.
    _domain = _Domain(domain)
    _parsed.cache_clear()


def reference(name: str) -> Reference | None:
    """What a resource's name refers to; None if it is not of the form that services have."""
    return _parsed(name) if len(name) <= _domain.name_max else None


# A change of a service looks at the same few names on each stream.
@lru_cache(maxsize=65_536)
def _parsed(name: str) -> Reference | None:
    host, colon, port = name.partition(":")
    service, _, rest = host.removesuffix(".").partition(".")
    namespace, *suffix = rest.split(".")
    if not service or not namespace or tuple(suffix) not in _domain.suffixes:
        return None
    if colon and not port:
        return None
    return Reference(Key(namespace, service), port)


def ports_by_text(ports: Sequence[ServicePort]) -> Mapping[str, ServicePort]:
    """The ports by each text that refers to one: by number before by name. O(ports).

    "" refers to the only port. SCTP has no name here: no xDS client speaks it.
    """
    named = [port for port in ports if port.protocol in _PROTOCOLS]
    # Of two with one name, or one number and protocol, the first counts; so it is put in last.
    found = {port.name: port for port in reversed(named)}
    found.pop("", None)
    for protocol in reversed(_PROTOCOLS):
        found.update({str(p.port): p for p in reversed(named) if p.protocol == protocol})
    if len(named) == 1:
        found[""] = named[0]
    return found


def canonical_names(service: Key, ports: Sequence[ServicePort]) -> Iterator[str]:
    """The names that a wildcard lists: one for each number, in the order of the ports."""
    numbers = dict.fromkeys(port.port for port in ports if port.protocol in _PROTOCOLS)
    return (f"{service.name}.{service.namespace}:{number}" for number in numbers)
