"""`vmsvc feed` as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.serving import PATIENCE_S, until

VMSVC = str(Path(sys.executable).with_name("vmsvc"))


@dataclass
class Feed:
    """A running feed, and what it has said so far."""

    process: asyncio.subprocess.Process
    log: Path

    def said(self) -> str:
        """Its log."""
        return self.log.read_text()

    async def says(self, text: str) -> None:
        """Wait until its log has a text."""
        try:
            await until(lambda: text in self.said() or self.process.returncode is not None)
        finally:
            assert text in self.said(), self.said()


@asynccontextmanager
async def feeding(
    server: str, output: str, *arguments: str | Path, log: Path, **environment: str
) -> AsyncIterator[Feed]:
    """A feed of a server, until the block ends; it must end well then, by SIGTERM."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("VMSVC_")}
    with log.open("ab") as said:
        process = await asyncio.create_subprocess_exec(
            VMSVC, "feed", output, *arguments, "--server", server,
            stdin=asyncio.subprocess.DEVNULL, stdout=said, stderr=said,
            env={**inherited, **environment},
        )  # fmt: skip
    try:
        feed = Feed(process, log)
        yield feed
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            code = await process.wait()
        assert (code, "Traceback" in feed.said()) == (0, False), feed.said()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
