"""A real nginx with its own prefix, on loopback."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.integration.serving import PATIENCE_S, until
from tests.ports import reserved_port

_WORKERS = 2

_CONFIG = """\
daemon off;
pid nginx.pid;
error_log error.log notice;
worker_processes {workers};
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path temp/body;
    proxy_temp_path temp/proxy;
    fastcgi_temp_path temp/fastcgi;
    uwsgi_temp_path temp/uwsgi;
    scgi_temp_path temp/scgi;
    include upstreams.conf;
    server {{
        listen 127.0.0.1:{port};
        location ~ ^/(?<name>[a-z]+)$ {{ proxy_pass http://$name; }}
    }}
}}
"""


def binary() -> str:
    """Debian has it where only root's PATH leads."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise FileNotFoundError("tests of feed nginx need nginx: make balancers")
    return found


@dataclass
class Nginx:
    """An nginx that asks an upstream by its name in the path.

    `directory` is where a feed writes, and `include` what nginx reads of it.
    """

    folder: Path
    port: int
    session: aiohttp.ClientSession
    process: asyncio.subprocess.Process | None = None
    directory: Path = field(init=False)

    def __post_init__(self) -> None:
        self.directory = self.folder / "upstreams"
        self.directory.mkdir()
        (self.folder / "temp").mkdir()
        (self.folder / "nginx.conf").write_text(_CONFIG.format(port=self.port, workers=_WORKERS))
        self.include("include upstreams/*.conf;")

    @property
    def command(self) -> tuple[str, ...]:
        """The program, and where it finds its files."""
        return (binary(), "-p", str(self.folder), "-c", "nginx.conf", "-e", "error.log")

    @property
    def test(self) -> Sequence[str]:
        """The command that tests its configuration."""
        return (*self.command, "-t")

    @property
    def reload(self) -> Sequence[str]:
        """The command that has it read its configuration again."""
        return (*self.command, "-s", "reload")

    @property
    def reloads(self) -> int:
        """How often it was told to read its configuration again, and has heard of it."""
        return len(re.findall(r"\(SIGHUP\) received from \d+, reconfiguring", self.said()))

    async def reloaded(self, times: int) -> None:
        """Wait until it has been reloaded so often, and no more."""
        await until(lambda: self.reloads >= times)
        assert self.reloads == times

    async def settled(self) -> None:
        """Wait until it has no workers but those of the newest configuration."""
        workers = r"worker process \d+ exited with code 0"
        await until(lambda: len(re.findall(workers, self.said())) == _WORKERS * self.reloads)

    def include(self, text: str) -> None:
        """Configure its upstreams."""
        (self.folder / "upstreams.conf").write_text(text)

    def said(self) -> str:
        """Its log."""
        log = self.folder / "error.log"
        return log.read_text() if log.exists() else ""

    async def start(self) -> None:
        """Have it run, and listen."""
        assert self.process is None
        self.process = await asyncio.create_subprocess_exec(*self.command)
        await until(lambda: self._listens() or self._ended())
        assert not self._ended(), self.said()

    async def stop(self) -> None:
        """End it at once."""
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()
        self.process = None

    async def dump(self) -> str:
        """The configuration that it would start with, as it reads it."""
        process = await asyncio.create_subprocess_exec(
            *self.command, "-T", "-q", stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, self.said()
        return said.decode()

    async def ask(self, upstream: str = "web") -> str:
        """Who answers a request; its status if that is not 200."""
        async with self.session.get(f"http://127.0.0.1:{self.port}/{upstream}") as response:
            return await response.text() if response.status == 200 else str(response.status)

    async def answers(self, *expected: str, upstream: str = "web") -> None:
        """Wait until just these answer, each: the workers of before may still take requests."""
        found: set[str] = set()
        async with asyncio.timeout(PATIENCE_S):
            while found != set(expected):
                found = {await self.ask(upstream) for _ in range(4 * len(expected))}

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _ended(self) -> bool:
        assert self.process is not None
        return self.process.returncode is not None


@asynccontextmanager
async def prepared(folder: Path) -> AsyncIterator[Nginx]:
    """An nginx that is configured, but does not run yet; it is stopped when the block ends."""
    port = reserved_port()
    # A connection that nginx closes for a reload may be one that a request is on its way on.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        made = Nginx(folder, port, session)
        try:
            yield made
        finally:
            await made.stop()
