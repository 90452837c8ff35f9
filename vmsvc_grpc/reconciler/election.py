"""Which replica may write: one holder of a Lease at a time, on clocks that do not agree. Pure.

No wall clocks are compared. A candidate takes a Lease over once it has itself seen no renewal for
the Lease's whole duration; a holder counts its own time from before it asked for the renewal. If a
Lease is deleted, or edited by hand, its last holder may believe in it for a while longer. So that,
too, begins a whole duration of silence, and a replica that creates the Lease begins no write until
a holder of a deleted one must have stopped. However late a request arrives, however long a process
was stopped, and whatever somebody does to the Lease: two replicas never both believe that they may
begin a write.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from hashlib import sha256

from vmsvc_grpc.model.validate import SUBDOMAIN_MAX

# Precedes a digest of namespaces that are too many to list. No namespace begins like this.
_DIGEST = "-namespaces."

LEASE_BASE_NAME = "vmsvc-grpc"
"""The Lease of the replica that writes in all namespaces."""

LEASE_DURATION_MIN_S = 3.0
"""The shortest duration that a Lease of ours may have; it is renewed seven times within."""

LEASE_DURATION_MAX_S = 60.0
"""The longest duration that our Leases may have, and the longest for which we believe any.

Kubernetes allows 68 years. Our own flag ends here too, as our replicas would not wait longer."""

# Kubernetes keeps it in 32 bits, and refuses a Lease that has changed hands more often.
_TRANSITIONS_MAX = 2**31 - 1
# The duration that a holder leaves when it gives the Lease back; Kubernetes' minimum.
_RELEASED_S = 1.0


def lease_name(namespaces: Collection[str]) -> str:
    """The name of the Lease of the replica that writes in these namespaces; none: in all.

    Deployments for the same namespaces share it, in whatever order they name them; deployments
    for different ones do not, as no namespace has a dot in its name. At most 253 characters.
    """
    names = sorted(set(namespaces))
    name = ".".join((LEASE_BASE_NAME, *names))
    if len(name) <= SUBDOMAIN_MAX:
        return name
    digest = sha256(",".join(names).encode()).hexdigest()[:32]
    return f"{LEASE_BASE_NAME}{_DIGEST}{digest}"


def is_named_after(name: str, lease: str) -> bool:
    """Whether `name` is that of this Lease, or of one for certain namespaces, named after it."""
    return name == lease or name.startswith((f"{lease}.", f"{lease}{_DIGEST}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSettings:
    """How long a Lease lasts, and how often it is renewed. Kubernetes' own values.

    Writing ends `margin_s` before others may take over: a request that was begun in time may take
    as long. No Lease is believed for longer than `duration_max_s`.
    """

    duration_s: float = 15.0
    margin_s: float = 5.0
    renew_s: float = 2.0
    duration_max_s: float = LEASE_DURATION_MAX_S

    def __post_init__(self) -> None:
        assert 0 < self.margin_s < self.duration_s, "a margin is a part of the duration"
        assert self.renew_s < self.duration_s - self.margin_s, "renew before writing must end"
        assert self.duration_s <= self.duration_max_s, "others must wait for ours to its end"

    @property
    def belief_s(self) -> float:
        """How long a holder that has asked for a renewal may begin writes."""
        return self.duration_s - self.margin_s


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """What a Lease says. `resource_version` is empty for one that does not exist.

    Nobody compares the times; they only distinguish one write from another.
    """

    holder: str = ""
    duration_s: float = 0.0
    transitions: int = 0
    acquire_time: str = ""
    renew_time: str = ""
    resource_version: str = ""

    @property
    def exists(self) -> bool:
        """Whether there is a Lease."""
        return bool(self.resource_version)

    @property
    def released(self) -> bool:
        """Whether its holder gave it back. That it names nobody is not enough."""
        return self.exists and not self.holder and self.duration_s == _RELEASED_S


class Election:
    """One candidate's view of the Lease. Pure: `now` is a clock that never goes back.

    That clock must run on while the machine sleeps.
    """

    def __init__(self, identity: str, settings: LeaseSettings) -> None:
        """Nothing has been seen yet, and nothing is claimed until it has."""
        self.identity = identity
        self._settings = settings
        self._record: LeaseRecord | None = None
        # From the first time on, no earlier holder believes that it leads; from the second on,
        # neither does the present holder, unless it renews.
        self._others_until = -math.inf
        self._holder_until = -math.inf
        # A Lease that somebody deleted is left to its last holder until then.
        self._create_from = -math.inf
        self._leads_until = -math.inf

    def leads(self, now: float) -> bool:
        """Whether a write may be begun now."""
        return self._free_from <= now < self._leads_until

    @property
    def _free_from(self) -> float:
        """The time from which on no other holder believes that it leads."""
        return max(self._others_until, self._holder_until)

    @property
    def holder(self) -> str:
        """The holder when the Lease was last read; empty if there was none."""
        return self._record.holder if self._record else ""

    def observe(self, record: LeaseRecord, now: float) -> None:
        """Take in what the Lease says now. A change of any kind is a sign of life."""
        before = self._record
        if record == before:
            return
        self._record = record
        if record.exists and record.holder != self.identity:
            self._leads_until = -math.inf
        if record.released:
            self._others_until = self._holder_until = now
        elif record.exists:
            # No change during our own term makes another replica the holder.
            if not (self._is_mine(before) and self._is_mine(record) and now < self._leads_until):
                self._wait(before, record, now)
        elif before is not None and not before.released and not self._is_mine(before):
            self._others_until = max(self._others_until, now + self._silence_s(before))
            self._create_from = now + self._settings.margin_s
        else:
            self._create_from = now

    def _is_mine(self, record: LeaseRecord | None) -> bool:
        return record is not None and record.holder == self.identity

    def _wait(self, before: LeaseRecord | None, record: LeaseRecord, now: float) -> None:
        """Count the silence of the holder that the Lease names, and of the one before."""
        until = now + self._silence_s(record)
        if before is None or before.holder != record.holder:
            self._others_until = self._free_from
            if before is not None and before.exists and not before.released:
                self._others_until = max(self._others_until, now + self._silence_s(before))
            self._holder_until = until
        elif before.renew_time != record.renew_time:
            # Its holder has renewed it, and the duration that it wrote counts, not an earlier edit.
            self._holder_until = until
        else:
            self._holder_until = max(self._holder_until, until)

    def _silence_s(self, record: LeaseRecord) -> float:
        """How long the holder of that record may believe in it.

        The record may have been edited by hand, so this is never shorter than our own duration.
        """
        longest_s = max(record.duration_s, self._settings.duration_s)
        return min(longest_s, self._settings.duration_max_s)

    def claim(self, now: float) -> LeaseRecord | None:
        """What to write to take or to keep the Lease; None while another may hold it."""
        held = self._record
        if held is None:
            return None
        if self._is_mine(held):
            return replace(held, duration_s=self._settings.duration_s)
        if now < (self._free_from if held.exists else self._create_from):
            return None
        changed_hands = 1 if held.exists else 0
        return LeaseRecord(
            holder=self.identity,
            duration_s=self._settings.duration_s,
            transitions=min(held.transitions + changed_hands, _TRANSITIONS_MAX),
            resource_version=held.resource_version,
        )

    def claimed(self, claim: LeaseRecord, record: LeaseRecord, asked_at: float, now: float) -> None:
        """The claim was written, as `record`; it was asked for at `asked_at`."""
        self._record = record
        if not claim.exists:
            # A Lease may just have been deleted whose holder does not know that yet.
            self._others_until = max(self._free_from, now + self._settings.belief_s)
        self._leads_until = asked_at + self._settings.belief_s

    def resigned(self, now: float) -> LeaseRecord | None:
        """Begin no more writes; what to write to give the Lease back, if that may be done.

        Not while an earlier holder may still believe in it: a replica that finds the Lease given
        back does not wait.
        """
        self._leads_until = -math.inf
        held = self._record
        if held is None or not self._is_mine(held) or now < self._free_from:
            return None
        return replace(held, holder="", duration_s=_RELEASED_S)
