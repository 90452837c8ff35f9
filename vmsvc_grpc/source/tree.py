"""A directory tree of manifests: which files there are, and what is in one.

Nothing here waits or remembers. Paths are relative to the directory, with `/` between
their parts, and their order as text is the path order that decides which file comes first.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple

from vmsvc_grpc import beneath
from vmsvc_grpc.model.problem import system_reason

SUFFIXES = (".yaml", ".yml", ".json")

# About a millisecond of work, if the disk does not have to be waited for.
_BREAK_ENTRIES = 500


class Signature(NamedTuple):
    """The part of a file's status that changes with its content."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


class Oddity(NamedTuple):
    """Something that is named like a manifest but is not a file: what it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory of the tree, about to be listed; `path` is "" for the tree itself."""

    path: str
    linked: bool
    identity: tuple[int, int]


@dataclass(frozen=True, slots=True)
class File:
    """Something that is named like a manifest and is not a directory."""

    path: str
    linked: bool
    """Whether a symbolic link leads to it: its own, or one of a directory above it."""
    link: bool
    """Whether it is a symbolic link itself."""


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A directory that cannot be listed, and why."""

    path: str
    message: str


class Content(NamedTuple):
    """The bytes of a file, and its signature."""

    signature: Signature
    digest: bytes
    bytes: bytes


def is_manifest(path: str) -> bool:
    """Whether a file of this name is read: by its suffix, and not hidden by a dot anywhere."""
    return path.endswith(SUFFIXES) and not is_hidden(path)


def is_hidden(path: str) -> bool:
    """Whether a part of the path begins with a dot, as files of editors and the kubelet do."""
    return path.startswith(".") or "/." in path


def above(path: str) -> Iterator[str]:
    """The directories that a path is in, up to the tree itself."""
    while path:
        path = path.rpartition("/")[0]
        yield path


def walk(root: Path, *, links: bool = True) -> Iterator[Directory | File | Unlisted | None]:
    """Everything in the tree, files in path order; and None as a point for a break.

    With `links`, links are followed, otherwise skipped. A directory with several paths is listed
    under the first one, so that a loop of links ends. Each step looks at some
    hundred entries at most.
    """
    visited: set[tuple[int, int]] = set()
    # The entries still to visit, the next at the end. Directories end with a slash, as the paths
    # below them begin with it, so that sorting names gives the path order.
    ahead: list[tuple[str, File | Directory]] = [("/", _directory("", linked=False))]
    while ahead:
        _, step = ahead.pop()
        if isinstance(step, File):
            yield step
            continue
        try:
            status = (root / step.path).stat()
            identity = (status.st_dev, status.st_ino)
            if identity in visited:
                continue
            visited.add(identity)
            yield replace(step, identity=identity)
            below: list[tuple[str, File | Directory]] = []
            for entry in _entries(root, step, links=links):
                if entry is None:
                    yield None
                else:
                    below.append(entry)
            ahead += sorted(below, key=itemgetter(0), reverse=True)
        except FileNotFoundError as error:
            if not step.path:  # Any other directory has just been removed.
                yield Unlisted("", system_reason(error))
        except OSError as error:
            yield Unlisted(step.path, system_reason(error))


def _directory(path: str, *, linked: bool) -> Directory:
    return Directory(path, linked, (0, 0))


def _entries(
    root: Path, directory: Directory, *, links: bool
) -> Iterator[tuple[str, File | Directory] | None]:
    with os.scandir(root / directory.path) as entries:
        for count, entry in enumerate(entries, 1):
            if count % _BREAK_ENTRIES == 0:
                yield None
            if entry.name.startswith(".") or (entry.is_symlink() and not links):
                continue
            below = f"{directory.path}/{entry.name}" if directory.path else entry.name
            link = entry.is_symlink()
            linked = directory.linked or link
            if may_be_directory(entry):
                yield f"{below}/", _directory(below, linked=linked)
            elif entry.name.endswith(SUFFIXES):
                yield below, File(below, linked, link)


# Nothing is there, whatever a link says.
_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def may_be_directory(path: Path | os.DirEntry[str]) -> bool:
    """Whether it is to be listed. Of a link to a place where we may not look, that is not known.

    Listing it, or reading it if it is named like a manifest, will tell why.
    """
    try:
        return path.is_dir()
    except OSError as error:
        return error.errno not in _NOWHERE and not path.name.endswith(SUFFIXES)


def is_link(path: Path) -> bool:
    """Whether it is a symbolic link, as far as we may look."""
    try:
        return path.is_symlink()
    except OSError:
        return False


def signature(file: Path, *, below: Path | None = None) -> Signature | Oddity | None:
    """The signature of a file; None if there is none, or a directory.

    `below`: a directory above it; no link is followed from there on. Raises OSError.
    """
    try:
        with _parent(file, below) as (name, parent):
            status = os.stat(name, dir_fd=parent, follow_symlinks=below is None)
    except (FileNotFoundError, NotADirectoryError):
        return Oddity("this link leads to nothing") if is_link(file) else None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return Oddity("this link leads to itself, or through too many links")
    if stat.S_ISREG(status.st_mode):
        return _signature(status)
    if stat.S_ISDIR(status.st_mode):
        return None
    return Oddity(f"this is {beneath.file_type(status)}, not a file")


def _signature(status: os.stat_result) -> Signature:
    return Signature(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


@contextmanager
def _parent(file: Path, below: Path | None) -> Iterator[tuple[str | Path, int | None]]:
    """The file as its name and the descriptor of its directory, or as its path and None."""
    if below is None:
        yield file, None
        return
    with beneath.directory(below, *file.relative_to(below).parent.parts) as parent:
        yield file.name, parent


def read_bounded(opened: BinaryIO, bytes_max: int) -> bytes:
    """All bytes of an open file or pipe. Raises OSError, also if there are too many."""
    content = opened.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise OSError(errno.EFBIG, f"it holds more than {bytes_max} bytes; split it")
    return content


def read_content(file: Path, bytes_max: int, *, below: Path | None = None) -> Content:
    """The content of a file. Blocks for as long as the disk takes; other threads run meanwhile.

    `below`: a directory above it; no link is followed from there on. Raises OSError if it cannot be
    read or holds more than `bytes_max`.
    """
    # Non-blocking: since the last look, a pipe that nobody writes to may have taken its place.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_NOFOLLOW if below else 0)
    with _parent(file, below) as (name, parent):
        descriptor = os.open(name, flags, dir_fd=parent)
    with os.fdopen(descriptor, "rb") as opened:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        content = read_bounded(opened, bytes_max)
    digest = hashlib.blake2b(content, digest_size=16).digest()
    return Content(_signature(status), digest, content)


def shown(path: str) -> str:
    """A path for a person to read: a name may have bytes that are not text."""
    return os.fsencode(path).decode(errors="backslashreplace") or "."
