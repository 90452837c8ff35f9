"""Sockets at the addresses that a host means."""

from __future__ import annotations

import socket

_ALL = "::"


def bound(host: str, port: int) -> list[socket.socket]:
    """Sockets bound to each address of `host`, all at one port: a free one for 0. At least one.

    `::` is all addresses, those of IPv4 too, as for other servers: a pod has either or both.
    Raises OSError, and leaves none open then.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, where in dict.fromkeys(found):
            one = socket.socket(family, kind, protocol)
            sockets.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, where[0] != _ALL)
            one.bind((where[0], port, *where[2:]))
            port = int(one.getsockname()[1])
    except OSError:
        for one in sockets:
            one.close()
        raise
    return sockets
