"""`vmsvc feed nginx` between a real server and a real nginx: issue 14."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests import program
from tests.integration.envoy import Machines, machines
from tests.integration.feeding import Feed, feeding
from tests.integration.nginx import Nginx, prepared
from tests.integration.serving import Serving, serving, until
from tests.unit.objects import WEB, service, spec, vm
from tests.unit.server.endpoint_service.watching import listed
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply, Delete
from vmsvc_grpc.model.objects import Key, Kind, ServicePort
from vmsvc_grpc.model.resolve import AddressRules

INTERVAL_S = 0.5


@pytest.fixture
async def nginx(tmp_path: Path) -> AsyncIterator[Nginx]:
    async with prepared(tmp_path) as made:
        await made.start()
        yield made


@pytest.fixture
async def vms() -> AsyncIterator[Machines]:
    async with machines("a", "b", "c") as running:
        yield running


def known(vms: Machines) -> Cache:
    """A cache with the service shop/web, of no VM yet."""
    cache = Cache(AddressRules(allow_loopback=True))
    listed(cache, service(WEB, spec(ports=(ServicePort("http", "TCP", 80, vms.port),))))
    return cache


def served_by(running: Serving, vms: Machines, names: str) -> None:
    """Have just these VMs in the service."""
    for name, address in vms.addresses.items():
        key = Key("shop", name)
        if name in names:
            running.apply(Apply(vm(name, address)))
        else:
            running.apply(Delete(Kind.VIRTUAL_MACHINE, key))


def feed_of(nginx: Nginx) -> Sequence[str]:
    command = " ".join(nginx.command)
    return (
        *("nginx", "web=shop/web:http", "--directory", str(nginx.directory)),
        *("--test-command", f"{command} -t", "--reload-command", f"{command} -s reload"),
        *("--reload-interval-s", str(INTERVAL_S), "--check-interval-s", "1"),
    )


@dataclass
class Traffic:
    """Requests, one after the other on each of some connections, and what came of them."""

    nginx: Nginx
    answers: Counter[str] = field(default_factory=Counter)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(8):
                tasks.create_task(self._ask())

    async def _ask(self) -> None:
        while True:
            try:
                self.answers[await self.nginx.ask()] += 1
            except aiohttp.ClientError as error:
                self.answers[repr(error)] += 1


async def test_no_request_fails_while_vms_come_and_go(
    nginx: Nginx, vms: Machines, tmp_path: Path
) -> None:
    """A hundred changes a second; b always stays, and c is really gone in the end."""
    dice = random.Random(14)
    async with serving(cache=known(vms)) as running:
        served_by(running, vms, "b")
        with feeding(running.address, feed_of(nginx), tmp_path / "log"):
            await nginx.answers("b")
            # Its first workers know no upstream.
            await nginx.settled()
            reloads, began = nginx.reloads, time.monotonic()
            traffic = Traffic(nginx)
            asking = asyncio.create_task(traffic.run())
            changes = 0
            while traffic.answers.total() < 600 or changes < 200:
                served_by(running, vms, dice.choice(["b", "ab", "bc", "abc"]))
                changes += 1
                await asyncio.sleep(0.01)
            served_by(running, vms, "abc")
            await nginx.answers("a", "b", "c")
            await vms.end("c")
            gone_at = traffic.answers.total()
            await until(lambda: traffic.answers.total() > gone_at + 200)
            served_by(running, vms, "ab")
            file = nginx.directory / "web.upstream.conf"
            await until(lambda: vms.addresses["c"] not in file.read_text())
            await nginx.answers("a", "b")
            asking.cancel()
            await asyncio.wait({asking})
            assert set(traffic.answers) == {"a", "b", "c"}
            # One for all three, and one without c, which the log may have later.
            await until(lambda: nginx.reloads - reloads > 1)
            counted = nginx.reloads - reloads
            assert counted <= (time.monotonic() - began) / INTERVAL_S + 1


async def test_an_nginx_can_start_before_the_server_has_ever_answered(tmp_path: Path) -> None:
    async with prepared(tmp_path) as nginx:
        nginx.include("include upstreams/web.upstream.conf;")
        with feeding("127.0.0.1:1", feed_of(nginx), tmp_path / "log") as feed:
            await says(feed, "cannot be reached")
            await nginx.start()
            assert await nginx.ask() == "502"


def manifests(folder: Path, vms: Machines, names: str) -> Path:
    """A directory of manifests with just these VMs in the service."""
    version = "vmoperator.vmware.com/v1alpha5"
    ports = [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": vms.port}]
    web = {"type": "ClusterIP", "selector": {"app": "web"}, "ports": ports}
    objects: list[dict[str, Any]] = [
        {
            "apiVersion": version,
            "kind": "VirtualMachineService",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": web,
        }
    ]
    objects += [
        {
            "apiVersion": version,
            "kind": "VirtualMachine",
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web"}},
            "status": {"network": {"primaryIP4": vms.addresses[name]}},
        }
        for name in names
    ]
    folder.mkdir(exist_ok=True)
    new = folder / "new"
    new.write_text(yaml.safe_dump_all(objects))
    new.rename(folder / "all.yaml")
    return folder


async def says(feed: Feed, text: str) -> None:
    """Wait until a feed says so, and have what stands for VMs go on meanwhile."""
    await until(lambda: text in feed.said())


async def test_an_nginx_that_is_restarted_and_a_server_that_is_away(
    nginx: Nginx, vms: Machines, tmp_path: Path
) -> None:
    folder, logs = tmp_path / "manifests", [tmp_path / f"log{number}" for number in range(3)]
    served = ("--manifests", manifests(folder, vms, "ab"), "--allow-loopback", "--drain-s", "0")
    with ExitStack() as feeds:
        with program.serving(served, logs[0]) as server:
            feed = feeds.enter_context(feeding(server.grpc, feed_of(nginx), logs[1]))
            await nginx.answers("a", "b")
            await nginx.stop()
            manifests(folder, vms, "bc")
            await says(feed, "its reload failed")
            await nginx.start()
            await nginx.answers("b", "c")
        await says(feed, "cannot be reached")
        await nginx.answers("b", "c")
        before = {path: path.read_bytes() for path in nginx.directory.iterdir()}
        reloads = nginx.reloads
    with feeding(server.grpc, feed_of(nginx), logs[2]) as feed:
        await says(feed, "cannot be reached")
        await nginx.answers("b", "c")
    assert before == {path: path.read_bytes() for path in nginx.directory.iterdir()}
    assert nginx.reloads == reloads
