"""Holds Services and Endpoints in a directory.

`DIR/<namespace>/<name>.service.yaml` and `<name>.endpoints.yaml`, one object in each, as
`kubectl apply` takes them. A file is ours if it begins with our line, or if all its objects are
owned by a VMService or marked as held for one. Other files are never touched.

A VMService without a uid cannot own anything. A mark stands for the owner reference: it is written
here in its place, and read back here as a reference, so that no other module knows of it.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import yaml

from vmsvc_grpc import beneath
from vmsvc_grpc.model.events import Apply, Delete, Event, Malformed
from vmsvc_grpc.model.objects import (
    NEWEST_API_VERSION,
    Key,
    Kind,
    ObjectMeta,
    OwnerReference,
    StoredEndpoints,
    StoredService,
    made_uid,
)
from vmsvc_grpc.model.ownership import HELD_FOR, is_owned, is_to_nobody
from vmsvc_grpc.model.parse import parse
from vmsvc_grpc.model.problem import system_reason
from vmsvc_grpc.model.validate import metadata_problems
from vmsvc_grpc.reconciler.claim import BYTES_MAX, OUR_LINE, claims
from vmsvc_grpc.reconciler.fields import Untyped
from vmsvc_grpc.reconciler.held import Child
from vmsvc_grpc.reconciler.manifest import manifest, ownerless_note, yaml_lines
from vmsvc_grpc.reconciler.plan import Change
from vmsvc_grpc.reconciler.store import ChangeError, Conflict

_SUFFIXES = {Kind.SERVICE: ".service.yaml", Kind.ENDPOINTS: ".endpoints.yaml"}
_TRIAL = ".vmsvc-grpc.tmp"
_STEP_LINES = 1000  # Some 2 ms of work.


OnWrite = Callable[[str, Kind, Child | None], None]
"""Called for each file that was put in place, with its object, or removed, with None.

The path is relative to the directory, with `/` between its parts.
"""


class DirectoryStore:
    """Holds one file for each Service and Endpoints. Only one process may use it.

    Each file is put in place whole. Its text is rendered in steps, between which others have their
    turn. It is then written in one go on the event loop, which takes less than a millisecond (2 for
    5,000 endpoints): so the cache never learns of it later than the directory's source reads it.

    Others may write to the directory. No link in it is followed, and only regular files are read.
    Anything else in the place of one of our files stays, which is a failure of that object alone.
    """

    kinds = frozenset(_SUFFIXES)
    """The kinds that it holds files of."""

    def __init__(self, directory: Path, *, on_write: OnWrite | None = None) -> None:
        """The directory is made if there is none. Raises ChangeError if it cannot be used."""
        self._directory = directory
        self._on_write = on_write
        # Files that are ours even if their content no longer says so, and the cluster address in
        # each: it is chosen once, and remembered nowhere else.
        self._ours: dict[_FilePlace, str] = {}
        try:
            with beneath.directory(directory, make=True) as root:
                beneath.create_file(_TRIAL, root, b"")
                os.unlink(_TRIAL, dir_fd=root)
        except OSError as error:
            message = (
                f"{directory} cannot be written to: {system_reason(error)}; choose another with "
                "--output"
            )
            raise ChangeError("DirectoryNotWritable", message) from error

    async def apply(self, change: Change) -> Child | None:
        """Write or remove one file. Raises ChangeError, or Conflict if the file changes meanwhile.

        An edit made since the observation is overwritten, as any edit is.
        """
        place, wanted = _FilePlace.of(change.kind, change.key), change.after
        assert wanted is None or isinstance(wanted, Child), "no other kind is held"
        try:
            stored = await self._write(change, place, wanted) if wanted else None
            if stored is None:
                await self._remove(change, place)
        except OSError as error:
            message = f"cannot {change}: {self._directory / place.path}: {system_reason(error)}"
            raise ChangeError("FileNotWritten", message) from error
        if self._on_write is not None:
            self._on_write(place.path, change.kind, stored)
        return _referring(stored) if stored else None

    def observation(self, event: Event) -> Event:
        """The event for the cache, for one of this directory's source. Notes which files are ours.

        An object that cannot be read counts as not held, so that it is written again. (From other
        sources its last good state would stay.) So does an object that was edited to have metadata
        that an API server would refuse.
        """
        match event:
            case Malformed(kind, key, _):
                return Delete(kind, key)
            case Delete(kind, key):
                # A file of ours that was edited until it holds no object stays ours.
                place = _FilePlace.of(kind, key)
                if not self._exists(place):
                    self._ours.pop(place, None)
            case Apply(StoredService() | StoredEndpoints() as stored):
                child = _referring(stored)
                place = _FilePlace.of(child.kind, child.key)
                moved = self._ours.get(place, _cluster_ip(child)) != _cluster_ip(child)
                if moved or _is_refused(child.meta):
                    return Delete(child.kind, child.key)
                if is_owned(child.meta):
                    self._ours[place] = _cluster_ip(child)
                return Apply(child)
        return event

    @staticmethod
    def place_of(kind: Kind, key: Key) -> str:
        """The path of an object's file, relative to the directory."""
        return _FilePlace.of(kind, key).path

    @staticmethod
    def concerned(paths: Iterable[str]) -> tuple[set[Key], set[str]]:
        """Whose files would be at these paths, and in which namespaces any file may be."""
        keys, namespaces = set[Key](), set[str]()
        for path in paths:
            namespace, slash, name = path.partition("/")
            if not slash:
                namespaces.add(namespace)
            for suffix in _SUFFIXES.values():
                if name.endswith(suffix):
                    keys.add(Key(namespace, name.removesuffix(suffix)))
        return keys, namespaces

    def _exists(self, place: _FilePlace) -> bool:
        try:
            with beneath.directory(self._directory, place.namespace) as parent:
                return beneath.status(place.name, parent) is not None
        except OSError:
            return False

    async def _check_ours(self, change: Change, place: _FilePlace, parent: int) -> None:
        """Raise ChangeError if something is there that is not ours; Conflict if it changes."""
        found = beneath.status(place.name, parent)
        if found is None:
            return
        if not stat.S_ISREG(found.st_mode):
            raise self._foreign(change, place, f"is {beneath.file_type(found)}")
        with os.fdopen(beneath.open_file(place.name, parent), "rb") as file:
            content = file.read(len(OUR_LINE))
            if content == OUR_LINE:
                return
            content += file.read(BYTES_MAX)
            claimed = await _holds_only_ours(content)
            if claimed is None:
                claimed = place in self._ours
            if not claimed:
                flaw = "says of no VirtualMachineService that it is held for it"
                raise self._foreign(change, place, flaw)
            now = beneath.status(place.name, parent)
            if now is None or _identity(now) != _identity(os.fstat(file.fileno())):
                raise Conflict(cause="its file changes while it is read; see what writes it")

    async def _write(self, change: Change, place: _FilePlace, child: Child) -> Child:
        untyped, note = manifest(child), ownerless_note(child)
        if note:
            annotations = untyped["metadata"].get("annotations", {})
            untyped["metadata"]["annotations"] = {**annotations, HELD_FOR: child.key.name}
        rest = f"; edits are put right. Change VirtualMachineService {child.key}.\n"
        document = await _rendered(untyped)
        content = OUR_LINE + (rest + note + document).encode()
        # Sources do not read files that begin with a dot.
        unfinished = f".{place.name}.tmp"
        with beneath.directory(self._directory, place.namespace, make=True) as parent:
            await self._check_ours(change, place, parent)
            beneath.create_file(unfinished, parent, content)
            os.rename(unfinished, place.name, src_dir_fd=parent, dst_dir_fd=parent)
        self._ours[place] = _cluster_ip(child)
        stored = parse(change.kind, untyped)
        assert isinstance(stored, Child), "a child's manifest is a child"
        return stored

    async def _remove(self, change: Change, place: _FilePlace) -> None:
        try:
            with beneath.directory(self._directory, place.namespace) as parent:
                await self._check_ours(change, place, parent)
                os.unlink(place.name, dir_fd=parent)
        except FileNotFoundError:
            pass  # It is gone already.
        self._ours.pop(place, None)
        # Somebody else's files may be in it.
        with suppress(OSError), beneath.directory(self._directory) as root:
            os.rmdir(place.namespace, dir_fd=root)

    def _foreign(self, change: Change, place: _FilePlace, flaw: str) -> ChangeError:
        path = self._directory / place.path
        message = f"cannot {change}: {path} is not ours, as it {flaw}, and stays; move it away"
        return ChangeError(f"{change.kind.value}NotOurs", message)


