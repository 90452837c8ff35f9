"""Offline: the Service and Endpoints that would be held for manifests.

Reads as the file source does and decides as the reconciler does, without an event loop,
a watch or a network.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply, Init, InitDone, Malformed
from vmsvc_grpc.model.objects import Key, Kind, VirtualMachineService
from vmsvc_grpc.model.problem import Problem
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.reconciler.desired import desired
from vmsvc_grpc.reconciler.held import Child, Objects
from vmsvc_grpc.reconciler.manifest import manifest, ownerless_note, yaml_document
from vmsvc_grpc.reconciler.rules import Rules
from vmsvc_grpc.source import tree
from vmsvc_grpc.source.documents import ManifestError
from vmsvc_grpc.source.files import Bounds
from vmsvc_grpc.source.manifests import Entry, ObjectId, read_objects, repeated

_KINDS = (Kind.VIRTUAL_MACHINE, Kind.VIRTUAL_MACHINE_SERVICE)


def render(path: str, *, rules: AddressRules, held: Rules, out: TextIO, err: TextIO) -> int:
    """Write what would be held to `out` as YAML, and problems to `err`; the exit status.

    `path` is a file, a directory, or "-" for standard input; `held` says what is held. The
    objects come sorted by namespace and name, the Service before its Endpoints; each problem
    is a line. The status is 1 if an object is refused or something cannot be read, else 0:
    an address that cannot be used is a problem, and no more.
    """
    reading = _Reading(rules, err)
    reading.read(path)
    children = _held(reading.cache, held)
    documents = [ownerless_note(child) + yaml_document(manifest(child)) for child in children]
    out.write("---\n".join(documents))
    return 1 if reading.refused else 0


class _Reading:
    """Takes manifests into a cache, and tells what is wrong with them on the way."""

    def __init__(self, rules: AddressRules, err: TextIO) -> None:
        self.cache = Cache(rules, kinds=_KINDS, on_problems=self._object_problems)
        self.refused = False
        self._places: dict[ObjectId, str] = {}
        self._err = err

    def read(self, path: str) -> None:
        """Take in all there is at a path."""
        for kind in _KINDS:
            self.cache.apply(Init(kind))
        for name, text in self._texts(path):
            self._take(name, text)
        for kind in _KINDS:
            self.cache.apply(InitDone(kind))

    def _texts(self, path: str) -> Iterator[tuple[str, str]]:
        root = Path(path)
        if path == "-":
            try:
                yield "standard input", tree.decoded(sys.stdin.buffer.read())
            except ManifestError as error:
                self._refuse(f"standard input: {error}")
        elif not root.is_dir():
            yield from self._text(root)
        else:
            for found in tree.walk(root):
                match found:
                    case tree.File(name):
                        yield from self._text(root / name)
                    case tree.Unlisted(name, message):
                        self._refuse(f"{root / name}: cannot be listed: {message}")

    def _text(self, path: Path) -> Iterator[tuple[str, str]]:
        try:
            yield str(path), tree.read_text(path, Bounds().file_bytes_max).text
        except OSError as error:
            self._refuse(f"{path}: cannot be read: {tree.reason(error)}")
        except ManifestError as error:
            self._refuse(f"{path}: {error}")

    def _take(self, name: str, text: str) -> None:
        try:
            contents = read_objects(text, frozenset(_KINDS))
        except ManifestError as error:
            self._refuse(f"{name}: {error}")
            return
        for flaw in contents.flaws:
            self._refuse(f"{name}: {flaw.place}: {flaw.message}")
        for entry in contents.entries.values():
            self._take_object(name, entry)

    def _take_object(self, name: str, entry: Entry) -> None:
        if entry.id in self._places:
            flaw = repeated(entry, self._places[entry.id])
            self._refuse(f"{name}: {flaw.place}: {flaw.message}")
            return
        self._places[entry.id] = f"{name} {entry.place}"
        match entry.event:
            case Malformed() | Apply(VirtualMachineService(spec=None)):
                self.refused = True
        self.cache.apply(entry.event)

    def _refuse(self, line: str) -> None:
        self.refused = True
        print(line, file=self._err)

    def _object_problems(self, kind: Kind, key: Key, problems: tuple[Problem, ...]) -> None:
        for problem in problems:
            print(f"{kind.value} {key}: {problem}", file=self._err)


def _held(cache: Cache, rules: Rules) -> Iterator[Child]:
    for _, service in sorted(cache.services.items(), key=lambda item: item[0]):
        wanted = desired(
            Objects(vmservice=service.object),
            service.spec,
            service.endpoints,
            rules,
        )
        assert wanted.failure is None, "nothing is in the way where nothing is held"
        for child in (wanted.objects.service, wanted.objects.endpoints):
            if child is not None:
                yield child
