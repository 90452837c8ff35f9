"""Plays a case: a server that does what its steps say, and a client that is held to them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

from tests.client_conformance.case_pb2 import (
    NETWORK_CUT,
    NETWORK_DRAINED,
    NETWORK_FROZEN,
    NETWORK_MUTE,
    NETWORK_STARTED,
    NETWORK_STOPPED,
    Burst,
    Case,
    Opened,
    Shown,
    Step,
)
from tests.client_conformance.driver import Driver, Line, Running, arguments, running
from tests.client_conformance.newest import Row
from tests.client_conformance.shown import agrees, brief, expected, on_the_way
from tests.client_conformance.world import Stream, World, large, world
from tests.program import PATIENCE_S
from vmsvc.v1 import endpoint_service_pb2 as pb

# A client that takes nothing for so long has no room left.
_STILL_S = 0.3

# How long a client has to notice that nothing comes any more, beside what everything may take.
_KEEPALIVE_S = 60


class CaseFailed(AssertionError):  # noqa: N818 - it is a failed assertion, of a step
    """The client did not do what a step says. The text names the step."""


async def play(case: Case, driver: Driver, folder: Path) -> None:
    """Run one client through a case. Raises CaseFailed or DriverError."""
    token_file = folder / "token" if case.token else None
    if token_file:
        token_file.write_text(case.token)
    async with world() as around:
        given = arguments(around.address, case.watch, token_file)
        async with running(driver, given, folder / "errors") as client:
            playing = _Playing(around, client, driver, token_file)
            for number, step in enumerate(case.steps):
                try:
                    await playing.step(step)
                except AssertionError as error:
                    said = f"; the client said: {client.said()}" if client.said() else ""
                    raise CaseFailed(f"{case.name}: steps[{number}]: {error}{said}") from error
            try:
                await playing.ended()
            except AssertionError as error:
                raise CaseFailed(f"{case.name}: after the last step: {error}") from error


class _Playing:
    def __init__(
        self, around: World, client: Running, driver: Driver, token_file: Path | None
    ) -> None:
        self._around = around
        self._client = client
        self._row = Row() if driver.newest else None
        self._token_file = token_file
        self._stream: Stream | None = None
        # Whether the client may open another stream, and when at the earliest.
        self._may_open = True
        self._not_before = 0.0
        # While there is no server, or since there was none, a client may show that again.
        self._away = False
        self._patience_s = PATIENCE_S

    async def step(self, step: Step) -> None:
        if step.HasField("opens"):
            await self._opened(step.opens)
        self._sent(step)
        if step.HasField("stalls"):
            await self._stalled(step.stalls)
        if step.renews_token:
            assert self._token_file, "the case has no token"
            self._token_file.write_text(step.renews_token)
        if step.HasField("ends"):
            delay_s = step.ends.retry_delay.ToTimedelta().total_seconds()
            self._may_open, self._not_before = True, time.monotonic() + delay_s
            self._open_stream.end(step.ends)
        if step.network:
            await self._changed(step.network)
        for shown in step.shows:
            # It may also give a stream up by itself.
            self._may_open = self._may_open or shown.HasField("disconnected")
            if self._row:
                self._row.expect(shown)
            else:
                await self._shown(shown)
        while self._row and self._row.due():
            self._row.take(await self._client.line(self._patience_s))
        if step.gives_up:
            await self._given_up(step.gives_up)

    def _sent(self, step: Step) -> None:
        for message in step.sends:
            self._open_stream.send(message.SerializeToString())
        for digits in step.sends_bytes:
            self._open_stream.send(bytes.fromhex(digits))
        if step.HasField("sends_many"):
            many = step.sends_many
            self._open_stream.send(large(many.service, many.version, many.endpoints))

    async def ended(self) -> None:
        """No stream has been opened that no step tells of, and nothing more is shown."""
        extra = self._around.streams.qsize()
        assert self._may_open or not extra, "it has opened a stream that no step tells of"
        await self._client.end()
        while (line := await self._client.line(self._patience_s)) is not None:
            if self._row:
                self._row.take(line)
            else:
                assert self._passed_over(line), f"it shows {brief(line)} beyond what it should"

    @property
    def _open_stream(self) -> Stream:
        assert self._stream, "no stream has been opened"
        return self._stream

    async def _opened(self, opens: Opened) -> None:
        stream = await self._next_stream()
        assert self._may_open or not self._stream, "it opens a stream while it has one"
        assert stream.opened_at >= self._not_before, "it opens a stream before it was asked to"
        if self._stream:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._stream.over.wait()
            except TimeoutError:
                raise AssertionError("it holds on to the stream before") from None
        asked, meant = _request(stream.request), _request(opens.request)
        assert asked == meant, f"it asks for {asked}, not {meant}"
        assert stream.token == opens.token, f"it shows the token {stream.token!r}"
        self._stream, self._may_open = stream, False

    async def _next_stream(self) -> Stream:
        opening = asyncio.create_task(self._around.streams.get())
        ending = asyncio.create_task(self._client.status(2 * self._patience_s))
        both = (opening, ending)
        try:
            done, _ = await asyncio.wait(
                both, return_when=asyncio.FIRST_COMPLETED, timeout=self._patience_s
            )
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
        if opening in done:
            return opening.result()
        status = ending.result() if ending in done else None
        raise AssertionError("it opens no stream" if status is None else f"it ends with {status}")

    async def _stalled(self, burst: Burst) -> None:
        """Offer more than anybody holds, to a client that nobody reads."""
        stream = self._open_stream
        self._client.stall()
        before, taken = stream.taken, -1
        for version in range(burst.first_version, burst.last_version):
            stream.send(_changed(burst.service, version))
        while stream.taken != taken:
            taken = stream.taken
            await asyncio.sleep(_STILL_S)
        taken -= before
        # Who holds but the newest may take them all.
        assert self._row or taken <= burst.taken_max, f"it takes {taken} messages that nobody reads"
        stream.withdraw()
        stream.send(_changed(burst.service, burst.last_version))
        self._client.read_on()

    async def _changed(self, network: int) -> None:
        self._may_open = True
        silent = network in (NETWORK_FROZEN, NETWORK_MUTE)
        self._patience_s = PATIENCE_S + (_KEEPALIVE_S if silent else 0)
        match network:
            case _ if network == NETWORK_CUT:
                self._around.cut()
            case _ if network == NETWORK_FROZEN:
                self._around.freeze()
            case _ if network == NETWORK_STOPPED:
                self._away = True
                await self._around.stop()
            case _ if network == NETWORK_MUTE:
                self._away = True
                await self._around.stop(mute=True)
            case _ if network == NETWORK_STARTED:
                self._away = True
                await self._around.start()
            case _ if network == NETWORK_DRAINED:
                await self._around.drain(PATIENCE_S)

    async def _shown(self, shown: Shown) -> None:
        while True:
            line = await self._client.line(self._patience_s)
            if not shown.HasField("disconnected"):
                if self._passed_over(line):
                    continue
                self._away = False
            if not on_the_way(shown, line):
                assert agrees(shown, line), f"it shows {brief(line)}, not {expected(shown)}"
                return

    def _passed_over(self, line: Line | None) -> bool:
        return self._away and line is not None and line.get("event") == "disconnected"

    async def _given_up(self, sentence: str) -> None:
        if self._row and self._row.ever_synced:
            return
        line = await self._client.line(self._patience_s)
        assert line is None, f"it shows {brief(line)}, and does not end"
        status = await self._client.status(PATIENCE_S)
        assert status, "it ends with 0"
        assert sentence in self._client.said(), f"it does not say {sentence!r}"


def _changed(service: str, version: int) -> bytes:
    """A snapshot that differs from that of every other version."""
    whole = pb.EndpointSet(service=service, version=version, revision=str(version))
    whole.endpoints.add(address="10.0.0.1", ready=True, vm_name=f"vm-{version}", vm_uid="uid")
    return pb.WatchEndpointsResponse(snapshot=whole).SerializeToString()


def _request(request: pb.WatchEndpointsRequest) -> Mapping[str, object]:
    """A request as what it means."""
    return {
        "services": {each.service: each.revision for each in request.services},
        "named": len(request.services),
        "namespaces": sorted(request.namespaces),
        "all_services": request.all_services,
        "readiness": request.readiness or pb.READINESS_READY_ONLY,
    }