class _FilePlace(NamedTuple):
    """Where in the directory an object is held."""

    namespace: str
    name: str

    @classmethod
    def of(cls, kind: Kind, key: Key) -> _FilePlace:
        return cls(key.namespace, f"{key.name}{_SUFFIXES[kind]}")

    @property
    def path(self) -> str:
        return f"{self.namespace}/{self.name}"


async def _rendered(untyped: Untyped) -> str:
    """A manifest as YAML. Lets others have their turn between steps."""
    lines = yaml_lines(untyped)
    steps: list[str] = []
    while step := "".join(islice(lines, _STEP_LINES)):
        if steps:
            await asyncio.sleep(0)
        steps.append(step)
    return "".join(steps)


async def _holds_only_ours(content: bytes) -> bool | None:
    """Whether all objects in a file are a VMService's; None if there are none."""
    if len(content) > BYTES_MAX:
        return False
    found: list[bool] = []
    try:
        for claim in claims(content.decode()):
            if claim is None:
                await asyncio.sleep(0)
            else:
                found.append(claim)
    except (yaml.YAMLError, ValueError):
        return None
    return all(found) if found else None


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _is_refused(meta: ObjectMeta) -> bool:
    """Whether it was edited to have metadata that no API server accepts."""
    return any(metadata_problems(meta.labels, meta.annotations, meta.finalizers))


def _referring(child: Child) -> Child:
    """The object of a file, with a reference to its VMService in place of the mark."""
    meta = child.meta
    owners = tuple(o for o in meta.owner_references if not is_to_nobody(o, meta))
    annotations = dict(meta.annotations)
    if annotations.get(HELD_FOR) == meta.key.name:
        del annotations[HELD_FOR]
        owners = (*owners, _owner(meta.key))
    return replace(child, meta=replace(meta, annotations=annotations, owner_references=owners))


def _owner(key: Key) -> OwnerReference:
    kind = Kind.VIRTUAL_MACHINE_SERVICE
    uid = made_uid(kind, key)
    return OwnerReference(NEWEST_API_VERSION, kind.value, key.name, uid, True, True)


def _cluster_ip(child: Child) -> str:
    return child.cluster_ip if isinstance(child, StoredService) else ""
