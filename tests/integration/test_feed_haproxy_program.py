"""`vmsvc feed haproxy` between a real server and a real HAProxy: issue 14."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.integration import haproxy as real
from tests.integration.feeding import Feed, feeding
from tests.integration.haproxy import Haproxy, Vms, answered, request
from tests.integration.serving import PATIENCE_S, Serving, serving, until
from tests.integration.test_xds_examples import tried
from tests.unit.objects import WEB, service, spec, vm
from tests.unit.server.endpoint_service.watching import listed
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply, Delete
from vmsvc_grpc.model.objects import Key, Kind, ServicePort
from vmsvc_grpc.model.resolve import AddressRules

A, B, C, D = ADDRESSES = [f"127.0.1.{n}" for n in range(1, 5)]


@pytest.fixture
async def haproxy() -> AsyncIterator[Haproxy]:
    async with real.prepared() as made:
        yield made


@pytest.fixture
async def vms() -> AsyncIterator[Vms]:
    async with real.vms(*ADDRESSES) as made:
        yield made


def known(vms: Vms) -> Cache:
    """A cache with the service shop/web, of no VM yet."""
    cache = Cache(AddressRules(allow_loopback=True))
    listed(cache, service(WEB, spec(ports=(ServicePort("http", "TCP", 80, vms.port),))))
    return cache


def served_by(running: Serving, *addresses: str) -> None:
    """Have VMs with just these addresses in the service."""
    for address in ADDRESSES:
        name = f"vm-{address}"
        if address in addresses:
            running.apply(Apply(vm(name, address)))
        else:
            running.apply(Delete(Kind.VIRTUAL_MACHINE, Key("shop", name)))


@dataclass
class Traffic:
    """A thousand requests a second, at most, on some connections; what came of each."""

    haproxy: Haproxy
    answers: Counter[str] = field(default_factory=Counter)

    connections = 10
    interval_s = 0.01

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self.connections):
                tasks.create_task(self._ask())

    async def _ask(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        client = Client(self.haproxy.port)
        try:
            while True:
                due += self.interval_s
                await asyncio.sleep(due - loop.time())
                self.answers[await client.get()] += 1
        finally:
            client.close()


@dataclass
class Client:
    """Asks on one connection after the other, as HTTP's clients do."""

    port: int
    _connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self) -> str:
        """Who answers, or the status, or the error's name.

        A connection on which there was an answer before may have been closed meanwhile: the request
        is sent again then (RFC 9112, 9.3.1).
        """
        used = self._connection is not None
        try:
            if self._connection is None:
                self._connection = await asyncio.open_connection("127.0.0.1", self.port)
            return await self._asked(*self._connection)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            return await self.get() if used and _unanswered(error) else type(error).__name__

    async def _asked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        writer.write(request())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length: ")[2].split(b"\r\n")[0]
        body = await reader.readexactly(int(length or 0))
        if b"connection: close" in head:
            self.close()
        return answered(head + body)

    def close(self) -> None:
        if self._connection is not None:
            self._connection[1].close()
            self._connection = None


def _unanswered(error: Exception) -> bool:
    return not (isinstance(error, asyncio.IncompleteReadError) and error.partial)


@asynccontextmanager
async def asking(haproxy: Haproxy) -> AsyncIterator[Traffic]:
    traffic = Traffic(haproxy)
    task = asyncio.create_task(traffic.run())
    try:
        await until(lambda: traffic.answers)
        yield traffic
    finally:
        task.cancel()
        await asyncio.wait({task})


async def says(feed: Feed, text: str) -> None:
    """Wait until its log has a text."""
    await until(lambda: text in feed.said())


def feed_of(haproxy: Haproxy, *more: str) -> Sequence[str]:
    return ("haproxy", "web=shop/web:http", "--runtime", haproxy.socket, *more)


LAYOUTS = pytest.mark.parametrize("layout", [real.DYNAMIC, real.SLOTS], ids=["dynamic", "slots"])


