"""What a call's `authorization` fields say of its caller."""

from __future__ import annotations

import pytest

from vmsvc_grpc.server.access.caller import Caller
from vmsvc_grpc.server.access.certificate import ClientCertificate

ANN = Caller("ipv4:192.0.2.1:1", guarded=True, certificate=ClientCertificate(("ann",)))


@pytest.mark.parametrize(
    ("value", "token"),
    [
        pytest.param(b"Bearer abc.def-_~+/==", "abc.def-_~+/==", id="one"),
        pytest.param(b"bearer abc", "abc", id="the scheme in lower case"),
        pytest.param(b"BEARER  abc", "abc", id="more than one space"),
        pytest.param(b"\t Bearer abc \t", "abc", id="blanks around it"),
        pytest.param(b"Bearer " + b"a" * 15_000, "a" * 15_000, id="a long one"),
        pytest.param(b"Bearer Bearer", "Bearer", id="a token named so"),
    ],
)
def test_a_bearer_token_is_one_word(value: bytes, token: str) -> None:
    shown = ANN.showing([value])
    assert (shown.token, shown.problem) == (token, "")
    assert token not in repr(shown)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([b"Basic YTpi"], id="another scheme"),
        pytest.param([b"Bearer"], id="no token"),
        pytest.param([b"Bearer "], id="a blank token"),
        pytest.param([b""], id="nothing"),
        pytest.param([b" "], id="a blank"),
        pytest.param([b"abc"], id="no scheme"),
        pytest.param([b"Bearer\tabc"], id="a tab in place of the space"),
        pytest.param([b"Bearer a b"], id="two words"),
        pytest.param([b"Bearer a, Bearer a"], id="two in one field"),
        pytest.param([b"Bearer a\n"], id="the line end of a file"),
        pytest.param([b"Bearer a\xff"], id="not ASCII"),
        pytest.param([b"Bearer s\xc3\xa9same"], id="UTF-8"),
        pytest.param([b"Bearer secret", b"Bearer secret"], id="the same field twice"),
        pytest.param([b"Bearer secret", b""], id="one and none"),
    ],
)
def test_what_is_no_token_is_not_as_if_there_were_none(values: list[bytes]) -> None:
    """With nothing, the caller would be whom its certificate names."""
    shown = ANN.showing(values)
    assert shown.token == ""
    assert "authorization" in shown.problem
    assert "secret" not in shown.problem


def test_nothing_shown_is_no_problem() -> None:
    assert ANN.showing([]) == ANN
