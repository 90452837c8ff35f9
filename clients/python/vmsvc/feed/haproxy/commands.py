"""The commands that change servers, and what HAProxy's answers to them mean. Pure.

Source: HAProxy's management guide, section 9.3, and the texts in its src/server.c since 2.4.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from vmsvc.feed.haproxy.wanted import Address, State, WantedServer

_SAID_CHARACTERS_MAX = 300

_NOTHING = re.compile(r"")
_REGISTERED = re.compile(r"(?s).*New server registered\.")
# Somebody else may have been faster.
_DELETED = re.compile(r"Server deleted\.|No such server\.")
_ADDRESS_SET = re.compile(
    r".*(changed from|no need to change the addr, no need to change the port)|nothing changed"
)
_IN_USE = "Server still has connections attached to it"


class Outcome(Enum):
    """What came of a command."""

    DONE = "DONE"
    LATER = "LATER"
    """It cannot be done yet, as had to be expected."""
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True)
class Command:
    """A line for the Runtime API about a `server`, BACKEND/NAME; `done` is how it is confirmed."""

    server: str
    text: str
    done: re.Pattern[str] = _NOTHING

    def outcome(self, answer: str) -> Outcome:
        """What an answer means."""
        if self.done is _DELETED and answer.startswith(_IN_USE):
            return Outcome.LATER
        matched = self.done.match(answer) if self.done is not _NOTHING else not answer
        return Outcome.DONE if matched else Outcome.REFUSED

    def refusal(self, answer: str) -> str:
        """What a person is told of a refused command."""
        return f"{self.text!r} is answered {' '.join(answer.split())[:_SAID_CHARACTERS_MAX]!r}"


def add(backend: str, name: str, server: WantedServer, options: str) -> Command:
    """Adds a server, in maintenance and with its health checks switched off, as HAProxy does."""
    address = f"[{server.address}]" if server.address.version == 6 else str(server.address)  # noqa: PLR2004 - IPv6
    # `from` among the options has to come first (HAProxy 3.5).
    words = [options] if options else []
    words += ["backup"] if server.backup else []
    text = " ".join(("add server", f"{backend}/{name}", f"{address}:{server.port}", *words))
    return Command(f"{backend}/{name}", text, _REGISTERED)


def delete(backend: str, name: str) -> Command:
    """Deletes a server that is in maintenance and has no connections."""
    return _command("del server", backend, name, done=_DELETED)


def set_address(backend: str, name: str, address: Address, port: int) -> Command:
    """Sends what is new of a server elsewhere."""
    return _command("set server", backend, name, f" addr {address} port {port}", done=_ADDRESS_SET)


def set_state(backend: str, name: str, state: State) -> Command:
    """Forces an administrative state."""
    return _command("set server", backend, name, f" state {state.value}")


def reset_weight(backend: str, name: str) -> Command:
    """Gives a server the weight of its configuration."""
    return _command("set server", backend, name, " weight 100%")


def enable_health(backend: str, name: str) -> Command:
    """Switches configured health checks on."""
    return _command("enable health", backend, name)


def enable_agent(backend: str, name: str) -> Command:
    """Switches configured checks by an agent on."""
    return _command("enable agent", backend, name)


def disable_agent(backend: str, name: str) -> Command:
    """Switches checks by an agent off: they could take a server out of maintenance."""
    return _command("disable agent", backend, name)


def shut_down_sessions(backend: str, name: str) -> Command:
    """Ends what is still under way on a server."""
    return _command("shutdown sessions server", backend, name)


def _command(
    verb: str, backend: str, name: str, more: str = "", done: re.Pattern[str] = _NOTHING
) -> Command:
    server = f"{backend}/{name}"
    return Command(server, f"{verb} {server}{more}", done)
