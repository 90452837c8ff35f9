"""IP addresses in the many forms that kube-apiserver reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmsvc_grpc.model.address import canonical, read


@pytest.mark.parametrize(
    ("text", "one_form"),
    [
        pytest.param("10.0.0.1", "10.0.0.1", id="plain"),
        pytest.param("010.00.0.01", "10.0.0.1", id="leading zeros, which are not octal"),
        pytest.param("0.0.0.0", "0.0.0.0", id="zeros"),
        pytest.param("2001:DB8:0:0::00001", "2001:db8::1", id="IPv6 in a long form"),
        pytest.param("::", "::", id="nothing but zeros"),
        pytest.param("::ffff:10.0.0.1", "10.0.0.1", id="IPv4 written as IPv6"),
        pytest.param("64:ff9b::10.0.0.010", "64:ff9b::a00:a", id="IPv6 that ends as IPv4 does"),
        pytest.param("fe80::1%eth0", "fe80::1%eth0", id="a zone index, which is no address"),
        pytest.param("web.example", "web.example", id="junk"),
    ],
)
def test_one_form_of_each(text: str, one_form: str) -> None:
    assert canonical(text) == one_form


_PARTS = st.integers(0, 300).map(str) | st.sampled_from(["00", "01", "255", "256", "", "1\n", "a"])


@given(parts=st.lists(_PARTS, min_size=3, max_size=5))
def test_what_looks_like_ipv4_is_as_it_would_be_read(parts: list[str]) -> None:
    text = ".".join(parts)
    address = read(text)
    assert canonical(text) == (text if address is None else str(address))
