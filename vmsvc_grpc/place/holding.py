"""The directory in which objects are held: read and written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import starmap
from pathlib import Path

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.config import Config
from vmsvc_grpc.logs.origins import LinesPerOrigin
from vmsvc_grpc.metrics import Metrics
from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.place.files import files_source
from vmsvc_grpc.place.reconciling import bind_reconciler, failure_log, failure_text
from vmsvc_grpc.reconciler.bounds import ReconcilerBounds
from vmsvc_grpc.reconciler.directory import DirectoryStore
from vmsvc_grpc.reconciler.loop import Reconciler
from vmsvc_grpc.reconciler.rules import Rules
from vmsvc_grpc.source import Emit

HELD_KINDS = DirectoryStore.kinds
"""The kinds that are held."""


class Holding:
    """Holds the Service and Endpoints of each VMService in files of `output`."""

    def __init__(
        self,
        config: Config,
        output: Path,
        cache: Cache,
        metrics: Metrics,
        lines: LinesPerOrigin,
        *,
        origin: Callable[[Kind, Key], str],
        all_listed: Callable[[], bool],
    ) -> None:
        """`origin` and `all_listed` are as for `failure_log` and `Reconciler`.

        Raises ChangeError if the directory cannot be written to.
        """
        self.files = files_source(
            output,
            HELD_KINDS,
            config,
            metrics,
            lines,
            shared=True,
            on_notices=self._retry,
            place_of=DirectoryStore.place_of,
        )
        self._store = DirectoryStore(output, on_write=self.files.written)
        self._reconciler = Reconciler(
            cache,
            self._store,
            bounds=ReconcilerBounds(workers=config.workers, writes_per_s=config.writes_per_s),
            rules=Rules(
                copying=config.copying,
                load_balancer_provider=config.load_balancer_provider,
                cluster_families=config.rules.cluster_families,
            ),
            on_failure=failure_log(lines, origin),
            all_listed=all_listed,
        )
        bind_reconciler(metrics, self._reconciler)

    @property
    def failing(self) -> int:
        """How many services have objects that are not as they should be."""
        return len(self._reconciler.failures)

    def failures(self) -> Iterator[str]:
        """For each of them, a sentence that says why. Lazily: take what is needed at once."""
        return starmap(failure_text, self._reconciler.failures.items())

    def failure(self, service: Key) -> str | None:
        """The sentence for one service; None if its objects are as they should be."""
        failure = self._reconciler.failures.get(service)
        return failure_text(service, failure) if failure else None

    def enqueue(self, services: Iterable[Key]) -> None:
        """The objects of these services may need work. Does not wait."""
        self._reconciler.enqueue(services)

    async def run(self, emit: Emit) -> None:
        """Read and write until cancelled."""
        observation = self._store.observation
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.files.run(lambda event: emit(observation(event))))
            tasks.create_task(self._reconciler.run())

    def _retry(self, paths: Collection[str]) -> None:
        """What was in the way may have been moved away."""
        self._reconciler.retry(*self._store.concerned(paths))
