"""A file that a template makes: rendered within bounds, written whole, told to a command."""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vmsvc.feed import command, taken, written
from vmsvc.feed.output import Applied, OutputError, PartlyError
from vmsvc.feed.template.view import context
from vmsvc.feed.written import finished
from vmsvc.model import ServiceState
from vmsvc.show import printable

TEMPLATE_BYTES_MAX = 1024 * 1024

# Twenty thousand endpoints, and what is made of them, take a tenth of it.
_MEMORY_BYTES_MAX = 1024 * 1024 * 1024
# Of what a process says that cannot even begin, the end says why.
_FAULT_CHARACTERS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a template may take to render, and how much it may make."""

    render_s: float = 5.0
    output_bytes_max: int = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Told:
    """The command that is run when the file is new, and how long it may take."""

    command: Sequence[str]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class _Made:
    """What a template's text has made of states."""

    source: str
    states: Mapping[str, ServiceState]
    content: bytes

    def is_of(self, source: str, states: Mapping[str, ServiceState]) -> bool:
        return self.source == source and self.states == states


@dataclass(slots=True)
class Template:
    """The Output of `vmsvc feed template`.

    `named` are services that must be known before anything is made. What is made is as new as the
    states, but made no sooner than `interval_s` after the last time; `clock` yields seconds.
    """

    template: Path
    file: Path
    named: Sequence[str]
    variables: Mapping[str, str]
    told: Told | None = None
    bounds: Bounds = Bounds()
    interval_s: float = 1.0
    clock: Callable[[], float] = time.monotonic
    _source: str = field(init=False)
    _made: _Made | None = None
    _fault: str = ""
    _due: float = -math.inf

    def __post_init__(self) -> None:
        self.reread()

    def reread(self) -> None:
        """Read the template anew. Raises OutputError, and goes on with the one of before."""
        try:
            found = written.read(self.template, TEMPLATE_BYTES_MAX + 1)
            if found is None:
                raise OutputError(f"there is no template {self.template}")
            source = found.decode()
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(f"template {self.template} cannot be read: {reason}") from error
        except UnicodeDecodeError as error:
            raise OutputError(f"template {self.template} is not UTF-8: {error.reason}") from None
        if len(found) > TEMPLATE_BYTES_MAX:
            raise OutputError(f"template {self.template} has more than {TEMPLATE_BYTES_MAX} bytes")
        self._source, self._due = source, -math.inf

    async def apply(self, states: Mapping[str, ServiceState]) -> Applied:
        """Have the file follow the states, and the command run for it; see Output."""
        if unknown := [name for name in self.named if name not in states]:
            raise PartlyError(f"{self.file} waits for what is not known yet: {', '.join(unknown)}")
        if self._made is None or not self._made.is_of(self._source, states):
            if (wait_s := self._due - self.clock()) > 0:
                if self._fault:
                    raise OutputError(self._fault)
                return Applied(0, wait_s)
            self._made = await self._make(states)
        made = self._made.content
        changes = int(await finished(lambda: written.write(self.file, made)))
        if self.told and await finished(lambda: taken.taken(self.file)) != made:
            await command.run(self.told.command, timeout_s=self.told.timeout_s)
            await finished(lambda: taken.take(self.file, made))
            changes = 1
        return Applied(changes)

    async def aclose(self) -> None:
        """Nothing is open between calls."""

    async def _make(self, states: Mapping[str, ServiceState]) -> _Made:
        self._due, self._fault = self.clock() + self.interval_s, ""
        # It may be read anew while it is rendered.
        source = self._source
        try:
            return _Made(source, states, await self._rendered(source, states))
        except OutputError as fault:
            self._fault = str(fault)
            raise

    async def _rendered(self, source: str, states: Mapping[str, ServiceState]) -> bytes:
        work = {
            "path": str(self.template),
            "source": source,
            "context": context(states, self.variables),
            "output_bytes_max": self.bounds.output_bytes_max,
            "memory_bytes_max": _MEMORY_BYTES_MAX,
            "cpu_s_max": math.ceil(self.bounds.render_s) + 1,
        }
        process = await self._worker()
        async with command.over(process):
            try:
                async with asyncio.timeout(self.bounds.render_s):
                    made, said = await process.communicate(json.dumps(work).encode())
            except TimeoutError:
                late = f"{self.template}: it takes more than {self.bounds.render_s:g} s to render"
                raise OutputError(late) from None
        if process.returncode:
            text = printable(said.decode("utf-8", "replace"))[-_FAULT_CHARACTERS_MAX:]
            ended = f"{self.template}: the process that renders it ended with {process.returncode}"
            raise OutputError(text or ended)
        return made

    async def _worker(self) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                # Not from the directory that we happen to run in.
                *("-P", "-m", "vmsvc.feed.template.worker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                # The rest of our environment is not the template's.
                env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,
            )
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(f"{self.template}: no process renders it: {reason}") from error
