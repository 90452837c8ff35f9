"""Which resources of a type a client has refused, name by name, and in which words."""

from __future__ import annotations

from dataclasses import dataclass

from vmsvc_grpc.server.followed import StreamNames

# The words of so many refusals are kept: they are up to 4 KB each, and anybody may refuse each name
# for another reason.
_REFUSALS_MAX = 4
_WORDS_FORGOTTEN = "(refused; others were refused since, and the reason is no longer kept)"


@dataclass(slots=True)
class Refusal:
    """The client's words about some names."""

    words: str


class Refusals:
    """The names that a client refuses, and the words of the newest refusals.

    A name that the client has requested one by one has its room already. One that only a wildcard
    covers takes room here until it is no longer refused, as the client follows it without a name.
    Where there is none, the refusal is not kept: it has been logged and counted as a NACK.
    """

    __slots__ = ("_all", "_listed", "_named", "_newest", "_room")

    def __init__(self, room: StreamNames) -> None:
        """Nothing is refused. Names that only a wildcard covers will count in `room`."""
        self._room = room
        self._named: dict[str, Refusal] = {}
        self._listed: dict[str, Refusal] = {}
        self._newest: list[Refusal] = []  # Those whose words are kept, oldest first.
        self._all = ""  # The client's words, if it has refused a response with all resources.

    def __bool__(self) -> bool:
        """Whether anything is refused."""
        return bool(self._named or self._listed or self._all)

    def __contains__(self, name: str) -> bool:
        """Whether a name is refused by itself."""
        return name in self._named or name in self._listed

    def __len__(self) -> int:
        """How many names are refused by themselves."""
        return len(self._named) + len(self._listed)

    def words_of(self, name: str) -> str:
        """The client's words if it refuses a name; else ""."""
        refusal = self._named.get(name) or self._listed.get(name)
        return refusal.words if refusal is not None else self._all

    def begin(self, words: str) -> Refusal:
        """The refusal with these words, as the newest one; the oldest one loses its words."""
        refusal = next((kept for kept in self._newest if kept.words == words), None)
        if refusal is not None:
            self._newest.remove(refusal)
        else:
            refusal = Refusal(words)
        self._newest.append(refusal)
        if len(self._newest) > _REFUSALS_MAX:
            self._newest.pop(0).words = _WORDS_FORGOTTEN
        return refusal

    def add(self, name: str, refusal: Refusal, *, named: bool) -> None:
        """Note that a name is refused; `named`: it is requested one by one."""
        if named:
            self._named[name] = refusal
        elif name in self._listed or not self._room.take(name):
            self._listed[name] = refusal

    def add_all(self, words: str) -> None:
        """Note that all resources of the type are refused."""
        self._all = words

    def name(self, name: str) -> None:
        """A name is now requested one by one."""
        if (refusal := self._listed.pop(name, None)) is not None:
            self._room.give_back(name)
            self._named[name] = refusal

    def unname(self, name: str) -> None:
        """A name is no longer requested one by one; a wildcard may cover it."""
        if (refusal := self._named.pop(name, None)) is not None:
            self.add(name, refusal, named=False)

    def discard(self, name: str) -> None:
        """A name is not refused, or no longer."""
        if self._listed.pop(name, None) is not None:
            self._room.give_back(name)
        self._named.pop(name, None)

    def leave_listing(self) -> None:
        """No wildcard covers any name from now on."""
        self._listed = {}
        self._room.close()

    def clear(self) -> None:
        """Nothing is refused any more. May be called twice."""
        self.leave_listing()
        self._named = {}
        self._newest.clear()
        self._all = ""
