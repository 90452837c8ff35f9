"""Removes our finalizer, for an uninstall where nobody else would.

A replica of ours that writes would add the finalizer again. So the caller can first ask who holds
our Lease, and whether it is still renewed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from typing import NamedTuple

import msgspec

from vmsvc_grpc.kube.client import MERGE_PATCH, ApiServer
from vmsvc_grpc.kube.errors import ApiServerError
from vmsvc_grpc.kube.pages import next_token
from vmsvc_grpc.kube.resources import newest_served, resource_path
from vmsvc_grpc.model.decoding import decoder
from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.model.problem import VALUE_CHARACTERS_MAX, escaped
from vmsvc_grpc.reconciler.election import (
    LEASE_DURATION_MAX_S,
    LEASE_DURATION_MIN_S,
    LeaseRecord,
    is_named_after,
)
from vmsvc_grpc.reconciler.lease import Lease, StoredLease, leases_path, record_of
from vmsvc_grpc.reconciler.vmservice import without_ours

_KIND = Kind.VIRTUAL_MACHINE_SERVICE
_PAGE_OBJECTS = 500
_CONFLICTS_MAX = 10


class Finalized(NamedTuple):
    """A VMService that has our finalizer, by either of its names."""

    key: Key
    finalizers: tuple[str, ...]
    resource_version: str


class LeaseHolder(NamedTuple):
    """A Lease of ours that names a holder, and its record."""

    lease: Key
    record: LeaseRecord

    @property
    def holder(self) -> str:
        """The name of the holder, safe to print: anybody who may write a Lease chooses it."""
        return escaped(self.record.holder, VALUE_CHARACTERS_MAX)


class Release:
    """The requests of an uninstall to one API server. Every method raises ApiServerError."""

    def __init__(self, api: ApiServer, namespaces: Sequence[str] = ()) -> None:
        """`namespaces` are those to look at; none: all."""
        self._api = api
        self._namespaces = namespaces
        self._version = ""

    async def finalized(self) -> list[Finalized]:
        """Every VMService that has our finalizer, in the API server's order."""
        self._version = await newest_served(self._api, _KIND)
        found: list[Finalized] = []
        for namespace in self._namespaces or (None,):
            path = resource_path(_KIND, self._version, namespace)
            found += [one async for meta in _listed(self._api, path) if (one := _finalized(meta))]
        return found

    async def let_go(self, one: Finalized) -> bool:
        """Remove the finalizer from one of `finalized`; whether it was still there.

        Concurrent changes by others stay. May be called again, also after an error; a conflict
        means that somebody else changed the object at every attempt.
        """
        path = resource_path(_KIND, self._version, one.key.namespace, one.key.name)
        tries = 0
        while True:
            tries += 1
            meta = {
                "finalizers": without_ours(one.finalizers),
                "resourceVersion": one.resource_version,
            }
            try:
                await self._api.request(
                    "PATCH", path, body={"metadata": meta}, content_type=MERGE_PATCH
                )
            except ApiServerError as error:
                if error.object_not_found:
                    return False
                if error.status != HTTPStatus.CONFLICT or tries == _CONFLICTS_MAX:
                    raise
                now = await self._read(path)
                if now is None:
                    return False
                one = now
            else:
                return True

    async def holders(self, lease: str, namespace: str = "") -> list[LeaseHolder]:
        """The holders of that Lease, and of those for certain namespaces named after it.

        In one namespace, or in all: from outside the cluster it is not known where ours is.
        """
        found: list[LeaseHolder] = []
        async for raw in _pages(self._api, leases_path(namespace)):
            for item in _decode_leases(raw).items:
                meta, record = item.metadata, record_of(item)
                if is_named_after(meta.name, lease) and record.holder:
                    found.append(LeaseHolder(Key(meta.namespace, meta.name), record))
        return found

    async def renewing(self, holders: Sequence[LeaseHolder]) -> list[LeaseHolder]:
        """Those that renew their Lease. Waits for as long as the longest Lease lasts.

        No clocks are compared: a Lease that does not change for its whole duration has no live
        holder.
        """
        await asyncio.sleep(longest_s(holders))
        alive: list[LeaseHolder] = []
        for held in holders:
            now = await StoredLease(self._api, held.lease.namespace, held.lease.name).read()
            if now.holder and now.resource_version != held.record.resource_version:
                alive.append(LeaseHolder(held.lease, now))
        return alive

    async def _read(self, path: str) -> Finalized | None:
        """A VMService as it is now; None if it is gone, or has lost our finalizer."""
        try:
            return _finalized(_decode_one(await self._api.request("GET", path)).metadata)
        except ApiServerError as error:
            if error.object_not_found:
                return None
            raise


def longest_s(holders: Sequence[LeaseHolder]) -> float:
    """How long to wait to know whether one of them is alive: at most a minute.

    No holder of ours writes less than the shortest duration; so a shorter one is an edit, and does
    not say how often the holder renews the Lease.
    """
    longest_s = max((_silence_s(held.record.duration_s) for held in holders), default=0.0)
    return min(LEASE_DURATION_MAX_S, longest_s)


def _silence_s(duration_s: float) -> float:
    return duration_s if duration_s >= LEASE_DURATION_MIN_S else LEASE_DURATION_MAX_S


def _finalized(meta: _FinalizedMeta) -> Finalized | None:
    finalizers = tuple(meta.finalizers or ())
    if without_ours(finalizers) == finalizers:
        return None
    return Finalized(Key(meta.namespace, meta.name), finalizers, meta.resource_version)


async def _listed(api: ApiServer, path: str) -> AsyncIterator[_FinalizedMeta]:
    async for raw in _pages(api, path):
        for item in _decode_list(raw).items:
            yield item.metadata


async def _pages(api: ApiServer, path: str) -> AsyncIterator[bytes]:
    """The pages of a list, as bytes. Raises ApiServerError, and msgspec.DecodeError."""
    token = ""
    while True:
        query = {"limit": str(_PAGE_OBJECTS), **({"continue": token} if token else {})}
        raw = await api.request("GET", path, query=query)
        yield raw
        token = next_token(token, _decode_head(raw).metadata.continue_ or "")
        if not token:
            return


class _FinalizedMeta(msgspec.Struct, rename="camel"):
    name: str
    namespace: str
    resource_version: str
    finalizers: list[str] | None = None


class _VMService(msgspec.Struct):
    metadata: _FinalizedMeta


class _ContinueMeta(msgspec.Struct):
    continue_: str | None = msgspec.field(name="continue", default=None)


class _PageHead(msgspec.Struct):
    metadata: _ContinueMeta


class _VMServiceList(msgspec.Struct):
    items: list[_VMService]


class _LeaseList(msgspec.Struct):
    items: list[Lease]


_decode_head = decoder(_PageHead)
_decode_list = decoder(_VMServiceList)
_decode_leases = decoder(_LeaseList)
_decode_one = decoder(_VMService)
