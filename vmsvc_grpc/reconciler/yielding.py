"""Two writers that disagree: which of our changes to make, and which to leave for now. Pure.

Another writer may want other values in the same fields: VM Operator's controller with other
settings, a policy engine, a person. Each would undo the other's work for ever. So after our changes
were changed back several times in a row, we leave the object as it is, until we want something else
or a pause is over. The pause grows with each vain attempt. Time is an argument: seconds of a clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

from vmsvc_grpc.model.objects import Key, Kind, VirtualMachineService
from vmsvc_grpc.reconciler.held import Failure, Held
from vmsvc_grpc.reconciler.patch import PatchPath, merge_patch
from vmsvc_grpc.reconciler.plan import Change

_WHOLE_OBJECT: PatchPath = ()
"""Stands for the object itself among fields: it was deleted, or created again."""

# At each write we look at more records than one write adds, so that none is kept for ever.
_EXPIRED_AT_ONCE = 2


class Target(NamedTuple):
    """What a change is about. The status of a VMService counts as an object of its own."""

    kind: Kind
    key: Key
    status: bool


def target(change: Change) -> Target:
    """What a change is about."""
    before, after = change.before, change.after
    own = isinstance(before, VirtualMachineService) and after is not None
    return Target(change.kind, change.key, own and before is not None and _same_meta(before, after))


def _same_meta(before: Held, after: Held | None) -> bool:
    return after is not None and before.meta == after.meta


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Bounds of a disagreement.

    An object that was changed back `rounds_max` times in a row is left alone for `pause_first_s`,
    which doubles with each vain attempt, up to `pause_max_s`. A change after `memory_s` does not
    count as a change back: a person may edit an object now and then.

    The disagreement is over once everything has stayed as written for `quiet_s`, and for twice as
    long as it ever stayed before it was changed back: a tool may run every few minutes only.

    What is left of a service that is gone is forgotten after `quiet_s`, or its writes of an hour
    would be kept for each name that there was.
    """

    rounds_max: int = 3
    pause_first_s: float = 10.0
    pause_max_s: float = 600.0
    quiet_s: float = 60.0
    memory_s: float = 3600.0


@dataclass(slots=True)
class _Record:
    """Our last write to an object, and what became of it.

    `answered` counts, for each field, how many times in a row we wrote it again after it had been
    changed back. The existence of the object counts as a field, `_WHOLE_OBJECT`. So several writers
    that each act once (Kubernetes deletes the Endpoints of a deleted Service) are no disagreement.

    `pause_s` is 0 until we have yielded once; then `fields` are those in dispute, and
    `until` is when the next attempt may be made. `stayed_s` is the longest time for which
    everything stayed as written before it was changed back.
    """

    after: Held | None
    at: float
    uid: str = ""
    answered: Counter[PatchPath] = field(default_factory=Counter)
    pause_s: float = 0.0
    until: float = 0.0
    fields: frozenset[PatchPath] = frozenset()
    writer: str | None = None
    quiet_since: float | None = None
    stayed_s: float = 0.0

    @property
    def disputed(self) -> bool:
        return self.pause_s > 0

    def end(self) -> None:
        """End the dispute; the next change back begins it again."""
        self.pause_s, self.fields, self.writer = 0.0, frozenset(), None
        # If they gave in during a pause, that is over, too: nothing would end it otherwise.
        self.until = self.at


