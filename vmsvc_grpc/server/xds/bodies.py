"""All resources of a type as the body of one response, for the state of the world.

A body is made in slices, once for all streams that are sent the same, and patched by changes, at
the cost of the change and of one copy for sending. A body is kept as long as it is the last one
that some stream was sent. All bodies together have a bound; one that was dropped is made anew for a
stream that needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from itertools import count, islice
from typing import NamedTuple, TypeAlias
from weakref import WeakValueDictionary
from zlib import crc32

SHARED_FROM = 128
"""A smaller body is made for each response: gRPC's clients ask for one or two resources."""

BODIES_BYTES_MAX = 64 * 1024 * 1024
"""Bytes of all bodies. 20,000 clusters take 7 MB, and twice that while some streams have yet to
be sent a change; and it may be so for each of a few namespaces."""

SLICE = 1_024
"""How many resources are added to a body before others have their turn: some 2 ms."""

# A change makes one drawer anew. Of 20,000 clusters, a drawer has 80: some 25 KB.
_DRAWERS = 256

# More changes than this would make nearly all drawers anew in a single turn.
_CHANGES_MAX = 1_024

Part: TypeAlias = Callable[[str], bytes]
"""Returns a resource, by name, as it is in a response."""


Respond: TypeAlias = Callable[[int, int, Sequence[bytes | memoryview]], bytes]
"""Makes a response of a digest, a nonce and these resources, which come last."""


class Whole(NamedTuple):
    """A response with all resources of a type."""

    nonce: int
    message: bytes


class _Drawer(NamedTuple):
    """The resources of a body whose names share a hash: by name, and joined."""

    parts: dict[str, bytes]
    content: bytes | memoryview


def _drawer_of(name: str) -> int:
    return crc32(name.encode()) % _DRAWERS


def _drawer(parts: dict[str, bytes]) -> _Drawer:
    return _Drawer(parts, b"".join(parts.values()))


class Body:
    """The resources of some names, one after the other.

    It is made slice by slice, and does not change afterwards.
    """

    __slots__ = (
        "__weakref__",
        "_digest",
        "_drawers",
        "_left",
        "_making",
        "_part",
        "_whole",
        "size",
    )

    def __init__(self, digest: int, part: Part, names: Iterable[str]) -> None:
        """Still to be made, of these names as they are now; `digest` is the sum of theirs."""
        self._digest = digest
        self._part = part
        self._left = iter(tuple(names))
        self._making: list[dict[str, bytes]] = [{} for _ in range(_DRAWERS)]
        self._drawers: list[_Drawer] = []
        self._whole: Whole | None = None
        self.size = 0
        """Its bytes so far."""

    def make(self) -> bool:
        """Make one more slice; whether the body is complete."""
        if self.made:
            return True
        for name in (names := tuple(islice(self._left, SLICE))):
            self._making[_drawer_of(name)][name] = part = self._part(name)
            self.size += len(part)
        if len(names) < SLICE:
            self._drawers = [_drawer(parts) for parts in self._making]
            self._making = []
        return False

    @property
    def made(self) -> bool:
        """Whether it is complete."""
        return bool(self._drawers)

    @property
    def gone(self) -> bool:
        """Whether it was dropped."""
        return not (self._making or self._drawers)

    def let_go(self) -> None:
        """Drop everything. The body is useless from then on."""
        self._making, self._drawers, self._whole = [], [], None
        self.size = 0

    def patched(self, digest: int, changed: Iterable[str], there: Container[str]) -> Body:
        """The body after a change of these names: of them, only those in `there` are in it.

        Makes the drawers of these names anew, and shares the others.
        """
        later = Body(digest, self._part, ())
        later._making, later._drawers = [], self._drawers.copy()
        changes: dict[int, dict[str, bytes]] = {}
        for name in changed:
            number = _drawer_of(name)
            if number not in changes:
                changes[number] = self._drawers[number].parts.copy()
            if name in there:
                changes[number][name] = self._part(name)
            else:
                changes[number].pop(name, None)
        for number, parts in changes.items():
            later._drawers[number] = _drawer(parts)
        later.size = sum(len(drawer.content) for drawer in later._drawers)
        return later

    def message(self, after: int, nonces: Iterator[int], respond: Respond) -> Whole:
        """The message with the whole body: one object for all callers. Only for a complete body.

        Its nonce is above `after`: if that of the existing message is not, a new message is made
        for all.
        """
        if self._whole is None or self._whole.nonce <= after:
            nonce = next(nonces)
            message = respond(self._digest, nonce, [drawer.content for drawer in self._drawers])
            # From now on the drawers are parts of the message, so that all bytes exist once.
            view, end = memoryview(message), len(message) - self.size
            for number, (parts, content) in enumerate(self._drawers):
                begin, end = end, end + len(content)
                self._drawers[number] = _Drawer(parts, view[begin:end])
            self._whole = Whole(nonce, message)
        return self._whole


