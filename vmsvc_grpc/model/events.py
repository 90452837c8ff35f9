"""What a source emits, in the order in which it emits it.

For each kind, and each namespace where they are listed one by one: `Init`, then an
`Apply` or `Malformed` for each object of a complete list, then `InitDone`; afterwards
`Apply`, `Malformed` and `Delete` as things change. A source that lists again starts
over with `Init`; what that list lacks is deleted at its `InitDone`, and only there.
The writer of objects emits `Answer` and `AnswerGone`, at any time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from vmsvc_grpc.model.objects import Key, Kind, Object
from vmsvc_grpc.model.problem import Problem


@dataclass(frozen=True, slots=True)
class Init:
    """A complete list of one kind is asked for, of one namespace or of all.

    The list will be as of this moment or later. `Init` drops nothing, and may come again before the
    list is complete.
    """

    kind: Kind
    namespace: str | None = None


class Apply(msgspec.Struct, frozen=True, gc=False):
    """The object is now like this: created or changed. A Struct, as nearly all events are these."""

    object: Object


@dataclass(frozen=True, slots=True)
class Malformed:
    """The object exists, but what it says cannot be read. Its last good state stays.

    `resource_version` says since when, where the source knows.
    """

    kind: Kind
    key: Key
    problem: Problem
    resource_version: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Delete:
    """The object is gone. `resource_version` says since when, where the source knows."""

    kind: Kind
    key: Key
    resource_version: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class InitDone:
    """The list that `Init` of the same kind and namespace began is complete.

    `resource_version` says as of when it is, if the source knows.
    """

    kind: Kind
    namespace: str | None = None
    resource_version: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """A request was answered with this object. It does not come from the source, nor in its order.

    The source may have emitted a later state already, or may still emit an earlier one.
    """

    object: Object


@dataclass(frozen=True, slots=True)
class AnswerGone:
    """A request was answered that the object of this uid is gone. Not in the source's order.

    `resource_version` is that of its last known state, as the answer seldom has one. No object of
    this uid will ever exist again.
    """

    kind: Kind
    key: Key
    uid: str
    resource_version: str


Event = Init | Apply | Malformed | Delete | InitDone | Answer | AnswerGone
