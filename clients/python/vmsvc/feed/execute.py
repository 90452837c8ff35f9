"""`vmsvc feed exec`: a command that gets each state of a service as JSON."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vmsvc.arguments import seconds
from vmsvc.feed import arguments, command
from vmsvc.feed.kind import Kind
from vmsvc.feed.output import Applied, OutputError
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

# One service's command that hangs holds back no other's.
_COMMANDS_MAX = 4
_FAULTS_SHOWN_MAX = 3


@dataclass(slots=True)
class Execution:
    """Runs the command for each state that it has not been given yet, some at a time."""

    command: tuple[str, ...]
    timeout_s: float
    _given: dict[str, ServiceState] = field(default_factory=dict)

    async def apply(self, states: Mapping[str, ServiceState]) -> Applied:
        """See Output."""
        from vmsvc.show import json_text  # noqa: PLC0415 - the command line reads this module

        self._given = {name: state for name, state in self._given.items() if name in states}
        news = [state for name, state in states.items() if self._given.get(name) != state]
        room = asyncio.Semaphore(_COMMANDS_MAX)
        faults: list[str] = []

        async def give(state: ServiceState) -> None:
            async with room:
                try:
                    await command.run(
                        self.command,
                        timeout_s=self.timeout_s,
                        given=json_text(state).encode(),
                        environment={"VMSVC_SERVICE": state.service},
                    )
                except OutputError as error:
                    faults.append(f"{state.service}: {error}")
                else:
                    self._given[state.service] = state

        async with asyncio.TaskGroup() as running:
            for state in news:
                running.create_task(give(state))
        if faults:
            more = f"; and {len(faults) - _FAULTS_SHOWN_MAX} more" * (
                len(faults) > _FAULTS_SHOWN_MAX
            )
            raise OutputError("; ".join(sorted(faults)[:_FAULTS_SHOWN_MAX]) + more)
        return Applied(len(news))

    def reread(self) -> None:
        """See Output."""

    async def aclose(self) -> None:
        """See Output."""


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
