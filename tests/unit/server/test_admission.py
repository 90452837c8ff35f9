"""Who is let in."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from vmsvc_grpc.server.admission import Admission
from vmsvc_grpc.server.call import Code, RpcError
from vmsvc_grpc.server.counts import Counts
from vmsvc_grpc.server.limits import Limits

PATH = "/p.S/M"


def admission(counts: Counts | None = None, **limits: int) -> Admission:
    return Admission(
        Limits(**limits), counts or Counts(), while_draining=frozenset(("/h.H/Check",))
    )


def test_streams_in_all_are_limited() -> None:
    gate = admission(streams_max=2)
    with ExitStack() as open_:
        for number in range(2):
            open_.enter_context(gate.stream(PATH, f"ipv4:192.0.2.{number}:1"))
        with pytest.raises(RpcError, match="streams_max") as refusal, gate.stream(PATH, "unix:"):
            pass
    assert refusal.value.code is Code.RESOURCE_EXHAUSTED
    with gate.stream(PATH, "unix:"):
        pass


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("ipv4:192.0.2.1:1", "ipv4:192.0.2.1:2", True),
        ("ipv4:192.0.2.1:1", "ipv4:192.0.2.11:1", False),
        ("ipv6:%5B2001:db8::1%5D:1", "ipv6:%5B2001:db8::1%5D:2", True),
        ("ipv6:%5B2001:db8::1%5D:1", "ipv6:%5B2001:db8::2%5D:1", False),
        ("unix:", "unix:", True),
    ],
)
def test_streams_of_an_address_are_limited_whatever_the_port(
    first: str, second: str, same: bool
) -> None:
    gate = admission(streams_per_client_max=1)
    with gate.stream(PATH, first):
        if not same:
            with gate.stream(PATH, second):
                return
        with pytest.raises(RpcError, match="streams_per_client_max") as refusal:
            gate.stream(PATH, second).__enter__()
    assert refusal.value.code is Code.RESOURCE_EXHAUSTED
    with gate.stream(PATH, second):
        pass


def test_open_streams_are_counted_by_path_however_they_end() -> None:
    counts = Counts()
    gate = admission(counts)
    with gate.stream(PATH, "unix:"):
        assert counts.streams_open == {PATH: 1}
    with pytest.raises(KeyError), gate.stream(PATH, "unix:"):
        raise KeyError
    assert counts.streams_open == {PATH: 0}
    assert not gate._of_client


def test_while_it_drains_only_what_tells_of_that_is_let_in() -> None:
    gate = admission()
    gate.check(PATH)
    gate.drain()
    gate.check("/h.H/Check")
    with pytest.raises(RpcError, match="another replica") as refusal:
        gate.check(PATH)
    assert refusal.value.code is Code.UNAVAILABLE
    with pytest.raises(RpcError), gate.stream(PATH, "unix:"):
        pass
