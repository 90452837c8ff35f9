"""`vmsvc feed exec`: a command that gets each state of a service as JSON."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vmsvc.arguments import seconds
from vmsvc.feed import arguments, backoff, command
from vmsvc.feed.kind import Kind
from vmsvc.feed.output import Applied, OutputError, PartlyError
from vmsvc.feed.policies import Policies, Policy
from vmsvc.model import ServiceState

_EPILOG = """\
The command is run for each service at first, and after each change, with the service's state
on its standard input: a JSON object as of `vmsvc resolve -o json`. A service that does not
exist has `absence`. VMSVC_SERVICE is the service's name. Of changes that come while it runs,
it gets the newest state. If it fails, or takes too long, it is run again.

example:
  vmsvc feed exec shop/web --command 'curl --fail -T - http://127.0.0.1:8000/web'
"""

_COMMANDS_MAX = 4
_FAULTS_SHOWN_MAX = 3

# How long a look waits for commands to end, which most do; those that do not hold back no others.
_WAIT_S = 0.5


@dataclass(slots=True)
class _Fault:
    """What a service's command has last failed with, how often in a row, and when it is due."""

    text: str
    failures: int
    due: float


@dataclass(slots=True)
class Execution:
    """Runs the command for each state that it has not been given yet, some at a time.

    A command goes on from one call of `apply` to the next. `clock` yields seconds.
    """

    command: tuple[str, ...]
    timeout_s: float
    clock: Callable[[], float] = time.monotonic
    _newest: Mapping[str, ServiceState] = field(default_factory=dict)
    _given: dict[str, ServiceState] = field(default_factory=dict)
    _faults: dict[str, _Fault] = field(default_factory=dict)
    _running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_COMMANDS_MAX))
    _changes: int = 0

    async def apply(self, states: Mapping[str, ServiceState]) -> Applied:
        """See Output."""
        self._newest = states
        self._given = {name: state for name, state in self._given.items() if name in states}
        self._faults = {name: fault for name, fault in self._faults.items() if name in states}
        self._take_ended()
        self._begin()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=_WAIT_S)
        self._take_ended()
        changes, self._changes = self._changes, 0
        again_in_s = _WAIT_S if self._running else None
        if self._faults:
            due = min(fault.due for fault in self._faults.values()) - self.clock()
            raise PartlyError(self._shown(), max(due, _WAIT_S))
        if not self._running.keys() <= self._given.keys():
            raise PartlyError(f"command {self.command[0]} has yet to end once", again_in_s)
        return Applied(changes, again_in_s)

    def reread(self) -> None:
        """Run at once what has failed; see Output."""
        for fault in self._faults.values():
            fault.due = self.clock()

    async def aclose(self) -> None:
        """End the commands that run; see Output."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _begin(self) -> None:
        """Begin with what the command lacks, but for what it has failed with just now."""
        now = self.clock()
        for name, state in self._newest.items():
            fault = self._faults.get(name)
            if (
                self._given.get(name) != state
                and name not in self._running
                and (fault is None or fault.due <= now)
            ):
                self._running[name] = asyncio.create_task(self._run(name))

    async def _run(self, name: str) -> None:
        async with self._room:
            # It may have waited, and the service be forgotten.
            if (state := self._newest.get(name)) is not None:
                await self._give(state)

    def _take_ended(self) -> None:
        for name in [name for name, task in self._running.items() if task.done()]:
            self._running.pop(name).result()

    async def _give(self, state: ServiceState) -> None:
        from vmsvc.show import json_text  # noqa: PLC0415 - the command line reads this module

        name = state.service
        try:
            await command.run(
                self.command,
                timeout_s=self.timeout_s,
                given=json_text(state).encode(),
                environment={"VMSVC_SERVICE": name},
            )
        except OutputError as error:
            failures = self._faults[name].failures + 1 if name in self._faults else 1
            due = self.clock() + backoff.after(failures)
            self._faults[name] = _Fault(f"{name}: {error}", failures, due)
        else:
            self._given[name] = state
            self._faults.pop(name, None)
            self._changes += 1

    def _shown(self) -> str:
        texts = sorted(fault.text for fault in self._faults.values())
        more = len(texts) - _FAULTS_SHOWN_MAX
        return "; ".join(texts[:_FAULTS_SHOWN_MAX]) + f"; and {more} more" * (more > 0)


def _add(parser: argparse.ArgumentParser) -> None:
    arguments.add_services(parser)
    parser.add_argument(
        "--command",
        dest="run",
        type=arguments.command,
        required=True,
        metavar="COMMAND",
        help="what to run, with its arguments quoted as for a shell; none is used",
    )
    arguments.add_command_timeout(parser, seconds)
    parser.add_argument("--all", action="store_true", help="give endpoints that are not ready, too")


def _made(given: Mapping[str, Any]) -> Execution:
    return Execution(given["run"], given["command_timeout_s"])


KIND = Kind(
    "run a command with each state of a service as JSON",
    _EPILOG,
    _add,
    _made,
    Policies(absent=Policy.EMPTY, no_endpoints=Policy.EMPTY),
)
