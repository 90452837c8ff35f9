"""Endpoints of a service at one moment, and the difference between two moments."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from functools import cached_property
from itertools import chain, islice, takewhile
from operator import eq, is_
from typing import NamedTuple

import msgspec

from vmsvc_grpc.model.objects import Key, ServicePort


class FilterClass(Enum):
    """Which endpoints a topic shows."""

    # Each member exists once. Enum's own hash is that of the name, by a call in Python.
    __hash__ = object.__hash__

    READY_ONLY = "ready"
    ALL = "all"


EndpointId = tuple[str, str]
"""The address and uid of an endpoint: together they identify it."""


class Endpoint(NamedTuple):
    """One address of one VM. Sorts by address (bytewise), then uid.

    `secondary`: the address is of the service's second family, not of its primary one.
    """

    address: str
    vm_uid: str
    ready: bool
    vm_name: str
    zone: str
    region: str = ""
    secondary: bool = False

    @property
    def id(self) -> EndpointId:
        """Its address and uid, which identify it."""
        return self[:2]


class EndpointSet(msgspec.Struct, frozen=True, dict=True):
    """A service's ports and endpoints at one version, for one filter class.

    `ports` are in the order of the service; `endpoints` are sorted, and unique by
    address and uid. `version` rises at each change in this process and is never
    used twice.
    """

    service: Key
    version: int
    ports: tuple[ServicePort, ...]
    endpoints: tuple[Endpoint, ...]

    @cached_property
    def digest(self) -> int:
        """A digest of the endpoints, free of their order: the sum of their own, modulo 2^128.

        O(endpoints) when first asked for, unless `follow` has worked it out. No defence against
        somebody who makes up endpoints; those come from us.
        """
        return sum(map(digest, self.endpoints)) % _DIGESTS

    @property
    def digested(self) -> bool:
        """Whether the digest is known, so that it costs nothing."""
        return "digest" in self.__dict__

    def learn(self, digests: Iterable[int]) -> None:
        """Know the digest by those of all endpoints, which somebody has worked out."""
        self.__dict__["digest"] = sum(digests) % _DIGESTS

    @cached_property
    def revision(self) -> str:
        """A digest of ports and endpoints: 32 hex digits, equal on every replica."""
        content = repr((tuple(map(tuple, self.ports)), self.digest))
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()

    def changed(
        self, version: int, change: EndpointDiff, endpoints: tuple[Endpoint, ...]
    ) -> EndpointSet:
        """A later version of this set, after `change`; `endpoints` are those it then has.

        If this set knows its digest, so does the later one. O(change).
        """
        later = EndpointSet(self.service, version, self.ports, endpoints)
        if "digest" in self.__dict__:
            later.follow(self, change)
        return later

    def follow(self, base: EndpointSet, change: EndpointDiff) -> None:
        """Work out the digest from that of `base`, the set before `change`. O(change)."""
        if "digest" not in self.__dict__:
            moved = sum(map(digest, change.upserted)) - sum(map(digest, change.gone))
            self.__dict__["digest"] = (base.digest + moved) % _DIGESTS


class EndpointDiff(msgspec.Struct, frozen=True, gc=False):
    """The difference between two EndpointSets. Removals are applied first.

    `gone` are the old endpoints that the new set lacks or has changed, `upserted` those that it
    adds or has changed; both are sorted. `ports` is None if the ports stay the same.
    """

    gone: tuple[Endpoint, ...]
    upserted: tuple[Endpoint, ...]
    ports: tuple[ServicePort, ...] | None

    @property
    def removed(self) -> tuple[EndpointId, ...]:
        """The endpoints that the new set lacks."""
        there = {endpoint[:2] for endpoint in self.upserted}
        return tuple(endpoint[:2] for endpoint in self.gone if endpoint[:2] not in there)

    def of_ready(self) -> EndpointDiff | None:
        """Its changes of ready endpoints; None if there are none."""
        gone = [endpoint for endpoint in self.gone if endpoint.ready]
        come = [endpoint for endpoint in self.upserted if endpoint.ready]
        if len(gone) + len(come) == len(self.gone) + len(self.upserted):
            return self
        return _diff(gone, come, self.ports) if gone or come else None

    def patched(self, endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        """`endpoints` after this change, sorted as before. Copies the pointers to all of them."""
        result = list(endpoints)
        for endpoint in self.gone:
            del result[bisect_left(result, endpoint)]
        for endpoint in self.upserted:
            insort(result, endpoint)
        return tuple(result)


def diff(old: EndpointSet, new: EndpointSet) -> EndpointDiff:
    """The change from `old` to `new`, each part sorted. O(endpoints)."""
    change = diff_within(old, new, len(old.endpoints) + len(new.endpoints))
    assert change is not None, "no more can differ than there are"
    return change


def diff_within(old: EndpointSet, new: EndpointSet, most: int) -> EndpointDiff | None:
    """The same; None if more than `most` endpoints of both are not objects of the other.

    Then it takes a fifth of the time.
    """
    gone, come = _differing(old.endpoints, new.endpoints)
    if len(gone) + len(come) > most:
        return None
    before, after = set(gone), set(come)
    return _diff(before - after, after - before, None if old.ports == new.ports else new.ports)


def _diff(
    gone: Iterable[Endpoint], come: Iterable[Endpoint], ports: tuple[ServicePort, ...] | None
) -> EndpointDiff:
    return EndpointDiff(tuple(sorted(gone)), tuple(sorted(come)), ports)


def _differing(
    old: tuple[Endpoint, ...], new: tuple[Endpoint, ...]
) -> tuple[list[Endpoint], list[Endpoint]]:
    """Objects only among the old endpoints, and only among the new ones."""
    # Most changes are of one endpoint. All before and behind it are the same objects, and to skip
    # them by identity costs a tenth of comparing them.
    first = _shared_first(old, new)
    old, new = old[first:], new[first:]
    last = _shared_first(reversed(old), reversed(new))
    before, after = old[: len(old) - last], new[: len(new) - last]
    were, are = set(map(id, before)), set(map(id, after))
    return [e for e in before if id(e) not in are], [e for e in after if id(e) not in were]


def _shared_first(some: Iterable[Endpoint], others: Iterable[Endpoint]) -> int:
    """How many endpoints at the beginning of both are the same objects."""
    return sum(takewhile(bool, map(is_, some, others)))


_DIGESTS = 1 << 128


def digest(endpoint: Endpoint) -> int:
    """The digest of one endpoint: 128 bits."""
    content = repr(tuple(endpoint)).encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=16).digest())


class Assembly:
    """The endpoints of several VMs: sorted, and unique by address and uid.

    A VM contributes each endpoint once (`resolve.contribution`). Of two with the same address and
    uid, the one that is not ready is shown. The other is set aside, and shown once the first is
    gone.
    """

    __slots__ = ("_aside", "endpoints")

    def __init__(self, endpoints: Sequence[Endpoint] = (), *, repeats: bool = False) -> None:
        """`endpoints` are sorted; `repeats` says whether an id repeats in them. O(endpoints)."""
        self._aside: dict[EndpointId, list[Endpoint]] = {}
        self.endpoints = tuple(self._set_aside(endpoints) if repeats else endpoints)

    @classmethod
    def of(cls, contributions: Iterable[tuple[Endpoint, ...]]) -> Assembly:
        """The endpoints of each VM, in any order, together. O(n log n)."""
        endpoints = sorted(chain.from_iterable(contributions))
        return cls(endpoints, repeats=repeats_id(endpoints))

    def _set_aside(self, given: Iterable[Endpoint]) -> Iterator[Endpoint]:
        shown: Endpoint | None = None
        for endpoint in given:
            # Not ready sorts first among equals, as False < True.
            if shown is not None and shown.id == endpoint.id:
                self._aside.setdefault(endpoint.id, []).append(endpoint)
            else:
                shown = endpoint
                yield endpoint

    def exchange(self, old: tuple[Endpoint, ...], new: tuple[Endpoint, ...]) -> EndpointDiff | None:
        """Replace what a VM contributes; the difference that makes, None if there is none.

        O(old + new), and copies the pointers to all endpoints.
        """
        endpoints = list(self.endpoints)
        gone: list[Endpoint] = []
        come: list[Endpoint] = []
        had_aside = bool(self._aside)
        for endpoint in old:
            if endpoint not in new:
                self._take(endpoint, endpoints, gone, come)
        for endpoint in new:
            if endpoint not in old:
                self._put(endpoint, endpoints, gone, come)
        if had_aside or self._aside:
            # An endpoint that was removed and added again has not changed.
            gone, come = _net(gone, come), _net(come, gone)
        if not gone and not come:
            return None
        self.endpoints = tuple(endpoints)
        return _diff(gone, come, None)

    def _take(
        self,
        endpoint: Endpoint,
        endpoints: list[Endpoint],
        gone: list[Endpoint],
        come: list[Endpoint],
    ) -> None:
        aside = self._aside.pop(endpoint[:2], []) if self._aside else []
        if endpoint in aside:
            aside.remove(endpoint)
        else:
            place = bisect_left(endpoints, endpoint)
            gone.append(endpoints.pop(place))
            if aside:
                come.append(aside.pop(0))
                endpoints.insert(place, come[-1])
        if aside:
            self._aside[endpoint[:2]] = aside

    def _put(
        self,
        endpoint: Endpoint,
        endpoints: list[Endpoint],
        gone: list[Endpoint],
        come: list[Endpoint],
    ) -> None:
        # A tuple sorts before all longer ones that begin with it.
        place = bisect_left(endpoints, endpoint[:2])
        if place < len(endpoints) and endpoints[place][:2] == endpoint[:2]:
            shown, other = sorted((endpoints[place], endpoint))
            insort(self._aside.setdefault(endpoint[:2], []), other)
            if shown is endpoint:
                gone.append(other)
                come.append(endpoint)
                endpoints[place] = endpoint
        else:
            come.append(endpoint)
            endpoints.insert(place, endpoint)


def _net(endpoints: list[Endpoint], others: list[Endpoint]) -> list[Endpoint]:
    """The endpoints that occur more often than among the others, each once."""
    return [e for e in dict.fromkeys(endpoints) if endpoints.count(e) > others.count(e)]


def repeats_id(endpoints: Iterable[Endpoint]) -> bool:
    """Whether two of these, which are sorted, have the same address and uid. O(endpoints)."""
    ids = [endpoint[:2] for endpoint in endpoints]
    return any(map(eq, ids, islice(ids, 1, None)))


def assembled(contributions: Iterable[tuple[Endpoint, ...]]) -> tuple[Endpoint, ...]:
    """The endpoints of several VMs as one sorted tuple, unique by address and uid."""
    return Assembly.of(contributions).endpoints
