"""How the integration tests read the log that an API server writes meanwhile."""

from __future__ import annotations

import io

import pytest

from tests.integration.cluster import whole_lines


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        (0, [b"one\n", b"two\n"]),
        pytest.param(2, [b"two\n"], id="within a line that had been begun"),
        pytest.param(4, [b"two\n"], id="at the end of a line"),
        pytest.param(8, [], id="before a line that is not whole yet"),
        pytest.param(10, [], id="within it"),
    ],
)
def test_whole_lines_after_a_mark(since: int, expected: list[bytes]) -> None:
    assert whole_lines(io.BytesIO(b"one\ntwo\nthr"), since) == expected
