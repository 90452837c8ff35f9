"""How many calls a second a client may make."""

from __future__ import annotations

from contextlib import suppress

import pytest

from vmsvc_grpc.server.call import Code, RpcError
from vmsvc_grpc.server.pace import Pace


def calls(pace: Pace, client: str, now: float, most: int = 1_000) -> int:
    """How many calls a client may make at once."""
    made = 0
    with suppress(RpcError):
        while made < most:
            pace.take(client, now)
            made += 1
    return made


def test_a_client_has_a_burst_and_then_a_pace() -> None:
    pace = Pace(10, 50)
    assert calls(pace, "a", 100.0) == 50
    with pytest.raises(RpcError, match="calls_per_second_max") as raised:
        pace.check("a", 100.05)
    assert raised.value.code is Code.RESOURCE_EXHAUSTED
    pace.check("a", 100.11)
    assert calls(pace, "a", 101.0) == 10
    assert calls(pace, "a", 1_000.0) == 50, "it saves up no more than a burst"


def test_each_client_has_its_own() -> None:
    pace = Pace(10, 5)
    assert calls(pace, "a", 0.0) == 5
    assert calls(pace, "b", 0.0) == 5


def test_nothing_is_kept_of_clients_that_call_no_more() -> None:
    """Addresses and names are many: those of all who ever called would pile up."""
    pace = Pace(10, 50)
    for number in range(10_000):
        pace.take(f"client-{number}", number / 100)
    assert len(pace) <= 2 * 100 * 50 / 10
