"""A Lease of an API server: its shape on the wire, and how a record is read and written."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import msgspec

from vmsvc_grpc.kube.client import ApiServer
from vmsvc_grpc.kube.errors import ApiServerError
from vmsvc_grpc.kube.times import micro_time_text
from vmsvc_grpc.model.decoding import decoder
from vmsvc_grpc.reconciler.election import LeaseRecord

_SECONDS_MAX = 2**31 - 1


class LeaseSpec(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """A Lease's `spec`."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class LeaseMeta(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """A Lease's `metadata`."""

    namespace: str = ""
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    # Set by others; a PUT that does not repeat them would remove them.
    labels: Any = None
    annotations: Any = None
    owner_references: Any = None
    finalizers: Any = None


class Lease(msgspec.Struct, rename="camel"):
    """A Lease as it is read and written."""

    metadata: LeaseMeta
    spec: LeaseSpec = LeaseSpec()
    api_version: str = "coordination.k8s.io/v1"
    kind: str = "Lease"


_decode = decoder(Lease)


def leases_path(namespace: str = "") -> str:
    """The path of all Leases of a namespace, or of all namespaces."""
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"/apis/coordination.k8s.io/v1{scope}/leases"


class StoredLease:
    """One Lease of an API server, read and written as a record."""

    def __init__(self, api: ApiServer, namespace: str, name: str) -> None:
        """Nothing is read yet."""
        self._api = api
        self._path = leases_path(namespace)
        self._none = LeaseMeta(namespace, name)
        # From the last read, so that others' labels and annotations stay.
        self._meta = self._none

    async def read(self) -> LeaseRecord:
        """The Lease as it is now. Raises ApiServerError and msgspec.DecodeError."""
        try:
            raw = await self._api.request("GET", f"{self._path}/{self._none.name}")
        except ApiServerError as error:
            if error.object_not_found:
                self._meta = self._none
                return LeaseRecord()
            raise
        return self._taken(raw)

    async def write(self, record: LeaseRecord) -> LeaseRecord:
        """Write a record in the place of the one that was read; the Lease as it then is.

        Raises ApiServerError, 409 if the Lease has changed since it was read, and
        msgspec.DecodeError.
        """
        meta = self._meta
        assert meta.resource_version == record.resource_version, "a claim follows a look"
        # An API server creates a Lease by a PUT if there is none any more, unless the PUT has a
        # uid.
        body = Lease(meta, _spec(record))
        if record.exists:
            path = f"{self._path}/{self._none.name}"
            raw = await self._api.request("PUT", path, body=body)
        else:
            raw = await self._api.request("POST", self._path, body=body)
        return self._taken(raw)

    def _taken(self, raw: bytes) -> LeaseRecord:
        lease = _decode(raw)
        self._meta = lease.metadata
        return record_of(lease)


def record_of(lease: Lease) -> LeaseRecord:
    """The record of a Lease, for the election."""
    spec = lease.spec
    return LeaseRecord(
        holder=spec.holder_identity or "",
        duration_s=_duration_s(spec.lease_duration_seconds),
        transitions=spec.lease_transitions or 0,
        acquire_time=spec.acquire_time or "",
        renew_time=spec.renew_time or "",
        resource_version=lease.metadata.resource_version,
    )


def _duration_s(seconds: int | None) -> float:
    # Kubernetes keeps it in 32 bits, but something else may answer in its place.
    return float(min(max(seconds or 0, 0), _SECONDS_MAX))


def _spec(record: LeaseRecord) -> LeaseSpec:
    """The `spec` of a record."""
    return LeaseSpec(
        holder_identity=record.holder,
        lease_duration_seconds=math.ceil(record.duration_s),
        acquire_time=record.acquire_time or micro_time(),
        renew_time=record.renew_time or micro_time(),
        lease_transitions=record.transitions,
    )


def micro_time() -> str:
    """The time now, as a Lease has it."""
    return micro_time_text(datetime.now(UTC))
