"""What one stream has asked for of one type of resource, and what it has been told."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.xds.bodies import BodyReader
from vmsvc_grpc.server.xds.listing import DIGESTS, Wildcard
from vmsvc_grpc.server.xds.names import Reference, References
from vmsvc_grpc.server.xds.requests import resuming_bytes
from vmsvc_grpc.server.xds.resources import Resource, TypeUrl

ABSENT = 0
"""In `told`: the client knows that there is no resource of that name."""

UNKNOWN = 1
"""In `told`: the client holds a resource of that name, which this stream has not told."""

NAME_BYTES = 8
"""What a name in `removed_resources` takes beside its text: a tag and a length."""

_NONCE_DIGITS_MAX = 20

# Of how many responses that a client has not answered it is known which names each had.
_UNANSWERED_MAX = 64


class _Sent(NamedTuple):
    """A response that the client has not answered yet, and its names; None: all that there are."""

    nonce: int
    names: tuple[str, ...] | None


class XdsSubscription:
    """Names and versions, and the marks of what there may be to tell. Knows no messages.

    `names` are those asked for one by one, `wildcard` asks for all beside them, and `listed` is
    what hands those out, once there is an answer. `told` has the digest of each that the client
    holds by its name; of what it holds by the wildcard alone there is no entry. `claimed`, until
    it is compared, has the version of each that it says it holds from before.

    `pending` are to be looked at, in order, and `leaving` are to be taken away; True of
    one that is told even if nothing is new. `answer_due`: the client waits for a response,
    even if there is nothing in it. `denied` are names of which nothing is kept but this: the
    client is to be told, once, that there is nothing of that name. `all_told` is for who is sent
    all that is told each time.
    """

    __slots__ = (
        "_all_refused",
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
        "listed",
        "named",
        "names",
        "nonce",
        "pending",
        "refused",
        "resuming_bytes",
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
        self.resuming_bytes = 0
        """What the names take in the request of a client that comes back."""
        self.wildcard = False
        self.listed: Wildcard | None = None
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
        self._all_refused = ""  # The client's words, where it has refused all that there were.
        self._unanswered: deque[_Sent] = deque()
        self.draft: dict[str, bytes] = {}
        self.all_told: BodyReader | None = None
        # Most services have one name, which is kept without a dict around it.
        self._of_service: dict[Key, str | dict[str, None]] = {}
        self._sum = 0

    # -- What the client asks for --

    def names_of(self, service: Key) -> Iterable[str]:
        """The names of a service that this client has asked for, or holds."""
        names = self._of_service.get(service, ())
        return (names,) if isinstance(names, str) else names

    def concerns(self, service: Key) -> bool:
        """Whether the client asks for something of a service by name."""
        return service in self._of_service

    def ask(self, name: str) -> Reference | None:
        """The client asks for a name; what that refers to."""
        if (asked := self._references.of(name)) is not None:
            name = asked.name
            self._index(asked)
        if name not in self.names:
            self.names[name] = None
            self.resuming_bytes += resuming_bytes(name)
        return asked

    def _index(self, asked: Reference) -> None:
        others = self._of_service.get(asked.service)
        if others is None:
            self._of_service[asked.service] = asked.name
        elif isinstance(others, dict):
            others[asked.name] = None
        elif others != asked.name:
            self._of_service[asked.service] = {others: None, asked.name: None}

    def drop(self, name: str) -> Reference | None:
        """The client does not ask for a name any more, by name; what that refers to.

        What it holds is as it was.
        """
        if name in self.names:
            del self.names[name]
            self.resuming_bytes -= resuming_bytes(name)
        if (asked := self._references.of(name)) is None:
            return None
        names = self._of_service.get(asked.service)
        if isinstance(names, dict):
            names.pop(name, None)
        if not names or names == name:
            self._of_service.pop(asked.service, None)
        return asked

    def close(self) -> None:
        """Nothing is asked for by a wildcard any more; nor is what it has handed out held."""
        if self.listed is not None:
            self.listed.close()
            self.listed = None

    # -- What the client holds --

    @property
    def digest(self) -> int:
        """A digest of what the client holds once it has been told all that it asks for.

        The same on each stream and replica that is asked for the same. It is a sum of the
        resources' own, so that a change costs no more than itself.
        """
        return (self._sum + (self.listed.listing.digest if self.listed else 0)) % DIGESTS

    def digest_of(self, names: Iterable[str]) -> int:
        """The same of some names alone, each as it is now."""
        return sum(self.holds(name) or ABSENT for name in names) % DIGESTS

    def holds(self, name: str) -> int | None:
        """The digest of what the client was told of a name, be it ABSENT; None if not known.

        It is not while there may be something newer to tell of what a wildcard alone has.
        """
        if (told := self.told.get(name)) is not None:
            return told
        if self.listed is None or not self.listed.has_told(name):
            return None
        resource = self.listed.listing.resource(name)
        return resource.digest if resource is not None else None

    @property
    def held(self) -> Iterator[str]:
        """Names that were asked for or told, and those that the wildcard has; some twice."""
        listed = self.listed.listing.names() if self.listed is not None else ()
        return chain(self.names, self.told, listed)

    @property
    def names_at_least(self) -> int:
        """How many different ones those are, at least. O(1)."""
        listed = len(self.listed.listing) if self.listed is not None else 0
        return max(len(self.names), len(self.told), listed)

    def claim(self, name: str, version: str) -> None:
        """The client says that it holds a resource; "" if it does not say in which version."""
        self.claimed[name] = version

    def tell(self, name: str, digest: int) -> None:
        """The client is told a resource, or knows it; ABSENT, that it is gone."""
        before = self.told.get(name, ABSENT)
        self.told[name] = digest
        self._sum = (self._sum + digest - before) % DIGESTS
        if self.all_told is not None:
            self.all_told.note(name)

    def pass_on(self, name: str) -> None:
        """What the client holds of a name is the wildcard's now, or nobody's."""
        self._sum = (self._sum - self.told.pop(name, ABSENT)) % DIGESTS
        if self.all_told is not None:
            self.all_told.note(name)

    def forget(self, name: str) -> None:
        """The client holds nothing of a name, and wants to hear nothing of it now."""
        self.pass_on(name)
        for noted in (self.claimed, self.pending, self.leaving, self.draft, self.refused):
            noted.pop(name, None)

    # -- What there may be to tell --

    def noted(self) -> Sequence[str]:
        """Names of which something is noted: what is held, claimed, or to be told; some twice."""
        noted = (self.told, self.claimed, self.pending, self.leaving, self.draft)
        return [name for names in noted for name in names]

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

        None: with all that there are, which needs no entry for each.
        """
        self.nonce = nonce
        unanswered = self._unanswered
        if names is None:
            unanswered.clear()
        elif len(unanswered) >= _UNANSWERED_MAX:
            # It does not acknowledge. Of these it is not known any more which had which.
            self._unanswered = unanswered = deque([_Sent(nonce - 1, self._together(unanswered))])
        unanswered.append(_Sent(nonce, None if names is None else tuple(names)))

    def _together(self, responses: Iterable[_Sent]) -> tuple[str, ...]:
        named = (self.held if sent.names is None else sent.names for sent in responses)
        return tuple(dict.fromkeys(chain.from_iterable(named)))

    @property
    def unheard(self) -> bool:
        """Whether a client that does acknowledge has not yet done so with the newest response.

        One that has never acknowledged any is not waited for: it may only listen.
        """
        return 0 < self.answered < self.nonce

    def unanswered(self) -> frozenset[str]:
        """The names of which the client has yet to say what it makes of what it was told.

        O(these).
        """
        return frozenset(self._together(self._unanswered))

    def refusal_of(self, name: str) -> str:
        """The client's words where it has refused what it was last told of a name; else ""."""
        return self.refused.get(name, self._all_refused)

    def heard(self, text: str, refusal: str | None) -> Sequence[str] | None:
        """Take note of an ACK or NACK by its nonce; the names that a NACK is about.

        None if it says nothing new: its nonce is of another stream, or already answered.
        Who answers a response has taken in those before it.
        """
        if not (len(text) <= _NONCE_DIGITS_MAX and text.isdecimal()):
            return None
        nonce = int(text)
        if not self.answered < nonce <= self.nonce:
            return None
        self.answered = nonce
        heard = []
        while self._unanswered and self._unanswered[0].nonce <= nonce:
            heard.append(self._unanswered.popleft())
        if refusal is None and not (self.refused or self._all_refused):
            return ()  # As nearly all.
        return self._judged(nonce, heard, refusal)

    def _judged(self, nonce: int, heard: Sequence[_Sent], refusal: str | None) -> Sequence[str]:
        """Note what is refused, and what is not any more; the names that are refused now."""
        later = self.unanswered()
        if any(sent.names is None for sent in heard):
            self.refused.clear()
            self._all_refused = ""
        for name in self._together(heard):
            if name not in later:
                self.refused.pop(name, None)
        if refusal is None or not heard or heard[-1].nonce != nonce:
            return ()
        about = [name for name in self._together(heard[-1:]) if name not in later]
        if heard[-1].names is None:
            self._all_refused = refusal
        else:
            self.refused.update(dict.fromkeys(about, refusal))
        return about
