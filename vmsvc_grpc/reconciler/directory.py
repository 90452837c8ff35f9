"""A directory as the place where Services and Endpoints are held.

`DIR/<namespace>/<name>.service.yaml` and `<name>.endpoints.yaml`, one object in each, as
`kubectl apply` takes them. A file is ours if it begins with our line, or if what is in it
is owned by a VMService or marked as held for one; what is not ours is never touched.

A VMService without a uid can own nothing. The mark stands for the reference to it: it is
put here as a file is written, and taken for the reference as the file is read, so that
nobody else knows of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from vmsvc_grpc.model.events import Apply, Delete, Event, Malformed
from vmsvc_grpc.model.objects import (
    NEWEST_API_VERSION,
    Key,
    Kind,
    OwnerReference,
    StoredEndpoints,
    StoredService,
    made_uid,
)
from vmsvc_grpc.model.ownership import HELD_FOR, is_owned, is_to_nobody, is_vmservice
from vmsvc_grpc.model.parse import parse
from vmsvc_grpc.reconciler.held import Child
from vmsvc_grpc.reconciler.manifest import manifest, ownerless_note, yaml_document
from vmsvc_grpc.reconciler.plan import Change
from vmsvc_grpc.reconciler.store import ChangeError

_SUFFIXES = {Kind.SERVICE: ".service.yaml", Kind.ENDPOINTS: ".endpoints.yaml"}
_OUR_LINE = b"# Held by vmsvc-grpc"


OnWrite = Callable[[str, Kind, Child | None], None]
"""Told of each file that was put in place, with its object, or removed, with None.

The file's path is relative to the directory, with `/` between its parts.
"""


class DirectoryStore:
    """Holds one file for each Service and Endpoints. For the use of one process.

    Each file is put in place whole. The disk is not waited for, so a write takes less than
    a millisecond (12 for 1,000 endpoints) and is done on the event loop: what the cache is
    told of it is never older than what the directory's source reads.
    """

    def __init__(self, directory: Path, *, on_write: OnWrite | None = None) -> None:
        """The directory is made if there is none. Raises ChangeError if it cannot be used."""
        self._directory = directory
        self._on_write = on_write
        # Files that are ours even if nothing in them tells so any more, and the cluster
        # address in each, which is chosen once and then cannot be asked of anybody else.
        self._ours: dict[Path, str] = {}
        try:
            directory.mkdir(parents=True, exist_ok=True)
            trial = directory / ".vmsvc-grpc.tmp"
            trial.write_bytes(b"")
            trial.unlink()
        except OSError as error:
            message = f"{directory} cannot be written to: {_reason(error)}"
            raise ChangeError("DirectoryNotWritable", message) from error

    async def apply(self, change: Change) -> Child | None:
        """Write or remove one file. Raises ChangeError; never Conflict.

        What somebody edited since it was observed is overwritten, as any edit is.
        """
        path, wanted = self._path(change.kind, change.key), change.after
        assert wanted is None or isinstance(wanted, Child), "no other kind is held"
        try:
            if not self._is_ours(path):
                raise _foreign(change, path)
            stored = self._write(path, change.kind, wanted) if wanted else None
            if stored is None:
                self._remove(path)
        except OSError as error:
            message = f"cannot {change}: {path}: {_reason(error)}"
            raise ChangeError("FileNotWritten", message) from error
        if self._on_write is not None:
            self._on_write(path.relative_to(self._directory).as_posix(), change.kind, stored)
        return _referring(stored) if stored else None

    def observation(self, event: Event) -> Event:
        """What an event of this directory's source tells the cache; and us, what is ours.

        An object that cannot be read is not held, so that it is written anew. (Elsewhere its
        last good state would stay.) Nor is one with an edit that an API server refuses.
        """
        match event:
            case Malformed(kind, key, _):
                return Delete(kind, key)
            case Delete(kind, key):
                # What was edited until no object was left in it stays ours.
                path = self._path(kind, key)
                if not path.exists():
                    self._ours.pop(path, None)
            case Apply(StoredService() | StoredEndpoints() as stored):
                child = _referring(stored)
                path = self._path(child.kind, child.key)
                if self._ours.get(path, _cluster_ip(child)) != _cluster_ip(child):
                    return Delete(child.kind, child.key)
                if is_owned(child.meta):
                    self._ours[path] = _cluster_ip(child)
                return Apply(child)
        return event

    def _path(self, kind: Kind, key: Key) -> Path:
        return self._directory / key.namespace / f"{key.name}{_SUFFIXES[kind]}"

    def _is_ours(self, path: Path) -> bool:
        """Whether we may write there: nothing is there, or what is ours."""
        try:
            with path.open("rb") as file:
                text = file.read(len(_OUR_LINE))
                if text == _OUR_LINE:
                    return True
                text += file.read()
        except FileNotFoundError:
            return True
        try:
            documents = [d for d in yaml.safe_load_all(text) if d is not None]
        except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError):
            documents = []
        if not all(isinstance(document, dict) for document in documents):
            documents = []
        if not documents:
            return path in self._ours
        return all(_names_owner(document) for document in documents)

    def _write(self, path: Path, kind: Kind, child: Child) -> Child:
        untyped, note = manifest(child), ownerless_note(child)
        if note:
            annotations = untyped["metadata"].get("annotations", {})
            untyped["metadata"]["annotations"] = {**annotations, HELD_FOR: child.key.name}
        rest = f"; edits are put right. Change VirtualMachineService {child.key}.\n"
        # Sources do not read files that begin with a dot.
        unfinished = path.with_name(f".{path.name}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(_OUR_LINE + (rest + note + yaml_document(untyped)).encode())
        unfinished.replace(path)
        self._ours[path] = _cluster_ip(child)
        stored = parse(kind, untyped)
        assert isinstance(stored, Child), "a child's manifest is a child"
        return stored

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._ours.pop(path, None)
        # Somebody else's files may be in it.
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def _referring(child: Child) -> Child:
    """What a file holds, with a reference to its VMService where the mark stands for it."""
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


def _foreign(change: Change, path: Path) -> ChangeError:
    kind = change.kind.value
    message = (
        f"cannot {change}: {path} is not ours, as it says of no VirtualMachineService that it is "
        "held for it, and stays as it is; move it away"
    )
    return ChangeError(f"{kind}NotOurs", message)


def _names_owner(document: dict[Any, Any]) -> bool:
    """Whether what a file says, be it no valid object, is a VMService's, by owner or mark."""
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        return False
    owners, annotations = metadata.get("ownerReferences"), metadata.get("annotations")
    if isinstance(annotations, dict) and annotations.get(HELD_FOR) == metadata.get("name"):
        return True
    return isinstance(owners, list) and any(
        isinstance(owner, dict) and is_vmservice(_owner_reference(owner)) for owner in owners
    )


def _owner_reference(owner: dict[Any, Any]) -> OwnerReference:
    text = {field: str(owner.get(field, "")) for field in ("apiVersion", "kind", "name", "uid")}
    return OwnerReference(text["apiVersion"], text["kind"], text["name"], text["uid"])


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
