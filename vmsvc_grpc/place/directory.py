"""Manifests as the source, and perhaps a directory in which to hold objects."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice, starmap
from pathlib import Path

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.config import Config
from vmsvc_grpc.logs import LinesPerOrigin
from vmsvc_grpc.metrics import Metric, Metrics
from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.model.problem import PROBLEMS_MAX
from vmsvc_grpc.place.reconciling import bind_reconciler, failure_log, failure_text
from vmsvc_grpc.reconciler.bounds import ReconcilerBounds
from vmsvc_grpc.reconciler.directory import DirectoryStore
from vmsvc_grpc.reconciler.held import Failure
from vmsvc_grpc.reconciler.loop import Reconciler
from vmsvc_grpc.reconciler.rules import Rules
from vmsvc_grpc.source import Emit
from vmsvc_grpc.source.file_bounds import FilesSourceBounds
from vmsvc_grpc.source.files import FilesSource
from vmsvc_grpc.source.problems import FileProblem

MANIFEST_KINDS = frozenset({Kind.VIRTUAL_MACHINE, Kind.VIRTUAL_MACHINE_SERVICE})
HELD_KINDS = frozenset({Kind.SERVICE, Kind.ENDPOINTS})

# For a page that a person reads, and that a probe may fetch every second.
_TROUBLES_MAX = 100


class DirectoryPlace:
    """Reads `manifests`; holds objects in `output`, if given."""

    def __init__(
        self,
        config: Config,
        manifests: Path,
        cache: Cache,
        metrics: Metrics,
        lines: LinesPerOrigin,
    ) -> None:
        """Raises ChangeError if `output` cannot be written to."""
        self._path = manifests
        self._output = config.output
        self._settle_s = config.settle_s
        self._namespace = config.manifests_namespace
        self._bounds = FilesSourceBounds(
            rescan_s=config.rescan_s, file_bytes_max=config.manifest_bytes_max
        )
        self._metrics = metrics
        self._lines = lines
        self._sources: dict[Path, FilesSource] = {}
        self._manifests = self._files(manifests, MANIFEST_KINDS, shared=False)
        self._reconciler: Reconciler | None = None
        if config.output is not None:
            self._held = self._files(config.output, HELD_KINDS, shared=True)
            self._store = DirectoryStore(config.output, on_write=self._held.written)
            self._reconciler = Reconciler(
                cache,
                self._store,
                bounds=ReconcilerBounds(workers=config.workers, writes_per_s=config.writes_per_s),
                rules=Rules(
                    copying=config.copying,
                    load_balancer_provider=config.load_balancer_provider,
                    cluster_families=config.rules.cluster_families,
                ),
                on_failure=failure_log(lines, self.origin),
                all_listed=lambda: self._manifests.all_read,
            )
            bind_reconciler(metrics, self._reconciler)

    def __str__(self) -> str:
        held = f", holding their Service and Endpoints in {self._output}" if self._output else ""
        return f"{self._path}{held}"

    @property
    def troubles(self) -> tuple[str, ...]:
        """Problems of files, those of `manifests` first; then what could not be written."""
        shown = list(islice(self._problems(), _TROUBLES_MAX))
        count = sum(files.problems.count for files in self._sources.values())
        more = count + len(self._failures) - len(shown)
        return (*shown, f"{more} more problems; the log has each") if more else tuple(shown)

    def remarks(self, kind: Kind, key: Key) -> Iterator[str]:
        """Where a VM or VMService is defined again, and why its objects could not be written."""
        losers = islice(self._manifests.losers(kind, key), PROBLEMS_MAX)
        yield from map(str, losers)
        if kind is Kind.VIRTUAL_MACHINE_SERVICE and key in self._failures:
            yield failure_text(key, self._failures[key])

    def origin(self, kind: Kind, key: Key) -> str:
        """The file that defines the object; its namespace, if none does any more."""
        path = self._manifests.origin(kind, key)
        return _owner(self._path, path) if path else f"namespace {key.namespace}"

    async def run(self, emit: Emit) -> None:
        """Read and hold until cancelled. Raises SourceError if there is no directory."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._manifests.run(emit))
            if self._reconciler is not None:
                observation = self._store.observation
                tasks.create_task(self._held.run(lambda event: emit(observation(event))))
                tasks.create_task(self._reconciler.run())

    def changed(self, services: Iterable[Key]) -> None:
        """Hand them to the reconciler, if there is one."""
        if self._reconciler is not None:
            self._reconciler.enqueue(services)

    def _problems(self) -> Iterator[str]:
        for directory, files in self._sources.items():
            yield from (f"{directory}: {problem}" for problem in files.problems)
        yield from starmap(failure_text, self._failures.items())

    @property
    def _failures(self) -> Mapping[Key, Failure]:
        return self._reconciler.failures if self._reconciler is not None else {}

    def _retry(self, paths: Collection[str]) -> None:
        """What was in the way in `output` may have been moved away."""
        assert self._reconciler is not None, "who reads `output` also writes there"
        self._reconciler.retry(*self._store.concerned(paths))

    def _files(self, directory: Path, kinds: frozenset[Kind], *, shared: bool) -> FilesSource:
        def report(problem: FileProblem) -> None:
            level = logging.INFO if problem.resolved else logging.WARNING
            self._lines.log(_owner(directory, problem.path), level, f"{directory}: {problem}")

        files = FilesSource(
            directory,
            kinds,
            settle_s=self._settle_s,
            shared=shared,
            namespace=self._namespace,
            bounds=self._bounds,
            report=report,
            on_notices=self._retry if shared else lambda _: None,
            place_of=DirectoryStore.place_of if shared else None,
        )
        self._sources[directory] = files
        name = str(directory)
        self._metrics.bind(Metric.FILES, lambda: {(name,): files.files_read})
        self._metrics.bind(Metric.UNKNOWN, lambda: {(name,): files.ignored})
        self._metrics.bind(Metric.FILE_PROBLEMS, lambda: {(name,): files.problems.count})
        return files


def _owner(directory: Path, path: str) -> str:
    return f"{directory}: {path}"
