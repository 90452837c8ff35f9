"""The files that nginx includes, each with what nginx has last taken of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vmsvc.feed import taken, written
from vmsvc.feed.output import OutputError


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
    def is_taken(self) -> bool:
        """Whether nginx has what the file should hold, and holds, as far as is known."""
        return self.seen.found == self.wanted == self.seen.taken

    @property
    def before(self) -> bytes | None:
        """What to go back to: what nginx has taken, or else what was there."""
        return self.seen.found if self.seen.taken is None else self.seen.taken


def look(path: Path) -> Seen:
    """What there is. Raises OutputError if it cannot be read."""
    return Seen(taken.found(path), taken.taken(path))


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
        taken.take(file.path, file.wanted)
