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

    __slots__ = ("_groups", "followers", "leader", "shared")

    def __init__(self, groups: dict[Hashable, Group], leader: Member, shared: Shared) -> None:
        """The group is one of `groups`, by what it has in common."""
        self._groups = groups
        self.followers: dict[int, tuple[Member, Shared]] = {}  # By the numbers of their streams.
        self.leader, self.shared = leader, shared
        groups[shared.common] = self

    @property
    def full(self) -> bool:
        """Whether it takes no more streams."""
        return len(self.followers) >= GROUP_STREAMS_MAX - 1

    def stream_ids(self) -> Sequence[int]:
        """The numbers of its streams: the leader's, then the followers'."""
        return [self.leader.id, *self.followers]

    def take(self, call: Member, shared: Shared) -> None:
        """Have a call follow, which was sent the same as the leader so far."""
        assert shared.place == self.shared.place, "both are up to date"
        call.group = self
        self.followers[call.id] = call, shared
        shared.rest()

    def leave(self, call: Member, *, over: bool) -> None:
        """Have a member go on by itself, unless it is over."""
        call.group = None
        if call is self.leader:
            self._succeed()
            return
        _, shared = self.followers.pop(call.id)
        if not over:
            shared.resume(self.shared.place)

    def scatter(self, place: object) -> None:
        """Have all followers go on by themselves, from `place`."""
        followers, self.followers = self.followers, {}
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
        elif self._groups.get(left.common) is self:
            del self._groups[left.common]


def join(groups: dict[Hashable, Group], call: Member) -> None:
    """Have a call share its messages with the others of its connection, if it can now."""
    shared = call.shared
    if shared is None:
        return
    group = groups.get(shared.common)
    if group is None or group.full:
        call.group = Group(groups, call, shared)
    elif group.leader.shared is not None:  # Else the others are yet to be sent what it was.
        group.take(call, shared)
