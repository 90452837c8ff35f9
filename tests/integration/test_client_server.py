"""Both clients on the real server: what is looked up, and what a watch tells of edits."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

import vmsvc_grpc
from tests.ports import reserved_port
from tests.program import PATIENCE_S, Program, serving
from vmsvc import (
    AbsenceReason,
    AsyncClient,
    AsyncWatch,
    Client,
    Disconnected,
    Event,
    InvalidArgumentError,
    NotFoundError,
    Readiness,
    RefusedError,
    RetryPolicy,
    ServiceState,
    Synced,
    Verdict,
)

AT_ONCE = RetryPolicy(backoff_initial_s=0.02, backoff_max_s=0.2)


def service(name: str, *, kind: str = "ClusterIP") -> str:
    return f"""\
---
apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachineService
metadata: {{name: {name}, namespace: shop}}
spec: {{type: {kind}, selector: {{app: {name}}}, ports: [{{name: http, port: 80}}]}}
"""


def vm(app: str, number: int, address: str) -> str:
    return f"""\
---
apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachine
metadata: {{name: {app}-{number}, namespace: shop, labels: {{app: {app}}}}}
status: {{network: {{primaryIP4: {address}}}}}
"""


NOT_READY = """\
---
apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachine
metadata: {name: web-9, namespace: shop, labels: {app: web}}
spec: {readinessProbe: {tcpSocket: {port: 80}}}
status: {network: {primaryIP4: 10.0.0.9}, conditions: [{type: Ready, status: "False", reason: R}]}
"""
WEB = service("web") + vm("web", 1, "10.0.0.1") + NOT_READY
OLD = service("old", kind="NodePort")


class Manifests:
    """A directory of manifests, each file replaced as a whole."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    def put(self, name: str, text: str) -> None:
        new = self.directory / f".{name}"
        new.write_text(text)
        new.rename(self.directory / f"{name}.yaml")

    def remove(self, name: str) -> None:
        (self.directory / f"{name}.yaml").unlink()


@pytest.fixture
def manifests(tmp_path: Path) -> Manifests:
    made = Manifests(tmp_path / "manifests")
    made.put("web", WEB)
    made.put("old", OLD)
    return made


@pytest.fixture
def server(manifests: Manifests, tmp_path: Path) -> Iterator[Program]:
    arguments: list[str | Path] = ["--manifests", manifests.directory, "--drain-s", "0.2"]
    with serving(arguments, tmp_path / "log") as program:
        yield program


@pytest.fixture
async def client(server: Program) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.grpc) as client:
        yield client


def addresses(state: ServiceState) -> list[str]:
    return [endpoint.address for endpoint in state.endpoints]


async def following(watch: AsyncWatch) -> ServiceState:
    async with asyncio.timeout(PATIENCE_S):
        return await anext(watch)


async def test_look_ups(client: AsyncClient) -> None:
    web = await client.resolve("shop/web")
    assert (web.present, addresses(web)) == (True, ["10.0.0.1"])
    assert [(p.name, p.port, p.target_port, p.protocol) for p in web.ports] == [
        ("http", 80, 80, "TCP")
    ]
    every = await client.resolve("shop/web", readiness=Readiness.ALL)
    assert [(e.address, e.ready, e.vm_name) for e in every.endpoints] == [
        ("10.0.0.1", True, "web-1"),
        ("10.0.0.9", False, "web-9"),
    ]
    explanation = await client.explain("shop/web")
    assert [(v.vm_name, v.verdict) for v in explanation.virtual_machines] == [
        ("web-1", Verdict.READY),
        ("web-9", Verdict.NOT_READY),
    ]
    assert [s.service async for s in client.list()] == ["shop/old", "shop/web"]
    assert [s async for s in client.list("nobody")] == []


def test_look_ups_of_the_sync_client(server: Program) -> None:
    with Client(server.grpc) as client:
        assert addresses(client.resolve("shop/web")) == ["10.0.0.1"]
        assert len(client.resolve("shop/web", readiness=Readiness.ALL).endpoints) == 2
        assert client.explain("shop/old").problems[0].field == "spec.type"
        assert [s.refused for s in client.list("shop")] == [True, False]


async def test_errors(client: AsyncClient) -> None:
    with pytest.raises(NotFoundError, match="there is no VirtualMachineService shop/none"):
        await client.resolve("shop/none")
    with pytest.raises(NotFoundError):
        await client.explain("shop/none")
    with pytest.raises(RefusedError, match="NodePort is not supported"):
        await client.resolve("shop/old")
    with pytest.raises(InvalidArgumentError) as raised:
        await client.resolve("web")
    assert [v.field for v in raised.value.violations] == ["service"]
    with pytest.raises(InvalidArgumentError, match="services: is empty"):
        await following(client.watch())
    with pytest.raises(InvalidArgumentError) as raised:
        await following(client.watch("Shop/web", "shop/web", namespaces=["-"]))
    assert [v.field for v in raised.value.violations] == ["services[0].service", "namespaces[0]"]


