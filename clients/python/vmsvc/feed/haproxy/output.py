"""Backends of one HAProxy, kept right: read back, compared, changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmsvc.feed import written
from vmsvc.feed.haproxy import dynamic, server_state, slots
from vmsvc.feed.haproxy.commands import Command, Outcome
from vmsvc.feed.haproxy.held import HeldError, HeldServer, NoSuchBackendError, held
from vmsvc.feed.haproxy.runtime import LOOK_AGAIN_S, Runtime
from vmsvc.feed.haproxy.wanted import State, WantedServer, wanted
from vmsvc.feed.output import Applied, OutputError, PartlyError
from vmsvc.feed.target import Target, TargetError
from vmsvc.model import ServiceState

# Each time, HAProxy has its bound of time to answer. A thousand servers took it 0.1 s.
_COMMANDS_AT_ONCE_MAX = 1000

_FAULTS_SHOWN_MAX = 5


@dataclass(frozen=True, slots=True)
class Settings:
    """How servers are kept.

    `slots`: what the names of slots begin with. `server_options`: HAProxy's words for servers that
    are added. `drain_s`: how long requests to a server that leaves may go on. `not_ready`: the
    state of endpoints that are not ready. `zone`: preferred to the others, unless "". `state_file`:
    where HAProxy finds the states of slots when it starts.
    """

    slots: str = "slot"
    server_options: str = ""
    drain_s: float = 30.0
    not_ready: State = State.MAINT
    zone: str = ""
    state_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Backends:
    """The servers of a HAProxy's backends, each named as its target."""

    runtime: Runtime
    targets: Sequence[Target]
    settings: Settings

    async def apply(self, states: Mapping[str, ServiceState]) -> Applied:
        """See Output. A backend with slots is kept by them, another one by added servers."""
        faults: list[str] = []
        holding = await self._holding(faults)
        commands: list[Command] = []
        for target, servers in holding:
            if target.service not in states:
                continue
            try:
                want = self._wanted(target, states[target.service])
            except TargetError as error:
                faults.append(str(error))
            else:
                commands += self._planned(target.name, servers, want, faults)
        changes = await self._carry_out(commands, faults)
        await self._keep_state(holding, faults)
        if faults:
            raise PartlyError(_shown(faults), LOOK_AGAIN_S)
        return Applied(changes, LOOK_AGAIN_S)

    def reread(self) -> None:
        """See Output."""

    async def aclose(self) -> None:
        """See Output."""

    async def _holding(self, faults: list[str]) -> list[tuple[Target, tuple[HeldServer, ...]]]:
        """The servers of each backend, as far as there is one."""
        asked = [
            command
            for target in self.targets
            for command in (f"show stat {target.name} 4 -1", f"show servers state {target.name}")
        ]
        answers = await self.runtime.ask(asked)
        holding = []
        for target, stat, state in zip(self.targets, answers[::2], answers[1::2], strict=True):
            try:
                holding.append((target, held(stat, state)))
            except NoSuchBackendError:
                faults.append(f"HAProxy has no backend {target.name}")
            except HeldError as error:
                faults.append(f"backend {target.name}: {error}")
        return holding

    def _wanted(self, target: Target, state: ServiceState) -> tuple[WantedServer, ...]:
        if state.endpoints and (protocol := target.port_in(state).protocol) != "TCP":
            raise TargetError(f"{target.name}: HAProxy balances TCP, and the port is {protocol}")
        return wanted(
            target.servers(state), not_ready=self.settings.not_ready, zone=self.settings.zone
        )

    def _planned(
        self,
        backend: str,
        servers: Sequence[HeldServer],
        want: Sequence[WantedServer],
        faults: list[str],
    ) -> tuple[Command, ...]:
        own = self.settings
        found = slots.slots(servers, own.slots)
        if not found:
            return dynamic.plan(
                backend, servers, want, options=own.server_options, drain_s=own.drain_s
            )
        usable = self._usable(found)
        filling = slots.plan(backend, usable, want, drain_s=own.drain_s)
        if len(usable) < len(found):
            faults.append(
                f"backend {backend} has slots whose addresses HAProxy does not restore from a "
                "state file: they need a name, and a port, as in "
                "`vm.invalid:80 init-addr last,0.0.0.0 disabled`"
            )
        if filling.missing:
            faults.append(f"backend {backend} has {filling.missing} slots too few")
        if filling.missing_backup:
            faults.append(
                f"backend {backend} has {filling.missing_backup} backup slots too few, "
                "for servers of other zones"
            )
        return filling.commands

    def _usable(self, found: Sequence[HeldServer]) -> list[HeldServer]:
        """Slots that may be filled: with a state file, those that HAProxy restores."""
        return [slot for slot in found if self.settings.state_file is None or _restored(slot)]

    async def _carry_out(self, commands: Sequence[Command], faults: list[str]) -> int:
        done = 0
        refused = set()
        for start in range(0, len(commands), _COMMANDS_AT_ONCE_MAX):
            some = commands[start : start + _COMMANDS_AT_ONCE_MAX]
            answers = await self.runtime.ask([command.text for command in some])
            for command, answer in zip(some, answers, strict=True):
                outcome = command.outcome(answer)
                done += outcome is Outcome.DONE
                # What is then asked of a server that could not be added says nothing new.
                if outcome is Outcome.REFUSED and command.server not in refused:
                    refused.add(command.server)
                    faults.append(command.refusal(answer))
        return done

    async def _keep_state(
        self, holding: Iterable[tuple[Target, Sequence[HeldServer]]], faults: list[str]
    ) -> None:
        """Write HAProxy's own file of the slots' state as it is now."""
        path, prefix = self.settings.state_file, self.settings.slots
        filled = {
            target.name: {slot.name for slot in self._usable(slots.slots(servers, prefix))}
            for target, servers in holding
        }
        backends = [name for name, names in filled.items() if names]
        if path is None or not backends:
            return
        answers = await self.runtime.ask([f"show servers state {name}" for name in backends])
        try:
            text = server_state.content(zip(answers, (filled[b] for b in backends), strict=True))
            if text:
                await written.finished(lambda: written.write(path, text.encode()))
        except (HeldError, OutputError) as error:
            faults.append(str(error))


def _restored(slot: HeldServer) -> bool:
    """Whether HAProxy restores it: not an address of its configuration, and port 0 is an offset.

    Source: srv_iterate_initaddr and SRV_F_MAPPORTS in its src/server.c.
    """
    return slot.named and slot.port != 0


def _shown(faults: Sequence[str]) -> str:
    more = len(faults) - _FAULTS_SHOWN_MAX
    return "; ".join(faults[:_FAULTS_SHOWN_MAX]) + (f"; and {more} more" if more > 0 else "")
