"""Offline: the Service and Endpoints that would be held for manifests.

Reads as the file source does and decides as the reconciler does, without event loop, watch or
network. But it is as strict as `kubectl apply --validate=strict`: an object with any flaw is left
out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.exits import EXIT_FAILED
from vmsvc_grpc.model.events import Apply, Init, InitDone, Malformed
from vmsvc_grpc.model.from_wire import DEFAULT_NAMESPACE, ParseError
from vmsvc_grpc.model.misfit import FieldPath, field_name
from vmsvc_grpc.model.objects import Key, Kind, VirtualMachineService
from vmsvc_grpc.model.parse import parse
from vmsvc_grpc.model.problem import Problem, escaped, system_reason
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.model.strict import field_path, problems
from vmsvc_grpc.reconciler.desired import desired
from vmsvc_grpc.reconciler.held import Child, HeldObjects
from vmsvc_grpc.reconciler.manifest import manifest, ownerless_note, yaml_document
from vmsvc_grpc.reconciler.rules import Rules
from vmsvc_grpc.source import tree
from vmsvc_grpc.source.characters import decoded
from vmsvc_grpc.source.contents import Entry, ObjectId, repeated
from vmsvc_grpc.source.definitions import Looked, Position
from vmsvc_grpc.source.documents import ManifestError
from vmsvc_grpc.source.field_lines import FieldLines, Text
from vmsvc_grpc.source.file_bounds import FilesSourceBounds
from vmsvc_grpc.source.manifests import read_objects
from vmsvc_grpc.standard_output import writing_output

_STANDARD_INPUT = "standard input"

_PROBLEM_LINE_CHARACTERS_MAX = 4096 + 1200
"""The longest path on Linux, and a problem."""

_KINDS = (Kind.VIRTUAL_MACHINE, Kind.VIRTUAL_MACHINE_SERVICE)


def render(
    path: str,
    *,
    rules: AddressRules,
    held: Rules,
    out: TextIO,
    err: TextIO,
    namespace: str = DEFAULT_NAMESPACE,
    file_bytes_max: int = FilesSourceBounds().file_bytes_max,
) -> int:
    """Write what would be held to `out` as YAML, and problems to `err`; the exit status.

    `path` is a file, a directory, or "-" for standard input; `held` says what is held. Objects that
    name no namespace are in `namespace`. Neither a file nor standard input may hold more than
    `file_bytes_max`. Objects are sorted by namespace and name, the Service before its Endpoints;
    each problem is a line, with file and line. The status is 1
    if an object is refused, something cannot be read, or there is no object; else 0: an
    address that cannot be used is a problem, and no more. Raises OutputError.
    """
    reading = _Rendering(rules, err, namespace, file_bytes_max)
    reading.read(path)
    children = _held(reading.cache, held)
    documents = [ownerless_note(child) + yaml_document(manifest(child)) for child in children]
    with writing_output():
        out.write("---\n".join(documents))
        out.flush()  # Or it would fail at exit, without a line of ours.
    return EXIT_FAILED if reading.refused else 0


class _Manifest:
    """An object as it stands in a file."""

    def __init__(
        self,
        file: str,
        place: Position,
        kind: Kind,
        untyped: dict[str, Any],
        lines: FieldLines | None,
    ) -> None:
        self.key = _key(kind, untyped)
        self._file = file
        self._place = place
        self._kind = kind
        self._untyped = untyped
        items: list[str | int] = [step for index in place.items for step in ("items", index)]
        self._lines = lines.below(items) if lines else None

    def problems(self) -> Iterator[str]:
        """All its problems, a sentence each, by line."""
        located = problems(self._kind, self._untyped)
        texts = [(self._line_of(path), str(problem)) for path, problem in located]
        for repeat in self._lines.all_repeats() if self._lines else ():
            flaw = f"is there already, in line {repeat.first_line}; remove one of them"
            texts.append((repeat.line, str(Problem(field_name(repeat.path), flaw))))
        for line, problem in sorted(texts):
            yield self._sentence(line, problem)

    def problem(self, problem: Problem) -> str:
        """A sentence for a problem that was found elsewhere."""
        return self._sentence(self._line_of(field_path(problem.field)), str(problem))

    def _line_of(self, path: FieldPath) -> int:
        return self._lines.line_of(path) if self._lines else self._place.line

    def _sentence(self, line: int, problem: str) -> str:
        return f"{self._file}: line {line}: {self._kind.value} {self.key or '(unnamed)'}: {problem}"


def _key(kind: Kind, untyped: dict[str, Any]) -> Key | None:
    try:
        return parse(kind, untyped).key
    except ParseError as error:
        return error.key


class _Rendering:
    """Takes manifests into a cache, and reports their problems."""

    def __init__(
        self, rules: AddressRules, err: TextIO, namespace: str, file_bytes_max: int
    ) -> None:
        self.cache = Cache(rules, kinds=_KINDS, on_problems=self._object_problems)
        self.refused = False
        self._empty = True
        self._places: dict[ObjectId, str] = {}
        self._written: dict[ObjectId, _Manifest] = {}
        self._err = err
        self._namespace = namespace
        self._file_bytes_max = file_bytes_max

    def read(self, path: str) -> None:
        """Take in all manifests at a path."""
        for kind in _KINDS:
            self.cache.apply(Init(kind))
        for name, content in self._contents(path):
            self._take(name, content)
        for kind in _KINDS:
            self.cache.apply(InitDone(kind))
        if self._empty and not self.refused:
            shown = _STANDARD_INPUT if path == "-" else path
            self._refuse(f"{shown}: there is no VirtualMachine and no VirtualMachineService here")

    def _contents(self, path: str) -> Iterator[tuple[str, bytes]]:
        root = Path(path)
        if path == "-":
            yield from self._read(_STANDARD_INPUT, self._standard_input)
        elif not root.is_dir():
            yield from self._read(str(root), partial(self._named, root))
        else:
            for found in tree.walk(root):
                match found:
                    case tree.File(name):
                        yield from self._read(str(root / name), partial(self._found, root / name))
                    case tree.Unlisted(name, message):
                        self._refuse(f"{root / name}: cannot be listed: {message}")

    def _read(self, name: str, read: Callable[[], bytes]) -> Iterator[tuple[str, bytes]]:
        try:
            content = read()
        except OSError as error:
            self._refuse(f"{name}: cannot be read: {system_reason(error)}")
        else:
            yield name, content

    def _standard_input(self) -> bytes:
        return tree.read_bounded(sys.stdin.buffer, self._file_bytes_max)

    def _named(self, path: Path) -> bytes:
        """The content of a path that was given. It may be a pipe, as the shell's `<(...)` is."""
        with path.open("rb") as opened:
            return tree.read_bounded(opened, self._file_bytes_max)

    def _found(self, path: Path) -> bytes:
        """The content of a regular file in a directory: a pipe there might never end."""
        return tree.read_content(path, self._file_bytes_max).bytes

    def _take(self, name: str, content: bytes) -> None:
        looked: Looked = {}
        try:
            contents = read_objects(content, frozenset(_KINDS), looked, namespace=self._namespace)
        except ManifestError as error:
            self._refuse(f"{name}: {error}")
            return
        self._empty &= not looked
        lines = Text(decoded(content))
        written = {
            str(place): _Manifest(name, place, *one, lines.document(place.line))
            for place, one in looked.items()
        }
        refused = {place for place, one in written.items() if self._refuses(one)}
        for flaw in contents.flaws:
            # Without a name, its problems have been reported already.
            if flaw.place not in written or written[flaw.place].key is not None:
                self._refuse(f"{name}: {flaw.place}: {flaw.message}")
        if contents.more_flaws:
            self._refuse(f"{name}: {contents.more_flaws} more problems; mend these first")
        for entry in contents.entries.values():
            self._take_object(name, entry, written.get(entry.place), entry.place in refused)

    def _refuses(self, one: _Manifest) -> bool:
        sentences = list(one.problems())
        for sentence in sentences:
            self._refuse(sentence)
        return bool(sentences)

    def _take_object(
        self, name: str, entry: Entry, written: _Manifest | None, refused: bool
    ) -> None:
        if entry.id in self._places:
            flaw = repeated(entry, self._places[entry.id])
            self._refuse(f"{name}: {flaw.place}: {flaw.message}")
            return
        self._places[entry.id] = f"{name} {entry.place}"
        if refused:
            return
        if written is not None:
            self._written[entry.id] = written
        match entry.event:
            case Malformed() | Apply(VirtualMachineService(spec=None)):
                self.refused = True
        self.cache.apply(entry.event)

    def _refuse(self, line: str) -> None:
        self.refused = True
        self._print(line)

    def _object_problems(self, kind: Kind, key: Key, problems: tuple[Problem, ...]) -> None:
        written = self._written.get((kind, key))
        for problem in problems:
            self._print(written.problem(problem) if written else f"{kind.value} {key}: {problem}")

    def _print(self, line: str) -> None:
        # Names of files, and tags, may have any characters.
        print(escaped(line, _PROBLEM_LINE_CHARACTERS_MAX), file=self._err)


def _held(cache: Cache, rules: Rules) -> Iterator[Child]:
    for _, service in sorted(cache.services.items(), key=lambda item: item[0]):
        wanted = desired(
            HeldObjects(vmservice=service.object),
            service.spec,
            service.endpoints,
            rules,
        )
        assert not wanted.failures, "nothing is in the way where nothing is held"
        for child in (wanted.objects.service, wanted.objects.endpoints):
            if child is not None:
                yield child
