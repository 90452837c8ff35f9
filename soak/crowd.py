"""Clients by the hundred, on an event loop of their own in a thread."""

from __future__ import annotations

import asyncio
import random
import ssl
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from soak.envoys import DeltaEnvoy, Envoy, WholeEnvoy
from soak.raw import Connection
from vmsvc.v1 import endpoint_service_pb2 as pb

_WATCH = "/vmsvc.v1.EndpointService/WatchEndpoints"

# A client that has lost its server comes back after so long, give or take.
_COMES_BACK_S = 0.5
_PATIENCE_S = 30.0
# Of the watches that do the one thing, and not the other.
_SHARE = 0.6


@dataclass(frozen=True)
class Door:
    """Where a client comes in: an address, and what it shows there."""

    address: str
    tls: ssl.SSLContext | None = None
    token: str = ""

    async def enter(self, connection: Connection) -> None:
        """Connect. Raises OSError."""
        host, _, port = self.address.rpartition(":")
        name = "localhost" if self.tls else None
        loop = asyncio.get_running_loop()
        entering = loop.create_connection(
            lambda: connection, host, int(port), ssl=self.tls, server_hostname=name
        )
        await asyncio.wait_for(entering, _PATIENCE_S)


class Follower:
    """An Envoy that is always there, or on its way back."""

    def __init__(self, envoy: Envoy, door: Door, counts: Counter[str]) -> None:
        self.envoy = envoy
        self.connection: Connection | None = None
        self._door = door
        self._counts = counts
        self._lost = asyncio.Event()

    async def run(self) -> None:
        """Follow, until cancelled."""
        try:
            while True:
                self._lost.clear()
                with suppress(OSError, TimeoutError, ssl.SSLError):
                    await self._stay()
                await asyncio.sleep(random.uniform(0.5, 1.5) * _COMES_BACK_S)
        finally:
            if self.connection is not None:
                self.connection.abort()

    async def _stay(self) -> None:
        made = Connection(self._door.address, self._door.token, self._take, self._lost.set)
        await self._door.enter(made)
        self.connection = made
        self._counts["streams of Envoys"] += 1
        stream = made.call(self.envoy.path)
        for request in self.envoy.begin():
            made.send(stream, request)
        await self._lost.wait()
        self.connection = None

    def _take(self, stream: int, message: bytes) -> None:
        assert self.connection is not None
        self._counts["responses to Envoys"] += 1
        for request in self.envoy.take(message):
            self.connection.send(stream, request)


class Crowd:
    """Envoys that follow, vanish, stall and come back; and watches that come and go."""

    def __init__(self, doors: list[Door], envoys: int, seed: int) -> None:
        """Half of the Envoys take deltas. They come in by the doors in turn."""
        self.counts: Counter[str] = Counter()
        self._doors = doors
        self._random = random.Random(f"{seed} crowd")
        self._envoys: list[Envoy] = [
            (DeltaEnvoy, WholeEnvoy)[number % 2](f"envoy-{number}") for number in range(envoys)
        ]
        self._followers: list[Follower] = []
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._calm = threading.Event()
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="crowd")
        self._thread.start()

    def calm(self) -> None:
        """From now on all follow, and nobody vanishes or stalls."""
        self._calm.set()

    def endpoints(self) -> list[Mapping[str, frozenset[str]]]:
        """What each Envoy holds."""

        async def held() -> list[Mapping[str, frozenset[str]]]:
            return [envoy.endpoints() for envoy in self._envoys]

        return asyncio.run_coroutine_threadsafe(held(), self._loop).result(_PATIENCE_S)

    def close(self) -> None:
        """All go away. Raises what has failed here, if anything has. May be called twice."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._loop.close()
        if self._failed:
            raise self._failed[0]

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._live())
        except BaseException as error:  # noqa: BLE001 - raised by `close`, in its caller's thread
            self._failed.append(error)

    async def _live(self) -> None:
        doors = (self._doors * len(self._envoys))[: len(self._envoys)]
        self._followers = [
            Follower(envoy, door, self.counts)
            for envoy, door in zip(self._envoys, doors, strict=True)
        ]
        actors = [self._vanish(), self._stall(), self._watch()]
        tasks = [
            asyncio.create_task(each) for each in (*(f.run() for f in self._followers), *actors)
        ]
        ended = asyncio.create_task(self._ended.wait())
        await ended
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def _pause(self, seconds: float) -> bool:
        """Wait for about so long; whether to go on."""
        await asyncio.sleep(seconds * self._random.uniform(0.5, 1.5))
        return not self._calm.is_set()

    def _some(self) -> Connection | None:
        return self._random.choice(self._followers).connection

    async def _vanish(self) -> None:
        while await self._pause(0.3):
            if (connection := self._some()) is not None:
                connection.abort()
                self.counts["reconnects"] += 1

    async def _stall(self) -> None:
        """A few at a time read nothing for seconds; some of them vanish meanwhile."""
        while await self._pause(2.0):
            stalled = [each for _ in range(5) if (each := self._some()) is not None]
            for connection in stalled:
                connection.stall()
                self.counts["stalled readers"] += 1
            await asyncio.sleep(self._random.uniform(1.0, 8.0))
            for connection in stalled:
                connection.go_on()

    async def _watch(self) -> None:
        """Watches of everything, each left in its own way: early or late, with a word or none."""
        while await self._pause(0.2):
            waits, says = self._random.random() < _SHARE, self._random.random() < _SHARE
            with suppress(OSError, TimeoutError, ssl.SSLError):
                await _watched(self._random.choice(self._doors), waits=waits, says=says)
                self.counts["watches"] += 1


async def _watched(door: Door, *, waits: bool, says: bool) -> None:
    """A watch that waits for its first message or not, and that cancels its call or not."""
    came = asyncio.Event()
    made = Connection(door.address, door.token, lambda *_: came.set(), came.set)
    try:
        await door.enter(made)
        stream = made.call(_WATCH)
        everything = pb.WatchEndpointsRequest(all_services=True)
        made.send(stream, everything.SerializeToString(), end=True)
        if waits:
            await asyncio.wait_for(came.wait(), _PATIENCE_S)
        if says:
            made.cancel(stream)
            await asyncio.sleep(0)
    finally:
        made.abort()
