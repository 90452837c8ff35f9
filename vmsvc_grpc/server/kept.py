"""Bounds the bytes of requests that a server keeps, for each client and in all."""

from __future__ import annotations

from vmsvc_grpc.server.admission import is_known, stranger_of, words_for
from vmsvc_grpc.server.call import Code, RpcError
from vmsvc_grpc.server.limits import CLIENT_PART
from vmsvc_grpc.server.tally import Tally

_STRANGERS_PART = 2


class KeptBytes:
    """Counts the bytes kept for clients. Not thread-safe: one event loop owns it."""

    def __init__(self, setting: str, bytes_max: int, what: str) -> None:
        """`bytes_max` is for all clients; one may hold a quarter of it, and all strangers half.

        What newcomers have counts for the strangers at their address.

        `setting` is the name of the bound, and `what` a noun for what is kept.
        """
        self._setting = setting
        self._bytes_max = bytes_max
        self._what = what
        self._kept = Tally()
        self._of_strangers = 0

    def keep(self, client: str, size: int) -> None:
        """Keep `size` bytes more of a client. Raises RpcError, keeping none."""
        crowd = stranger_of(client)
        who = words_for(crowd).who
        bounds = [
            (self._kept.of(crowd), self._bytes_max // CLIENT_PART, f"of {who}"),
            (self._kept.in_all, self._bytes_max, "of all clients"),
        ]
        if not is_known(client):
            bounds.append((self._of_strangers, self._bytes_max // _STRANGERS_PART, "of strangers"))
        for held, most, whose in bounds:
            if held + size > most:
                raise RpcError(
                    Code.RESOURCE_EXHAUSTED,
                    f"{held} bytes of {self._what} {whose} are here, and the limit "
                    f"({self._setting}) is {most}; come again once those are dealt with",
                    limit=self._setting,
                )
        self._add(client, size)

    def move(self, client: str, to: str, size: int) -> None:
        """Count so many bytes that are kept for another client. Raises RpcError, moving none."""
        if size and client != to:
            self.let_go(client, size)
            try:
                self.keep(to, size)
            except RpcError:
                self._add(client, size)
                raise

    def let_go(self, client: str, size: int) -> None:
        """Count so many bytes of a client as kept no more."""
        self._add(client, -size)

    def _add(self, client: str, more: int) -> None:
        self._kept.add(stranger_of(client), more)
        if not is_known(client):
            self._of_strangers += more
