"""Which of two states of an object is the newer: the source's, or the answer to a request."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from typing import NamedTuple

from vmsvc_grpc.model.events import AnswerGone
from vmsvc_grpc.model.objects import Key, Kind, ObjectMeta

ListScope = tuple[Kind, str | None]
"""What one complete list covers: a kind, in one namespace or in all (None)."""


class _Answered(NamedTuple):
    """The last answer to a request about an object: its state at a version, or that it is gone.

    If it is gone, `version` is one that it once had; it may have had later ones.
    """

    version: int
    uid: str
    gone: bool = False

    def outdates(self, version: int, uid: str) -> bool:
        """Whether a state of an object of that name is older than this."""
        return version < self.version or (self.gone and uid == self.uid)


class Freshness:
    """Which is the newer state of an object: the source's, or the answer to a request.

    Both come over connections of their own, so either may overtake the other. An API
    server's resource versions are numbers that rise with each change of any object of a
    kind (KEP-5504); where there are none, whatever comes last counts. A deletion that the source
    emits is ordered by these numbers alone; one that a request was answered, by the uid, which is
    never used again.
    """

    def __init__(self, namespaces: Sequence[str]) -> None:
        """`namespaces` are those that are listed one by one; none: all at once."""
        self._scoped = bool(namespaces)
        # The highest resource version that the source has emitted, by what is listed.
        self._emitted: dict[ListScope, int] = {}
        self._listing: set[ListScope] = set()
        # Answers that the source may not have emitted yet.
        self._answered: dict[ListScope, dict[Key, _Answered]] = {}
        # The same, from before the list under way was asked for. That list should be newer; if it
        # is older, the server has started over, as after a restored backup, and the list counts.
        self._before: dict[ListScope, dict[Key, _Answered]] = {}

    # -- What the source emits --

    def listing(self, kind: Kind, namespace: str | None) -> None:
        """A list is asked for."""
        scope = kind, namespace
        self._listing.add(scope)
        self._before.setdefault(scope, {}).update(self._answered.pop(scope, {}))

    def listed(
        self, kind: Kind, namespace: str | None, resource_version: str, listed: Container[Key]
    ) -> None:
        """The list that was asked for is complete, of that version, and holds these."""
        scope = kind, namespace
        at = number(resource_version)
        self._emitted[scope] = at or 0
        self._listing.discard(scope)
        self._before.pop(scope, None)
        answered = self._answered.pop(scope, {})
        if at is not None:
            self._answered[scope] = {
                key: last
                for key, last in answered.items()
                # More may still come of one that was listed and is gone.
                if last.version > at or (last.gone and key in listed)
            }

    def written_since(self, kind: Kind, namespace: str | None) -> set[Key]:
        """Names of the objects that were written after the list just completed. A new set."""
        answered = self._answered.get((kind, namespace), {})
        return {key for key, last in answered.items() if not last.gone}

    def emitted(self, kind: Kind, key: Key, resource_version: str, uid: str) -> bool:
        """Whether a state that the source emits is to be taken in: no answer is newer."""
        version = self._reached(kind, key, resource_version)
        last = self._last(kind, key)
        if version is None or last is None:
            return True
        if last.outdates(version, uid):
            return False
        del self._answered[self._scope(kind, key)][key]
        return True

    def emitted_malformed(self, kind: Kind, key: Key, resource_version: str) -> bool:
        """Whether it counts that an object is malformed: no answer is newer."""
        version = self._reached(kind, key, resource_version)
        last = self._last(kind, key)
        return version is None or last is None or version >= last.version

    def emitted_deleted(self, kind: Kind, key: Key, resource_version: str) -> bool:
        """Whether a deletion that the source emits is to be taken in: no answer is newer."""
        version = self._reached(kind, key, resource_version)
        last = self._last(kind, key)
        if last is None:
            return True
        if version is not None and version < last.version:
            return False
        del self._answered[self._scope(kind, key)][key]
        return True

    # -- What requests are answered --

    def answered(self, kind: Kind, meta: ObjectMeta, held: ObjectMeta | None) -> bool:
        """Whether the state of an answer is to be taken in; `held` is what is held now.

        Not if this state or a later one is held, nor if the source has come as far: then the object
        is gone.
        """
        version = number(meta.resource_version)
        if version is None:
            return True
        scope = self._scope(kind, meta.key)
        known = number(held.resource_version) if held else None
        if version <= max(self._emitted.get(scope, 0), known or 0):
            return False
        for answered in (self._answered, self._before):
            last = answered.get(scope, {}).get(meta.key)
            if last is not None and last.outdates(version, meta.uid):
                return False
        self._answered.setdefault(scope, {})[meta.key] = _Answered(version, meta.uid)
        return True

    def answered_gone(self, answer: AnswerGone, held: ObjectMeta | None) -> bool:
        """Whether the answer removes `held`, what is held under that name."""
        version = number(answer.resource_version)
        if version is None:
            return True
        scope = self._scope(answer.kind, answer.key)
        if held is None:
            goes = False
            # The source has emitted its deletion already, or has yet to emit all of it.
            deletion_emitted = self._emitted.get(scope, 0) > version
        else:
            known = number(held.resource_version) or 0
            goes = held.uid == answer.uid or known < version
            deletion_emitted = not goes  # A later object of the name is held already.
        last = self._answered.get(scope, {}).get(answer.key)
        if not deletion_emitted and (last is None or last.version <= version):
            gone = _Answered(version, answer.uid, gone=True)
            self._answered.setdefault(scope, {})[answer.key] = gone
        return goes

    def _last(self, kind: Kind, key: Key) -> _Answered | None:
        return self._answered.get(self._scope(kind, key), {}).get(key)

    def _reached(self, kind: Kind, key: Key, resource_version: str) -> int | None:
        """The version as a number. Notes that the source has come as far."""
        version = number(resource_version)
        scope = self._scope(kind, key)
        # Objects of a list come in the order of their names, not in that of time.
        if version is not None and scope not in self._listing:
            self._emitted[scope] = max(version, self._emitted.get(scope, 0))
        return version

    def _scope(self, kind: Kind, key: Key) -> ListScope:
        return kind, key.namespace if self._scoped else None


# As many digits as 64 bits have: etcd counts no further. Python refuses to read 5,000.
_NUMBER = re.compile("[0-9]{1,20}")


def number(resource_version: str) -> int | None:
    """A resource version as a number to compare; None if it is not one. Never raises."""
    return int(resource_version) if _NUMBER.fullmatch(resource_version) else None
