"""Manifests as the source, and perhaps a directory in which to hold objects."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.config import Config
from vmsvc_grpc.logs.origins import LinesPerOrigin
from vmsvc_grpc.metrics import Metrics
from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.model.problem import PROBLEMS_MAX
from vmsvc_grpc.place import SourceState
from vmsvc_grpc.place.files import file_origin, files_source
from vmsvc_grpc.source import Emit

if TYPE_CHECKING:
    from vmsvc_grpc.place.holding import Holding

_MANIFEST_KINDS = frozenset({Kind.VIRTUAL_MACHINE, Kind.VIRTUAL_MACHINE_SERVICE})

# For a page that a person reads, and that a probe may fetch every second.
_TROUBLES_MAX = 100


def directory_kinds(config: Config) -> frozenset[Kind]:
    """The kinds to read; those that are held only if there is an `output`."""
    if config.output is None:
        return _MANIFEST_KINDS
    from vmsvc_grpc.place.holding import HELD_KINDS  # noqa: PLC0415

    return _MANIFEST_KINDS | HELD_KINDS


def _state(path: Path | None, all_read: bool, problems: int) -> SourceState:
    if problems:  # A file that cannot be read may also keep it from being read as a whole.
        how = f"followed, with {problems} problem{'' if problems == 1 else 's'} in its files"
    else:
        how = "read, and followed" if all_read else "being read"
    return SourceState(f"directory {path}", how, not problems)


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
        self._manifests = files_source(manifests, _MANIFEST_KINDS, config, metrics, lines)
        self._holding: Holding | None = None
        if config.output is not None:
            # To load the reconciler takes a tenth of the CPU of a start.
            from vmsvc_grpc.place.holding import Holding  # noqa: PLC0415

            self._holding = Holding(
                config,
                config.output,
                cache,
                metrics,
                lines,
                origin=self.origin,
                all_listed=lambda: self._manifests.all_read,
            )

    def __str__(self) -> str:
        held = f", holding their Service and Endpoints in {self._output}" if self._output else ""
        return f"{self._path}{held}"

    @property
    def sources(self) -> Iterator[SourceState]:
        """The directory of manifests, and that of the objects that are held."""
        manifests = self._manifests
        yield _state(self._path, manifests.all_read, manifests.problems.count)
        if self._holding is not None:
            held = self._holding.files
            yield _state(self._output, held.all_read, held.problems.count)

    @property
    def writing(self) -> str:
        """Where objects are held."""
        if self._holding is None:
            return "nothing is written, as there is no --output"
        failing = self._holding.failing
        text = f"Service and Endpoints of each service are held in {self._output}"
        return f"{text}; those of {failing} services cannot be written" if failing else text

    @property
    def troubles(self) -> tuple[str, ...]:
        """Problems of files, those of `manifests` first; then what could not be written."""
        count = self._manifests.problems.count
        if self._holding is not None:
            count += self._holding.files.problems.count + self._holding.failing
        shown = tuple(islice(self._problems(), _TROUBLES_MAX))
        more = count - len(shown)
        return (*shown, f"{more} more problems; the log has each") if more else shown

    def remarks(self, kind: Kind, key: Key) -> Iterator[str]:
        """Where a VM or VMService is defined again, and why its objects could not be written."""
        losers = islice(self._manifests.losers(kind, key), PROBLEMS_MAX)
        yield from map(str, losers)
        if kind is Kind.VIRTUAL_MACHINE_SERVICE and self._holding is not None:
            failure = self._holding.failure(key)
            if failure is not None:
                yield failure

    def origin(self, kind: Kind, key: Key) -> str:
        """The file that defines the object; its namespace, if none does any more."""
        path = self._manifests.origin(kind, key)
        return file_origin(self._path, path) if path else f"namespace {key.namespace}"

    async def run(self, emit: Emit) -> None:
        """Read and hold until cancelled. Raises SourceError if there is no directory."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._manifests.run(emit))
            if self._holding is not None:
                tasks.create_task(self._holding.run(emit))

    def changed(self, services: Iterable[Key]) -> None:
        """Hand them to what holds their objects, if anything does."""
        if self._holding is not None:
            self._holding.enqueue(services)

    def _problems(self) -> Iterator[str]:
        yield from (f"{self._path}: {problem}" for problem in self._manifests.problems)
        if self._holding is not None:
            yield from (f"{self._output}: {problem}" for problem in self._holding.files.problems)
            yield from self._holding.failures()
