"""What a client that shows only the newest states may leave out, and may not."""

from __future__ import annotations

import pytest

from tests.client_conformance.case_pb2 import Disconnected, Newest, Shown
from tests.client_conformance.driver import Line
from tests.client_conformance.newest import Row
from vmsvc.v1 import endpoint_service_pb2 as pb

SYNCED, LOST = Shown(synced=pb.Synced()), Shown(disconnected=Disconnected())


def shown(service: str, version: int) -> Shown:
    return Shown(state=pb.EndpointSet(service=service, version=version))


def line(service: str, version: int) -> Line:
    known = {"service": service, "version": version, "endpoints": []}
    return {"event": "state", "present": True, "absence": None, **known}


def row(*expected: Shown) -> Row:
    made = Row()
    for each in expected:
        made.expect(each)
    return made


def test_what_is_not_known_for_sure_may_wait() -> None:
    made = row(shown("a", 1))
    assert not made.due()
    made.expect(SYNCED)
    assert made.due()
    made.expect(LOST)
    assert not made.due()
    assert made.ever_synced


def test_the_last_state_of_each_service_is_shown() -> None:
    made = row(shown("a", 1), shown("b", 1), shown("a", 2), SYNCED)
    made.take(line("a", 2))
    assert made.due()
    made.take(line("b", 1))
    assert not made.due()


def test_states_in_between_may_be_shown_in_order() -> None:
    made = row(shown("a", 1), shown("a", 2), SYNCED)
    made.take(line("a", 1))
    assert made.due()
    made.take(line("a", 2))
    assert not made.due()


def test_a_state_that_comes_back_is_not_shown_again_if_the_one_between_was_left_out() -> None:
    made = row(shown("a", 1), SYNCED)
    made.take(line("a", 1))
    made.expect(shown("a", 2))
    made.expect(shown("a", 1))
    assert not made.due()


def test_of_a_row_any_is_shown_and_the_last() -> None:
    made = row(SYNCED, Shown(newest=Newest(service="a", version=9)))
    made.take(line("a", 3))
    assert made.due()
    made.take(line("a", 9))
    assert not made.due()


@pytest.mark.parametrize(
    ("before", "then"),
    [
        pytest.param([], line("a", 3), id="one that was not sent"),
        pytest.param([], line("b", 1), id="one of another service"),
        pytest.param([line("a", 1)], line("a", 1), id="the same again"),
        pytest.param([line("a", 2)], line("a", 1), id="an older one"),
        pytest.param([], None, id="its end"),
    ],
)
def test_no_other_state_is_shown(before: list[Line], then: Line | None) -> None:
    made = row(shown("a", 1), shown("a", 2), SYNCED)
    for each in before:
        made.take(each)
    with pytest.raises(AssertionError, match="which is not to come"):
        made.take(then)
