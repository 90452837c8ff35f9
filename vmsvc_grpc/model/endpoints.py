"""Endpoints of a service at one moment, and the difference between two moments."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
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
    def revision(self) -> str:
        """A digest of ports and endpoints: 32 hex digits, equal on every replica.

        O(endpoints) when first asked for, and then kept.
        """
        content = repr((tuple(map(tuple, self.ports)), tuple(map(tuple, self.endpoints))))
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()

    def same_content(self, other: EndpointSet) -> bool:
        """Whether ports and endpoints are equal, whatever the version."""
        return self.ports == other.ports and self.endpoints == other.endpoints


@dataclass(frozen=True, slots=True)
class EndpointDiff:
    """What leads from one EndpointSet to another: removals first, then the rest.

    `ports` is None where they stay as they were. `removed` holds (address, uid).
    """

    removed: tuple[tuple[str, str], ...]
    upserted: tuple[Endpoint, ...]
    ports: tuple[ServicePort, ...] | None


def diff(old: EndpointSet, new: EndpointSet) -> EndpointDiff:
    """The change from `old` to `new`, each part sorted. O(endpoints)."""
    before, after = set(old.endpoints), set(new.endpoints)
    kept_keys = {(e.address, e.vm_uid) for e in after}
    gone = ((e.address, e.vm_uid) for e in before - after)
    return EndpointDiff(
        removed=tuple(sorted(key for key in gone if key not in kept_keys)),
        upserted=tuple(sorted(after - before)),
        ports=None if old.ports == new.ports else new.ports,
    )


def assembled(contributions: Iterable[tuple[Endpoint, ...]]) -> tuple[Endpoint, ...]:
    """The endpoints of several VMs as one sorted tuple, unique by address and uid.

    Where address and uid come twice, not ready wins.
    """
    endpoints = sorted(e for contribution in contributions for e in contribution)
    unique: list[Endpoint] = []
    for endpoint in endpoints:
        # Not ready sorts first among equals, as False < True.
        if unique and unique[-1][:2] == endpoint[:2]:
            continue
        unique.append(endpoint)
    return tuple(unique)
