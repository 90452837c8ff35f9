"""The gate that is open, and what a Caller shows of itself."""

from __future__ import annotations

import pytest

from vmsvc_grpc.server.access.caller import Caller
from vmsvc_grpc.server.access.certificate import ClientCertificate
from vmsvc_grpc.server.access.gate import OpenGate, Verdict
from vmsvc_grpc.server.access.needs import AUTHENTICATED, OPEN, Need, ResourceNeed, UrlNeed


@pytest.mark.parametrize(
    "need",
    [OPEN, AUTHENTICATED, ResourceNeed("get", "", "endpoints", "shop"), UrlNeed("get", "/metrics")],
    ids=str,
)
def test_the_open_gate_allows_everything_to_somebody_without_a_name(need: Need) -> None:
    entered = OpenGate().enter(Caller("ipv4:192.0.2.1:1"), lambda: None)
    assert entered.check(need) is Verdict.ALLOWED
    assert entered.username == ""
    entered.close()


def test_the_text_of_a_caller_has_nothing_secret() -> None:
    shown = repr(
        Caller(
            "ipv4:192.0.2.1:1",
            guarded=True,
            token="secret",
            certificate=ClientCertificate(("secret",)),
        )
    )
    assert "secret" not in shown
    assert "ipv4:192.0.2.1:1" in shown
