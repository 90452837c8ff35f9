"""IP addresses as kube-apiserver reads them in Services and Endpoints. Pure.

It takes more than one form of the same address (`ParseIPSloppy` in k8s.io/utils): leading
zeros are skipped, and an IPv4 address may be written as IPv6.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

CHARACTERS_MAX = 128
"""The longest form of an address, apart from leading zeros that nobody writes."""

_LINK_LOCAL_MULTICAST = ipaddress.IPv4Network("224.0.0.0/24")
_SCOPE, _LINK_LOCAL_SCOPE = 0x0F, 0x02

# Nearly all addresses are written like this; to parse one takes ten times as long.
_NUMBER = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_PLAIN_IPV4 = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}\.{_NUMBER}")

_LEADING_ZEROS = re.compile(r"(?<![0-9A-Fa-f])0+(?=[0-9A-Fa-f])")


def read(text: str) -> IPAddress | None:
    """The address that a text stands for; an IPv4 one even if written as IPv6.

    None if kube-apiserver would not read it, as with a zone index.
    """
    if len(text) > CHARACTERS_MAX or "%" in text:
        return None
    try:
        address = ipaddress.ip_address(_LEADING_ZEROS.sub("", text))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


@lru_cache(maxsize=65_536)
def canonical(text: str) -> str:
    """The canonical form (RFC 5952), which EndpointSlices and xDS clients need; else the text."""
    if _PLAIN_IPV4.fullmatch(text):
        return text
    address = read(text)
    return text if address is None else str(address)


def is_link_local_multicast(address: IPAddress) -> bool:
    """Whether it is in 224.0.0.0/24, or in ff02::/16 with any flags, as Go decides it."""
    if isinstance(address, ipaddress.IPv4Address):
        return address in _LINK_LOCAL_MULTICAST
    return address.is_multicast and address.packed[1] & _SCOPE == _LINK_LOCAL_SCOPE


def at_port(host: str, port: int | str) -> str:
    """`host:port`, an IPv6 host in brackets (RFC 3986, 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
