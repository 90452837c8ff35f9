"""Opens files beneath a directory so that nothing there leads out of it.

Whoever may write to a directory that we share may put a symbolic link, a FIFO or a device
there at any moment. So each name is opened relative to the descriptor of the directory
above it, a link on the way is an error, and only regular files are opened.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Non-blocking: since the last look, a FIFO that nobody writes to may have taken the file's place.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def directory(root: Path, *names: str, make: bool = False) -> Iterator[int]:
    """The descriptor of a directory beneath `root`, for as long as the block runs.

    With `make`, missing directories are made, `root` too. `root` itself may be a link, as whoever
    runs us has named it. Raises OSError; NotADirectoryError if one of `names` is a link.
    """
    if make:
        root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root, _DIRECTORY_FLAGS)
    try:
        for name in names:
            below = _below(name, descriptor, make=make)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def _below(name: str, parent: int, *, make: bool) -> int:
    if make:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=parent)
    try:
        return os.open(name, _DIRECTORY_FLAGS | os.O_NOFOLLOW, dir_fd=parent)
    except OSError as error:
        found = status(name, parent)
        if found is None or stat.S_ISDIR(found.st_mode):
            raise
        message = f"{name} is {file_type(found)}, not a directory"
        raise NotADirectoryError(errno.ENOTDIR, message) from error


def status(name: str, parent: int) -> os.stat_result | None:
    """The status of a name in a directory, that of a link itself; None if there is none.

    Raises OSError.
    """
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def open_file(name: str, parent: int) -> int:
    """The descriptor of a regular file in a directory, for reading.

    Raises OSError; FileNotFoundError if there is none. Only a regular file is opened at all, as
    opening a device may start it.
    """
    found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    _check_regular(found)
    descriptor = os.open(name, _FILE_FLAGS, dir_fd=parent)
    try:
        _check_regular(os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, f"it is {file_type(found)}, not a regular file")


def create_file(name: str, parent: int, content: bytes) -> None:
    """Make a file in a directory, with mode 0644 less the umask.

    A regular file of that name is removed first: a crash left it. Raises OSError;
    FileExistsError if something else has the name.
    """
    found = status(name, parent)
    if found is not None:
        if not stat.S_ISREG(found.st_mode):
            message = f"{name} is {file_type(found)}, and in the way; move it away"
            raise FileExistsError(errno.EEXIST, message)
        os.unlink(name, dir_fd=parent)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o644, dir_fd=parent), "wb") as file:
        file.write(content)


_FILE_TYPES = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


def file_type(found: os.stat_result) -> str:
    """The type of a file, as a noun for a sentence."""
    return _FILE_TYPES.get(stat.S_IFMT(found.st_mode), "something else")
