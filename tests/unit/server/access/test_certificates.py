"""The gate of client certificates and a policy file, as files and clocks change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest

from tests.unit.server.notices import NoNotices
from vmsvc_grpc.server import file_follower
from vmsvc_grpc.server.access import certificates
from vmsvc_grpc.server.access.caller import Caller
from vmsvc_grpc.server.access.certificate import ClientCertificate
from vmsvc_grpc.server.access.certificates import CertificateGate, PolicyFile, PolicyFileError
from vmsvc_grpc.server.access.gate import Pass, Verdict
from vmsvc_grpc.server.access.needs import AUTHENTICATED, OPEN, endpoints_in
from vmsvc_grpc.server.access.principal import CertificateRules
from vmsvc_grpc.server.call import Code, RpcError

SHOP = endpoints_in("watch", "shop")
RULE = """\
rules:
- subjects: [{kind: User, name: ann}]
  namespaces: [shop]
  verbs: [watch]
"""
NOBODY = "rules: []\n"


class Desk:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.logged: list[str] = []
        self.woken = 0
        self.time = 1000.0
        self.gate = CertificateGate(
            PolicyFile(path),
            CertificateRules(),
            NoNotices(None),
            lambda _, text: self.logged.append(text),
            clock_of_day=lambda: self.time,
        )

    def enter(self, name: str = "ann", expires_at: float = 2000.0) -> Pass:
        shown = ClientCertificate((name,), expires_at=expires_at)
        return self.gate.enter(
            Caller("ipv4:192.0.2.1:1", guarded=True, certificate=shown), self.wake
        )

    def wake(self) -> None:
        self.woken += 1


@asynccontextmanager
async def running(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    monkeypatch.setattr(certificates, "RESCAN_S", 0.01)
    monkeypatch.setattr(certificates, "_ALARMS_S", 0.01)
    monkeypatch.setattr(file_follower, "SETTLE_S", 0.01)
    desk = Desk(path)
    task = asyncio.create_task(desk.gate.run())
    try:
        async with asyncio.timeout(60):
            yield desk
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(RULE)
    return file


def seen(entered: Pass) -> Verdict | Code:
    try:
        return entered.check(SHOP)
    except RpcError as error:
        return error.code


def put(path: Path, text: str | None) -> None:
    path.unlink() if text is None else path.write_bytes(text.encode("latin-1"))


async def until(desk: Desk, entered: Pass, expected: Verdict | Code) -> None:
    while seen(entered) is not expected:  # noqa: ASYNC110 - a poll with a deadline
        await asyncio.sleep(0.001)


def test_a_certificate_has_what_the_policy_gives_its_name(path: Path) -> None:
    desk = Desk(path)
    assert seen(desk.enter()) is Verdict.ALLOWED
    bob = desk.enter("bob")
    assert [seen(bob), seen(bob)] == [Verdict.DENIED] * 2
    assert bob.check(AUTHENTICATED) is Verdict.ALLOWED
    unknown = desk.gate.enter(Caller("ipv4:192.0.2.1:1", guarded=True, token="t"), desk.wake)
    assert unknown.check(OPEN) is Verdict.ALLOWED
    assert seen(unknown) is Code.UNAUTHENTICATED
    assert seen(desk.enter("system:admin")) is Code.UNAUTHENTICATED
    assert desk.gate.refusals == {"denied": 1, "unauthenticated": 2}
    assert (bob.username, unknown.username) == ("bob", "")
    assert seen(desk.gate.enter(Caller("ipv4:127.0.0.1:1"), desk.wake)) is Verdict.ALLOWED


def test_what_is_no_token_is_not_the_certificate_of_who_shows_it(path: Path) -> None:
    desk = Desk(path)
    certificate = ClientCertificate(("ann",), expires_at=2000.0)
    shown = Caller("ipv4:192.0.2.1:1", guarded=True, certificate=certificate)
    with pytest.raises(RpcError, match="send `Bearer TOKEN`"):
        desk.gate.enter(shown.showing([b"Basic YTpi"]), desk.wake).check(SHOP)
    assert seen(desk.gate.enter(shown.showing([b"Bearer t"]), desk.wake)) is Verdict.ALLOWED


async def test_a_new_policy_counts_for_open_calls(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(path, monkeypatch) as desk:
        entered, over = desk.enter(), desk.enter()
        over.close()
        put(path, NOBODY)
        await until(desk, entered, Verdict.DENIED)
        assert desk.woken == 1
        put(path, RULE)
        await until(desk, entered, Verdict.ALLOWED)
        assert desk.woken == 2


@pytest.mark.parametrize("why", ["policy", "expiry"])
async def test_very_many_calls_are_woken_in_pieces_and_none_is_missed(
    path: Path, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(path, monkeypatch) as desk:
        passes = [desk.enter(expires_at=1500.0) for _ in range(1_700)]
        if why == "policy":
            put(path, NOBODY)
        else:
            desk.time = 1500.0
        woken = [0]
        while desk.woken < len(passes):
            await asyncio.sleep(0)
            woken.append(desk.woken)
        pieces = {now - before for before, now in pairwise(woken)} - {0}
        assert pieces == {500, 200}


@pytest.mark.parametrize("text", ["", "rules:\n- no\n", "\xff"], ids=["empty", "wrong", "odd"])
async def test_a_policy_of_no_use_is_reported_once_and_the_last_good_one_stays(
    path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(path, monkeypatch) as desk:
        entered = desk.enter()
        put(path, text)
        while not desk.gate.troubles:  # noqa: ASYNC110 - a poll with a deadline
            await asyncio.sleep(0.001)
        assert str(path) in desk.gate.troubles[0]
        assert seen(entered) is Verdict.ALLOWED
        put(path, None)
        while "No such file" not in desk.gate.troubles[0]:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.001)
        assert len(desk.logged) == 2
        put(path, NOBODY)
        await until(desk, entered, Verdict.DENIED)
        assert not desk.gate.troubles


async def test_a_certificate_that_expires_ends_its_calls(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(path, monkeypatch) as desk:
        entered = desk.enter(expires_at=1500.0)
        assert seen(entered) is Verdict.ALLOWED
        desk.time = 1500.0
        while not desk.woken:  # noqa: ASYNC110 - a poll with a deadline
            await asyncio.sleep(0.001)
        assert seen(entered) is Code.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"rules: [x]", "policy.yaml, line 1: a mapping with subjects"),
        (b"\xff", "is not text in UTF-8"),
        (b"#" * (1024 * 1024 + 1), "is larger than 1048576 bytes"),
        (None, "cannot be read: No such file"),
    ],
)
def test_there_is_no_gate_without_a_policy(path: Path, content: bytes | None, says: str) -> None:
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(PolicyFileError) as refused:
        Desk(path)
    assert says in str(refused.value)
