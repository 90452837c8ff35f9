"""Which directories were replaced by an empty one, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import pytest

from vmsvc_grpc.source.vacated import Vacated

BEFORE = {"": (1, 1), "a": (1, 2), "a/b": (1, 3), "c": (1, 4)}
HELD = ["a/b/x.yaml", "c/y.yaml"]


def look(
    vacated: Vacated,
    identities: Mapping[str, tuple[int, int]],
    found: list[str],
    unlisted: AbstractSet[str] = frozenset(),
) -> None:
    for _ in vacated.noting(identities, HELD, found, unlisted):
        pass


@pytest.mark.parametrize(
    ("changed", "found", "paths"),
    [
        pytest.param({}, [], set(), id="files that are removed leave none vacated"),
        pytest.param({"c": (2, 1)}, ["a/b/x.yaml"], {"c"}, id="another one, empty"),
        pytest.param({"c": (2, 1)}, HELD, set(), id="another one, with the same files"),
        pytest.param({"c": (2, 1)}, ["c/z.yaml"], set(), id="another one, with another file"),
        pytest.param({"a": (2, 1)}, ["c/y.yaml"], {"a"}, id="what is beneath it has gone, too"),
        pytest.param({"d": (2, 1)}, HELD, set(), id="a new one"),
    ],
)
def test_a_directory_is_vacated_by_another_one_that_is_empty(
    changed: dict[str, tuple[int, int]], found: list[str], paths: set[str]
) -> None:
    vacated = Vacated()
    look(vacated, BEFORE, HELD)
    assert vacated.paths == set()
    after = BEFORE | changed
    look(vacated, after, found)
    assert vacated.paths == paths
    look(vacated, after, found)
    assert vacated.paths == paths, "for as long as it is so"
    look(vacated, after, HELD)
    assert vacated.paths == set()


def test_one_within_another_is_not_reported_by_itself() -> None:
    vacated = Vacated()
    look(vacated, BEFORE, HELD)
    look(vacated, BEFORE | {"a": (2, 1), "a/b": (2, 2)}, ["c/y.yaml"])
    assert vacated.paths == {"a", "a/b"}
    assert [problem.path for problem in vacated.problems()] == ["a"]


def test_directories_that_are_replaced_or_gone_are_named() -> None:
    vacated = Vacated()
    look(vacated, BEFORE, HELD)
    assert vacated.replaced == set(), "all are new"
    look(vacated, {"": (1, 1), "c": (2, 4)}, ["c/z.yaml"])
    assert vacated.replaced == {"a", "a/b", "c"}
    look(vacated, {"": (1, 1), "c": (2, 4), "d": (1, 5)}, ["c/z.yaml"])
    assert vacated.replaced == set()
    look(vacated, {"": (1, 1)}, [], {"c"})
    assert vacated.replaced == {"d"}, "what cannot be listed is known no worse"


def test_one_that_was_removed_and_made_again_is_another_whatever_its_identity() -> None:
    """A file system gives the number of a removed directory to the next one."""
    vacated = Vacated()
    look(vacated, BEFORE, HELD)
    for _ in vacated.noting(BEFORE, HELD, ["a/b/x.yaml"], set(), {"c", "d"}):
        pass
    assert vacated.replaced == {"c"}
    assert vacated.paths == {"c"}


def test_many_files_are_gone_through_in_steps() -> None:
    vacated = Vacated()
    many = [f"c/{number}.yaml" for number in range(1_000)]
    look(vacated, BEFORE, many)
    assert len(list(vacated.noting(BEFORE | {"c": (2, 1)}, many, [], set()))) >= 10
    assert vacated.paths == {"c"}


@pytest.mark.parametrize(
    ("changed", "paths"),
    [
        pytest.param({"a": (2, 1), "a/b": (2, 2)}, {"a", "a/b"}, id="that one"),
        pytest.param({"a/b": (2, 2)}, {"a/b"}, id="one beneath it"),
        pytest.param({}, set(), id="none"),
    ],
)
@pytest.mark.parametrize("looks", [1, 2])
def test_a_directory_is_vacated_that_could_not_be_listed_in_between(
    changed: dict[str, tuple[int, int]], paths: set[str], looks: int
) -> None:
    vacated = Vacated()
    look(vacated, BEFORE, HELD)
    for _ in range(looks):
        look(vacated, {"": (1, 1), "c": (1, 4)}, ["c/y.yaml"], {"a"})
        assert vacated.paths == set()
    look(vacated, BEFORE | changed, ["c/y.yaml"])
    assert vacated.paths == paths


def test_a_vacated_directory_that_cannot_be_listed_then_is_still_vacated() -> None:
    vacated = Vacated()
    look(vacated, BEFORE, HELD)
    after = BEFORE | {"c": (2, 1)}
    look(vacated, after, ["a/b/x.yaml"])
    look(vacated, {path: after[path] for path in ("", "a", "a/b")}, ["a/b/x.yaml"], {"c"})
    look(vacated, after, ["a/b/x.yaml"])
    assert vacated.paths == {"c"}
    look(vacated, {"": (1, 1), "a": (1, 2), "a/b": (1, 3)}, ["a/b/x.yaml"])
    look(vacated, BEFORE | {"c": (3, 1)}, ["a/b/x.yaml"])
    assert vacated.paths == set(), "it was removed"


def test_many_directories_are_gone_through_in_steps() -> None:
    vacated = Vacated()
    look(vacated, {f"a/{number}": (1, number) for number in range(1_000)}, [])
    assert len(list(vacated.noting({"": (1, 1)}, [], [], {"a"}))) >= 10
