"""When files that others replace are looked at."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.server.notices import NoNotices
from vmsvc_grpc.server import file_follower
from vmsvc_grpc.server.file_follower import FileFollower

PATIENCE_S = 30.0
NEVER_S = 3600.0


class Reader:
    """Reads a file each time that it is to look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.texts: asyncio.Queue[str] = asyncio.Queue()

    async def look(self) -> None:
        self.texts.put_nowait(self._path.read_text())

    async def next(self) -> str:
        async with asyncio.timeout(PATIENCE_S):
            return await self.texts.get()


@pytest.mark.parametrize("rescan_s", [0.01, NEVER_S], ids=["unasked", "by a notice"])
async def test_a_file_is_looked_at_once_it_rests(
    rescan_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_follower, "SETTLE_S", 0.05)
    path = tmp_path / "policy.yaml"
    path.write_text("old")
    watch, unwatched = NoNotices(), list[str]()
    reader = Reader(path)
    follower = FileFollower((path,), watch, rescan_s, unwatched.append)
    running = asyncio.create_task(follower.run(reader.look))
    try:
        assert await reader.next() == "old"
        writing = path.open("w")
        with writing:
            for piece in ("ne", "w", "er"):
                writing.write(piece)
                writing.flush()
                watch.noticed.set()
                await asyncio.sleep(0)
        while (text := await reader.next()) == "old":
            pass
        assert text == "newer"
        assert unwatched == ["cannot be watched: too many open files"]
    finally:
        running.cancel()
        await asyncio.wait((running,))
