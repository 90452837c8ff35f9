"""Endpoints of a service at one moment, and the difference between two moments."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from itertools import chain, islice, takewhile
from operator import eq
from typing import NamedTuple

from vmsvc_grpc.model.objects import Key, ServicePort


class FilterClass(Enum):
    """Which endpoints a topic shows."""

    READY_ONLY = "ready"
    ALL = "all"


class Endpoint(NamedTuple):
    """One address of one VM. Sorts by address (bytewise), then uid."""

    address: str
    vm_uid: str
    ready: bool
    vm_name: str
    zone: str


@dataclass(frozen=True)
class EndpointSet:
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

        O(endpoints) when first asked for, unless `follow` has told it. No defence against
        somebody who makes up endpoints; those come from us.
        """
        return sum(map(_digest, self.endpoints)) % _DIGESTS

    @cached_property
    def revision(self) -> str:
        """A digest of ports and endpoints: 32 hex digits, equal on every replica."""
        content = repr((tuple(map(tuple, self.ports)), self.digest))
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()

    def follow(self, base: EndpointSet, change: EndpointDiff) -> None:
        """Know the digest from that of `base`, which `change` leads from. O(change)."""
        if "digest" not in self.__dict__:
            moved = sum(map(_digest, change.upserted)) - sum(map(_digest, change.gone))
            self.__dict__["digest"] = (base.digest + moved) % _DIGESTS

    def same_content(self, other: EndpointSet) -> bool:
        """Whether ports and endpoints are equal, whatever the version."""
        return self.ports == other.ports and self.endpoints == other.endpoints


@dataclass(frozen=True, slots=True)
class EndpointDiff:
    """What leads from one EndpointSet to another: removals first, then the rest.

    `gone` are endpoints that are not in the new set as they were, `removed` the (address,
    uid) of those that are not in it at all. `ports` is None where they stay as they were.
    """

    gone: tuple[Endpoint, ...]
    removed: tuple[tuple[str, str], ...]
    upserted: tuple[Endpoint, ...]
    ports: tuple[ServicePort, ...] | None


def diff(old: EndpointSet, new: EndpointSet) -> EndpointDiff:
    """The change from `old` to `new`, each part sorted. O(endpoints)."""
    left, come = _differing(old.endpoints, new.endpoints)
    gone, upserted = sorted(left), sorted(come)
    kept_keys = {endpoint[:2] for endpoint in upserted}
    return EndpointDiff(
        gone=tuple(gone),
        removed=tuple(endpoint[:2] for endpoint in gone if endpoint[:2] not in kept_keys),
        upserted=tuple(upserted),
        ports=None if old.ports == new.ports else new.ports,
    )


def _differing(
    old: tuple[Endpoint, ...], new: tuple[Endpoint, ...]
) -> tuple[set[Endpoint], set[Endpoint]]:
    """What only the old ones have, and what only the new ones have."""
    # Most changes are of one endpoint. What is before and behind it are the same objects, and
    # to pass over them costs a tenth of a look inside.
    first = _alike(old, new)
    old, new = old[first:], new[first:]
    last = _alike(reversed(old), reversed(new))
    before, after = set(old[: len(old) - last]), set(new[: len(new) - last])
    return before - after, after - before


def _alike(some: Iterable[Endpoint], others: Iterable[Endpoint]) -> int:
    """How many endpoints both begin with that are the same objects."""
    pairs = zip(some, others, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] is pair[1], pairs))


_DIGESTS = 1 << 128


def _digest(endpoint: Endpoint) -> int:
    content = repr(tuple(endpoint)).encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=16).digest())


def assembled(contributions: Iterable[tuple[Endpoint, ...]]) -> tuple[Endpoint, ...]:
    """The endpoints of several VMs as one sorted tuple, unique by address and uid.

    Where address and uid come twice, not ready wins.
    """
    endpoints = sorted(chain.from_iterable(contributions))
    addresses = [endpoint.address for endpoint in endpoints]
    if not any(map(eq, addresses, islice(addresses, 1, None))):
        return tuple(endpoints)
    unique: list[Endpoint] = []
    for endpoint in endpoints:
        # Not ready sorts first among equals, as False < True.
        if unique and unique[-1][:2] == endpoint[:2]:
            continue
        unique.append(endpoint)
    return tuple(unique)
