"""What may happen to a directory of many files at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import dataset

Do = Callable[[], object]

_ENDPOINTS = 2
# Notices, a write and a close for each file: more than the system keeps for us.
_TOUCHES = 3


class Tree:
    """A directory of manifests with as many files in a directory of it, of an object each."""

    def __init__(self, folder: Path, files: int, pid: int) -> None:
        """`folder` is on the same file system as `folder / "manifests"`; `pid` reads that."""
        self._folder = folder
        self._manifests = folder / "manifests"
        self._files = files
        self._pid = pid

    def steps(self) -> Iterator[tuple[str, Do]]:
        """What happens, in this order, by what it is called."""
        many, moved = self._manifests / "many", self._manifests / "moved"
        beside = self._folder / "many"
        self._write(beside, 0)
        yield "a directory arrives", lambda: self._move(beside, many)
        yield "all are written, each the same", lambda: self._write(many, 0)
        yield "all are touched", lambda: self._touch(many)
        yield "all are touched, with notices lost", lambda: self._touch_unseen(many)
        yield "all change", lambda: self._write(many, 1)
        yield "the directory is renamed", lambda: self._move(many, moved)
        yield "it is moved away", lambda: self._move(moved, self._folder / "away")
        yield "files arrive one by one", lambda: self._write(self._manifests, 2)
        yield "files go one by one", self._remove

    def _move(self, before: Path, after: Path) -> None:
        before.rename(after)

    def _write(self, folder: Path, seed: int) -> None:
        """A service and its VMs, and again."""
        folder.mkdir(exist_ok=True)
        for number in range(self._files):
            service, what = divmod(number, _ENDPOINTS + 1)
            made = dataset.service_json(service)
            if what:
                made = dataset.vm_json(service, what - 1, seed * self._files + number)
            (folder / f"{number:06d}.json").write_bytes(made)

    def _touch(self, folder: Path) -> None:
        for path in folder.iterdir():
            path.touch()

    def _touch_unseen(self, folder: Path) -> None:
        os.kill(self._pid, signal.SIGSTOP)
        try:
            for _ in range(_TOUCHES):
                self._touch(folder)
        finally:
            os.kill(self._pid, signal.SIGCONT)

    def _remove(self) -> None:
        for path in self._manifests.iterdir():
            path.unlink()
