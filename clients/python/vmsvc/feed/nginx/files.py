"""The files that nginx includes, each with a copy of what nginx has last taken of it.

The copy, `.NAME.taken` beside the file, outlives the feed: it says whether nginx lacks something,
and what to go back to if nginx refuses the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vmsvc.feed import written
from vmsvc.feed.output import OutputError

# An upstream of 100,000 servers has a tenth of it.
_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Seen:
    """What a file holds, and what nginx has last taken of it; None: there is none, or nothing."""

    found: bytes | None
    taken: bytes | None


@dataclass(frozen=True, slots=True)
class File:
    """A file with what it should hold, and what was seen of it."""

    path: Path
    wanted: bytes
    seen: Seen

    @property
    def is_written(self) -> bool:
        """Whether the file held what it should."""
        return self.seen.found == self.wanted

    @property
    def is_taken(self) -> bool:
        """Whether nginx has what it should, as far as is known."""
        return self.is_written and self.seen.taken == self.wanted

    @property
    def before(self) -> bytes | None:
        """What to go back to: what nginx has taken, or else what was there."""
        return self.seen.found if self.seen.taken is None else self.seen.taken


def look(path: Path) -> Seen:
    """What there is. Raises OutputError if it cannot be read."""
    try:
        return Seen(written.read(path, _BYTES_MAX), written.read(_copy(path), _BYTES_MAX))
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror or error}") from error


def put(files: Iterable[File]) -> None:
    """Have each hold what it should. Raises OutputError; some may be written then."""
    for file in files:
        written.write(file.path, file.wanted)


def put_back(files: Iterable[File]) -> None:
    """Have each hold what it held before. Raises OutputError."""
    for file in files:
        if file.before is not None:
            written.write(file.path, file.before)
            continue
        try:
            file.path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{file.path} cannot be removed: {error.strerror}") from error


def take(files: Iterable[File]) -> None:
    """Note that nginx has taken what each should hold. Raises OutputError."""
    for file in files:
        written.write(_copy(file.path), file.wanted)


def _copy(path: Path) -> Path:
    # A name that begins with a dot is in no pattern of an `include`.
    return path.with_name(f".{path.name}.taken")
