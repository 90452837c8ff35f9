"""Which replica writes: one holder of a Lease at a time, on clocks that do not agree.

Nobody compares wall clocks. A candidate takes a lease over once it has itself seen no
renewal for the lease's whole duration; a holder counts from before it asked for the
renewal. So however late a request arrives, or however long a process was stopped, two
never both believe that they may begin a write.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from vmsvc_grpc.kube.client import ApiServer, ApiServerError

_CONFLICT = 409
_NOT_FOUND = 404


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSettings:
    """How long a lease lasts, and how often it is renewed. Kubernetes' own values.

    Writing ends `margin_s` before others may take over: as long as a request that was
    begun in time may take.
    """

    duration_s: float = 15.0
    margin_s: float = 5.0
    renew_s: float = 2.0

    def __post_init__(self) -> None:
        assert 0 < self.margin_s < self.duration_s, "a margin is a part of the duration"
        assert self.renew_s < self.duration_s - self.margin_s, "renew before writing must end"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """What a Lease says. `resource_version` is empty for one that does not exist yet."""

    holder: str = ""
    duration_s: float = 0.0
    transitions: int = 0
    acquire_time: str = ""
    resource_version: str = ""


class Election:
    """One candidate's view of the lease. Pure: `now` is a clock that never goes back.

    That clock must run on while the machine sleeps.
    """

    def __init__(self, identity: str, settings: LeaseSettings) -> None:
        self.identity = identity
        self._settings = settings
        self._record = LeaseRecord()
        self._seen_at = float("-inf")
        self._leads_until = float("-inf")

    def leads(self, now: float) -> bool:
        """Whether a write may be begun now."""
        return now < self._leads_until

    @property
    def holder(self) -> str:
        """Who held the lease when it was last looked at; empty if nobody did."""
        return self._record.holder

    def observe(self, record: LeaseRecord, now: float) -> None:
        """This is what the Lease says now. A change of any kind is a sign of life."""
        if record != self._record:
            self._record = record
            self._seen_at = now
        if record.holder != self.identity:
            self._leads_until = float("-inf")

    def claim(self, now: float) -> LeaseRecord | None:
        """What to write to take or to keep the lease; None while another holds it."""
        held = self._record
        if held.holder == self.identity:
            return held
        if held.holder and now < self._seen_at + held.duration_s:
            return None
        return LeaseRecord(
            holder=self.identity,
            duration_s=self._settings.duration_s,
            transitions=held.transitions + (1 if held.resource_version else 0),
            resource_version=held.resource_version,
        )

    def claimed(self, record: LeaseRecord, asked_at: float, now: float) -> None:
        """The claim was written, as `record`; it was asked for at `asked_at`."""
        self.observe(record, now)
        self._leads_until = asked_at + self._settings.duration_s - self._settings.margin_s

    def resigned(self) -> None:
        """Begin no write any more, whatever the Lease says."""
        self._leads_until = float("-inf")


class Standing(NamedTuple):
    """How a candidate stands: whether it leads, and who holds the Lease, as far as known.

    `trouble` is a sentence that says why the Lease cannot be read or written; empty while
    it can.
    """

    leads: bool = False
    holder: str = ""
    trouble: str = ""


def boottime() -> float:
    """Seconds of a clock that never goes back, and runs on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Leader:
    """Keeps one Lease for this process, as far as others let it.

    `run` it; `leads` says at any time whether a write may be begun.
    """

    def __init__(
        self,
        api: ApiServer,
        *,
        namespace: str,
        name: str,
        identity: str,
        settings: LeaseSettings,
        on_change: Callable[[Standing], None],
        clock: Callable[[], float] = boottime,
    ) -> None:
        """`on_change` is told, on the event loop, how we stand, each time that it changes."""
        self._api = api
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._namespace = namespace
        self._name = name
        self._election = Election(identity, settings)
        self._settings = settings
        self._on_change = on_change
        self._clock = clock
        self._told = Standing()

    @property
    def leads(self) -> bool:
        """Whether a write may be begun now."""
        return self._election.leads(self._clock())

    async def run(self) -> None:
        """Take the lease when it is free, and renew it; until cancelled. It is kept then.

        Call `release` once nothing is being written any more.
        """
        before = ""
        while True:
            trouble = await self._trouble()
            # Once may be a server that restarts, and is not worth a word.
            self._tell(trouble if before else "")
            before = trouble
            await asyncio.sleep(self._settings.renew_s)

    async def release(self) -> None:
        """Give the lease back, so that another replica need not wait for its end."""
        held = self._election.holder == self._election.identity
        self._election.resigned()
        self._tell()
        if not held:
            return
        with contextlib.suppress(ApiServerError, TimeoutError, msgspec.DecodeError):
            async with asyncio.timeout(self._settings.margin_s):
                record = await self._read()
                if record.holder == self._election.identity:
                    await self._write(replace(record, holder=""))

    def _tell(self, trouble: str = "") -> None:
        standing = Standing(self.leads, self._election.holder, trouble)
        if standing != self._told:
            self._told = standing
            self._on_change(standing)

    async def _trouble(self) -> str:
        """Take a turn; why it came to nothing, or nothing."""
        try:
            async with asyncio.timeout(self._settings.margin_s):
                await self._turn()
        except TimeoutError:
            return "the API server does not answer"
        except ApiServerError as error:
            return str(error)
        except msgspec.DecodeError as error:
            return f"the answer cannot be read: {error}"
        return ""

    async def _turn(self) -> None:
        self._election.observe(await self._read(), self._clock())
        asked_at = self._clock()
        claim = self._election.claim(asked_at)
        if claim is None:
            return
        try:
            written = await self._write(claim)
        except ApiServerError as error:
            if error.status != _CONFLICT:  # Somebody else was first: look again in a while.
                raise
        else:
            self._election.claimed(written, asked_at, self._clock())

    async def _read(self) -> LeaseRecord:
        try:
            raw = await self._api.request("GET", f"{self._path}/{self._name}")
        except ApiServerError as error:
            if error.status == _NOT_FOUND:
                return LeaseRecord()
            raise
        return _record(raw)

    async def _write(self, record: LeaseRecord) -> LeaseRecord:
        body = _lease(self._namespace, self._name, record)
        if record.resource_version:
            raw = await self._api.request("PUT", f"{self._path}/{self._name}", body=body)
        else:
            raw = await self._api.request("POST", self._path, body=body)
        return _record(raw)


