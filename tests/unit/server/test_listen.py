"""How many streams are left at each step of a drain."""

from __future__ import annotations

import pytest

from vmsvc_grpc.server.listen import slope


@pytest.mark.parametrize(
    ("streams", "steps", "left"),
    [
        pytest.param(4, 4, [3, 2, 1, 0], id="one a step"),
        pytest.param(10, 4, [8, 5, 3, 0], id="some a step"),
        pytest.param(2, 5, [2, 2, 1, 1, 0], id="fewer than steps"),
        pytest.param(3, 0, [0], id="no time: all at once"),
        pytest.param(0, 2, [0, 0], id="none"),
    ],
)
def test_streams_end_evenly(streams: int, steps: int, left: list[int]) -> None:
    assert list(slope(streams, steps)) == left
