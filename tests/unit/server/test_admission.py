"""Who is let in."""

from __future__ import annotations

import pytest

from vmsvc_grpc.server.admission import Admission, client_of, stranger_at
from vmsvc_grpc.server.call import Code, RpcError
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.limits import Limits

PATH = "/p.S/M"


def admission(counts: ServerCounts | None = None, **limits: int) -> Admission:
    return Admission(
        Limits(**limits), counts or ServerCounts(), while_draining=frozenset(("/h.H/Check",))
    )


def test_streams_in_all_are_limited() -> None:
    gate = admission(streams_max=2)
    for number in range(2):
        gate.enter(PATH, f"ipv4:192.0.2.{number}")
    with pytest.raises(RpcError, match="streams_max") as refusal:
        gate.enter(PATH, "unix:")
    assert refusal.value.code is Code.RESOURCE_EXHAUSTED
    gate.leave(PATH, "ipv4:192.0.2.0")
    gate.enter(PATH, "unix:")


def test_strangers_take_nobodys_place_and_nobody_theirs() -> None:
    gate = admission(streams_max=2, streams_per_client_max=2)
    stranger, ann = stranger_at("ipv4:192.0.2.1:1"), client_of("", "ann")
    for client in (stranger, ann):
        gate.enter(PATH, client)
        gate.enter(PATH, client)
        with pytest.raises(RpcError, match="streams_max"):
            gate.enter(PATH, client)
    with pytest.raises(RpcError, match="streams_max"):
        gate.move(stranger, ann)
    gate.leave(PATH, ann)
    gate.move(stranger, ann)
    gate.enter(PATH, stranger)
    for client in (stranger, stranger, ann, ann):
        gate.leave(PATH, client)
    assert not gate._streams._of_client
    assert not gate._strangers._of_client


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("ipv4:192.0.2.1:1", "ipv4:192.0.2.1:2", True),
        ("ipv4:192.0.2.1:1", "ipv4:192.0.2.11:1", False),
        ("ipv6:%5B2001:db8::1%5D:1", "ipv6:%5B2001:db8::1%5D:2", True),
        ("ipv6:%5B2001:db8::1%5D:1", "ipv6:[2001:db8::1]:2", True),
        # A host has 2^64 addresses.
        ("ipv6:%5B2001:db8::1%5D:1", "ipv6:%5B2001:db8::ffff:0:2%5D:1", True),
        ("ipv6:%5B2001:db8::1%5D:1", "ipv6:%5B2001:db8:0:1::1%5D:1", False),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", "ipv6:[fe80::2%eth0]:1", True),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", "ipv6:[fe80::1%eth1]:1", False),
        ("ipv6:%5B::ffff:192.0.2.1%5D:1", "ipv4:192.0.2.1:1", True),
        ("ipv6:%5B::ffff:192.0.2.1%5D:1", "ipv4:192.0.2.2:1", False),
        ("unix:", "unix:", True),
    ],
)
def test_streams_of_an_address_are_limited_whatever_the_port(
    first: str, second: str, same: bool
) -> None:
    gate = admission(streams_per_client_max=1)
    client = client_of(first)
    gate.enter(PATH, client)
    if not same:
        gate.enter(PATH, client_of(second))
        return
    with pytest.raises(RpcError, match="streams_per_client_max") as refusal:
        gate.enter(PATH, client_of(second))
    assert refusal.value.code is Code.RESOURCE_EXHAUSTED
    gate.leave(PATH, client)
    gate.enter(PATH, client_of(second))


def test_open_streams_are_counted_by_path() -> None:
    counts = ServerCounts()
    gate = admission(counts)
    gate.enter(PATH, "unix:")
    assert counts.streams_open == {PATH: 1}
    gate.leave(PATH, "unix:")
    assert counts.streams_open == {PATH: 0}
    assert not gate._streams._of_client


def test_while_it_drains_only_what_tells_of_that_is_let_in() -> None:
    gate = admission()
    gate.check(PATH)
    gate.drain()
    gate.check("/h.H/Check")
    with pytest.raises(RpcError, match="another replica") as refusal:
        gate.check(PATH)
    assert refusal.value.code is Code.UNAVAILABLE
    with pytest.raises(RpcError, match="another replica"):
        gate.enter(PATH, "unix:")
