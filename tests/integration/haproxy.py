"""A real HAProxy on loopback, and the HTTP servers that stand for VMs behind it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

from tests.integration.serving import PATIENCE_S, until
from tests.ports import reserved_port
from vmsvc.feed.haproxy.runtime import Place, Runtime
from vmsvc.feed.output import OutputError

GLOBAL = """\
global
    stats socket {folder}/admin.sock level admin
    stats socket ipv4@127.0.0.1:{runtime_port} level admin
    stats socket {folder}/user.sock level user
    nbthread 2
    {more}
defaults
    mode http
    timeout connect 2s
    timeout client 20s
    timeout server 20s
    timeout http-keep-alive 20s
    retries 3
    option redispatch
"""

FRONTEND = """\
frontend in
    bind 127.0.0.1:{port}
    default_backend web
"""

DYNAMIC = """\
backend web
    balance roundrobin
"""

SLOTS = """\
backend web
    balance static-rr
    server-template slot 1-{slots} 0.0.0.0:0 disabled
"""


RESTORED_SLOTS = """\
backend web
    balance static-rr
    load-server-state-from-file global
    server-template slot 1-{slots} vm.invalid:80 init-addr last,0.0.0.0 disabled
"""


def binary() -> str:
    """Debian has it where only root's PATH leads."""
    found = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise FileNotFoundError("tests of feed haproxy need haproxy: make balancers")
    return found


