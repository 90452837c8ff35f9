"""Where to look for changes of files that links lead to, as those of a mounted Secret do."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

# As many as Linux itself follows (path_resolution(7)).
_LINKS_MAX = 40


def directories(paths: Iterable[Path]) -> frozenset[str]:
    """The directories in which a change may lead one of these paths to another file.

    Those of the files, and of every link on the way there; without their first slash. Reads links;
    does not raise.
    """
    return frozenset(directory for path in paths for directory in _on_the_way(path.absolute()))


def _on_the_way(path: Path) -> Iterable[str]:
    for _ in range(_LINKS_MAX):
        link = next((each for each in (*reversed(path.parents), path) if each.is_symlink()), None)
        if link is None:
            break
        yield _relative(link.parent)
        try:
            target = link.parent / link.readlink()
        except OSError:  # It has just gone.
            break
        path = target / path.relative_to(link)
    yield _relative(path.parent)


def _relative(directory: Path) -> str:
    return str(directory).lstrip("/")
