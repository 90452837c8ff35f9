"""A client as a process: started with what it is to watch, read line by line, ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tests.program import PATIENCE_S
from vmsvc.v1 import endpoint_service_pb2 as pb

Line: TypeAlias = Mapping[str, Any]

# What its settings say would change what a client does.
_ENVIRONMENT = {
    k: v for k, v in os.environ.items() if not k.startswith("VMSVC_") and "proxy" not in k.lower()
}
# What runtimes write where a program of theirs fails.
_CRASHES = ("Traceback (most recent call last)", "panic: ", "goroutine ", "Segmentation fault")


class DriverError(Exception):
    """The program of a client did what none may do. Its text says what."""


@dataclass(frozen=True, slots=True)
class Driver:
    """How the program of a client is run.

    `newest`: it shows states only, the newest ones of those that come quickly, from when all is
    known on; and it does not end any more then, as `vmsvc feed`.
    """

    command: Sequence[str | Path]
    newest: bool = False


def arguments(server: str, watch: pb.WatchEndpointsRequest, token_file: Path | None) -> list[str]:
    """What a driver is given, as clients/conformance/README.md has it."""
    given = ["--server", server]
    given += ["--token-file", str(token_file)] if token_file else []
    given += ["--all"] if watch.readiness == pb.READINESS_ALL else []
    for namespace in watch.namespaces:
        given += ["-n", namespace]
    given += ["-A"] if watch.all_services else []
    return [*given, *(each.service for each in watch.services)]


class _Output(asyncio.Protocol):
    """Lines that a program writes, in a queue; None at their end."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._pieces: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        first, *others = data.split(b"\n")
        self._pieces.append(first)
        for following in others:
            self.lines.put_nowait(b"".join(self._pieces).decode())
            self._pieces = [following]

    def connection_lost(self, error: Exception | None) -> None:
        if any(self._pieces):
            self.lines.put_nowait(b"".join(self._pieces).decode())
        self.lines.put_nowait(None)


class Running:
    """A client that runs."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        transport: asyncio.ReadTransport,
        output: _Output,
        errors: Path,
    ) -> None:
        self._process = process
        self._transport = transport
        self._output = output
        self._errors = errors

    def stall(self) -> None:
        """Read nothing of what it writes, until `read_on`. The pipe has room for some 64 KiB."""
        self._transport.pause_reading()

    def read_on(self) -> None:
        self._transport.resume_reading()

    async def line(self, within_s: float) -> Line | None:
        """What it writes next; None if it has ended. Raises DriverError if it does neither."""
        try:
            async with asyncio.timeout(within_s):
                text = await self._output.lines.get()
        except TimeoutError:
            raise DriverError(f"it shows nothing more; it said: {self.said()}") from None
        if text is None:
            self._output.lines.put_nowait(None)
            return None
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            raise DriverError(f"it writes {text[:200]!r}, which is no object in JSON")
        return line

    async def end(self) -> None:
        """End it by SIGTERM, if it has not ended. Its lines then have an end."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        await self.status(PATIENCE_S)

    async def status(self, within_s: float) -> int:
        """With which status it ends. Raises DriverError if it does not in time, or crashed."""
        try:
            async with asyncio.timeout(within_s):
                status = await self._process.wait()
        except TimeoutError:
            raise DriverError(f"it does not end; it said: {self.said()}") from None
        if any(crash in self.said() for crash in _CRASHES):
            raise DriverError(f"it has crashed: {self.said()}")
        return status

    def said(self) -> str:
        """What it wrote for a person."""
        return self._errors.read_text()

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()


@asynccontextmanager
async def running(driver: Driver, given: Sequence[str], errors: Path) -> AsyncIterator[Running]:
    """The client, until the block ends. What it writes for a person goes to the file `errors`."""
    ours, its = os.pipe()
    output = _Output()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: output, os.fdopen(ours, "rb", 0)
    )
    try:
        with errors.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *driver.command,
                *given,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=its,
                stderr=file,
                env=_ENVIRONMENT,
            )
    finally:
        os.close(its)
    client = Running(process, transport, output, errors)
    try:
        yield client
    finally:
        client.kill()
        await process.wait()
        transport.close()
