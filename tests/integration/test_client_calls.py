"""Calls of both clients that are no watch: closed, too slow, cancelled, from a newer server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from tests.integration.scripted import Failure, ScriptedServer
from tests.integration.serving import serving
from tests.program import PATIENCE_S
from tests.unit.objects import service, vm
from vmsvc import AsyncClient, Client, UnavailableError, Verdict, VmsvcError
from vmsvc.v1 import endpoint_service_pb2 as pb


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that takes a connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE_S)
        yield server


def address(server: socket.socket) -> str:
    host, port = server.getsockname()
    return f"{host}:{port}"


async def test_a_call_is_given_up_in_time(silent: socket.socket) -> None:
    sentence = rf"server {address(silent)} did not answer in time"
    async with AsyncClient(address(silent), timeout_s=0.2) as client:
        with pytest.raises(UnavailableError, match=sentence):
            await client.resolve("shop/web")
    with (
        Client(address(silent), timeout_s=0.2) as sync,
        pytest.raises(UnavailableError, match=sentence),
    ):
        sync.resolve("shop/web")


def test_a_call_is_tried_again_by_itself_where_a_server_has_just_stopped() -> None:
    with ScriptedServer() as server, Client(server.address) as client:
        answers = iter([Failure(grpc.StatusCode.UNAVAILABLE)] * 2)
        server.answers["ListServicesRequest"] = lambda: next(answers, pb.ListServicesResponse())
        assert list(client.list()) == []
        assert len(server.requests) == 3


@pytest.mark.parametrize(
    "code",
    [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL],
)
def test_a_call_that_trying_again_cannot_help_is_not(code: grpc.StatusCode) -> None:
    with ScriptedServer() as server, Client(server.address) as client:
        server.unary["ListServicesRequest"] = Failure(code, "no")
        with pytest.raises(VmsvcError, match="no"):
            list(client.list())
        assert len(server.requests) == 1


async def test_a_server_that_stays_away_is_tried_four_times() -> None:
    with ScriptedServer() as server:
        server.unary["ListServicesRequest"] = Failure(grpc.StatusCode.UNAVAILABLE, "not now")
        async with AsyncClient(server.address) as client:
            with pytest.raises(UnavailableError, match="not now"):
                [service async for service in client.list()]
        assert len(server.requests) == 4


async def test_closing_ends_a_call_that_waits(silent: socket.socket) -> None:
    client = AsyncClient(address(silent))
    waiting = asyncio.create_task(client.resolve("shop/web"))
    connection, _ = await asyncio.to_thread(silent.accept)
    await client.aclose()
    with pytest.raises(RuntimeError, match="the client was closed"):
        await waiting
    connection.close()


def test_closing_ends_a_call_that_waits_in_another_thread(silent: socket.socket) -> None:
    client = Client(address(silent))
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(client.resolve, "shop/web")
        connection, _ = silent.accept()
        client.close()
        with pytest.raises(RuntimeError, match="the client was closed"):
            waiting.result(PATIENCE_S)
    connection.close()


async def test_a_closed_client_is_told_so(silent: socket.socket) -> None:
    client = AsyncClient(address(silent))
    await client.aclose()
    await client.aclose()
    with pytest.raises(RuntimeError, match="the client is closed"):
        await client.resolve("shop/web")
    with pytest.raises(RuntimeError, match="the client is closed"):
        await anext(client.watch("shop/web"))


def test_a_closed_sync_client_is_told_so(silent: socket.socket) -> None:
    client = Client(address(silent))
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="the client is closed"):
        client.resolve("shop/web")
    with pytest.raises(RuntimeError, match="the client is closed"):
        next(client.watch("shop/web"))


async def test_a_watch_whose_client_was_closed_before_it_began_is_over(
    silent: socket.socket,
) -> None:
    async with AsyncClient(address(silent)) as client:
        watch = client.watch("shop/web")
    assert [state async for state in watch] == []
    with Client(address(silent)) as sync:
        over = sync.watch("shop/web")
    assert list(over) == []


async def test_a_call_that_the_server_cancels_fails_and_is_not_our_cancellation() -> None:
    with ScriptedServer() as server:
        # As gRPC does to calls that wait too long to be accepted.
        server.unary["ResolveEndpointsRequest"] = Failure(grpc.StatusCode.CANCELLED, "too many")
        async with AsyncClient(server.address) as client:
            with pytest.raises(UnavailableError, match="too many"):
                await client.resolve("shop/web")


async def test_an_explanation_is_fetched_page_by_page() -> None:
    vms = [vm(f"vm-{n:03}", "10.0.0.1") for n in range(300)]
    async with serving(service(), *vms, vm("near", labels={"app": "db"})) as running:
        async with AsyncClient(running.address) as client:
            explained = await client.explain("shop/web")
            (one,) = (await client.explain("shop/web", vm_name="vm-007")).virtual_machines
        with Client(running.address) as sync:
            assert await asyncio.to_thread(sync.explain, "shop/web") == explained
    names = [of.vm_name for of in explained.virtual_machines]
    assert names == [*(f"vm-{n:03}" for n in range(300)), "near"]
    assert (explained.matching, explained.ready, explained.near_misses) == (300, 300, 1)
    assert one.vm_name == "vm-007"


def test_a_verdict_of_a_newer_server_is_unknown() -> None:
    with ScriptedServer() as server, Client(server.address) as client:
        newer = pb.VirtualMachineExplanation(vm_name="web-1", verdict=99)  # type: ignore[arg-type] # newer
        server.unary["ExplainEndpointsRequest"] = pb.ExplainEndpointsResponse(
            service="shop/web", virtual_machines=[newer]
        )
        [explained] = client.explain("shop/web").virtual_machines
        assert explained.verdict is Verdict.UNKNOWN
