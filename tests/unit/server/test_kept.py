"""What is kept of requests, of a client and in all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vmsvc_grpc.server.admission import anonymous_at, newcomer_at, stranger_at
from vmsvc_grpc.server.call import Code, RpcError
from vmsvc_grpc.server.kept import KeptBytes


def test_one_client_at_its_bound_leaves_the_others_theirs_and_gets_its_own_back() -> None:
    kept = KeptBytes("taking_in_bytes_max", 400, "requests that are being read")
    kept.keep("a", 100)
    with pytest.raises(RpcError, match=r"this client.*taking_in_bytes_max") as raised:
        kept.keep("a", 1)
    assert raised.value.code is Code.RESOURCE_EXHAUSTED
    assert raised.value.limit == "taking_in_bytes_max"
    for client in "bcd":
        kept.keep(client, 100)
    with pytest.raises(RpcError, match="all clients"):
        kept.keep("e", 1)
    kept.let_go("a", 100)
    kept.keep("a", 100)
    for client in "abcd":
        kept.let_go(client, 100)
    assert not kept._kept.in_all
    assert not kept._kept._of_client


@pytest.mark.parametrize(
    ("at", "says"),
    [
        (stranger_at, "of callers at this address of whom it is not known who they are"),
        (anonymous_at, "of callers at this address who do not say who they are"),
    ],
)
def test_who_is_not_known_is_told_that_others_at_its_address_keep_bytes_too(
    at: Callable[[str], str], says: str
) -> None:
    kept = KeptBytes("taking_in_bytes_max", 400, "requests that are being read")
    kept.keep(at("ipv4:192.0.2.1:1"), 100)
    with pytest.raises(
        RpcError, match=f"100 bytes of requests that are being read {says} are here"
    ):
        kept.keep(at("ipv4:192.0.2.1:2"), 1)


def test_callers_who_do_not_say_who_they_are_leave_half_to_those_who_are_known() -> None:
    kept = KeptBytes("taking_in_bytes_max", 400, "requests that are being read")
    kept.keep(anonymous_at("ipv4:192.0.2.1:1"), 100)
    kept.keep(stranger_at("ipv4:192.0.2.1:1"), 100)
    with pytest.raises(RpcError, match="of strangers"):
        kept.keep(anonymous_at("ipv4:192.0.2.2:1"), 1)
    kept.keep("user:ann", 100)


def test_strangers_leave_half_to_those_who_are_known() -> None:
    kept = KeptBytes("taking_in_bytes_max", 400, "requests that are being read")
    for number in range(2):
        kept.keep(stranger_at(f"ipv4:192.0.2.{number}:1"), 100)
    with pytest.raises(RpcError, match="of strangers"):
        kept.keep(stranger_at("ipv4:192.0.2.9:1"), 1)
    kept.keep("a", 100)
    kept.move(stranger_at("ipv4:192.0.2.0:1"), "b", 100)
    kept.keep(stranger_at("ipv4:192.0.2.9:1"), 100)


def test_what_newcomers_have_counts_for_the_strangers_at_their_address() -> None:
    kept = KeptBytes("taking_in_bytes_max", 400, "requests that are being read")
    kept.keep(newcomer_at("ipv4:192.0.2.1:1"), 60)
    kept.keep(newcomer_at("ipv4:192.0.2.1:2"), 40)
    with pytest.raises(RpcError, match="callers at this address of whom it is not known"):
        kept.keep(stranger_at("ipv4:192.0.2.1:3"), 1)
    kept.move(newcomer_at("ipv4:192.0.2.1:1"), "user:ann", 60)
    kept.let_go(newcomer_at("ipv4:192.0.2.1:2"), 40)
    kept.let_go("user:ann", 60)
    assert not kept._kept._of_client
    assert not kept._of_strangers
