"""Who has the next turn, and what is looked at when."""

from __future__ import annotations

from vmsvc_grpc.server.access.alarms import Alarms
from vmsvc_grpc.server.access.line import Line


def drawn(line: Line[str]) -> list[str]:
    found = []
    while (question := line.next()) is not None:
        found.append(question)
    return found


def test_callers_take_turns_however_many_questions_each_has() -> None:
    line = Line[str](places=6, places_per_caller=6)
    for number in range(1000):
        line.add("many", f"many-{number}")
    line.add("few", "few-0")
    line.add("few", "few-1")
    line.add("one", "one-0")
    assert drawn(line) == ["many-0", "few-0", "one-0", "many-1", "few-1", "many-2"]
    assert (line.under_way, line.waiting) == (6, 997)


def test_connections_of_one_caller_take_turns() -> None:
    line = Line[str](places=10, places_per_caller=4)
    for number in range(100):
        line.add("here", f"made-up-{number}", "their connection")
    line.add("here", "good", "another connection")
    line.add("here", "dropped", "a third one")
    line.remove("here", "dropped", "a third one")
    assert drawn(line) == ["made-up-0", "good", "made-up-1", "made-up-2"]
    line.done("here")
    assert drawn(line) == ["made-up-3"]


def test_who_has_all_places_of_a_caller_waits_and_keeps_nobody_from_theirs() -> None:
    line = Line[str](places=4, places_per_caller=2)
    for number in range(10):
        line.add("many", f"many-{number}")
    assert drawn(line) == ["many-0", "many-1"]
    line.add("few", "few-0")
    assert drawn(line) == ["few-0"]
    line.done("many")
    assert drawn(line) == ["many-2"]


def test_a_question_that_is_dropped_is_not_asked() -> None:
    line = Line[str](places=4, places_per_caller=4)
    line.add("a", "a-0")
    line.add("b", "b-0")
    line.remove("a", "a-0")
    assert drawn(line) == ["b-0"]
    line.done("b")
    assert (line.under_way, line.waiting) == (0, 0)
    assert not line._waiting
    assert not line._turns
    assert not line._under_way


def test_an_alarm_that_is_set_again_and_again_takes_no_more_room() -> None:
    alarms = Alarms[str]()
    for number in range(10_000):
        alarms.set("often", 1000.0 + number)
        alarms.set(f"dropped-{number}", 2000.0)
        alarms.set(f"dropped-{number}", None)
    alarms.set("early", 1.0)
    assert len(alarms) == 2
    assert len(alarms._heap) < 200
    assert alarms.due(0.5) is None
    assert (alarms.due(1.0), alarms.due(1.0)) == ("early", None)
    assert alarms.next_at() == 10_999.0
    assert alarms.due(20_000.0) == "often"
    assert alarms.next_at() is None
