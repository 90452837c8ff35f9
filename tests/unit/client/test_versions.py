"""Which releases go together."""

from __future__ import annotations

import pytest

from vmsvc.versions import too_far_apart


@pytest.mark.parametrize(
    ("client", "server", "far"),
    [
        pytest.param("0.1.0", "0.1.0", False, id="the same"),
        pytest.param("0.1.0", "0.1.9", False, id="another patch"),
        pytest.param("0.1.0", "0.2.0", False, id="the next minor version"),
        pytest.param("0.3.0", "0.2.7", False, id="the one before"),
        pytest.param("0.9.0", "0.10.0", False, id="numbers, not texts"),
        pytest.param("0.1.0", "0.3.0", True, id="two ahead"),
        pytest.param("0.3.0rc1", "0.1.0", True, id="two behind, with a suffix"),
        pytest.param("0.9.0", "1.0.0", True, id="another major version"),
        pytest.param("1.0.0", "11.0.0", True, id="a number that begins alike"),
        pytest.param("0.1.0", "", False, id="none is told"),
        pytest.param("0.1.0", "main-4711", False, id="no release"),
    ],
)
def test_too_far_apart(client: str, server: str, far: bool) -> None:
    assert too_far_apart(client, server) is far
