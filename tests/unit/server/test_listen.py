"""How many streams are left at each step of a drain."""

from __future__ import annotations

import pytest

from tests.integration.serving import make_transport
from tests.unit.server.endpoint_service.watching import synced_cache
from vmsvc_grpc.server.listen import Server, slope
from vmsvc_grpc.server.transport import Listener


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


def test_a_guarded_listener_without_a_gate_is_a_mistake_of_ours() -> None:
    """Else it would let everybody in."""
    listeners = [Listener("127.0.0.1:0"), Listener("192.0.2.1:0", guarded=True)]
    with pytest.raises(ValueError, match="needs a gate"):
        Server(synced_cache(), listeners, make_transport)
