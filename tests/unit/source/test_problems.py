"""Problems are told once, when they come, and once more when they have gone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vmsvc_grpc.source.problems import FileProblem, Problems

BROKEN = FileProblem("a.yaml", "line 1, column 1", "did not find expected key")
UNNAMED = FileProblem("a.yaml", "document 2 (line 7)", "is not an object")
REPEATED = FileProblem("b.yaml", "document 1 (line 1)", "is defined already", hides_objects=False)


def elsewhere(problem: FileProblem) -> FileProblem:
    return replace(problem, place="line 9, column 9")


def gone(problem: FileProblem) -> FileProblem:
    return replace(problem, resolved=True)


@pytest.mark.parametrize(
    ("before", "after", "reports"),
    [
        pytest.param([], [], [], id="nothing"),
        pytest.param([], [BROKEN, UNNAMED], [BROKEN, UNNAMED], id="new ones are told"),
        pytest.param([BROKEN], [BROKEN], [], id="one that stays is not told again"),
        pytest.param([BROKEN], [], [gone(BROKEN)], id="one that has gone is told"),
        pytest.param(
            [BROKEN], [UNNAMED], [UNNAMED, gone(BROKEN)], id="one may take another's place"
        ),
        pytest.param(
            [BROKEN],
            [elsewhere(BROKEN)],
            [elsewhere(BROKEN)],
            id="one that moved is told, but has not gone",
        ),
    ],
)
def test_reports(
    before: list[FileProblem], after: list[FileProblem], reports: list[FileProblem]
) -> None:
    told: list[FileProblem] = []
    problems = Problems(told.append)
    problems.put("a.yaml", before)
    told.clear()
    problems.put("a.yaml", after)
    assert told == reports
    assert sorted(problems.standing, key=str) == sorted(after, key=str)


def test_topics_do_not_touch_one_another() -> None:
    problems = Problems(lambda _: None)
    problems.put("b.yaml", [REPEATED])
    problems.put("a.yaml", [UNNAMED, BROKEN])
    assert list(problems.standing) == [UNNAMED, BROKEN, REPEATED]
    problems.put("a.yaml", [])
    assert list(problems.standing) == [REPEATED]


@pytest.mark.parametrize(
    ("standing", "hidden"), [([], False), ([REPEATED], False), ([REPEATED, BROKEN], True)]
)
def test_only_a_repeated_object_is_known_all_the_same(
    standing: list[FileProblem], hidden: bool
) -> None:
    problems = Problems(lambda _: None)
    problems.put("a.yaml", standing)
    assert problems.hide_objects is hidden


def test_texts() -> None:
    assert str(BROKEN) == "a.yaml: line 1, column 1: did not find expected key"
    assert str(gone(BROKEN)) == (
        "a.yaml: in order again: line 1, column 1: did not find expected key"
    )
    assert str(FileProblem(".", "", "cannot be listed")) == ".: cannot be listed"


def test_what_others_wrote_is_made_safe_to_print() -> None:
    problem = FileProblem("a\n\x1b[2J.yaml", "document 1\r", "the tag !<x\u202e> is not known")
    assert str(problem) == r"a\n\x1b[2J.yaml: document 1\r: the tag !<x\u202e> is not known"
    assert replace(problem, resolved=True).path == problem.path
