"""Plays a case: a server that does what its steps say, and a client that is held to them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from tests.client_conformance.case_pb2 import (
    NETWORK_CUT,
    NETWORK_DRAINED,
    NETWORK_FROZEN,
    NETWORK_STARTED,
    NETWORK_STOPPED,
    Burst,
    Case,
    Opened,
    Shown,
    Step,
)
from tests.client_conformance.driver import Driver, Line, Running, arguments, running
from tests.client_conformance.world import Stream, World, large, world
from tests.program import PATIENCE_S
from vmsvc.v1 import endpoint_service_pb2 as pb

# A client that takes nothing for so long has no room left.
_STILL_S = 0.3

# How long a client has to notice that nothing comes any more, beside what everything may take.
_KEEPALIVE_S = 60

# What of a state is compared in any case, as an empty list is not to be told from none given.
_ALWAYS = frozenset({"service", "endpoints"})


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
        self._driver = driver
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
            if _kind(shown) in self._driver.shows:
                await self._shown(shown)
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
            assert self._passed_over(line), f"it shows {_brief(line)} beyond what it should"

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
        asked, expected = _request(stream.request), _request(opens.request)
        assert asked == expected, f"it asks for {asked}, not {expected}"
        assert stream.token == opens.token, f"it shows the token {stream.token!r}"
        self._stream, self._may_open = stream, False

    async def _next_stream(self) -> Stream:
        opening = asyncio.create_task(self._around.streams.get())
        ending = asyncio.create_task(self._client.status(2 * PATIENCE_S))
        done, others = await asyncio.wait(
            (opening, ending), return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE_S
        )
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
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
        assert taken <= burst.taken_max, f"it takes {taken} messages that nobody reads"
        stream.withdraw()
        stream.send(_changed(burst.service, burst.last_version))
        self._client.read_on()

    async def _changed(self, network: int) -> None:
        self._may_open = True
        self._patience_s = PATIENCE_S + (_KEEPALIVE_S if network == NETWORK_FROZEN else 0)
        match network:
            case _ if network == NETWORK_CUT:
                self._around.cut()
            case _ if network == NETWORK_FROZEN:
                self._around.freeze()
            case _ if network == NETWORK_STOPPED:
                self._away = True
                await self._around.stop()
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
            if shown.HasField("newest"):
                if self._towards(shown, line):
                    return
                continue
            assert _agree(shown, line), f"it shows {_brief(line)}, not {_expected(shown)}"
            return

    def _passed_over(self, line: Line | None) -> bool:
        return self._away and line is not None and line.get("event") == "disconnected"

    def _towards(self, shown: Shown, line: Line | None) -> bool:
        """Whether a line is the last of a row; fails if it is none of the row."""
        newest = shown.newest
        agrees = line is not None and line.get("service") == newest.service and line.get("present")
        assert agrees, f"it shows {_brief(line)}, not a state of {newest.service}"
        assert line is not None
        version = int(line["version"])
        assert version <= newest.version, f"it shows version {version}"
        return version == newest.version

    async def _given_up(self, sentence: str) -> None:
        line = await self._client.line(self._patience_s)
        assert line is None, f"it shows {_brief(line)}, and does not end"
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


def _kind(shown: Shown) -> str:
    event = shown.WhichOneof("event") or ""
    return "state" if event in ("many", "newest") else event


def _agree(shown: Shown, line: Line | None) -> bool:
    """Whether a client's line says what is expected."""
    if line is None:
        return False
    match shown.WhichOneof("event"):
        case "synced":
            return line.get("event") == "synced"
        case "disconnected":
            code = shown.disconnected.code
            return line.get("event") == "disconnected" and code in ("", line.get("code"))
        case "many":
            many = shown.many
            found = line.get("service"), len(line.get("endpoints", ()))
            return line.get("event") == "state" and found == (many.service, many.endpoints)
        case "absent":
            return line.get("event") == "state" and _absent(shown.absent, line)
        case _:
            return line.get("event") == "state" and _present(shown.state, line)


def _absent(absent: pb.Absent, line: Line) -> bool:
    absence = line.get("absence") or {}
    return (
        line.get("service") == absent.service
        and line.get("present") is False
        and not line.get("endpoints")
        and absence.get("reason") == _reason(absent.reason)
        and absent.message in ("", absence.get("message"))
    )


def _present(state: pb.EndpointSet, line: Line) -> bool:
    expected = _fields(state)
    compared = _ALWAYS | {field.name for field, _ in state.ListFields()}
    return (
        line.get("present") is True
        and line.get("absence") is None
        and all(line.get(name) == expected[name] for name in compared)
    )


def _reason(reason: pb.Absent.Reason) -> str:
    name = pb.Absent.Reason.Name(reason).removeprefix("REASON_")
    return "UNKNOWN" if name == "UNSPECIFIED" else name


def _fields(state: pb.EndpointSet) -> dict[str, Any]:
    """The fields of a state as a client writes them."""
    fields = _as_dict(state)
    fields["version"] = state.version  # In JSON of protobuf, 64 bits are a text.
    return fields


def _as_dict(message: Message) -> dict[str, Any]:
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _expected(shown: Shown) -> str:
    return str(MessageToDict(shown, preserving_proto_field_name=True))


def _brief(line: Line | None) -> str:
    if line is None:
        return "its end"
    text = str({name: value for name, value in line.items() if name != "time"})
    return f"{text[:1000]}…" if len(text) > 1000 else text
