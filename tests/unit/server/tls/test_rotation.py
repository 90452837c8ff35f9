"""How files are followed where the system gives no notice of changes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.unit.server.notices import NoNotices
from vmsvc_grpc.server import file_follower
from vmsvc_grpc.server.tls import rotation
from vmsvc_grpc.server.tls.files import TlsFiles
from vmsvc_grpc.server.tls.rotation import PAIR, TlsRotation

PATIENCE_S = 30.0


async def test_files_without_notices_are_followed_and_that_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rotation, "RESCAN_S", 0.01)
    monkeypatch.setattr(file_follower, "SETTLE_S", 0.01)
    authority = Authority(tmp_path)
    pair, newer = authority.issue(), authority.issue()
    watch = NoNotices()
    tls = TlsRotation(TlsFiles(*pair, None), watch)
    tls.load()
    running = asyncio.create_task(tls.run())

    async def looks(more: int) -> None:
        most = watch.looks + more
        async with asyncio.timeout(PATIENCE_S):
            while watch.looks < most:  # noqa: ASYNC110 - it has no notices
                await asyncio.sleep(0.005)

    await looks(3)
    for new, used in zip(newer, pair, strict=True):
        new.rename(used)
    async with asyncio.timeout(PATIENCE_S):
        while tls.loads[PAIR] < 2:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.005)
    said = "TLS: where its files are, cannot be watched: too many open files; they are looked at"
    assert sum(said in line for line in caplog.messages) == 1
    watch.why = None
    await looks(2)
    watch.why = "etc cannot be watched: too many"
    await looks(2)
    assert sum("cannot be watched" in line for line in caplog.messages) == 2
    running.cancel()
    await asyncio.wait((running,))
