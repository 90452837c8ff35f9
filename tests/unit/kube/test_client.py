"""What an answer's head may ask of us."""

from __future__ import annotations

import pytest

from vmsvc_grpc.kube.errors import RETRY_AFTER_MAX_S, retry_after_s


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        ("", 0),
        ("5", 5),
        ("86400", RETRY_AFTER_MAX_S),
        ("inf", 0),
        ("nan", 0),
        ("-1", 0),
        ("1e300", 0),
        pytest.param("9" * 5_000, 0, id="5,000 digits"),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0),
    ],
)
def test_how_long_a_server_may_have_us_wait(header: str, wait_s: float) -> None:
    assert retry_after_s(header) == wait_s
