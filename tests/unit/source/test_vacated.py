"""Which directories were replaced by an empty one, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from vmsvc_grpc.source.vacated import Vacated

BEFORE = {"": (1, 1), "a": (1, 2), "a/b": (1, 3), "c": (1, 4)}
HELD = ["a/b/x.yaml", "c/y.yaml"]


def look(vacated: Vacated, identities: Mapping[str, tuple[int, int]], found: list[str]) -> None:
    for _ in vacated.noting(identities, HELD, found):
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


def test_many_files_are_gone_through_in_steps() -> None:
    vacated = Vacated()
    many = [f"c/{number}.yaml" for number in range(1_000)]
    look(vacated, BEFORE, many)
    assert len(list(vacated.noting(BEFORE | {"c": (2, 1)}, many, []))) >= 10
    assert vacated.paths == {"c"}
