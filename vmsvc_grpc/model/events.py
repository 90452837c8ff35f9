"""What a source emits, in the order in which it emits it.

For each kind, and each namespace where they are listed one by one: `Init`, then an
`Apply` or `Malformed` for each object of a complete list, then `InitDone`; afterwards
`Apply`, `Malformed` and `Delete` as things change. A source that lists again starts
over with `Init`; what that list lacks is deleted at its `InitDone`, and only there.
The writer of objects emits `Answer` and `AnswerGone`, at any time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vmsvc_grpc.model.objects import Key, Kind, Object
from vmsvc_grpc.model.problem import Problem


@dataclass(frozen=True, slots=True)
class Init:
    """A complete list of one kind is asked for, of one namespace or of all.

    It will be of this moment or a later one. Nothing is dropped by it, and it may be asked
    for again before there is one.
    """

    kind: Kind
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Apply:
    """The object is now like this: created or changed."""

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

    `resource_version` says of when it is, where the source knows.
    """

    kind: Kind
    namespace: str | None = None
    resource_version: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """A request was answered with this object; not emitted by the source, nor in its order.

    The source may have emitted a later state already, or emit an earlier one yet.
    """

    object: Object


@dataclass(frozen=True, slots=True)
class AnswerGone:
    """A request was answered with: the object of this uid is gone. In no order with the source.

    `resource_version` is that of the last state that was known of it; the answer itself
    mostly says none. No later state of this uid will ever be.
    """

    kind: Kind
    key: Key
    uid: str
    resource_version: str


Event = Init | Apply | Malformed | Delete | InitDone | Answer | AnswerGone
