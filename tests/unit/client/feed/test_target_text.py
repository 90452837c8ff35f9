"""Text of states is no address, nor a port, only because it stands where one should."""

from __future__ import annotations

import pytest

from tests.unit.client.feed.states import HTTP, WEB, state
from vmsvc.feed.target import Target, TargetError
from vmsvc.model import Port

TARGET = Target("web", WEB)


@pytest.mark.parametrize("address", ["10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1", "fe80::1"])
def test_an_address_is_one_of_ip(address: str) -> None:
    assert [server.address for server in TARGET.servers(state(WEB, address))] == [address]


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("10.0.0.1; include /etc/passwd", id="the syntax of a configuration"),
        pytest.param("10.0.0.1\nserver 10.0.0.2", id="a line of its own"),
        pytest.param("fe80::1%e;}", id="a zone of IPv6, which may be any text"),
        pytest.param("web-1.example.com", id="a name"),
        pytest.param("10.0.0", id="a part of an address"),
        pytest.param("", id="nothing"),
    ],
)
def test_another_text_in_place_of_an_address_is_refused(address: str) -> None:
    with pytest.raises(TargetError, match=r"^web: service shop/web has .* for an address$"):
        TARGET.servers(state(WEB, "10.0.0.1", address))


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    bad = Port(HTTP.name, HTTP.port, port, HTTP.protocol)
    with pytest.raises(TargetError, match=f"endpoints on port {port}$"):
        TARGET.servers(state(WEB, "10.0.0.1", ports=(bad,)))
