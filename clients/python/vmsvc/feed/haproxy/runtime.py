"""The connection to HAProxy's Runtime API: lines out, whole answers in, all within bounds."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from vmsvc.addresses import reached
from vmsvc.feed.output import OutputError

LOOK_AGAIN_S = 0.5
"""HAProxy tells nobody that it was restarted, and begins without the servers that were added."""

# Of 10,000 servers, `show stat` has about 6 MB.
_ANSWER_BYTES_MAX = 64 * 1024 * 1024
_READ_BYTES = 256 * 1024
# Between answers. A master process, which hands commands on, says its name there.
_PROMPT = re.compile(rb"(?:^|\n)(master[^\s>]*)?> ")
_PROMPT_BYTES_MAX = 64
_EXPERIMENTAL = "restricted to experimental mode"
_PORT_MAX = 65535


class PlaceError(ValueError):
    """A text does not say where the Runtime API is; it is one sentence."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where HAProxy's Runtime API listens: a socket's `path`, or else `host` and `port`."""

    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def of(cls, text: str) -> Place:
        """The place of /PATH or HOST:PORT, an IPv6 host in brackets. Raises PlaceError."""
        if text.startswith("/"):
            return cls(path=text)
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if colon and host and re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) <= _PORT_MAX:
            return cls(host=host, port=int(port))
        raise PlaceError(f"{text[:200]!r} is neither /PATH of a socket nor HOST:PORT")

    def __str__(self) -> str:
        return self.path or reached(self.host, self.port)


@dataclass(frozen=True, slots=True)
class Runtime:
    """HAProxy, as its Runtime API shows it: by a worker's socket, or the master's.

    Each `ask` has a connection of its own. After a reload only a new one reaches the new process,
    and the old process does not end while it has one.
    """

    place: Place
    timeout_s: float

    async def ask(self, commands: Sequence[str]) -> list[str]:
        """The answer to each command, in order, without white space around it.

        Sent at once, carried out one after the other. A version that has dynamic servers as an
        experiment (2.4 and 2.5) is asked again with that switched on: it has refused only what
        needs it, and commands that set something may be repeated. Safe to cancel. Raises
        OutputError if HAProxy is away, answers too much, or not within `timeout_s`.
        """
        try:
            async with asyncio.timeout(self.timeout_s):
                answers = await self._asked(commands)
                if any(_EXPERIMENTAL in answer for answer in answers):
                    on = "experimental-mode on"
                    answers = (await self._asked((on, *commands)))[1:]
                return answers
        except TimeoutError:
            raise self._fault(f"has not answered within {self.timeout_s:g} s") from None
        except asyncio.LimitOverrunError:
            raise self._fault(f"answers more than {_ANSWER_BYTES_MAX} bytes") from None
        except asyncio.IncompleteReadError:
            raise self._fault("has closed the connection") from None
        except OSError as error:
            raise self._fault(f"cannot be asked: {error.strerror or error}") from error

    async def _asked(self, commands: Sequence[str]) -> list[str]:
        reader, writer = await self._connected()
        try:
            answers = _Answers(reader)
            writer.write(b"prompt\n")
            # Answers come with a prompt after each, which no answer has in it. Without one they
            # end with an empty line, but not all, nor in all versions.
            await answers.next()
            to = "@1 " if answers.of_master else ""
            lines = (
                command if command.startswith("experimental-mode") else to + command
                for command in commands
            )
            writer.write("".join(f"{line}\n" for line in lines).encode())
            return [await answers.next() for _ in commands]
        finally:
            # Not `close`: it would wait for one that reads no more to take what is left.
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

    def _fault(self, what: str) -> OutputError:
        return OutputError(f"HAProxy at {self.place} {what}", again_in_s=LOOK_AGAIN_S)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.place.path:
            return await asyncio.open_unix_connection(self.place.path)
        return await asyncio.open_connection(self.place.host, self.place.port)


class _Answers:
    """The answers on one connection, each ended by a prompt."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._read = bytearray()
        self.of_master = False

    async def next(self) -> str:
        """The next answer. Raises OSError, IncompleteReadError and LimitOverrunError."""
        looked = 0
        while not (found := _PROMPT.search(self._read, looked)):
            looked = max(0, len(self._read) - _PROMPT_BYTES_MAX)
            if len(self._read) > _ANSWER_BYTES_MAX:
                raise asyncio.LimitOverrunError("", len(self._read))
            data = await self._reader.read(_READ_BYTES)
            if not data:
                raise asyncio.IncompleteReadError(bytes(self._read), None)
            self._read += data
        self.of_master = found[1] is not None
        answer = self._read[: found.start()].decode("utf-8", "replace").strip()
        del self._read[: found.end()]
        return answer
