"""Two writers who disagree: which of our changes are made, and which we leave for now. Pure.

Somebody else may write what we write, and want it otherwise: VM Operator's controller with
other settings, a policy engine, a person. Each would undo the other's work for ever. So
what was changed back several times in a row is left as it is until we want something else,
or a pause is over that grows at each vain attempt. Time is an argument: seconds of a clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from vmsvc_grpc.model.objects import Key, Kind, VirtualMachineService
from vmsvc_grpc.reconciler.held import Failure, Held
from vmsvc_grpc.reconciler.patch import PatchPath, merge_patch
from vmsvc_grpc.reconciler.plan import Change

_WHOLE_OBJECT: PatchPath = ()
"""The object itself, in the place of a field: it was deleted, or made again."""

# At each write more are looked at than can have come since the write before.
_EXPIRED_AT_ONCE = 2


class Target(NamedTuple):
    """What a change is about. The status of a VMService is a thing of its own."""

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

    What was changed back `rounds_max` times in a row is left alone for `pause_first_s`,
    which doubles at each vain attempt up to `pause_max_s`. What stayed as it was written
    for `memory_s` before was not changed back: a person may edit it now and then.

    The disagreement is over once all stayed as written for `quiet_s`, and for twice as long
    as it ever stayed before it was changed back: a tool may come by every few minutes only.
    """

    rounds_max: int = 3
    pause_first_s: float = 10.0
    pause_max_s: float = 600.0
    quiet_s: float = 60.0
    memory_s: float = 3600.0


@dataclass(slots=True)
class _Record:
    """What was written last, and what became of it.

    `answered` is how often in a row each field was written again after it had been changed back;
    that an object is there at all counts as a field, `_WHOLE_OBJECT`. So what several hands do once
    each (Kubernetes deletes the Endpoints of a Service that is deleted) is no disagreement.

    `pause_s` is 0 until we have yielded once; then `fields` are those in dispute, and
    `until` is when the next attempt may be made. `stayed_s` is the longest time for which all
    was as written before it was changed back.
    """

    after: Held | None
    at: float
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
        """The dispute is over; if it is changed back once more, it is on again."""
        self.pause_s, self.fields, self.writer = 0.0, frozenset(), None
        # A pause that they cut short by giving in is over, too: nobody would come back to it.
        self.until = self.at


class Yielding:
    """Notes what is written for each service, and says what is to be left alone."""

    def __init__(self, patience: Patience) -> None:
        """Nothing has been written yet."""
        self._patience = patience
        self._records: dict[Key, dict[Target, _Record]] = {}

    def allowed(self, service: Key, changes: Iterable[Change], now: float) -> list[Change]:
        """Those of a service's planned changes that may be made now, in their order.

        `changes` are all that are planned: what is not among them is as it should be.
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
        """Whether one of these fields has now been changed back as often as is borne."""
        most = max((record.answered[path] for path in changed_back), default=0)
        return record.disputed or most + 1 >= self._patience.rounds_max

    def written(self, service: Key, change: Change, now: float) -> None:
        """A change was made."""
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
        records[about] = record

    def undecided(self, service: Key) -> Iterator[tuple[Target, frozenset[PatchPath]]]:
        """Objects in dispute of which nobody has found out yet who else writes them."""
        for about, record in self._records.get(service, {}).items():
            if record.disputed and record.writer is None:
                yield about, record.fields

    def found(self, service: Key, about: Target, writer: str) -> None:
        """Who else writes an object in dispute; "" if that cannot be told."""
        record = self._records.get(service, {}).get(about)
        if record is not None:
            record.writer = writer

    def failures(self, service: Key) -> tuple[Failure, ...]:
        """A failure for each object in dispute; it lasts until all has been quiet for a while."""
        return tuple(
            _failure(about, record, self._patience.rounds_max)
            for about, record in self._records.get(service, {}).items()
            if record.disputed
        )

    def due(self, service: Key, now: float) -> float | None:
        """When a service is to be looked at again, even if nothing happens to it."""
        times = [
            record.until if record.quiet_since is None else self._over(record, record.quiet_since)
            for record in self._records.get(service, {}).values()
            if record.disputed
        ]
        return max(now, min(times)) if times else None

    def _over(self, record: _Record, quiet_since: float) -> float:
        """When a dispute is over if all stays as it has been since then."""
        quiet_s = max(self._patience.quiet_s, 2 * record.stayed_s)
        return quiet_since + min(quiet_s, self._patience.memory_s)

    def _expire(self, now: float) -> None:
        """Drop what was written long ago and stayed: a few services each time, in turns."""
        for service in list(islice(self._records, _EXPIRED_AT_ONCE)):
            records = self._records.pop(service)
            kept = {
                about: record
                for about, record in records.items()
                if record.disputed or now < record.at + self._patience.memory_s
            }
            if kept:
                self._records[service] = kept

    def __len__(self) -> int:
        """Of how many services something is noted."""
        return len(self._records)


def _failure(about: Target, record: _Record, rounds: int) -> Failure:
    what = f"the status of {about.kind.value}" if about.status else about.kind.value
    fields = ", ".join(sorted(map(".".join, record.fields))) or "the object itself"
    return Failure(
        "ChangesDoNotStay",
        f"{what} {about.key}: {fields} changed back {rounds} times in a row by "
        f"{record.writer or 'another writer'}; left as it is, and tried again ever more seldom",
    )


def _changed_back(wrote: Held | None, change: Change) -> frozenset[PatchPath] | None:
    """The fields that are to say again what we last wrote; None if our own result has changed."""
    wanted = change.after
    if wrote is None or wanted is None:
        return frozenset((_WHOLE_OBJECT,)) if wrote is wanted else None
    if change.before is None:
        return None if merge_patch(wrote, wanted) else frozenset((_WHOLE_OBJECT,))
    patch = list(_leaves(merge_patch(change.before, wanted)))
    ours = list(_leaves(merge_patch(wrote, wanted)))
    if any(_overlap(one, other) for one in patch for other in ours):
        return None
    return frozenset(patch)


def _leaves(patch: dict[str, Any], head: PatchPath = ()) -> Iterator[PatchPath]:
    for name, value in patch.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*head, name))
        else:
            yield (*head, name)


def _overlap(one: PatchPath, other: PatchPath) -> bool:
    return all(a == b for a, b in zip(one, other, strict=False))
