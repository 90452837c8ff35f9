"""What a source tells, in the order in which it tells it.

For each kind, and each namespace where they are listed one by one: `Init`, then an
`Apply` or `Malformed` for each object of a complete list, then `InitDone`; afterwards
`Apply`, `Malformed` and `Delete` as things change. A source that lists again starts
over with `Init`; what that list lacks is deleted at its `InitDone`, and only there.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmsvc_grpc.model.objects import Key, Kind, Object, Problem


@dataclass(frozen=True, slots=True)
class Init:
    """A complete list of one kind begins, of one namespace or of all. Nothing is dropped by it."""

    kind: Kind
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Apply:
    """The object is now like this: created or changed."""

    object: Object


@dataclass(frozen=True, slots=True)
class Malformed:
    """The object exists, but what it says cannot be read. Its last good state stays."""

    kind: Kind
    key: Key
    problem: Problem


@dataclass(frozen=True, slots=True)
class Delete:
    """The object is gone."""

    kind: Kind
    key: Key


@dataclass(frozen=True, slots=True)
class InitDone:
    """The list that `Init` of the same kind and namespace began is complete."""

    kind: Kind
    namespace: str | None = None


Event = Init | Apply | Malformed | Delete | InitDone