class Bodies:
    """The bodies of one type that streams were last sent, or wait for; each exists once."""

    def __init__(
        self,
        part: Part,
        respond: Respond,
        on_body: Callable[[], object],
        shared_from: int = SHARED_FROM,
        bytes_max: int = BODIES_BYTES_MAX,
    ) -> None:
        """`part` returns the resource of a name, which must be the same each time.

        `on_body` is called for each body that is begun. Bodies of fewer than `shared_from` names
        are not kept. `bytes_max` bounds all bodies together; a single one may be larger.
        """
        self._part = part
        self._respond = respond
        self._on_body = on_body
        self._shared_from = shared_from
        self._bytes_max = bytes_max
        # One counter for all streams, as they share messages. For each stream nonces only rise.
        self._nonces = count(1)
        # The last used is at the end. A body is dropped with the last reader that holds it.
        self._bodies: WeakValueDictionary[int, Body] = WeakValueDictionary()

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(body.size for body in self._bodies.values())

    def small(self, digest: int, names: Collection[str]) -> Whole | None:
        """The message with these names, if they are too few for a body to be kept."""
        if len(names) >= self._shared_from:
            return None
        nonce = next(self._nonces)
        return Whole(nonce, self._respond(digest, nonce, [self._part(name) for name in names]))

    def begun(self, digest: int, names: Iterable[str]) -> Body:
        """The body with that digest; if there is none yet, one of these names, to be made."""
        return self._kept(digest) or self._keep(digest, Body(digest, self._part, names))

    def patched(
        self, body: Body, digest: int, changed: Iterable[str], there: Container[str]
    ) -> Body:
        """The body with that digest; if there is none yet, `Body.patched` of this one."""
        return self._kept(digest) or self._keep(digest, body.patched(digest, changed, there))

    def message(self, body: Body, after: int) -> Whole | None:
        """The message of a body, with a nonce above `after`; None if the body is not complete yet.

        Then one more slice of it is made. Drops the bodies that were used longest ago if all
        together are too large.
        """
        made = body.make()
        self._fit(body)
        return body.message(after, self._nonces, self._respond) if made else None

    def _kept(self, digest: int) -> Body | None:
        body = self._bodies.pop(digest, None)
        if body is not None:
            self._bodies[digest] = body
        return body

    def _keep(self, digest: int, body: Body) -> Body:
        self._on_body()
        self._bodies[digest] = body
        return body

    def _fit(self, used: Body) -> None:
        size = self.size
        for digest, body in tuple(self._bodies.items()):
            if size <= self._bytes_max:
                break
            if body is not used:
                size -= body.size
                body.let_go()
                del self._bodies[digest]


class BodyReader:
    """Reads for one stream that is sent all resources of a type each time; holds the last body."""

    __slots__ = ("_bodies", "_body", "_changed")

    def __init__(self, bodies: Bodies) -> None:
        """Nothing has been sent yet."""
        self._bodies = bodies
        self._body: Body | None = None
        self._changed: dict[str, None] = {}

    def note(self, name: str) -> None:
        """Note that a name may have come or gone since the last body. O(1)."""
        if self._body is None:
            return
        self._changed[name] = None
        if len(self._changed) > _CHANGES_MAX:
            self._forget()

    def read(self, digest: int, names: Collection[str], after: int) -> Whole | None:
        """A message with all resources of these names; None if it needs another turn.

        `digest` is the sum of their digests. All callers with the same digest get the same object,
        so its nonce is only known to be above `after`.
        """
        if (small := self._bodies.small(digest, names)) is not None:
            self._forget()
            return small
        self._body = body = self._body_of(digest, names)
        return self._bodies.message(body, after)

    def _body_of(self, digest: int, names: Collection[str]) -> Body:
        body, changed = self._body, self._changed
        if body is None or body.gone:
            self._changed = {}
            return self._bodies.begun(digest, names)
        if changed and body.made:
            self._changed = {}
            return self._bodies.patched(body, digest, changed, names)
        return body  # Changes while it is made are patched in afterwards.

    def _forget(self) -> None:
        self._body = None
        self._changed.clear()
