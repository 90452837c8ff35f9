"""How gRPC's thread wakes the event loop when it has events: never waiting, and once for many.

grpc.aio has a thread that takes events from gRPC's core, queues them, and for each writes one byte
to a pair of sockets. In a turn of the event loop, `_handle_events` reads one byte and takes in all
events that are queued. When a turn brings more than some 280 events, the pair is full: the thread
waits, and from then on passes on one event a turn. A look-up waited 4 s behind 100 Envoys so.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

# More than a pair holds: Linux counts some 768 bytes for each that is written by itself.
_PAIR_BYTES = 4_096


class _Woken(socket.socket):
    """The end that the event loop watches."""

    def recv(self, size: int, flags: int = 0) -> bytes:
        """All bytes that are there, however few are asked for: one turn takes in all events."""
        return super().recv(max(size, _PAIR_BYTES), flags)


@contextmanager
def waking_once_for_many() -> Iterator[None]:
    """Within it, the first object of grpc.aio in a process makes such a pair of sockets.

    grpc.aio keeps the pair to itself, so there is no other way to it than by what makes it.
    """
    made = socket.socketpair

    def pair() -> tuple[socket.socket, socket.socket]:
        woken, waking = made()
        # A byte that finds no room is not needed: others are there, which wake the loop as well,
        # and the event has been queued before.
        waking.setblocking(False)
        return _Woken(fileno=woken.detach()), waking

    setattr(socket, "socketpair", pair)  # noqa: B010 - mypy lets no function be assigned.
    try:
        yield
    finally:
        setattr(socket, "socketpair", made)  # noqa: B010 - as above.
