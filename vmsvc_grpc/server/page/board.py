"""All services as rows for the page: kept up once, for everybody who looks.

A change that shows in endpoints comes from the cache's log, at once. What does not show there, such
as a VM without an address, is found by looking at every service again, some times a minute: a look
at one that has not changed costs about a microsecond.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.changes import ChangeLog, Reader
from vmsvc_grpc.cache.collection import ServiceReader
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.server.call import Wake

ROWS_MAX = 100
"""Rows that are made in one go: some 3 ms."""

_LOOKS_MAX = 1_000  # And services that are looked at: some 2 ms.

LOOK_AGAIN_S = 2.0
"""How often every service is looked at again."""


class Row(NamedTuple):
    """The row of a service at a version, as JSON; empty if there is no such service."""

    version: int
    text: bytes

    @property
    def there(self) -> bool:
        """Whether the service is listed."""
        return bool(self.text)


class Board:
    """The rows of all services. Its readers bring it up to date with `catch_up`.

    While nobody reads it holds nothing.
    """

    def __init__(self, cache: Cache, made: Callable[[Key], bytes]) -> None:
        """`made` makes the row of a service that exists."""
        self._cache = cache
        self._made = made
        self._users = 0
        self._version = 0
        self._services: ServiceReader | None = None
        self._looked_at = 0.0
        self._rows: dict[Key, Row] = {}
        self._seen: dict[Key, tuple[object, ...]] = {}
        self._log = self._new_log()

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    def follow(self, wake: Wake) -> Reader[Key, Row]:
        """A reader of all rows; `leave` when it is over. Call it once the cache is synced."""
        if self._services is None:
            self._services = self._cache.follow(None, FilterClass.ALL, self._wake)
        self._users += 1
        return Reader(self._log, wake)

    def leave(self, reader: Reader[Key, Row]) -> None:
        """Close a reader."""
        reader.close()
        self._users -= 1
        if not self._users and self._services is not None:
            self._services.close()
            self._services = None
            self._rows, self._seen = {}, {}
            self._log = self._new_log()

    def catch_up(self, now: float) -> bool:
        """Make the rows that are due, some ms of them; whether there are no more. `now` in s."""
        services = self._services
        assert services is not None, "somebody reads it"
        if not services.behind:
            if now - self._looked_at < LOOK_AGAIN_S:
                return True
            services.again()
        made = 0
        for _ in range(_LOOKS_MAX):
            due = services.take()
            if due is not None:
                made += self._look_at(due.name)
            elif not services.behind:
                self._looked_at = now
                return True
            if made == ROWS_MAX:
                break
        return False

    def _look_at(self, key: Key) -> bool:
        """Bring the row of a service up to date; whether it had to be made."""
        service = self._cache.services.get(key)
        if service is None or service.object.meta.deleting or not service.evaluated:
            self._seen.pop(key, None)
            self._put(key, b"")
            return False
        seen = (
            len(service.members),
            service.ready,
            service.not_ready,
            service.object,
            service.spec,
            self._cache.problems.get((Kind.VIRTUAL_MACHINE_SERVICE, key)),
            self._cache.stored_services.get(key),
        )
        if self._seen.get(key) == seen:
            return False
        self._seen[key] = seen
        self._put(key, self._made(key))
        return True

    def _put(self, key: Key, text: bytes) -> None:
        before = self._rows.get(key)
        if text == (before.text if before else b""):
            return
        self._version += 1
        row = Row(self._version, text)
        if text:
            self._rows[key] = row
        else:
            del self._rows[key]
        self._log.record(key, row, was_there=before is not None)

    def _wake(self) -> None:
        self._log.wake()

    def _new_log(self) -> ChangeLog[Key, Row]:
        return ChangeLog(
            self._version,
            lambda: tuple(sorted(self._rows)),
            lambda key: self._rows.get(key) or Row(0, b""),
        )
