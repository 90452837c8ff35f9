"""One watch over all its streams: what ends it, what it asks next, what it tells and logs."""

from __future__ import annotations

import logging

import grpc
import pytest

from tests.unit.client.told import SYNCED, WEB, snapshot
from vmsvc import (
    Disconnected,
    InvalidArgumentError,
    PermissionDeniedError,
    ProtocolError,
    RetryPolicy,
    UnauthenticatedError,
    UnavailableError,
    VmsvcError,
)
from vmsvc.session import Session
from vmsvc.state import Scope

POLICY = RetryPolicy(backoff_initial_s=1)
ALL = Scope(all_services=True)
GONE = UnavailableError("gone", code=grpc.StatusCode.UNAVAILABLE)
INVALID = InvalidArgumentError("too many", code=grpc.StatusCode.INVALID_ARGUMENT)


def synced(scope: Scope = ALL) -> Session:
    """A session whose first stream is complete."""
    session = Session("server:1", scope, POLICY)
    session.begin()
    session.receive(snapshot(WEB, 1, "a"), 0)
    session.receive(SYNCED, 0)
    session.pending.clear()
    return session


def test_a_stream_that_is_lost_is_told_and_the_next_one_resumes() -> None:
    session = synced()
    session.ended(GONE, now=5, chance=0.5)
    assert list(session.pending) == [Disconnected(GONE, retry_in_s=0.5)]
    assert session.retry_at == 5.5
    assert not session.state.synced
    assert [s.revision for s in session.begin().services] == ["a"]


def test_a_stream_that_ends_with_ok_is_lost_like_any_other() -> None:
    session = synced()
    session.ended(None, now=5, chance=0.5)
    [event] = session.pending
    assert isinstance(event, Disconnected)
    assert str(event.error) == "server server:1 ended the stream"


def test_a_reader_that_gave_up_opens_the_next_one_at_once() -> None:
    session = synced()
    session.interrupted()
    assert not session.pending
    assert session.retry_at == 0
    assert [s.revision for s in session.begin().services] == ["a"]


def test_a_violation_of_the_contract_asks_for_all_anew() -> None:
    session = synced()
    session.ended(ProtocolError("?", code=grpc.StatusCode.INTERNAL), now=5, chance=0.5)
    assert not session.begin().services


def test_what_a_retry_cannot_mend_ends_the_watch() -> None:
    session = synced()
    denied = PermissionDeniedError("no", code=grpc.StatusCode.PERMISSION_DENIED)
    with pytest.raises(PermissionDeniedError):
        session.ended(denied, now=5, chance=0.5)


def test_a_token_is_renewed_at_once_and_once_for_each_stream_that_got_an_answer() -> None:
    expired = UnauthenticatedError("expired", code=grpc.StatusCode.UNAUTHENTICATED)
    session = Session("server:1", ALL, POLICY, renewable=True)
    for now in (5, 6):
        session.begin()
        session.receive(SYNCED, 0)
        session.pending.clear()
        session.ended(expired, now=now, chance=0.5)
        assert list(session.pending) == [Disconnected(expired, retry_in_s=0)]
        assert session.retry_at == now
    session.begin()
    with pytest.raises(UnauthenticatedError):
        session.ended(expired, now=7, chance=0.5)


def test_a_token_that_stays_the_same_is_not_shown_again() -> None:
    session = synced()
    expired = UnauthenticatedError("expired", code=grpc.StatusCode.UNAUTHENTICATED)
    with pytest.raises(UnauthenticatedError):
        session.ended(expired, now=5, chance=0.5)


def test_more_services_held_than_a_request_may_name_are_asked_for_anew_and_once() -> None:
    session = synced()
    session.ended(GONE, now=5, chance=0)
    assert session.begin().services
    session.ended(INVALID, now=5, chance=0)
    assert not session.begin().services
    with pytest.raises(InvalidArgumentError):
        session.ended(INVALID, now=5, chance=0)


def test_a_request_that_names_what_was_asked_for_is_not_tried_again() -> None:
    session = synced(Scope(services=(WEB,)))
    session.ended(GONE, now=5, chance=0)
    session.begin()
    with pytest.raises(InvalidArgumentError):
        session.ended(INVALID, now=5, chance=0)


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        pytest.param(0, [], id="a stream that is replaced at once is no outage"),
        pytest.param(
            1, ["gone; trying until it answers", "server server:1 answers again"], id="one"
        ),
        pytest.param(
            9, ["gone; trying until it answers", "server server:1 answers again"], id="a long one"
        ),
    ],
)
def test_an_outage_is_logged_once(
    failures: int, expected: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="vmsvc")
    session = synced()
    session.ended(GONE, now=0, chance=0)
    for _ in range(failures):
        session.begin()
        session.ended(GONE, now=0, chance=0)
    session.begin()
    session.receive(SYNCED, 0)
    assert caplog.messages == expected


def test_a_server_that_never_answered_is_logged_at_the_first_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = Session("server:1", ALL, POLICY)
    session.begin()
    session.ended(VmsvcError("gone"), now=0, chance=0)
    assert caplog.messages == ["gone; trying until it answers"]
