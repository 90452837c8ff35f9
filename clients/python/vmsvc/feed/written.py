"""Files written whole: by rename, so that a reader never sees half of one."""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from vmsvc.feed.output import OutputError

_MODE = 0o644

Result = TypeVar("Result")


async def finished(work: Callable[[], Result]) -> Result:
    """Do it in a thread, as a disk may be slow, and to its end: a cancellation waits for that."""
    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # What is written next must not be overtaken by it.
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()
        raise


def write(path: Path, content: bytes) -> bool:
    """Give the file this content, unless it has it; whether it was written.

    It keeps its mode, and its owner as far as we may give it away; a new one is readable for all.
    A link is followed, and stays. Raises OutputError; the file is as before then.
    """
    try:
        # Unlike Path.resolve, it raises nothing of its own for links that go round in circles.
        place = Path(os.path.realpath(path))
        if (found := read(place, len(content) + 1)) == content:
            return False
        _replace(place, content, place.stat() if found is not None else None)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    return True


def read(path: Path, bytes_max: int) -> bytes | None:
    """The content of a file, or its first bytes if it has more; None: there is no such file.

    Raises OSError.
    """
    try:
        # Without a wait, as a FIFO could stand there.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(0, "is not a regular file")
            return file.read(bytes_max)
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
