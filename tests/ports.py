"""Ports that a test names before somebody listens on them."""

from __future__ import annotations

import socket


def reserved_port(*hosts: str) -> int:
    """A TCP port of these addresses of loopback (127.0.0.1) that is this process', until it ends.

    It stays bound here, never listening, with SO_REUSEADDR, as who listens on it has it, too
    (socket(7)). The kernel gives it to nobody else, listener or client, not even while a server is
    started anew. It takes a descriptor for each address.
    """
    port = 0
    for host in hosts or ("127.0.0.1",):
        kept = socket.socket()
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind((host, port))
        port = kept.getsockname()[1]
        kept.detach()
    return port
