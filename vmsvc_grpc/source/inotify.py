"""Where to look in a directory now, by the notices of changes that inotify sends.

Each directory is watched by itself, so that one that cannot be watched affects no other. A notice
may come late, twice, or not at all; it never says what is in a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sys
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

from vmsvc_grpc.model.problem import system_reason
from vmsvc_grpc.source import tree

if sys.platform == "linux":
    from inotify_simple import INotify, flags, parse_events

# How much one turn of the event loop reads: some 2,000 notices, or 5 ms.
_READ_BYTES = 64 * 1024

# If there are more notices than this, everything is looked at instead.
_NOTICES_MAX = 10_000


class How(Enum):
    """What happened at a path, as far as it matters for what is there now."""

    TOUCHED = auto()
    """Its attributes changed, but not its content; or a link leads elsewhere."""
    ANOTHER = auto()
    """Something was made, removed, or moved away there."""
    WRITTEN = auto()
    """It was written to, and its writer may write more."""
    CLOSED = auto()
    """Its writer has closed it."""
    PLACED = auto()
    """Something was renamed to it: what is there is whole."""


@dataclass(slots=True)
class PathNotices:
    """The changes since the last `take`, by path; "" is the directory itself.

    `missed`: there may have been others.
    """

    how: dict[str, How] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    """Paths of directories among them."""
    missed: bool = False

    def add(self, path: str, how: How) -> None:
        """Note what happened at a path. Unless it is a mere touch, it replaces earlier notes."""
        if how is How.TOUCHED:
            self.how.setdefault(path, how)
        else:
            self.how[path] = how
        if len(self.how) > _NOTICES_MAX:
            self.how.clear()
            self.missed = True


class DirectoryWatch:
    """Notices of directories, and of files that links lead to.

    For one event loop. `noticed` is set when there is something to `take`.
    """

    def __init__(self, root: Path) -> None:
        """Watches nothing yet. Paths are relative to `root`."""
        self.noticed = asyncio.Event()
        self._root = str(root)
        self._inotify: INotify | None = None
        # The failure of each path that cannot be watched; and that of all, if none can.
        self._unwatched: dict[str, str] = {}
        self._failure: str | None = None
        self._descriptors: dict[str, int] = {}
        # Several links may lead to one file.
        self._paths: dict[int, set[str]] = {}
        self._notices = PathNotices()

    def open(self) -> None:
        """Begin, if not begun yet; nothing is watched so far. Does not raise."""
        if self._inotify is not None:
            return
        if sys.platform != "linux":
            self._failure = "this system gives no notices that are known here"
            return
        try:
            self._inotify = INotify(nonblocking=True)
        except OSError as error:
            self._failure = _reason(error, "fs.inotify.max_user_instances")
            return
        self._failure = None
        asyncio.get_running_loop().add_reader(self._inotify.fileno(), self._read)

    def close(self) -> None:
        """End: nothing is watched any more."""
        if self._inotify is None:
            return
        asyncio.get_running_loop().remove_reader(self._inotify.fileno())
        self._inotify.close()
        self._inotify = None

    def take(self) -> PathNotices:
        """The notices since the last call."""
        notices, self._notices = self._notices, PathNotices()
        self.noticed.clear()
        return notices

    def unwatched(self) -> str | None:
        """What cannot be watched, and why, in one sentence; None if everything is watched."""
        if self._failure is not None:
            return f"cannot be watched: {self._failure}"
        if not self._unwatched:
            return None
        count = len(self._unwatched)
        path, failure = min(self._unwatched.items())
        others = f" and {count - 1} more" if count > 1 else ""
        return f"{path or 'it'}{others} cannot be watched: {failure}"

    def directory(self, path: str) -> None:
        """Watch a directory; call it before listing. Does not raise; O(1)."""
        if sys.platform == "linux":
            self._add(path, _DIRECTORY_MASK)

    def linked_file(self, path: str) -> None:
        """Watch the file that a link leads to, wherever that is. Does not raise; O(1)."""
        if sys.platform == "linux":
            self._add(path, _FILE_MASK)

    def keep(self, paths: AbstractSet[str]) -> None:
        """Watch only these from now on. O(watched)."""
        for path in [path for path in self._descriptors if path not in paths]:
            self._drop(path)
        for path in [path for path in self._unwatched if path not in paths]:
            del self._unwatched[path]

    def _add(self, path: str, mask: int) -> None:
        if self._inotify is None:
            return
        try:
            descriptor = self._inotify.add_watch(f"{self._root}/{path}", mask)
        except OSError as error:
            self._drop(path)
            if error.errno in _NOT_LIMITS:
                self._unwatched.pop(path, None)
            else:
                self._unwatched[path] = _reason(error, "fs.inotify.max_user_watches")
            return
        self._unwatched.pop(path, None)
        if self._descriptors.get(path) != descriptor:
            self._drop(path)
            self._descriptors[path] = descriptor
            self._paths.setdefault(descriptor, set()).add(path)

    def _drop(self, path: str) -> None:
        descriptor = self._descriptors.pop(path, None)
        if descriptor is None:
            return
        paths = self._paths[descriptor]
        paths.discard(path)
        if not paths:
            del self._paths[descriptor]
            if self._inotify is not None:
                with contextlib.suppress(OSError):  # It may be gone, and its watch with it.
                    self._inotify.rm_watch(descriptor)

    def _read(self) -> None:
        assert self._inotify is not None, "it is read while it is open"
        with contextlib.suppress(BlockingIOError):
            for descriptor, mask, _, name in parse_events(
                os.read(self._inotify.fileno(), _READ_BYTES)
            ):
                self._note(descriptor, mask, name)
        self.noticed.set()

    def _note(self, descriptor: int, mask: int, name: str) -> None:
        if mask & flags.Q_OVERFLOW:
            self._notices.missed = True
        if mask & flags.IGNORED:
            for path in self._paths.pop(descriptor, ()):
                del self._descriptors[path]
            return
        how = next((how for flag, how in _HOW if mask & flag), How.ANOTHER)
        for watched in self._paths.get(descriptor, ()):
            path = f"{watched}/{name}" if watched and name else name or watched
            self._notices.add(path, how)
            if mask & flags.ISDIR:
                self._notices.directories.add(path)


if sys.platform == "linux":
    _FILE_MASK = (
        flags.MODIFY | flags.CLOSE_WRITE | flags.ATTRIB | flags.DELETE_SELF | flags.MOVE_SELF
    )
    _DIRECTORY_MASK = (
        _FILE_MASK
        | flags.CREATE
        | flags.DELETE
        | flags.MOVED_FROM
        | flags.MOVED_TO
        | flags.ONLYDIR
        | flags.EXCL_UNLINK
    )
    _HOW = (
        (flags.MOVED_TO, How.PLACED),
        (flags.CLOSE_WRITE, How.CLOSED),
        (flags.MODIFY, How.WRITTEN),
        (flags.ATTRIB | flags.DELETE_SELF | flags.MOVE_SELF, How.TOUCHED),
    )

# Listing or reading reports these, too, and in better words; or the path is gone.
_NOT_LIMITS = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EACCES,
    errno.ELOOP,
    errno.ENAMETOOLONG,
}


def _reason(error: OSError, limit: str) -> str:
    if error.errno in (errno.ENOSPC, errno.EMFILE):
        return f"the system's limit {limit} is reached"
    return system_reason(error)


class Where(Enum):
    """Where a notice asks to look."""

    NOWHERE = auto()
    THERE = auto()
    """At its own path."""
    EVERYWHERE = auto()
    AT_LINKS = auto()
    """Everywhere, and a link may lead to other files than before, each of them whole."""


def where(
    path: str, root: Path, directories: AbstractSet[str], *, is_directory: bool, linked: bool
) -> Where:
    """Where to look after a notice for a path, in a tree of these directories.

    `is_directory`: the notice said so. `linked`: there are links in the tree. Looks at what is at
    the path now, as a notice does not say.
    """
    if not path:
        return Where.EVERYWHERE
    if tree.is_hidden(path):
        # A link may lead through it, as those of a mounted ConfigMap do.
        if not linked:
            return Where.NOWHERE
        return Where.AT_LINKS if tree.is_link(root / path) else Where.EVERYWHERE
    if is_directory or path in directories or tree.may_be_directory(root / path):
        return Where.AT_LINKS if tree.is_link(root / path) else Where.EVERYWHERE
    if not tree.is_manifest(path):
        return Where.NOWHERE
    return Where.THERE if path.rpartition("/")[0] in directories else Where.EVERYWHERE
