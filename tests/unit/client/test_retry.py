"""When a watch tries again, as a table of failures in a row."""

from __future__ import annotations

import grpc
import pytest

from vmsvc import RetryPolicy, UnavailableError, VmsvcError
from vmsvc.retry import Retry, is_final

POLICY = RetryPolicy(backoff_initial_s=1, backoff_max_s=8, healthy_s=10, retry_after_max_s=60)


def unavailable(retry_after_s: float | None = None) -> VmsvcError:
    code = grpc.StatusCode.UNAVAILABLE
    return UnavailableError("gone", code=code, retry_after_s=retry_after_s)


@pytest.mark.parametrize(
    ("chance", "expected"),
    [
        pytest.param(0.0, [0, 0, 0, 0, 0, 0], id="at no chance there is no wait"),
        pytest.param(0.5, [0.5, 1, 2, 4, 4, 4], id="half of a bound that doubles up to its limit"),
    ],
)
def test_full_jitter(chance: float, expected: list[float]) -> None:
    retry = Retry(POLICY)
    assert [retry.delay_s(unavailable(), 0, chance) for _ in expected] == expected


def test_a_thousand_failures_in_a_row_stay_within_the_bound() -> None:
    retry = Retry(POLICY)
    assert max(retry.delay_s(unavailable(), 0, 0.999) for _ in range(2000)) < 8


@pytest.mark.parametrize(
    ("synced_at", "lost_at", "expected"),
    [
        pytest.param([0], 10, 0.5, id="a stream that was good for long begins the count anew"),
        pytest.param([0], 9.9, 2, id="one that was good for a moment does not"),
        pytest.param([], 100, 2, id="one that never was good does not, however long it took"),
        pytest.param([0, 5], 10, 0.5, id="good is counted from the first time"),
    ],
)
def test_healthy(synced_at: list[float], lost_at: float, expected: float) -> None:
    retry = Retry(POLICY)
    retry.delay_s(unavailable(), 0, 0.5)
    retry.delay_s(unavailable(), 0, 0.5)
    for now in synced_at:
        retry.synced(now)
    assert retry.delay_s(unavailable(), lost_at, 0.5) == expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param(3.0, 3.5, id="what the server asks for, and jitter on top"),
        pytest.param(86_400.0, 60.5, id="but not for a day"),
        pytest.param(-5.0, 0.5, id="nor less than none"),
        pytest.param(None, 0.5, id="it asks for nothing"),
    ],
)
def test_retry_info(asked: float | None, expected: float) -> None:
    assert Retry(POLICY).delay_s(unavailable(asked), 0, 0.5) == expected


FINAL = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
}


@pytest.mark.parametrize("code", grpc.StatusCode, ids=lambda code: code.name)
def test_which_codes_end_a_watch(code: grpc.StatusCode) -> None:
    assert is_final(VmsvcError("", code=code)) is (code in FINAL)
