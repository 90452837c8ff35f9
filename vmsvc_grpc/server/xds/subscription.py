"""What one stream has requested of one type of resource, and what it was sent."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from vmsvc_grpc.cache.topic import Publication, Topic
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.followed import StreamNames
from vmsvc_grpc.server.xds.bodies import BodyReader
from vmsvc_grpc.server.xds.denied import Denied
from vmsvc_grpc.server.xds.listing import DIGESTS
from vmsvc_grpc.server.xds.names import Reference, References
from vmsvc_grpc.server.xds.namespaces import AnyWildcard
from vmsvc_grpc.server.xds.refusals import Refusals
from vmsvc_grpc.server.xds.requests import asked_bytes, resuming_bytes
from vmsvc_grpc.server.xds.resources import Resource, TypeUrl

ABSENT = 0
"""In `digests`: the client knows that there is no resource of that name."""

UNKNOWN = 1
"""In `digests`: the client holds a resource of that name that this stream has not sent."""

_NONCE_DIGITS_MAX = 20

# For how many unanswered responses of a client we remember which names each had.
_UNANSWERED_MAX = 32

# Names in them that the client no longer follows, or never did, may take so many bytes, and twice
# the bytes of the names that it follows.
_UNANSWERED_BYTES = 8 * 1024

_NAME_BYTES = 8  # What a name takes there beside its characters, which others mostly keep too.


class Sent(NamedTuple):
    """A response that the client has not answered yet, and its names; None: all names."""

    nonce: int
    names: tuple[str, ...] | None

    @property
    def size(self) -> int:
        """What its names take, about."""
        names = self.names or ()
        return sum(map(len, names)) + _NAME_BYTES * len(names)


class Refused(NamedTuple):
    """What a client refuses: names, and the sum of the digests of what it was sent of them.

    Of a response's names, those that have not been sent again since.
    """

    names: Sequence[str]
    digest: int


class Making(NamedTuple):
    """A name whose endpoints are being encoded in several turns, and which those are."""

    name: str
    topic: Topic
    publication: Publication


class XdsSubscription:
    """Names and versions, and the names that may have news. Knows no messages.

    `names` are those requested one by one, `wildcard` requests all others, and `listed` hands those
    out, once there is an answer. `digests` has the digest of each resource that the client holds by
    name; a resource that it holds by the wildcard alone has no entry. `claimed` has, until they are
    compared, the versions that the client says it holds from before.

    `pending` are names to look at, in order, and `leaving` names to remove; the value is True for a
    name that is sent even if nothing is new. `making` is the one of `pending` that takes several
    turns, if there is one; it may be older than what is published by now. `draft` has what the next
    response is to bring; it counts as held already. `answer_due`: the client waits for a response,
    even an empty one. `denied` are names that do not exist, of which the client is to be informed
    once. `bodies` is for a client that is sent all resources each time; `took_away`: some of them
    are gone, which it is still to be sent. `refusals` are those that the client has not taken back
    by an answer to a newer response.
    """

    __slots__ = (
        "_left",
        "_of_service",
        "_references",
        "_sum",
        "_unanswered",
        "_unanswered_bytes",
        "answer_due",
        "answered",
        "asked_bytes",
        "asked_few",
        "asked_last",
        "barren",
        "begun",
        "bodies",
        "claimed",
        "denied",
        "digests",
        "draft",
        "leaving",
        "listed",
        "making",
        "named",
        "names",
        "nonce",
        "pending",
        "refusals",
        "resuming_bytes",
        "took_away",
        "type_url",
        "wildcard",
    )

    def __init__(self, type_url: TypeUrl, references: References, room: StreamNames) -> None:
        """Nothing is requested, and nothing sent. Names denied or refused count in `room`."""
        self._references = references
        self.type_url = type_url
        self.begun = False
        self.named = False
        self.names: dict[str, None] = {}
        self.asked_last: int | None = None
        """State of the world: a digest of the names that the last request had, refused ones too."""
        self.asked_few: tuple[str, ...] | None = None
        """The same names themselves, if they are few, and all are followed.

        Not the request's own list of them, which keeps all of the request with it.
        """
        self.asked_bytes = 0
        """The bytes that the names take in a request that asks for all of them."""
        self.resuming_bytes = 0
        """The same if it also says in which versions its client holds them, as deltas do."""
        self.wildcard = False
        self.barren = False
        """Whether a wildcard is known to cover nothing, ever: no resource of the type suits."""
        self.listed: AnyWildcard | None = None
        # The wildcard that was dropped while the client had yet to answer what it had handed out.
        self._left: AnyWildcard | None = None
        self.digests: dict[str, int] = {}
        self.claimed: dict[str, str] = {}
        # Taking the first of a plain dict again and again is quadratic.
        self.pending: OrderedDict[str, bool] = OrderedDict()
        self.leaving: OrderedDict[str, bool] = OrderedDict()
        self.making: Making | None = None
        self.denied = Denied(room)
        self.refusals = Refusals(room.another())
        self.answer_due = False
        self.nonce = 0
        self.answered = 0
        self._unanswered: deque[Sent] = deque()
        self._unanswered_bytes = 0
        self.draft: dict[str, bytes] = {}
        self.bodies: BodyReader | None = None
        self.took_away = False
        # Most services have one name, which is kept without a dict around it.
        self._of_service: dict[Key, str | dict[str, None]] = {}
        self._sum = 0

    # -- What the client requests --

    def names_of(self, service: Key) -> Iterable[str]:
        """The names of a service that this client has requested or holds, as they are now."""
        names = self._of_service.get(service, ())
        return (names,) if isinstance(names, str) else tuple(names)

    def sole_name_of(self, service: Key) -> str | None:
        """The name of a service that this client has requested; "" if none, None if several."""
        names = self._of_service.get(service, "")
        return names if isinstance(names, str) else None

    def concerns(self, service: Key) -> bool:
        """Whether the client requests a resource of a service by name."""
        return service in self._of_service

    def ask(self, name: str) -> Reference | None:
        """The client asks for a name; what that refers to."""
        if (asked := self._references.of(name)) is not None:
            name = asked.name
            self._index(asked)
        if name not in self.names:
            self.names[name] = None
            self.refusals.name(name)
            self.asked_bytes += asked_bytes(name)
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
        """The client does not ask for a name by itself any more; what that refers to.

        It still holds the resource.
        """
        if name in self.names:
            del self.names[name]
            if self.making is not None and self.making.name == name:
                self.making = None  # Asked for again, it is sent as it is then.
            self.refusals.unname(name)
            self.asked_bytes -= asked_bytes(name)
            self.resuming_bytes -= resuming_bytes(name)
            self._bound_unanswered()
        if (asked := self._references.of(name)) is None:
            return None
        names = self._of_service.get(asked.service)
        if isinstance(names, dict):
            names.pop(name, None)
        if not names or names == name:
            self._of_service.pop(asked.service, None)
        return asked

    def close(self) -> None:
        """The stream is over."""
        self.leave_listing()
        self._forget_left()
        self.denied.close()
        self.refusals.clear()

    def leave_listing(self) -> None:
        """Drop the wildcard, and all that it has handed out."""
        if self.listed is not None:
            self._forget_left()
            self._left, self.listed = self.listed, None
            self.refusals.leave_listing()
            if self.bodies is not None or not (self._unanswered and self._left.begun):
                self._forget_left()
            self._bound_unanswered()

    def retake_listing(self) -> None:
        """Hand out everything again by the wildcard dropped last, and what is gone by then.

        Only if the client has yet to answer something: it wants that again by the time it arrives.
        """
        if self._left is not None:
            self.listed, self._left = self._left, None
            self.listed.again()

    def _forget_left(self) -> None:
        if self._left is not None:
            self._left.close()
            self._left = None

    # -- What the client holds --

    @property
    def digest(self) -> int:
        """The digest of what the client holds once it has been sent all that it requests.

        It is the same on each stream and replica with the same requests. It is the sum of the
        resources' digests, so that a change costs only itself.
        """
        return (self._sum + (self.listed.listing.digest if self.listed else 0)) % DIGESTS

    def holds(self, name: str) -> int | None:
        """The digest of what the client was last sent of a name, or ABSENT; None if not known.

        Not known while there may be news of a name that only a wildcard covers.
        """
        if (digest := self.digests.get(name)) is not None:
            return digest
        if self.listed is None or not self.listed.has_sent(name):
            return None
        resource = self.listed.listing.resource(name)
        return resource.digest if resource is not None else None

    @property
    def held(self) -> Iterator[str]:
        """Names that were requested or sent, and those that the wildcard covers; some twice."""
        listed = self.listed.listing.names() if self.listed is not None else ()
        return chain(self.names, self.digests, listed)

    @property
    def names_at_least(self) -> int:
        """A lower bound of how many different names those are. O(1)."""
        listed = len(self.listed.listing) if self.listed is not None else 0
        return max(len(self.names), len(self.digests), listed)

    def claim(self, name: str, version: str) -> None:
        """The client says that it holds a resource; "" if it does not say in which version."""
        self.claimed[name] = version

    def disbelieve(self) -> None:
        """Forget the versions that the client claims of resources that its wildcard covers."""
        names = self.names
        self.claimed = {n: v if n in names else "" for n, v in self.claimed.items()}

    def note_held(self, name: str, digest: int) -> None:
        """Note that the client was sent a resource, or holds it; ABSENT: that it is gone."""
        before = self.digests.get(name, ABSENT)
        self.digests[name] = digest
        self._sum = (self._sum + digest - before) % DIGESTS
        if self.bodies is not None:
            self.bodies.note(name)

    def pass_on(self, name: str) -> None:
        """Note that what the client holds of a name now belongs to the wildcard, or to nothing."""
        self._sum = (self._sum - self.digests.pop(name, ABSENT)) % DIGESTS
        if self.bodies is not None:
            self.bodies.note(name)

    def forget(self, name: str) -> None:
        """The client holds nothing of a name, and does not request it any more."""
        self.pass_on(name)
        for noted in (self.claimed, self.pending, self.leaving, self.draft):
            noted.pop(name, None)
        self.refusals.discard(name)

    # -- News --

    def noted(self) -> Sequence[str]:
        """Names with a note: held, claimed, or to be sent; some twice."""
        noted = (self.digests, self.claimed, self.pending, self.leaving, self.draft)
        return [name for names in noted for name in names]

    @property
    def under_way(self) -> bool:
        """Whether there are names left to look at, or a response to send."""
        return bool(self.pending or self.draft or self.answer_due or self.gone)

    @property
    def gone(self) -> bool:
        """Whether the client may have to be sent that something is gone."""
        return bool(self.leaving or self.took_away or self.denied)

    def note(self, name: str, *, forced: bool = False) -> None:
        """Note that there may be news of a name."""
        self.pending[name] = forced or self.pending.get(name, False)

    def take_denied(self, most: int) -> None:
        """Have at most so many denied names sent as removed, unless requested since."""
        for name in self.denied.take(most):
            if name not in self.names and name not in self.leaving:
                self.leaving[name] = True

    def owes(self, resource: Resource, *, forced: bool) -> bool:
        """Whether the client must be sent a resource; drops its claim of the name."""
        name, digest = resource.name, resource.digest
        claimed = self.claimed.pop(name, None) if self.claimed else None
        if forced:
            return True
        if claimed is not None and claimed == resource.version:
            self.note_held(name, digest)
        return self.digests.get(name) != digest

    # -- The client's answers --

    def sent(self, nonce: int, names: Iterable[str] | None) -> None:
        """Note that a response with these names was sent, which the client has yet to answer.

        None: with all names, which needs no entry for each.
        """
        if names is not None:
            self.note_sent(Sent(nonce, tuple(names)))
            return
        self.nonce = nonce
        self._unanswered.clear()
        self._unanswered_bytes = 0
        self._unanswered.append(Sent(nonce, None))

    def note_sent(self, sent: Sent) -> None:
        """The same for a response with some names."""
        self.nonce = sent.nonce
        self._unanswered.append(sent)
        self._unanswered_bytes += sent.size
        self._bound_unanswered()

    def _bound_unanswered(self) -> None:
        """Forget names in unanswered responses if they are too many for what the client follows.

        Then only names that it follows are left, and, except for the newest response, no longer
        which response had which. That is O(names kept), but O(1) for each name that was sent or
        dropped: all that may be left, each name in both responses, is less than `enough` by what
        the names that are followed take, and so the next time is when half of them are dropped, or
        as much has been sent.
        """
        listed = self.listed.listing.held_bytes if self.listed is not None else 0
        enough = _UNANSWERED_BYTES + 2 * (self.resuming_bytes + listed)
        if len(self._unanswered) <= _UNANSWERED_MAX and self._unanswered_bytes <= enough:
            return
        *before, newest = self._unanswered
        kept = deque([Sent(newest.nonce, self._followed([newest]))])
        if before:
            kept.appendleft(Sent(before[-1].nonce, self._followed(before)))
        self._unanswered = kept
        self._unanswered_bytes = sum(sent.size for sent in kept)

    def _followed(self, responses: Iterable[Sent]) -> tuple[str, ...]:
        """The names in some responses that are followed, each once."""
        names, listed = self.names, self.listed.listing.all if self.listed is not None else {}
        # They may be some ten thousand, and this is done at once.
        sent = chain.from_iterable(response.names or () for response in responses)
        return tuple(dict.fromkeys([n for n in sent if n in names or n in listed]))

    def _together(self, responses: Iterable[Sent]) -> tuple[str, ...]:
        named = (self.held if sent.names is None else sent.names for sent in responses)
        return tuple(dict.fromkeys(chain.from_iterable(named)))

    @property
    def unheard(self) -> bool:
        """Whether a client that acknowledges has yet to answer the newest response.

        A client that has never acknowledged is not waited for: it may only listen.
        """
        return 0 < self.answered < self.nonce

    def unanswered(self) -> frozenset[str]:
        """The names in responses that the client has yet to answer. O(these)."""
        return frozenset(self._together(self._unanswered))

    def heard(self, text: str) -> Sequence[Sent] | None:
        """Note an ACK or NACK by its nonce; the responses that it answers, of which it is the last.

        None if it is not news: its nonce is of another type or stream, or already answered. An
        answer to a response also answers those before it.
        """
        letter, digits = text[:1], text[1:]
        if letter != self.type_url.letter:
            return None
        if len(digits) > _NONCE_DIGITS_MAX or not digits.isdecimal():
            return None
        nonce = int(digits)
        if not self.answered < nonce <= self.nonce:
            return None
        self.answered = nonce
        heard = []
        while self._unanswered and self._unanswered[0].nonce <= nonce:
            heard.append(self._unanswered.popleft())
            self._unanswered_bytes -= heard[-1].size
        if not self._unanswered:
            self._forget_left()
        return heard

    def accept(self, heard: Sequence[Sent]) -> Iterator[None]:
        """Note, name by name, that what was in these responses is not refused any more."""
        if any(sent.names is None for sent in heard):
            self.refusals.clear()
            return
        later = self.unanswered()
        for sent in heard:
            for name in sent.names or ():
                if name not in later:
                    self.refusals.discard(name)
                yield

    def refuse(self, heard: Sequence[Sent], words: str) -> Generator[None, None, Refused]:
        """Note, name by name, that the last of these responses is refused; what that is about."""
        yield from self.accept(heard)
        about: list[str] = []
        digest = 0
        if heard and heard[-1].nonce == self.answered:
            later, everything = self.unanswered(), heard[-1].names is None
            refusal = None if everything else self.refusals.begin(words)
            if everything:
                self.refusals.add_all(words)
            for name in self._together(heard[-1:]):
                if name not in later:
                    about.append(name)
                    digest += self.holds(name) or ABSENT
                    if refusal is not None and self._follows(name):
                        self.refusals.add(name, refusal, named=name in self.names)
                yield
        return Refused(about, digest % DIGESTS)

    def _follows(self, name: str) -> bool:
        """Whether a name is one of `held`; not if it was only denied, or dropped since."""
        if name in self.names or name in self.digests:
            return True
        return self.listed is not None and name in self.listed.listing.all
