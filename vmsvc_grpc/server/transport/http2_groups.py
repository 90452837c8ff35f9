"""Streams of one connection that are sent the same messages: one of them is asked for all.

A stream is in a group while it is up to date and nothing waits for its client. It leaves when its
client stalls, sends something or ends it; then it is asked for itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol

from vmsvc_grpc.server.call import Shared

GROUP_STREAMS_MAX = 32
"""A group is sent to in one go, without a look at the clock: some 50 µs for so many."""


class Member(Protocol):
    """What a group uses of a call."""

    id: int
    group: Group | None

    @property
    def shared(self) -> Shared | None:
        """What it shares with others now; None if it has news, or nothing to share."""


class Group:
    """Streams that are sent the same. Only the `leader` listens, and is asked.

    `shared` is the leader's: its `place` is what all members were sent last.
    """

    __slots__ = ("_common", "_groups", "followers", "leader", "shared")

    def __init__(self, groups: Groups, leader: Member, shared: Shared) -> None:
        """While it has room, the group is one of `groups`."""
        self._groups = groups
        self._common = shared.common
        self.followers: dict[int, tuple[Member, Shared]] = {}  # By the numbers of their streams.
        self.leader, self.shared = leader, shared
        self._open()

    def stream_ids(self) -> Sequence[int]:
        """The numbers of its streams: the leader's, then the followers'."""
        return [self.leader.id, *self.followers]

    def take(self, call: Member, shared: Shared) -> None:
        """Have a call follow, which was sent the same as the leader so far."""
        assert shared.place == self.shared.place, "both are up to date"
        call.group = self
        self.followers[call.id] = call, shared
        if len(self.followers) == GROUP_STREAMS_MAX - 1:
            self._shut()
        shared.rest()

    def leave(self, call: Member, *, over: bool) -> None:
        """Have a member go on by itself, unless it is over."""
        call.group = None
        if call is self.leader:
            self._succeed()
            return
        _, shared = self.followers.pop(call.id)
        self._open()
        if not over:
            shared.resume(self.shared.place)

    def scatter(self, place: object) -> None:
        """Have all followers go on by themselves, from `place`."""
        followers, self.followers = self.followers, {}
        self._open()
        for call, shared in followers.values():
            call.group = None
            shared.resume(place)

    def _succeed(self) -> None:
        """The leader has left: the first follower is asked from now on."""
        left = self.shared
        if self.followers:
            self.leader, self.shared = self.followers.pop(next(iter(self.followers)))
            # Before the one that has left stops listening, as what nobody follows is forgotten.
            self.shared.resume(left.place)
            self._open()
        else:
            self._shut()

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


def join(groups: Groups, call: Member) -> None:
    """Have a call share its messages with the others of its connection, if it can now."""
    shared = call.shared
    if shared is None:
        return
    group = next(iter(groups.get(shared.common, ())), None)
    if group is None:
        call.group = Group(groups, call, shared)
    elif group.leader.shared is not None:  # Else the others are yet to be sent what it was.
        group.take(call, shared)