class _LeaseSpec(msgspec.Struct, rename="camel", omit_defaults=True):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class _LeaseMeta(msgspec.Struct, rename="camel", omit_defaults=True):
    namespace: str = ""
    name: str = ""
    resource_version: str = ""


class _Lease(msgspec.Struct, rename="camel"):
    metadata: _LeaseMeta
    spec: _LeaseSpec
    api_version: str = "coordination.k8s.io/v1"
    kind: str = "Lease"


_decode = msgspec.json.Decoder(_Lease).decode


def _record(raw: bytes) -> LeaseRecord:
    lease = _decode(raw)
    spec = lease.spec
    return LeaseRecord(
        holder=spec.holder_identity or "",
        duration_s=float(spec.lease_duration_seconds or 0),
        transitions=spec.lease_transitions or 0,
        acquire_time=spec.acquire_time or "",
        resource_version=lease.metadata.resource_version,
    )


def _lease(namespace: str, name: str, record: LeaseRecord) -> _Lease:
    """The Lease that says this. Its times are for people: no candidate compares them."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return _Lease(
        metadata=_LeaseMeta(namespace, name, record.resource_version),
        spec=_LeaseSpec(
            holder_identity=record.holder,
            # Kubernetes wants at least 1, also of a lease that nobody holds any more.
            lease_duration_seconds=max(1, math.ceil(record.duration_s)) if record.holder else 1,
            acquire_time=record.acquire_time or now,
            renew_time=now,
            lease_transitions=record.transitions,
        ),
    )
