"""When the gate that asks an API server asks."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest

from vmsvc_grpc.server.access.caller import Caller
from vmsvc_grpc.server.access.certificate import ClientCertificate
from vmsvc_grpc.server.access.facts import Refusal, Secret
from vmsvc_grpc.server.access.gate import Verdict
from vmsvc_grpc.server.access.needs import AUTHENTICATED, ResourceNeed, UrlNeed, endpoints_in
from vmsvc_grpc.server.access.principal import CertificateRules, Principal
from vmsvc_grpc.server.access.reviews import ReviewGate
from vmsvc_grpc.server.access.verdicts import VerdictBounds
from vmsvc_grpc.server.call import Code, RpcError

PATIENCE_S = 30.0
NEED = endpoints_in("watch", "shop")


class Answers:
    """A `Reviews` that says one thing of all rights."""

    yes = True

    async def owner(self, token: Secret) -> Principal | Refusal:
        return Refusal("nobody has a token here")

    async def allowed(self, principal: Principal, need: ResourceNeed | UrlNeed) -> bool:
        return self.yes


def ann(expires_at: float | None = None) -> Caller:
    certificate = ClientCertificate(("ann",), expires_at=expires_at or time.time() + 600)
    return Caller("ipv4:192.0.2.1:1", guarded=True, certificate=certificate)


async def first_call(gate: ReviewGate) -> None:
    """One call that comes and goes; from then on the verdict is remembered, and nothing is due."""
    woken = asyncio.Event()
    entered = gate.enter(ann(), woken.set)
    async with asyncio.timeout(PATIENCE_S):
        while entered.check(NEED) is Verdict.PENDING:
            await woken.wait()
            woken.clear()
    entered.close()
    gate._news.set()
    while gate._news.is_set():  # noqa: ASYNC110 - until it sleeps, with nothing to wake it
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("values", "says"),
    [([b"Basic YTpi"], "is no bearer token"), ([b"Bearer a", b"Bearer b"], "has several")],
)
def test_what_is_no_token_is_not_the_certificate_of_who_shows_it(
    values: list[bytes], says: str
) -> None:
    gate = ReviewGate(VerdictBounds(), CertificateRules(), lambda *_: None)
    entered = gate.enter(ann().showing(values), lambda: None)
    with pytest.raises(RpcError, match=says) as error:
        entered.check(AUTHENTICATED)
    assert error.value.code is Code.UNAUTHENTICATED
    assert entered.username == ""
    assert gate.enter(ann(), lambda: None).check(AUTHENTICATED) is Verdict.ALLOWED


@pytest.mark.parametrize("ends", ["revoked", "expired"])
async def test_a_call_that_goes_by_what_is_remembered_learns_when_that_changes(ends: str) -> None:
    """Nobody else asks: what is due for this call alone has to be looked at in time."""
    answers = Answers()
    bounds = VerdictBounds(recheck_s=0.05 if ends == "revoked" else 600.0, yes_s=600.0)
    gate = ReviewGate(bounds, CertificateRules(), lambda *_: None)
    running = asyncio.create_task(gate.run(answers))
    await first_call(gate)
    answers.yes = False
    woken = asyncio.Event()
    soon = time.time() + 2.0
    entered = gate.enter(ann(soon if ends == "expired" else None), woken.set)
    # An expired certificate is checked as an old one is: by the time of day.
    need = AUTHENTICATED if ends == "expired" else NEED
    assert entered.check(need) is Verdict.ALLOWED, "it is remembered"
    async with asyncio.timeout(PATIENCE_S):
        await woken.wait()
    if ends == "revoked":
        assert entered.check(need) is Verdict.DENIED
    else:
        with pytest.raises(RpcError, match="expired"):
            entered.check(need)
    entered.close()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
