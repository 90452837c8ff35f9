"""What one stream has asked for of one type of resource, and what it has been told."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.xds.bodies import BodyReader
from vmsvc_grpc.server.xds.names import References
from vmsvc_grpc.server.xds.resources import Resource, TypeUrl

ABSENT = 0
"""In `told`: the client knows that there is no resource of that name."""

UNKNOWN = 1
"""In `told`: the client holds a resource of that name, which this stream has not told."""

NAME_BYTES = 8
"""What a name in `removed_resources` takes beside its text: a tag and a length."""

_SUM_BITS = 128
_NONCE_DIGITS_MAX = 20


class XdsSubscription:
    """Names and versions, and the marks of what there may be to tell. Knows no messages.

    `names` are those asked for one by one, `wildcard` asks for all beside them. `told`
    has the digest of each that the client holds by what this stream sent; `claimed`,
    until it is compared, the version that it says it holds from before.

    `pending` are to be looked at, in order, and `leaving` are to be taken away; True of
    one that is told even if nothing is new. `answer_due`: the client waits for a response,
    even if there is nothing in it. `denied` are names of which nothing is kept but this: the
    client is to be told, once, that there is nothing of that name. `all_told` is for who is sent
    all that is told each time.
    """

    __slots__ = (
        "_all_unanswered",
        "_denied_bytes",
        "_of_service",
        "_references",
        "_sum",
        "_unanswered",
        "all_told",
        "answer_due",
        "answered",
        "begun",
        "claimed",
        "denied",
        "draft",
        "leaving",
        "named",
        "names",
        "nonce",
        "pending",
        "refused",
        "told",
        "type_url",
        "wildcard",
    )

    def __init__(self, type_url: TypeUrl, references: References) -> None:
        """Nothing is asked for, and nothing told."""
        self._references = references
        self.type_url = type_url
        self.begun = False
        self.named = False
        self.names: dict[str, None] = {}
        self.wildcard = False
        self.told: dict[str, int] = {}
        self.claimed: dict[str, str] = {}
        # Taking the first of a plain dict again and again is quadratic.
        self.pending: OrderedDict[str, bool] = OrderedDict()
        self.leaving: OrderedDict[str, bool] = OrderedDict()
        self.denied: dict[str, None] = {}
        self._denied_bytes = 0
        self.answer_due = False
        self.nonce = 0
        self.answered = 0
        self.refused: dict[str, str] = {}
        self._unanswered: dict[str, int] = {}
        self._all_unanswered = 0
        self.draft: dict[str, bytes] = {}
        self.all_told: BodyReader | None = None
        self._of_service: dict[Key, dict[str, None]] = {}
        self._sum = 0

    # -- What the client asks for --

    def names_of(self, service: Key) -> Iterable[str]:
        """The names of a service that this client has asked for, or holds."""
        return self._of_service.get(service, ())

    def concerns(self, service: Key) -> bool:
        """Whether the client has asked by name for something of a service, or holds it."""
        return service in self._of_service

    def ask(self, name: str) -> None:
        """The client asks for a name."""
        self.names[name] = None
        self._index(name)

    def drop(self, name: str) -> None:
        """The client does not ask for a name any more, by name; what it holds is as it was."""
        self.names.pop(name, None)
        self._unindex(name)

    # -- What the client holds --

    @property
    def digest(self) -> int:
        """A digest of all that is told: the same on each stream and replica that tells it.

        It is the sum of the resources' own, so that a change costs no more than itself.
        """
        return self._sum

    def digest_of(self, names: Iterable[str]) -> int:
        """The same of some names alone."""
        return sum(self.told.get(name, ABSENT) for name in names) % (1 << _SUM_BITS)

    def claim(self, name: str, version: str) -> None:
        """The client says that it holds a resource; "" if it does not say in which version."""
        self.claimed[name] = version
        self._index(name)

    def tell(self, name: str, digest: int) -> None:
        """The client is told a resource, or knows it; ABSENT, that it is gone."""
        before = self.told.get(name)
        self.told[name] = digest
        self._sum = (self._sum + digest - (before or ABSENT)) % (1 << _SUM_BITS)
        if self.all_told is not None:
            self.all_told.note(name)
        if before is None:
            self._index(name)

    def forget(self, name: str) -> None:
        """The client holds nothing of a name, and wants to hear nothing of it now."""
        self._sum = (self._sum - self.told.pop(name, ABSENT)) % (1 << _SUM_BITS)
        if self.all_told is not None:
            self.all_told.note(name)
        for noted in (
            self.claimed,
            self.pending,
            self.leaving,
            self.draft,
            self.refused,
            self._unanswered,
        ):
            noted.pop(name, None)
        self._unindex(name)

    # -- What there may be to tell --

    @property
    def under_way(self) -> bool:
        """Whether there are marks left to look at."""
        return bool(self.pending or self.leaving or self.denied)

    def note(self, name: str, *, forced: bool = False) -> None:
        """There may be something to tell of a name."""
        self.pending[name] = forced or self.pending.get(name, False)

    def deny(self, name: str, bytes_max: int) -> None:
        """Tell the client that there is nothing of a name, as far as that fits in `bytes_max`.

        What does not is not answered: the names may be any, of any length.
        """
        size = len(name.encode()) + NAME_BYTES
        if name not in self.denied and self._denied_bytes + size <= bytes_max:
            self.denied[name] = None
            self._denied_bytes += size

    def take_denied(self) -> Sequence[str]:
        """The names to deny, once, but for those that are asked for by now."""
        denied = [
            name for name in self.denied if name not in self.names and name not in self.leaving
        ]
        self.denied.clear()
        self._denied_bytes = 0
        return denied

    def owes(self, resource: Resource, *, forced: bool) -> bool:
        """Whether the client must be told a resource; what it claimed is settled by that."""
        name, digest = resource.name, resource.digest
        claimed = self.claimed.pop(name, None) if self.claimed else None
        if forced:
            return True
        if claimed is not None and claimed == resource.version:
            self.tell(name, digest)
        return self.told.get(name) != digest

    # -- What the client has said to what it was told --

    def sent(self, nonce: int, names: Iterable[str] | None) -> None:
        """A response with these has gone out; the client has not said what it makes of them.

        None: with all that is told, which needs no entry for each.
        """
        self.nonce = nonce
        if names is None:
            self._unanswered.clear()
            self._all_unanswered = nonce
        else:
            self._unanswered.update(dict.fromkeys(names, nonce))

    @property
    def unheard(self) -> bool:
        """Whether a client that does acknowledge has not yet done so with the newest response.

        One that has never acknowledged any is not waited for: it may only listen.
        """
        return 0 < self.answered < self.nonce

    def unanswered(self, name: str) -> bool:
        """Whether the client has yet to say what it makes of what it was told of a name."""
        return name in self._unanswered or (self._all_unanswered > 0 and name in self.told)

    def heard(self, text: str, refusal: str | None) -> Sequence[str] | None:
        """Take note of an ACK or NACK by its nonce; the names that a NACK is about.

        None if it says nothing new: its nonce is of another stream, or already answered.
        Who answers a response has taken in those before it.
        """
        if not (text.isdecimal() and len(text) <= _NONCE_DIGITS_MAX):
            return None
        nonce = int(text)
        if not self.answered < nonce <= self.nonce:
            return None
        self.answered = nonce
        told = self._unanswered
        self._unanswered = {name: number for name, number in told.items() if number > nonce}
        if self._all_unanswered and self._all_unanswered <= nonce:
            is_about_all, self._all_unanswered = self._all_unanswered == nonce, 0
            self.refused.clear()
            if is_about_all and refusal is not None:
                self.refused = dict.fromkeys(self.told, refusal)
                return tuple(self.told)
        if self.refused:
            for name in told.keys() - self._unanswered.keys():
                self.refused.pop(name, None)
        if refusal is None:
            return ()
        about = [name for name, number in told.items() if number == nonce]
        self.refused.update(dict.fromkeys(about, refusal))
        return about

    # -- Names by service --

    def _index(self, name: str) -> None:
        if (asked := self._references.of(name)) is not None:
            self._of_service.setdefault(asked.service, {})[name] = None

    def _unindex(self, name: str) -> None:
        asked = self._references.of(name)
        if asked is None or name in self.names or name in self.told or name in self.claimed:
            return
        names = self._of_service.get(asked.service, {})
        names.pop(name, None)
        if not names:
            self._of_service.pop(asked.service, None)
