"""Which HTTP proxy of the environment gRPC goes through to a server, if any. Pure.

gRPC itself looks into these variables when a channel is made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network

from vmsvc.channel import is_loopback

# The first that is set counts, as for gRPC: its core reads no others, and none in capitals.
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")

_NAMED = re.compile(r"(?:dns:(?://[^/]*/)?)?(?P<host>\[[^\]]*\]|[^:/\[\]]+)(?::[0-9]+)?")


def _host(server: str) -> str:
    """The host of a target for gRPC, without brackets; empty for one that is no name of a host."""
    named = _NAMED.fullmatch(server)
    return named["host"].strip("[]").lower() if named else ""


def proxy_variable(server: str, environment: Mapping[str, str]) -> str:
    """The variable that names the proxy on the way to a server; empty if there is none."""
    host = _host(server)
    if not host or is_loopback(server):
        return ""
    set_ones = (name for name in _PROXIES if environment.get(name))
    variable = next(set_ones, "")
    exceptions = next((environment[name] for name in _EXCEPTIONS if environment.get(name)), "")
    excepted = any(_covers(entry.strip().lower(), host) for entry in exceptions.split(","))
    return "" if excepted else variable


def _covers(entry: str, host: str) -> bool:
    if not entry:
        return False
    if host.endswith(entry):
        return True
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except ValueError:
        return False
