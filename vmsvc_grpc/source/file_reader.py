"""Reads a file that differs from what is held of it, in slices."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Generator
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.model.problem import system_reason
from vmsvc_grpc.source import tree
from vmsvc_grpc.source.breaks import Breaks
from vmsvc_grpc.source.contents import Contents
from vmsvc_grpc.source.documents import ManifestError
from vmsvc_grpc.source.file_bounds import FilesSourceBounds
from vmsvc_grpc.source.known_files import HeldFile, KnownFiles
from vmsvc_grpc.source.manifests import AbandonedError, reading
from vmsvc_grpc.source.problems import FileProblem
from vmsvc_grpc.source.settling import Unsettled
from vmsvc_grpc.source.tree import Content, Oddity

PlaceOf = Callable[[Kind, Key], str]
"""The path of the one file in which an object counts."""


class Fetched(NamedTuple):
    """A file that was read: what is held of it from now on, and its contents, if they count."""

    held: HeldFile
    contents: Contents | None


class FileReader:
    """Reads files of `kinds`; objects that name no namespace are in `namespace`.

    With `place_of`, objects in other files than theirs are ignored.
    """

    def __init__(
        self,
        root: Path,
        known: KnownFiles,
        kinds: AbstractSet[Kind],
        *,
        namespace: str,
        bounds: FilesSourceBounds,
        breaks: Breaks,
        place_of: PlaceOf | None,
    ) -> None:
        self.files_read = 0
        self._root = root
        self._known = known
        self._kinds = kinds
        self._namespace = namespace
        self._bounds = bounds
        self._breaks = breaks
        self._place_of = place_of

    async def fetched(self, path: str, looked_at: Unsettled, *, large: bool) -> Fetched | None:
        """The content of an unsettled file; None if it has changed since the last look."""
        content = await self._opened(path, looked_at, large=large)
        if isinstance(content, HeldFile):
            return Fetched(content, None)
        if content is None or self._known.settling.get(path) is not looked_at:
            return None
        self.files_read += 1
        held = self._known.held.get(path)
        if held and held.signature and held.digest == content.digest:
            rewritten_at = -math.inf if looked_at.whole else held.rewritten_at
            same = replace(held, signature=content.signature, rewritten_at=rewritten_at)
            return Fetched(same, None)
        read = await self._read(path, looked_at, content.bytes, large=large)
        if read is None:
            return None
        contents, problem = read
        rewritten_at = -math.inf if looked_at.whole else looked_at.since
        held = HeldFile(content.signature, content.digest, problem, rewritten_at)
        return Fetched(held, contents)

    async def _opened(
        self, path: str, looked_at: Unsettled, *, large: bool
    ) -> Content | HeldFile | None:
        """The bytes of an unsettled file, or what to hold instead; None if there is no file."""
        found = looked_at.signature
        if isinstance(found, Oddity):
            problem = FileProblem(tree.shown(path), "", f"{found.text}; it is left out")
            return HeldFile(found, b"", problem)
        bytes_max = self._bounds.file_bytes_max
        read = partial(tree.read_content, self._root / path, bytes_max, below=self._known.below)
        try:
            return await asyncio.to_thread(read) if large else read()
        except (FileNotFoundError, NotADirectoryError):
            self._known.forget(path)
            return None
        except OSError as error:
            message = f"cannot be read: {system_reason(error)}"
            return HeldFile(
                None, b"", FileProblem(tree.shown(path), "", message, hides_objects=True)
            )

    async def _read(
        self, path: str, looked_at: Unsettled, content: bytes, *, large: bool
    ) -> tuple[Contents | None, FileProblem | None] | None:
        """The contents of a file, or the problem for which its former ones still count.

        None if it is not what was looked at any more, and so of no use.
        """
        steps = self._steps(path, content)
        try:
            contents = await self._parsed(steps, path, looked_at, large=large)
        except AbandonedError:
            return None
        except ManifestError as error:
            return None, _problem(path, error)
        if not contents.empty or not self._known.union.contents(path).entries:
            return contents, None
        return None, _emptied(path, contents)

    def _steps(self, path: str, content: bytes) -> Generator[None, None, Contents]:
        """The steps that lead to what a file with this content holds. They raise ManifestError."""
        contents = yield from reading(content, self._kinds, namespace=self._namespace)
        if self._place_of is not None:
            contents = yield from contents.placed(path, self._place_of)
        return contents

    async def _parsed(
        self,
        steps: Generator[None, None, Contents],
        path: str,
        looked_at: Unsettled,
        *,
        large: bool,
    ) -> Contents:
        """What the steps lead to. Raises ManifestError; AbandonedError once that is of no use."""
        go_on = partial(_gone_on, steps, self._bounds.slice_s)
        abandoned = False
        while (contents := await asyncio.to_thread(go_on) if large else go_on()) is None:
            await self._breaks.breathe()
            if self._known.settling.get(path) is not looked_at and not abandoned:
                abandoned = True
                steps.throw(AbandonedError)
        return contents


def _gone_on(steps: Generator[None, None, Contents], slice_s: float) -> Contents | None:
    """Read on for `slice_s`, a step at least; what was read, once that is all."""
    end = time.monotonic() + slice_s
    try:
        next(steps)
        while time.monotonic() < end:
            next(steps)
    except StopIteration as over:
        contents: Contents = over.value
        return contents
    return None


def _problem(path: str, error: ManifestError) -> FileProblem:
    place = f"line {error.line}, column {error.column}"
    return FileProblem(tree.shown(path), place, error.message, hides_objects=True)


def _emptied(path: str, contents: Contents) -> FileProblem:
    flaw = contents.flaws[0] if contents.flaws else None
    message = (
        f"holds no object any more{f', as its first {flaw.message}' if flaw else ''}; what it held "
        "stays until it holds one again, or is removed"
    )
    return FileProblem(tree.shown(path), flaw.place if flaw else "", message)