async def test_the_version_of_the_server(client: AsyncClient) -> None:
    told = await client.version()
    assert (told.version, told.transport) == (vmsvc_grpc.__version__, "http2")
    assert "vmsvc.v1" in told.packages
    assert told.started_at.utcoffset() == timedelta(0)
    with Client(client.server) as sync:
        assert sync.version() == told


def test_errors_of_the_sync_client(server: Program) -> None:
    with Client(server.grpc) as client:
        with pytest.raises(NotFoundError, match="there is no VirtualMachineService shop/none"):
            client.resolve("shop/none")
        with pytest.raises(InvalidArgumentError) as raised:
            next(client.watch())
        assert [v.field for v in raised.value.violations] == ["services"]


async def test_a_list_of_many_pages(client: AsyncClient, manifests: Manifests) -> None:
    names = [f"s{number:03}" for number in range(501)]
    watch = client.watch("shop/s500")
    assert not (await following(watch)).present
    manifests.put("many", "".join(map(service, names)))
    assert (await following(watch)).present
    expected = ["shop/old", *(f"shop/{name}" for name in names), "shop/web"]
    assert [s.service async for s in client.list("shop")] == expected
    with Client(client.server) as sync:
        assert [s.service for s in sync.list("shop")] == expected


async def test_edits_are_told(client: AsyncClient, manifests: Manifests) -> None:
    watch = client.watch("shop/new")
    first = await following(watch)
    assert first.absence is not None
    assert first.absence.reason is AbsenceReason.NOT_FOUND
    manifests.put("new", service("new"))
    assert addresses(await following(watch)) == []
    manifests.put("vms", vm("new", 1, "10.1.0.1"))
    assert addresses(await following(watch)) == ["10.1.0.1"]
    # The same address, of another VM. One file may be several changes.
    manifests.put("vms", vm("new", 2, "10.1.0.1"))
    moved = await following(watch)
    while [(e.address, e.vm_name) for e in moved.endpoints] != [("10.1.0.1", "new-2")]:
        moved = await following(watch)
    manifests.remove("new")
    assert not (await following(watch)).present
    manifests.put("new", service("new"))
    assert addresses(await following(watch)) == ["10.1.0.1"]


async def test_a_namespace_is_told_with_those_created_later(
    client: AsyncClient, manifests: Manifests
) -> None:
    watch = client.watch(namespaces="shop", readiness=Readiness.ALL)
    told = {state.service: state for state in [await following(watch), await following(watch)]}
    assert addresses(told["shop/web"]) == ["10.0.0.1", "10.0.0.9"]
    assert told["shop/old"].absence is not None
    assert told["shop/old"].absence.reason is AbsenceReason.REFUSED
    manifests.put("new", service("new"))
    assert (await following(watch)).service == "shop/new"
    manifests.remove("new")
    assert not (await following(watch)).present
    assert watch.synced
    assert sorted(watch.states) == ["shop/old", "shop/web"]


def test_the_sync_client_is_told_edits(server: Program, manifests: Manifests) -> None:
    with Client(server.grpc) as client, ThreadPoolExecutor(1) as thread:
        watch = client.watch("shop/web")
        assert addresses(next(watch)) == ["10.0.0.1"]
        waiting = thread.submit(next, watch)
        manifests.put("web", WEB.replace("10.0.0.1}", "10.0.0.2}"))
        assert addresses(waiting.result(PATIENCE_S)) == ["10.0.0.2"]


@pytest.fixture
def port() -> int:
    """A port that nobody else gets."""
    return reserved_port()


async def until(kind: type[Event], events: AsyncIterator[Event]) -> list[Event]:
    """Events up to the first of a kind, with it."""
    told: list[Event] = []
    async with asyncio.timeout(PATIENCE_S):
        while not told or not isinstance(told[-1], kind):
            told.append(await anext(events))
    return told


async def test_another_process_is_resumed(manifests: Manifests, tmp_path: Path, port: int) -> None:
    arguments: list[str | Path] = ["--manifests", manifests.directory, "--drain-s", "0.1"]
    arguments += ["--listen", f"127.0.0.1:{port}"]
    async with AsyncClient(f"127.0.0.1:{port}", retry=AT_ONCE) as client:
        watch = client.watch("shop/web")
        events = watch.events()
        with serving(arguments, tmp_path / "first"):
            await until(Synced, events)
        await until(Disconnected, events)
        assert addresses(watch.states["shop/web"]) == ["10.0.0.1"]
        assert not watch.synced
        with serving(arguments, tmp_path / "second") as second:
            told = await until(Synced, events)
            assert [e for e in told if not isinstance(e, Disconnected)] == [Synced()]
            assert _sent(second) == {"current": 1.0, "synced": 1.0}


def _sent(program: Program) -> dict[str, float]:
    """How many messages of each kind watches were sent."""
    with urllib.request.urlopen(f"http://{program.http}/metrics", timeout=PATIENCE_S) as answer:
        page = answer.read().decode()
    found = re.findall(r'^vmsvc_watch_messages_total{event="(\w+)"} (\S+)$', page, re.MULTILINE)
    return {event: float(count) for event, count in found if float(count)}
