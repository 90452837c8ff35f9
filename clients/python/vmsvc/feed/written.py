"""Files written whole: by rename, so that a reader never sees half of one."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from vmsvc.feed.output import OutputError

_MODE = 0o644


def write(path: Path, content: bytes) -> bool:
    """Give the file this content, unless it has it; whether it was written.

    It keeps its mode, and its owner as far as we may give it away; a new one is readable for all.
    A link is followed, and stays. Raises OutputError; the file is as before then.
    """
    try:
        place = path.resolve()
        if (found := _read(place, len(content))) == content:
            return False
        _replace(place, content, place.stat() if found is not None else None)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    return True


def _read(path: Path, size: int) -> bytes | None:
    """As much of a file as shows whether it has a content of this size; None: there is none."""
    try:
        # Without a wait, as a FIFO could stand there.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(0, "is not a regular file")
            return file.read(size + 1)
    except FileNotFoundError:
        return None


def _replace(path: Path, content: bytes, before: os.stat_result | None) -> None:
    descriptor, made = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode) if before else _MODE)
            if before and (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                with suppress(PermissionError):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
            file.flush()
            # After a crash of the machine, too, it is the old one or the new one.
            os.fsync(file.fileno())
        Path(made).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(made).unlink()
        raise
