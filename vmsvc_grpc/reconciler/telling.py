"""Reports each failure to the process, and each warning as an Event; once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from vmsvc_grpc.model.objects import Key, StoredEndpoints, VirtualMachineService
from vmsvc_grpc.reconciler import notice
from vmsvc_grpc.reconciler.desired import refusals
from vmsvc_grpc.reconciler.held import Failure
from vmsvc_grpc.reconciler.notice import Notice, OnNotice
from vmsvc_grpc.reconciler.plan import Change

# What differs between two refusals of the same change (an id, a time, a port) has a digit.
_TOKEN = re.compile(r"[\w.:-]+")

# For a VMService that is wrong throughout, the first flaws are enough to begin with.
_WARNINGS_MAX = 10

OnFailure = Callable[[Key, Failure | None], None]
"""Called when a service's failure changes; None once its objects are as they should be.

Problems of the VMService itself are not among these: the cache reports them.
"""


class Telling:
    """Remembers what it has reported, and reports only what is new."""

    def __init__(self, on_failure: OnFailure | None, on_notice: OnNotice) -> None:
        """Nothing has been reported yet."""
        self._on_failure = on_failure
        self._on_notice = on_notice
        self.failures: dict[Key, Failure] = {}
        """The failure of each service whose objects are not as they should be. Only read it."""
        # The generation of the VMService that a failure is about; 0 if there is none.
        self._generations: dict[Key, int] = {}
        # The warnings that hold now and have been recorded, and the uid of their VMService.
        self._warned: dict[Key, tuple[str, frozenset[Notice]]] = {}

    def as_reported(
        self, key: Key, vmservice: VirtualMachineService | None, failure: Failure
    ) -> Failure:
        """The failure; or the one that was reported last, if they differ in numbers only.

        A refusal may have an id, which differs at each attempt: it is still one failure, and not a
        new one each time. After an edit of the VMService it counts as new.
        """
        generation = vmservice.meta.generation if vmservice else 0
        last = self.failures.get(key)
        is_about_the_same = last and self._generations.get(key) == generation
        if last and is_about_the_same and _same_but_numbers(last, failure):
            return last
        self._generations[key] = generation
        return failure

    def report(self, key: Key, failure: Failure | None) -> None:
        """Set a service's failure; None if its objects are as they should be."""
        if self.failures.get(key) == failure:
            return
        if failure:
            self.failures[key] = failure
        else:
            del self.failures[key]
            self._generations.pop(key, None)
        if self._on_failure is not None:
            self._on_failure(key, failure)

    def warn(
        self,
        key: Key,
        vmservice: VirtualMachineService | None,
        failures: Iterable[Failure],
        mirrored: StoredEndpoints | None,
    ) -> None:
        """Record a warning for each failure that there was not at the last call.

        `vmservice` is None if there is none any more; `mirrored` are the Endpoints that
        Kubernetes is to mirror.
        """
        if vmservice is None:
            self._warned.pop(key, None)
            return
        failures = (*refusals(vmservice)[:_WARNINGS_MAX], *failures)
        size = notice.of_size(mirrored)
        now = (*map(notice.of_failure, failures), *((size,) if size else ()))
        uid = vmservice.meta.uid
        about, before = self._warned.pop(key, ("", frozenset()))
        if now:
            self._warned[key] = uid, frozenset(now)
        for warning in now:
            if about != uid or warning not in before:
                self._on_notice(vmservice, warning)

    def made(self, vmservice: VirtualMachineService | None, change: Change) -> None:
        """Record a change that was made for a VMService, if that still exists."""
        recorded = notice.of_change(change)
        if vmservice is not None and recorded is not None:
            self._on_notice(vmservice, recorded)


def _same_but_numbers(one: Failure, other: Failure) -> bool:
    same = _without_numbers(one.message) == _without_numbers(other.message)
    return same and one.reason == other.reason


def _without_numbers(text: str) -> str:
    return _TOKEN.sub(lambda word: "#" if re.search("[0-9]", word[0]) else word[0], text)
