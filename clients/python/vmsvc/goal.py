"""What a watch waits for: ready VMs, or that services are gone. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vmsvc.model import AbsenceReason, ServiceState
from vmsvc.state import Disconnected, Event, Synced


@dataclass(slots=True)
class Goal:
    """What has to hold of each of `services`, full names, at the same time.

    `ready_min`: at least so many VMs are ready. `absent`: there is no such service. With
    neither, it is never reached.
    """

    services: Sequence[str]
    ready_min: int | None = None
    absent: bool = False
    _states: dict[str, ServiceState] = field(default_factory=dict)
    # What was told before a connection was lost may not be true any more.
    _synced: bool = False

    @property
    def given(self) -> bool:
        """Whether there is something to wait for."""
        return self.absent or self.ready_min is not None

    def take(self, event: Event) -> bool:
        """Take in what a watch tells; whether the goal is reached."""
        match event:
            case Synced():
                self._synced = True
            case Disconnected():
                self._synced = False
            case ServiceState():
                self._states[event.service] = event
        return self.given and self._synced and not any(map(self._lack, self.services))

    def lacks(self) -> str:
        """What is not reached yet, in one sentence."""
        lacks = [f"{name} {lack}" for name in self.services if (lack := self._lack(name))]
        unsure = "" if self._synced else " (as last heard; the server is away)"
        return f"{'; '.join(lacks) or 'nothing is known for sure'}{unsure}"

    def _lack(self, service: str) -> str:
        """Why a service has not what is asked of it; empty if it has."""
        state = self._states.get(service)
        if state is None:
            return "is not known yet"
        if self.absent:
            gone = state.absence and state.absence.reason is AbsenceReason.NOT_FOUND
            return "" if gone else "is there still"
        if state.absence:
            refused = state.absence.reason is AbsenceReason.REFUSED
            return f"is {'refused' if refused else 'absent'}: {state.absence.message}"
        ready = len({e.vm_name for e in state.endpoints if e.ready})
        return (
            "" if ready >= (self.ready_min or 0) else f"has {ready} of {self.ready_min} VMs ready"
        )