@LAYOUTS
async def test_no_request_fails_while_vms_come_and_go(
    haproxy: Haproxy, vms: Vms, tmp_path: Path, layout: str
) -> None:
    """A hundred changes a second; B always stays, and D is really gone in the end."""
    haproxy.configure(layout, slots=4)
    await haproxy.start()
    dice = random.Random(14)
    async with serving(cache=known(vms)) as running, AsyncExitStack() as stack:
        feed = stack.enter_context(feeding(running.address, feed_of(haproxy), tmp_path / "log"))
        served_by(running, B)
        await says(feed, "the output is right")
        async with asking(haproxy) as traffic:
            changes = 0
            while changes < 300 or traffic.answers.total() < 1500:
                served_by(running, B, *(each for each in (A, C, D) if dice.random() < 0.5))
                changes += 1
                await asyncio.sleep(0.01)
            served_by(running, A, B, C, D)
            await until(lambda: all(vms.connections[each] for each in ADDRESSES))
            await serves(haproxy, *ADDRESSES)
            await vms.stop(D)
            gone_at = traffic.answers.total()
            await until(lambda: traffic.answers.total() > gone_at + 300)
            served_by(running, A, B, C)
            await serves(haproxy, A, B, C)
        assert set(traffic.answers) == set(ADDRESSES), traffic.answers


async def serves(haproxy: Haproxy, *addresses: str) -> None:
    """Wait until HAProxy has servers with just these addresses, all up."""
    async with asyncio.timeout(PATIENCE_S):
        while await haproxy.serving() != sorted(addresses):  # noqa: ASYNC110 - HAProxy tells nobody
            await asyncio.sleep(0.01)


def feed_of_slots(haproxy: Haproxy, tmp_path: Path) -> Sequence[str]:
    file = tmp_path / "servers"
    haproxy.configure(real.RESTORED_SLOTS, f"server-state-file {file}", slots=4)
    return feed_of(haproxy, "--haproxy-state-file", str(file))


async def test_no_request_fails_while_haproxy_is_reloaded_and_others_change_it(
    haproxy: Haproxy, vms: Vms, tmp_path: Path
) -> None:
    arguments = feed_of_slots(haproxy, tmp_path)
    await haproxy.start()
    async with serving(cache=known(vms)) as running, AsyncExitStack() as stack:
        stack.enter_context(feeding(running.address, arguments, tmp_path / "log"))
        served_by(running, A, B)
        await serves(haproxy, A, B)
        async with asking(haproxy) as traffic:
            for number in range(3):
                await haproxy.ask("set server web/slot1 state maint", "set weight web/slot3 0%")
                served_by(running, A, B, (C, D)[number % 2])
                await haproxy.reload()
                await serves(haproxy, A, B, (C, D)[number % 2])
        assert set(traffic.answers) <= set(ADDRESSES), traffic.answers


@LAYOUTS
async def test_a_haproxy_that_is_started_again_is_filled_again(
    haproxy: Haproxy, vms: Vms, tmp_path: Path, layout: str
) -> None:
    haproxy.configure(layout, slots=4)
    await haproxy.start()
    async with serving(cache=known(vms)) as running, AsyncExitStack() as stack:
        feed = stack.enter_context(feeding(running.address, feed_of(haproxy), tmp_path / "log"))
        served_by(running, A, B)
        await serves(haproxy, A, B)
        await haproxy.stop()
        served_by(running, B, C)
        await says(feed, "admin.sock cannot be asked: ")
        await haproxy.start()
        await serves(haproxy, B, C)
        async with asking(haproxy) as traffic:
            await until(lambda: traffic.answers.total() > 100)
        assert set(traffic.answers) == {B, C}


async def test_a_feed_that_is_killed_and_a_server_that_is_away_leave_what_was_last_known(
    haproxy: Haproxy, vms: Vms, tmp_path: Path
) -> None:
    haproxy.configure()
    await haproxy.start()
    more = ("--state-file", str(tmp_path / "states"))
    async with asking(haproxy) as traffic:
        async with serving(cache=known(vms)) as running:
            served_by(running, A, B)
            with feeding(running.address, feed_of(haproxy, *more), tmp_path / "log") as feed:
                await serves(haproxy, A, B)
                await until((tmp_path / "states").exists)
                traffic.answers.clear()
                feed.process.kill()
                await until(lambda: feed.process.poll() is not None)
            served_by(running, B, C)
        # Nobody is there. The next feed knows what the last one knew, and puts it right.
        with feeding(running.address, feed_of(haproxy, *more), tmp_path / "log") as feed:
            await says(feed, "cannot be reached")
            await haproxy.ask(f"set server web/vmsvc_{A}_{vms.port} state maint")
            await serves(haproxy, A, B)
        assert set(traffic.answers) == {A, B}, traffic.answers


def test_the_example_balances_and_follows() -> None:
    done = tried("haproxy", Path(sys.executable).parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [
        "answered by: vm-2 vm-3 ",
        "vm-3 is deleted",
        "answered by: vm-2 ",
        "vm-3 is created",
        "answered by: vm-2 vm-3 ",
        "a slot answers, too",
    ]
