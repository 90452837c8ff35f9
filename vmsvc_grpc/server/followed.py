"""The names that clients follow: their number and bytes, for each client and in all.

A stream bounds its own names, but streams multiply: a name is kept for each stream that follows it,
and a name without a service is a topic of its own. A stream that follows a namespace, or
everything, names nothing and takes no room here.
"""

from __future__ import annotations

from collections import Counter

from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.tally import Tally


class FollowedNames:
    """The room that all streams of a server have for names. One event loop owns it."""

    def __init__(self, limits: Limits, refusals: Counter[str]) -> None:
        """Counts refusals in `refusals`, by setting."""
        self._limits = limits
        self._refusals = refusals
        self._names = Tally()
        self._bytes = Tally()

    @property
    def names(self) -> int:
        """How many names all streams follow."""
        return self._names.in_all

    @property
    def name_bytes(self) -> int:
        """The bytes of those names."""
        return self._bytes.in_all

    def of(self, client: str) -> StreamNames:
        """The names of one new stream of `client`."""
        return StreamNames(self, client)

    def bound(self, client: str, names: int, size: int) -> str:
        """The setting whose bound leaves `client` no room for so much more; "" if there is room."""
        limits = self._limits
        for held, more, most, setting in (
            (self._names.of(client), names, limits.names_per_client_max, _NAMES_OF_CLIENT),
            (self._bytes.of(client), size, limits.name_bytes_per_client_max, _BYTES_OF_CLIENT),
            (self._names.in_all, names, limits.names_max, _NAMES),
            (self._bytes.in_all, size, limits.name_bytes_max, _BYTES),
        ):
            if held + more > most:
                return setting
        return ""

    def change(self, client: str, names: int, size: int) -> None:
        """Note that `client` follows so much more, or less."""
        self._names.add(client, names)
        self._bytes.add(client, size)

    def refuse(self, setting: str) -> None:
        """Count one refusal."""
        self._refusals[setting] += 1


_WIDTH_1_MAX, _WIDTH_2_MAX = 0xFF, 0xFFFF  # PEP 393.

_NAMES_OF_CLIENT = "names_per_client_max"
_BYTES_OF_CLIENT = "name_bytes_per_client_max"
_NAMES = "names_max"
_BYTES = "name_bytes_max"


class StreamNames:
    """The names that one stream follows. Call `close` when the stream ends, however it does."""

    __slots__ = ("_all", "_bytes", "_names", "client")

    def __init__(self, of_all: FollowedNames, client: str) -> None:
        """`client` is the client for which its names count."""
        self.client = client
        self._all = of_all
        self._names = 0
        self._bytes = 0

    def another(self) -> StreamNames:
        """Other names of the same stream, which can be let go of by themselves."""
        return StreamNames(self._all, self.client)

    @property
    def empty(self) -> bool:
        """Whether nothing is followed."""
        return not self._names

    def take(self, name: str) -> str:
        """Follow one more name; "", or the setting whose bound refuses that. Counts a refusal."""
        size = kept_bytes(name)
        if setting := self._all.bound(self.client, 1, size):
            self._all.refuse(setting)
            return setting
        self._change(1, size)
        return ""

    def take_all(self, names: int, size: int) -> str:
        """The same for many names at once, all or none; the caller counts a refusal."""
        setting = self._all.bound(self.client, names, size)
        if not setting:
            self._change(names, size)
        return setting

    def give_back(self, name: str) -> None:
        """Follow a name no more."""
        self._change(-1, -kept_bytes(name))

    def close(self) -> None:
        """Follow nothing any more, at the cost of one name. May be called twice."""
        self._change(-self._names, -self._bytes)

    def _change(self, names: int, size: int) -> None:
        if names:
            self._names += names
            self._bytes += size
            self._all.change(self.client, names, size)


def kept_bytes(text: str) -> int:
    """What the characters of a text take in memory: Python keeps all as wide as the widest."""
    if text.isascii():
        return len(text)
    widest = ord(max(text))
    return len(text) * (4 if widest > _WIDTH_2_MAX else 2 if widest > _WIDTH_1_MAX else 1)
