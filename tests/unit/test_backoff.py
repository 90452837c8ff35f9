"""The waits after failures in a row: doubling, bounded, and spread from nothing on."""

from __future__ import annotations

import pytest

from vmsvc_grpc.backoff import Backoff


@pytest.mark.parametrize(
    ("failures", "longest_s"),
    [
        pytest.param(1, 1.0, id="the first"),
        pytest.param(2, 2.0, id="twice as long after the next"),
        pytest.param(4, 8.0, id="up to the bound"),
        pytest.param(5, 8.0, id="and no longer"),
        pytest.param(100_000, 8.0, id="also after more than a float can double"),
    ],
)
def test_the_longest_wait(failures: int, longest_s: float) -> None:
    assert Backoff(first_s=1.0, max_s=8.0).longest_s(failures) == longest_s


def test_delays_are_spread_from_nothing_on() -> None:
    backoff = Backoff(first_s=1.0, max_s=8.0)
    assert [backoff.delay_s(4, jitter) for jitter in (0.0, 0.5, 1.0)] == [0.0, 4.0, 8.0]
