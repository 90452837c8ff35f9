"""Streams that are sent the same messages: one is made, and sent to all of them.

All such streams of a server are a cohort; those of one connection are in groups. A stream is in a
group while it is up to date and nothing waits for its client. It leaves when its client stalls,
sends something or ends it; then it is asked for itself.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from typing import Protocol

from vmsvc_grpc.server.call import LATER, Shared

GROUP_STREAMS_MAX = 32
"""A group is sent to in one go, without a look at the clock: some 50 µs for so many."""

_log = logging.getLogger(__name__)


class Member(Protocol):
    """What a group uses of a call."""

    id: int
    group: Group | None

    @property
    def shared(self) -> Shared | None:
        """What it shares with others now; None if it has news, or nothing to share."""


class GroupConnection(Protocol):
    """What a group uses of its connection."""

    def send_soon(self, group: Group) -> None:
        """Send a group, which is due, the message of its cohort."""


class CohortServer(Protocol):
    """What the cohorts of a server share."""

    cohorts: dict[Hashable, Cohort]
    """By what their members have in common."""

    left_over: int
    """How often something was left to send, and lined up again."""

    def framed(self, message: bytes) -> bytes:
        """A message with its prefix."""

    def ask_soon(self, cohort: Cohort) -> None:
        """Ask a cohort, which has news, for its next message."""


class Cohort:
    """All streams of a server that are sent the same. None of them listens: its lead does.

    The lead is a stream that belongs to no client. It is asked for the next message when all groups
    have been sent the last one: so all are sent what is newest then, and `place` is one for all.
    """

    __slots__ = (
        "_awake",
        "_common",
        "_due",
        "_groups",
        "_lead",
        "_sent",
        "_server",
        "before",
        "framed",
        "place",
    )

    def __init__(self, server: CohortServer, shared: Shared) -> None:
        """A cohort of the server for streams such as this one."""
        self._server = server
        self._common = shared.common
        self._groups: dict[Group, None] = {}
        self._due = 0  # Groups that have yet to be sent the last message.
        self._sent = 0  # To so many streams it was sent.
        self._awake = False  # Whether its lead may have news.
        self.framed = b""
        self.before = self.place = shared.place  # Before the last message, and after it.
        self._lead = shared.lead(self._wake)
        server.cohorts[self._common] = self

    def ask(self) -> None:
        """Have all groups sent the next message, if there is one."""
        self._awake = False
        if not self._groups:
            return  # Its last stream has left.
        try:
            message = self._lead.next_message()
        except Exception:  # noqa: BLE001 - a fault of one call must not end others.
            # As no call has failed yet, each has a try, and its own status.
            _log.exception("a fault of ours in what streams share: each is asked for itself")
            for group in list(self._groups):
                group.scatter()
            return
        if not isinstance(message, bytes):
            self.place = self._lead.place
            if message is LATER:
                self._server.left_over += 1
                self._wake()
            return
        self.before, self.place = self.place, self._lead.place
        self.framed = self._server.framed(message)
        self._due = len(self._groups)
        for group in self._groups:
            group.due = True
            group.connection.send_soon(group)

    def add(self, group: Group) -> None:
        """One more group, which is up to date."""
        self._groups[group] = None

    def remove(self, group: Group) -> None:
        """A group that is not due has no streams any more."""
        del self._groups[group]
        if not self._groups:
            del self._server.cohorts[self._common]
            self._lead.close()

    def sent(self, streams: int) -> None:
        """A group that was due has been sent the last message; so many of its streams."""
        self._sent += streams
        self._due -= 1
        if not self._due:
            self._lead.count(self._sent - 1)  # It was counted once as it was made.
            self._sent = 0
            self.framed = b""
            if self._awake or not self._lead.quiet:
                self._awake = True
                self._server.left_over += 1
                self._server.ask_soon(self)

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            if not self._due:
                self._server.ask_soon(self)


class Group:
    """Streams of one connection and cohort.

    `due`: they have yet to be sent the cohort's last message.
    """

    __slots__ = ("_common", "_groups", "cohort", "connection", "due", "members")

    def __init__(
        self, cohort: Cohort, connection: GroupConnection, groups: Groups, common: Hashable
    ) -> None:
        """While it has room, the group is one of `groups`."""
        self.cohort = cohort
        self.connection = connection
        self._groups = groups
        self._common = common
        self.members: dict[int, tuple[Member, Shared]] = {}  # By the numbers of their streams.
        self.due = False
        cohort.add(self)
        self._open()

    def take(self, call: Member, shared: Shared) -> None:
        """Have a call in it, which was sent the same so far."""
        assert shared.place == self.cohort.place, "both are up to date"
        assert not self.due, "so is the group"
        call.group = self
        self.members[call.id] = call, shared
        if len(self.members) == GROUP_STREAMS_MAX:
            self._shut()
        shared.rest()

    def leave(self, call: Member, *, over: bool) -> None:
        """Have a member go on by itself, unless it is over."""
        call.group = None
        _, shared = self.members.pop(call.id)
        if not over:  # Before the lead stops listening, as what nobody follows is forgotten.
            shared.resume(self._place)
        if self.members:
            self._open()
        else:
            self._end()

    def scatter(self) -> None:
        """Have all members go on by themselves."""
        members, self.members = self.members, {}
        place = self._place
        for call, shared in members.values():
            call.group = None
            shared.resume(place)
        self._end()

    def sent(self, streams: int) -> None:
        """So many of them were handed the cohort's message, which was due; the others are gone."""
        self.due = False
        self.cohort.sent(streams)

    @property
    def _place(self) -> object:
        """What its members were sent last."""
        return self.cohort.before if self.due else self.cohort.place

    def _end(self) -> None:
        """Nobody is left in it."""
        self._shut()
        if self.due:
            self.sent(0)
        self.cohort.remove(self)

    def _open(self) -> None:
        """Have streams join it: it has room."""
        self._groups.setdefault(self._common, {})[self] = None

    def _shut(self) -> None:
        """Have no more streams join it: it is full, or nobody is left."""
        with_room = self._groups.get(self._common, {})
        with_room.pop(self, None)
        if not with_room:
            self._groups.pop(self._common, None)


Groups = dict[Hashable, dict[Group, None]]
"""The groups of one connection that have room, by what their members have in common."""


def join(server: CohortServer, connection: GroupConnection, groups: Groups, call: Member) -> None:
    """Have a call share its messages with others, if it can now: it is where they all are."""
    shared = call.shared
    if shared is None:
        return
    common = shared.common
    cohort = server.cohorts.get(common) or Cohort(server, shared)
    if cohort.place != shared.place:
        return
    group = next(iter(groups.get(common, ())), None)
    if group is None:
        group = Group(cohort, connection, groups, common)
    elif group.due:
        return
    group.take(call, shared)