@dataclass
class Haproxy:
    """HAProxy with a master and a worker. `folder` is short, as paths of sockets have to be."""

    folder: Path
    port: int = field(default_factory=reserved_port)
    runtime_port: int = field(default_factory=reserved_port)
    process: asyncio.subprocess.Process | None = None

    @property
    def socket(self) -> str:
        """Its Runtime API."""
        return str(self.folder / "admin.sock")

    @property
    def runtime(self) -> Runtime:
        return Runtime(Place(path=self.socket), timeout_s=PATIENCE_S)

    @property
    def master(self) -> Runtime:
        return Runtime(Place(path=str(self.folder / "master.sock")), timeout_s=PATIENCE_S)

    def configure(self, backends: str = DYNAMIC, more: str = "", **values: object) -> None:
        """Write what it will start, or be reloaded, with."""
        text = (GLOBAL + FRONTEND + backends).format(
            folder=self.folder,
            port=self.port,
            runtime_port=self.runtime_port,
            more=more,
            **values,
        )
        (self.folder / "haproxy.cfg").write_text(text)

    async def start(self) -> None:
        """Have it run, and listen."""
        assert self.process is None
        with (self.folder / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                binary(),
                "-W",
                "-S",
                str(self.folder / "master.sock"),
                "-f",
                str(self.folder / "haproxy.cfg"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        await until(lambda: self._listens() or self._ended())
        assert not self._ended(), self.said()
        await self._settled()

    async def stop(self) -> None:
        """End it at once, with all connections."""
        if self.process is not None:
            if self.process.returncode is None:
                self.process.terminate()
                await self.process.wait()
            self.process = None

    async def reload(self) -> None:
        """Have a new worker take over: the old one serves what it has begun."""
        assert self.process is not None
        before = await self.pid()
        self.process.send_signal(signal.SIGUSR2)
        async with asyncio.timeout(PATIENCE_S):
            while await self.pid() == before:  # noqa: ASYNC110 - HAProxy tells nobody
                await asyncio.sleep(0.01)
        await self._settled()

    async def pid(self) -> str:
        """The process that a new connection reaches."""
        (info,) = await self.ask("show info")
        return next(line for line in info.splitlines() if line.startswith("Pid:"))

    async def ask(self, *commands: str) -> list[str]:
        """Answers of the Runtime API."""
        return await self.runtime.ask(commands)

    async def servers(self, backend: str = "web") -> dict[str, str]:
        """Each server's address and what the statistics page says of it."""
        (answer,) = await self.ask(f"show stat {backend} 4 -1")
        names, *rows = (line.split(",") for line in answer.removeprefix("# ").splitlines())
        at = [names.index(name) for name in ("svname", "addr", "status")]
        return {row[at[0]]: f"{row[at[1]]} {row[at[2]]}" for row in rows}

    async def serving(self) -> list[str]:
        """Addresses of servers that are not in maintenance, in order."""
        found = (await self.servers()).values()
        return sorted(said.partition(":")[0] for said in found if not said.endswith(" MAINT"))

    async def get(self, path: str = "/") -> str:
        """Who answers a request on a new connection; its status if that is not 200."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request(path, close=True))
            return answered(await reader.read())
        finally:
            writer.close()

    def said(self) -> str:
        return (self.folder / "log").read_text()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    async def _settled(self) -> None:
        """Wait until the worker can be asked, and the master takes the next signal."""
        async with asyncio.timeout(PATIENCE_S):
            for asked in (self.runtime, self.master):
                while not await _answers(asked):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.01)

    def _ended(self) -> bool:
        assert self.process is not None
        return self.process.returncode is not None


async def _answers(runtime: Runtime) -> bool:
    with suppress(OutputError):
        return bool(await runtime.ask(["show info"]))
    return False


def request(path: str = "/", *, close: bool = False) -> bytes:
    more = "Connection: close\r\n" if close else ""
    return f"GET {path} HTTP/1.1\r\nHost: web\r\n{more}\r\n".encode()


def answered(response: bytes) -> str:
    """Who answered, or the status, or "" if nobody did."""
    if not response:
        return ""
    head, _, body = response.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1].decode()
    return body.decode() if status == "200" else status


class Vm(asyncio.Protocol):
    """One connection to a VM: each answer is its address. `/wait` waits for the VM's `go`."""

    def __init__(self, vms: Vms, address: str) -> None:
        self._vms = vms
        self._address = address
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)
        self._vms.connections.setdefault(self._address, set()).add(self._transport)

    def data_received(self, data: bytes) -> None:
        self._read += data
        while b"\r\n\r\n" in self._read:
            head, _, self._read = self._read.partition(b"\r\n\r\n")
            if head.startswith(b"GET /wait "):
                self._vms.waiting[self._address] += 1
                self._vms.held.append(self)
            else:
                self.answer()

    def answer(self) -> None:
        self._vms.answered[self._address] += 1
        body = self._address
        self._transport.write(
            f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._vms.connections[self._address].discard(self._transport)


@dataclass
class Vms:
    """HTTP servers on loopback addresses, all on one port."""

    port: int = field(default_factory=reserved_port)
    answered: Counter[str] = field(default_factory=Counter)
    waiting: Counter[str] = field(default_factory=Counter)
    held: list[Vm] = field(default_factory=list)
    connections: dict[str, set[asyncio.Transport]] = field(default_factory=dict)
    _servers: dict[str, asyncio.Server] = field(default_factory=dict)

    async def start(self, *addresses: str) -> None:
        loop = asyncio.get_running_loop()
        for address in addresses:
            self._servers[address] = await loop.create_server(
                partial(Vm, self, address), address, self.port
            )

    async def stop(self, *addresses: str) -> None:
        """As a VM that is gone: nobody listens, and connections are reset."""
        for address in addresses:
            self._servers.pop(address).close()
            for transport in list(self.connections.get(address, ())):
                transport.abort()

    def go(self) -> None:
        """Answer what waits."""
        for connection in self.held:
            connection.answer()
        self.held.clear()

    async def close(self) -> None:
        await self.stop(*self._servers)


@asynccontextmanager
async def prepared() -> AsyncIterator[Haproxy]:
    """A HAProxy that does not run yet; it is stopped when the block ends."""
    with tempfile.TemporaryDirectory(prefix="haproxy-") as folder:
        haproxy = Haproxy(Path(folder))
        try:
            yield haproxy
        finally:
            await haproxy.stop()


@asynccontextmanager
async def vms(*addresses: str) -> AsyncIterator[Vms]:
    made = Vms()
    try:
        await made.start(*addresses)
        yield made
    finally:
        await made.close()
