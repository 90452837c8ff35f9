"""A file source that runs on a real directory, and what it has told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vmsvc_grpc.model.events import Apply, Delete, Event, Init, InitDone, Malformed
from vmsvc_grpc.model.objects import Key, Kind, Object, VirtualMachine
from vmsvc_grpc.source.file_bounds import FilesSourceBounds
from vmsvc_grpc.source.files import FilesSource
from vmsvc_grpc.source.problems import FileProblem

INPUT = frozenset({Kind.VIRTUAL_MACHINE, Kind.VIRTUAL_MACHINE_SERVICE})
OUTPUT = frozenset({Kind.SERVICE, Kind.ENDPOINTS})
SETTLE_S = 0.2
DEADLINE_S = 20.0
# So rare that what a test sees was seen by the watch.
NEVER = FilesSourceBounds(rescan_s=3600.0)


def vm(name: str, address: str = "10.0.0.1") -> str:
    return (
        "---\n"
        "apiVersion: vmoperator.vmware.com/v1alpha6\n"
        "kind: VirtualMachine\n"
        f"metadata: {{name: {name}, namespace: shop}}\n"
        f"status: {{network: {{primaryIP4: {address}}}}}\n"
    )


def replace(path: Path, text: str) -> None:
    """Put a file in place whole, as every careful writer does."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text)
    beside.replace(path)


@dataclass
class Told:
    """What a source told, and what follows from it, by the rules of the cache."""

    source: FilesSource
    events: list[Event] = field(default_factory=list)
    objects: dict[tuple[Kind, Key], Object] = field(default_factory=dict)
    malformed: dict[tuple[Kind, Key], str] = field(default_factory=dict)
    reports: list[FileProblem] = field(default_factory=list)
    lists: int = 0
    _listing: dict[Kind, set[Key]] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def emit(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()
        match event:
            case Init(kind):
                self._listing[kind] = set()
            case InitDone(kind):
                listed = self._listing.pop(kind)
                held = self.objects.keys() | self.malformed.keys()
                for id_ in [id_ for id_ in held if id_[0] is kind and id_[1] not in listed]:
                    self._drop(id_)
                self.lists += not self._listing
            case Malformed(kind, key, problem):
                self._listing.get(kind, set()).add(key)
                self.malformed[kind, key] = str(problem)
            case Delete(kind, key):
                self._drop((kind, key))
            case Apply(object_):
                kind = kind_of(object_)
                self._listing.get(kind, set()).add(object_.key)
                self.objects[kind, object_.key] = object_
                self.malformed.pop((kind, object_.key), None)

    def _drop(self, id_: tuple[Kind, Key]) -> None:
        self.objects.pop(id_, None)
        self.malformed.pop(id_, None)

    def report(self, problem: FileProblem) -> None:
        self.reports.append(problem)
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what must become true; fails after a long while."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def until_vms(self, addresses: dict[str, str]) -> None:
        """Wait until exactly these VMs are known."""
        await self.until(lambda: self.vms == addresses)

    async def until_read(self, count: int) -> None:
        """Wait until so many files have been read since the beginning."""
        async with asyncio.timeout(DEADLINE_S):
            while self.source.files_read < count:  # noqa: ASYNC110 - nobody tells of it.
                await asyncio.sleep(0.01)

    async def until_in(self, path: str, name: str) -> None:
        """Wait until a file is the one that has a VM."""
        id_ = Kind.VIRTUAL_MACHINE, Key("shop", name)
        async with asyncio.timeout(DEADLINE_S):
            while self.source.origin(*id_) != path:  # noqa: ASYNC110 - nobody tells of it.
                await asyncio.sleep(0.01)

    @property
    def vms(self) -> dict[str, str]:
        """Each VM's first address, by name."""
        return {
            key.name: object_.addresses[0].text
            for (_, key), object_ in sorted(self.objects.items(), key=lambda item: item[0][1])
            if isinstance(object_, VirtualMachine)
        }

    def kinds(self, since: int = 0) -> list[str]:
        return [type(event).__name__ for event in self.events[since:]]

    @property
    def standing(self) -> list[str]:
        return sorted(map(str, self.source.problems))


def kind_of(object_: Object) -> Kind:
    return Kind(type(object_).__name__.replace("Stored", ""))


@asynccontextmanager
async def told_by(
    directory: Path,
    kinds: Iterable[Kind] = INPUT,
    *,
    shared: bool = False,
    settle_s: float = SETTLE_S,
    bounds: FilesSourceBounds = NEVER,
) -> AsyncGenerator[Told]:
    """A source that runs on the directory and has listed it; none of it is left after."""
    told: Told

    def report(problem: FileProblem) -> None:
        told.report(problem)

    source = FilesSource(
        directory,
        frozenset(kinds),
        settle_s=settle_s,
        shared=shared,
        bounds=bounds,
        report=report,
    )
    told = Told(source)
    before = asyncio.all_tasks()
    running = asyncio.create_task(source.run(told.emit))
    try:
        waiting = asyncio.create_task(told.until(lambda: told.lists == 1))
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            waiting.cancel()
            await running
        await waiting
        yield told
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled(), "it ends for no other reason"
    assert asyncio.all_tasks() == before