class Yielding:
    """Notes our writes for each service, and says which objects to leave alone."""

    def __init__(self, patience: Patience) -> None:
        """Nothing has been written yet."""
        self._patience = patience
        self._records: dict[Key, dict[Target, _Record]] = {}

    def allowed(self, service: Key, changes: Iterable[Change], now: float) -> list[Change]:
        """The planned changes of a service that may be made now, in their order.

        `changes` are all planned changes: objects without one are as they should be.
        """
        records = self._records.get(service, {})
        changes = list(changes)
        planned = set(map(target, changes))
        for about, record in list(records.items()):
            if record.quiet_since is None:
                record.quiet_since = None if about in planned else now
            elif now >= record.quiet_since + self._patience.memory_s:
                del records[about]
            elif record.disputed and now >= self._over(record, record.quiet_since):
                record.end()
        if not records:
            self._records.pop(service, None)
        return [c for c in changes if self._may_be_made(records.get(target(c)), c, now)]

    def _may_be_made(self, record: _Record | None, change: Change, now: float) -> bool:
        if record is None:
            return True
        stayed_s = 0.0 if record.quiet_since is None else now - record.quiet_since
        record.quiet_since = None
        changed_back = _changed_back(record.after, change)
        if changed_back is None:
            return True
        record.stayed_s = max(record.stayed_s, stayed_s)
        if not self._tires(record, changed_back):
            return True
        record.fields |= changed_back - {_WHOLE_OBJECT}
        if record.until <= record.at:
            # It was changed back after the last attempt.
            patience = self._patience
            doubled = min(2 * record.pause_s, patience.pause_max_s)
            record.pause_s = doubled or patience.pause_first_s
            record.until = now + record.pause_s
        return now >= record.until

    def _tires(self, record: _Record, changed_back: frozenset[PatchPath]) -> bool:
        """Whether one of these fields has been changed back too often."""
        most = max((record.answered[path] for path in changed_back), default=0)
        return record.disputed or most + 1 >= self._patience.rounds_max

    def uid(self, service: Key, about: Target) -> str:
        """The uid of an object as we last wrote it; "" if we did not, or have deleted it."""
        record = self._records.get(service, {}).get(about)
        return record.uid if record else ""

    def written(self, service: Key, change: Change, now: float, *, uid: str = "") -> None:
        """A change was made; the object has that uid since, if it is there."""
        self._expire(now)
        records = self._records.setdefault(service, {})
        about = target(change)
        record = records.pop(about, None)
        if record is None:
            record = _Record(change.after, now)
        else:
            changed_back = _changed_back(record.after, change)
            record.after, record.at, record.until = change.after, now, now
            if changed_back is None:
                record.answered.clear()
            else:
                record.answered.update(changed_back)
        record.uid = uid
        records[about] = record

    def undecided(self, service: Key) -> Iterator[tuple[Target, frozenset[PatchPath]]]:
        """Objects in dispute whose other writer is still to be found out."""
        for about, record in self._records.get(service, {}).items():
            if record.disputed and record.writer is None:
                yield about, record.fields

    def found(self, service: Key, about: Target, writer: str) -> None:
        """Set the other writer of an object in dispute; "" if it cannot be known."""
        record = self._records.get(service, {}).get(about)
        if record is not None:
            record.writer = writer

    def failures(self, service: Key) -> tuple[Failure, ...]:
        """A failure for each object in dispute, until it has been quiet for a while."""
        return tuple(
            _failure(about, record, self._patience.rounds_max)
            for about, record in self._records.get(service, {}).items()
            if record.disputed
        )

    def due(self, service: Key, now: float) -> float | None:
        """When to look at a service again, even if nothing happens to it."""
        times = [
            record.until if record.quiet_since is None else self._over(record, record.quiet_since)
            for record in self._records.get(service, {}).values()
            if record.disputed
        ]
        return max(now, min(times)) if times else None

    def _over(self, record: _Record, quiet_since: float) -> float:
        """When a dispute will be over, if nothing changes."""
        quiet_s = max(self._patience.quiet_s, 2 * record.stayed_s)
        return quiet_since + min(quiet_s, self._patience.memory_s)

    def _expire(self, now: float) -> None:
        """Forget old writes that stayed: a few services at each call, in turn."""
        for service in list(islice(self._records, _EXPIRED_AT_ONCE)):
            records = self._records.pop(service)
            patience = self._patience
            kept_s = patience.quiet_s if _is_gone(records) else patience.memory_s
            kept = {
                about: record
                for about, record in records.items()
                if record.disputed or now < record.at + kept_s
            }
            if kept:
                self._records[service] = kept


def _is_gone(records: Mapping[Target, _Record]) -> bool:
    """Whether a service is not there any more, by what we wrote of it last."""
    kind = Kind.VIRTUAL_MACHINE_SERVICE
    own = [record.after for about, record in records.items() if about.kind is kind]
    if own:
        return any(map(_goes, own))
    return all(_goes(record.after) for record in records.values())


def _goes(after: Held | None) -> bool:
    return after is None or (after.meta.deleting and not after.meta.finalizers)


def _failure(about: Target, record: _Record, rounds: int) -> Failure:
    what = f"the status of {about.kind.value}" if about.status else about.kind.value
    fields = ", ".join(sorted(map(".".join, record.fields))) or "the object itself"
    return Failure(
        "ChangesDoNotStay",
        f"{what} {about.key}: {fields} changed back {rounds} times in a row by "
        f"{record.writer or 'another writer'}; left as it is, and tried again ever more seldom",
    )


def _changed_back(wrote: Held | None, change: Change) -> frozenset[PatchPath] | None:
    """The fields that we would write again as before; None if we now want something else."""
    wrote, before, wanted = map(_untimed, (wrote, change.before, change.after))
    if wrote is None or wanted is None:
        return frozenset((_WHOLE_OBJECT,)) if wrote is wanted else None
    if before is None:
        return None if merge_patch(wrote, wanted) else frozenset((_WHOLE_OBJECT,))
    patch = list(_leaves(merge_patch(before, wanted)))
    ours = list(_leaves(merge_patch(wrote, wanted)))
    if any(_overlap(one, other) for one in patch for other in ours):
        return None
    return frozenset(patch)


def _untimed(held: Held | None) -> Held | None:
    """The object without what differs each time that the same is written."""
    if not isinstance(held, VirtualMachineService):
        return held
    conditions = tuple(replace(c, last_transition_time="") for c in held.conditions)
    return replace(held, conditions=conditions)


def _leaves(patch: dict[str, Any], head: PatchPath = ()) -> Iterator[PatchPath]:
    for name, value in patch.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*head, name))
        else:
            yield (*head, name)


def _overlap(one: PatchPath, other: PatchPath) -> bool:
    return all(a == b for a, b in zip(one, other, strict=False))
