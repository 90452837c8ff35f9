"""Problems are told once, when they come, and once more when they have gone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vmsvc_grpc.source.problems import FileProblem, Problems

BROKEN = FileProblem("a.yaml", "line 1, column 1", "did not find expected key", hides_objects=True)
UNNAMED = FileProblem("a.yaml", "document 2 (line 7)", "is not an object")
REPEATED = FileProblem("b.yaml", "document 1 (line 1)", "is defined already")


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
    assert sorted(problems, key=str) == sorted(after, key=str)


def test_topics_do_not_touch_one_another() -> None:
    problems = Problems(lambda _: None)
    problems.put("b.yaml", [REPEATED])
    problems.put("a.yaml", [UNNAMED, BROKEN])
    assert list(problems) == [REPEATED, UNNAMED, BROKEN]
    problems.put("a.yaml", [])
    assert list(problems) == [REPEATED]


@pytest.mark.parametrize(
    ("standing", "hidden"),
    [
        ([], False),
        ([REPEATED, UNNAMED], False),
        ([REPEATED, BROKEN], True),
        ([REPEATED] * 20 + [BROKEN], True),
    ],
)
def test_only_what_does_not_parse_hides_objects(standing: list[FileProblem], hidden: bool) -> None:
    problems = Problems(lambda _: None)
    problems.put("a.yaml", standing)
    assert problems.hide_objects is hidden
    problems.put("b.yaml", [BROKEN])
    problems.put("a.yaml", [])
    assert problems.hide_objects
    problems.put("b.yaml", [])
    assert not problems.hide_objects


def test_a_topic_keeps_the_first_and_counts_the_others() -> None:
    told: list[FileProblem] = []
    problems = Problems(told.append)
    flaws = [FileProblem("a.yaml", f"document {n}", f"is flawed: {n}") for n in range(25)]
    problems.put("a.yaml", flaws, more=3)
    more = FileProblem("a.yaml", "", "19 more problems; mend these first")
    assert told == [*flaws[:9], more]
    assert problems.count == 10
    problems.put("a.yaml", flaws)
    assert told[10:] == [
        replace(more, message="16 more problems; mend these first"),
        gone(more),
    ]


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
