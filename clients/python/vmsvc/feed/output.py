"""What a feed keeps right, as the feed sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from vmsvc.model import ServiceState


class OutputError(Exception):
    """Something could not be made as it should be; the text is one sentence for a person.

    It names what and why: a file, a socket, a command, a backend. The feed tries again, later each
    time; with `again_in_s` after that time at the latest, as a try costs little.
    """

    def __init__(self, text: str, again_in_s: float | None = None) -> None:
        super().__init__(text)
        self.again_in_s = again_in_s


class PartlyError(OutputError):
    """Not all could be made as it should be; the text says what.

    News need not wait for the next try: it may be of the rest, or mend it.
    """


@dataclass(frozen=True, slots=True)
class Applied:
    """What a call of `apply` has done.

    `changes` is how many it made; 0: all was as it should be. `again_in_s`: not all could be done
    yet, as a server drains or a reload would come too soon; it should be called again then.
    """

    changes: int
    again_in_s: float | None = None


class Output(Protocol):
    """A load balancer, a file or a command."""

    async def apply(self, states: Mapping[str, ServiceState]) -> Applied:
        """Make what is kept follow the states, by the services' full names.

        Called after each change with the newest states, and now and then without one: it compares
        with what is really there, which others may have changed, and writes what differs. A service
        that `states` lacks is not known: what was made of it before stays.

        Raises OutputError; PartlyError once all has been tried, as what is wrong with one service
        does not keep others from following. It does not wait for what takes long by its nature.
        Safe to cancel: the next call goes on from what it finds. One call at a time.
        """
        ...

    def reread(self) -> None:
        """Read anew what it was made of, as SIGHUP asks. Raises OutputError, and stays as it is."""
        ...

    async def aclose(self) -> None:
        """Let go of connections and processes; what was made stays."""
        ...
