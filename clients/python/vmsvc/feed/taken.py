"""A copy of a file as its reader has last taken it: `.NAME.taken` beside the file.

It outlives the feed, and so says whether the reader lacks something, and what it has.
"""

from __future__ import annotations

from pathlib import Path

from vmsvc.feed import written
from vmsvc.feed.output import OutputError

# An upstream of 100,000 servers has a tenth of it.
_BYTES_MAX = 64 * 1024 * 1024


def found(path: Path) -> bytes | None:
    """What the file holds; None: there is none. Raises OutputError."""
    try:
        return written.read(path, _BYTES_MAX)
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror or error}") from error


def taken(path: Path) -> bytes | None:
    """What its reader has taken; None: nothing, as far as is known. Raises OutputError."""
    return found(_copy(path))


def take(path: Path, content: bytes) -> None:
    """Its reader has taken this content. Raises OutputError."""
    written.write(_copy(path), content)


def _copy(path: Path) -> Path:
    # Programs that read all files of a directory leave out those that begin with a dot.
    return path.with_name(f".{path.name}.taken")
