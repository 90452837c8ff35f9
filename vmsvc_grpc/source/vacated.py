"""Directories that were replaced by an empty one.

This happens when a file system was unmounted, or is about to be mounted: the files are gone all at
once, but nobody removed them. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet

from vmsvc_grpc.source.problems import FileProblem
from vmsvc_grpc.source.tree import above, shown

# About 0.1 ms of work.
_STEP_PATHS = 100

_MESSAGE = (
    "is another directory than before, with no manifest in it; what was read there stays "
    "until there is one again, or the directory is removed"
)


class Vacated:
    """The vacated directories of a tree, as of the last look at all of it."""

    def __init__(self) -> None:
        self.paths: AbstractSet[str] = frozenset()
        self.replaced: AbstractSet[str] = frozenset()
        """Directories that are others than at the look before, or gone."""
        # The identity of each directory when it last was listed and not vacated.
        self._identities: Mapping[str, tuple[int, int]] = {}

    def noting(
        self,
        identities: Mapping[str, tuple[int, int]],
        held: Collection[str],
        found: Collection[str],
        unlisted: AbstractSet[str],
        remade: AbstractSet[str] = frozenset(),
    ) -> Iterator[None]:
        """Take in a look: each listed directory's identity, and the files found; in steps.

        `held` are the files whose objects are held. Both are O(files) if a directory has changed.
        Directories that could not be listed, and all beneath them, stay as they were known.
        `remade` were made or removed since then: another directory may have the same identity.
        """
        before = self._identities
        changed = {path for path, now in identities.items() if before.get(path, now) != now}
        changed |= remade & identities.keys() & before.keys()
        vacated = set[str]()
        if changed:
            held_in, found_in = set[str](), set[str]()
            yield from _add_above(held_in, held)
            yield from _add_above(found_in, found)
            vacated = (changed & held_in) - found_in
        kept = dict[str, tuple[int, int]]()
        if unlisted:
            yield from _add_within(kept, before, unlisted)
        self.replaced = changed | (before.keys() - identities.keys() - kept.keys())
        self._identities = {**kept, **identities, **{path: before[path] for path in vacated}}
        self.paths = vacated

    def problems(self) -> list[FileProblem]:
        """One problem for each, in path order, but none for those within another."""
        outermost = (path for path in sorted(self.paths) if self.paths.isdisjoint(above(path)))
        return [FileProblem(shown(path), "", _MESSAGE) for path in outermost]


def _add_above(found: set[str], paths: Collection[str]) -> Iterator[None]:
    """Add the directories that any of these paths is in, in steps."""
    for count, path in enumerate(paths):
        found.update(above(path))
        if count % _STEP_PATHS == 0:
            yield


def _add_within(
    kept: dict[str, tuple[int, int]],
    before: Mapping[str, tuple[int, int]],
    directories: AbstractSet[str],
) -> Iterator[None]:
    """Add the identities of these directories and of all beneath them, in steps."""
    for count, (path, identity) in enumerate(before.items()):
        if path in directories or not directories.isdisjoint(above(path)):
            kept[path] = identity
        if count % _STEP_PATHS == 0:
            yield
