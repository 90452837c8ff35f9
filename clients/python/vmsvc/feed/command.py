"""Commands run to their end, within bounds: time, and what is kept of what they say."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from vmsvc.feed.output import OutputError

_SAID_BYTES_MAX = 64 * 1024
_SHOWN_CHARACTERS_MAX = 500
# A daemon that the command has started may keep the pipe open for ever.
_LAST_WORDS_S = 0.5


async def run(
    command: Sequence[str],
    *,
    timeout_s: float,
    given: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a program with its arguments, and `given` on its standard input, to its end.

    `environment` is added to ours. Raises OutputError, with the end of what it said, if it cannot
    be started, fails, or has not ended within `timeout_s`. It is killed then, as on cancellation,
    with all that it has started in its process group.
    """
    name = command[0]
    async with _hearing() as heard:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE if given else asyncio.subprocess.DEVNULL,
                stdout=heard.pipe,
                stderr=heard.pipe,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            raise OutputError(f"command {name} cannot be started: {reason}") from error
        heard.begun()
        async with over(process):
            try:
                async with asyncio.timeout(timeout_s):
                    await _give(process, given)
                    code = await process.wait()
                await asyncio.wait({heard.ended}, timeout=_LAST_WORDS_S)
            except TimeoutError:
                late = f"command {name} has not ended within {timeout_s:g} s{heard.quoted()}"
                raise OutputError(late) from None
    if code:
        how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
        raise OutputError(f"command {name} {how}{heard.quoted()}")


@asynccontextmanager
async def over(process: asyncio.subprocess.Process) -> AsyncIterator[None]:
    """After the block, a process that leads its group has ended; killed with it, if need be."""
    try:
        yield
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _give(process: asyncio.subprocess.Process, given: bytes) -> None:
    if process.stdin is None or process.stdin.is_closing():
        return
    # It need not read what it is given.
    with suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(given)
        await process.stdin.drain()
    process.stdin.close()


class _Heard(asyncio.Protocol):
    """The last of what a command says. `pipe` is the end to write to, until it has begun."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._said = bytearray()

    def begun(self) -> None:
        """The command has its own copy of the pipe's end."""
        if self.pipe >= 0:
            os.close(self.pipe)
        self.pipe = -1

    def data_received(self, data: bytes) -> None:
        self._said += data
        del self._said[:-_SAID_BYTES_MAX]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - a protocol's
        if not self.ended.done():
            self.ended.set_result(None)

    def quoted(self) -> str:
        """The end of it, on one line; empty if it said nothing."""
        text = " ".join(self._said.decode("utf-8", "replace").split())
        cut = text[-_SHOWN_CHARACTERS_MAX:]
        return f": {'...' if len(cut) < len(text) else ''}{cut}" if text else ""


@asynccontextmanager
async def _hearing() -> AsyncIterator[_Heard]:
    reader, writer = os.pipe()
    heard = _Heard(writer)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: heard, os.fdopen(reader, "rb", buffering=0)
    )
    try:
        yield heard
    finally:
        heard.begun()
        transport.close()
