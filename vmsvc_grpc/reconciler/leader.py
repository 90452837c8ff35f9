"""Keeps a Lease on an API server, as the election decides.

Owns when it is read and written. `election` decides who may hold it, and `lease` knows its form.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from typing import NamedTuple

import msgspec

from vmsvc_grpc.kube.client import ApiServer
from vmsvc_grpc.kube.errors import ApiServerError
from vmsvc_grpc.reconciler.election import Election, LeaseRecord, LeaseSettings
from vmsvc_grpc.reconciler.lease import StoredLease, micro_time


class Standing(NamedTuple):
    """Whether a candidate leads, and who holds the Lease, if that is known.

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
    """Takes one Lease for this process when it is free, and keeps it.

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
        """`on_change` is called on the event loop at each change of our standing."""
        self._lease = StoredLease(api, namespace, name)
        self._election = Election(identity, settings)
        self._settings = settings
        self._on_change = on_change
        self._clock = clock
        self._reported = Standing()
        # A claim that got no answer, and when it was sent: it may have been written all the same.
        self._sent: tuple[LeaseRecord, float] | None = None

    @property
    def leads(self) -> bool:
        """Whether a write may be begun now."""
        return self._election.leads(self._clock())

    async def run(self) -> None:
        """Take the Lease when it is free, and renew it, until cancelled; it is not given back then.

        Call `release` once no write is under way.
        """
        before = ""
        while True:
            trouble = await self._trouble()
            # A single failure may be a server that restarts, and is not reported.
            self._report(trouble if before else "")
            before = trouble
            await asyncio.sleep(self._settings.renew_s)

    async def release(self) -> None:
        """Give the Lease back, so that another replica need not wait for its end."""
        held = self._election.resigned(self._clock()) is not None
        # Ending mends nothing.
        self._report(self._reported.trouble)
        if not (held or self._sent):
            return
        with contextlib.suppress(ApiServerError, TimeoutError, msgspec.DecodeError):
            async with asyncio.timeout(self._settings.margin_s):
                await self._look()
                if (freed := self._election.resigned(self._clock())) is not None:
                    await self._lease.write(replace(freed, renew_time=micro_time()))

    def _report(self, trouble: str) -> None:
        standing = Standing(self.leads, self._election.holder, trouble)
        if standing != self._reported:
            self._reported = standing
            self._on_change(standing)

    async def _trouble(self) -> str:
        """Take a turn; the reason if it failed, else ""."""
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
        await self._look()
        asked_at = self._clock()
        claim = self._election.claim(asked_at)
        if claim is None:
            return
        claim = replace(claim, renew_time=micro_time())
        self._sent = claim, asked_at
        try:
            written = await self._lease.write(claim)
        except ApiServerError as error:
            # A webhook may refuse with any status; that says nothing about the Lease.
            if error.status != HTTPStatus.CONFLICT or error.from_admission:
                raise
            self._sent = None  # Another replica was first: look again later.
        else:
            self._sent = None
            self._election.claimed(claim, written, asked_at, self._clock())

    async def _look(self) -> None:
        """Read the Lease, which may hold our claim whose answer was lost."""
        found = await self._lease.read()
        sent, self._sent = self._sent, None
        if sent is not None and _is_answer(found, sent[0]):
            claim, asked_at = sent
            self._election.claimed(claim, found, asked_at, self._clock())
        else:
            self._election.observe(found, self._clock())


def _is_answer(found: LeaseRecord, claim: LeaseRecord) -> bool:
    """Whether the record found is our claim, not overwritten since."""
    return (found.holder, found.renew_time) == (claim.holder, claim.renew_time)
