"""What a feed keeps right, as the feed sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from vmsvc.model import ServiceState


class OutputError(Exception):
    """Something could not be made as it should be; the text is one sentence for a person.

    It names what and why: a file, a socket, a command, a backend. The feed tries again.
    """


class Output(Protocol):
    """A load balancer, a file or a command."""

    async def apply(self, states: Mapping[str, ServiceState]) -> int:
        """Make what is kept follow the states, by the services' full names.

        Called after each change with the newest states, and now and then without one: it compares
        with what is really there, which others may have changed, and writes what differs. A service
        that `states` lacks is not known: what was made of it before stays.

        Returns how many changes it made; 0: all was as it should be. Raises OutputError once all
        has been tried: what is wrong with one service does not keep others from following. Safe to
        cancel: the next call goes on from what it finds. One call at a time.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections and processes; what was made stays."""
        ...
