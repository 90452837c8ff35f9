"""Calls of both clients that are no watch: closed, too slow, cancelled, from a newer server."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tests.integration.scripted import Failure, ScriptedServer
from tests.integration.serving import serving
from tests.integration.vmsvc_command import ENVIRONMENT
from tests.program import PATIENCE_S
from tests.unit.objects import service, vm
from vmsvc import AsyncClient, Client, UnavailableError, Verdict, VmsvcError
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc.v1.server_service_pb2 import GetVersionResponse


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


OTHER = pb.EndpointSet(service="shop/db", version=1)
SAME_PAGE = "again"
NEVER = Timestamp(seconds=10**15)


@pytest.mark.parametrize(
    ("call", "answer", "sentence"),
    [
        ("resolve", b"\x0f\xff", "its answer cannot be read"),
        ("list", b"\x0a\x03\x0a\x01\xff", "its answer cannot be read"),
        ("explain", b"\x0a\x01\xff", "its answer cannot be read"),
        ("resolve", b"", "asked about shop/web, and answers about ''"),
        ("resolve", pb.ResolveEndpointsResponse(endpoint_set=OTHER), "answers about 'shop/db'"),
        ("explain", pb.ExplainEndpointsResponse(service="shop/db"), "answers about 'shop/db'"),
        ("list", pb.ListServicesResponse(next_page_token=SAME_PAGE), "the same page again"),
        (
            "explain",
            pb.ExplainEndpointsResponse(service="shop/web", next_page_token=SAME_PAGE),
            "the same page again",
        ),
        (
            "explain",
            pb.ExplainEndpointsResponse(
                service="shop/web",
                virtual_machines=[
                    pb.VirtualMachineExplanation(
                        ready_condition=pb.Condition(last_transition_time=NEVER)
                    )
                ],
            ),
            "a time that cannot be: 1000000000000000 s and 0 ns",
        ),
        ("version", GetVersionResponse(started_at=NEVER), "a time that cannot be"),
        ("version", b"\x0a\x01\xff", "its answer cannot be read"),
    ],
)
async def test_an_answer_that_cannot_be_is_an_error_of_either_client(
    call: str, answer: bytes | Message, sentence: str
) -> None:
    data = answer if isinstance(answer, bytes) else answer.SerializeToString()
    with answering(data) as server:
        with pytest.raises(VmsvcError, match=sentence) as failed:
            async with AsyncClient(server) as client:
                await asked(client, call)
        assert failed.value.code is grpc.StatusCode.INTERNAL
        with Client(server) as sync, pytest.raises(VmsvcError, match=sentence) as failed:
            asked_sync(sync, call)
        assert failed.value.code is grpc.StatusCode.INTERNAL


def test_an_answer_that_cannot_be_read_is_one_line_of_the_command() -> None:
    with answering(b"\x0f\xff") as server:
        program = Path(sys.executable).with_name("vmsvc")
        command = [str(program), "resolve", "shop/web", "--server", server]
        ran = subprocess.run(
            command,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr == f"vmsvc: server {server}: its answer cannot be read\n"


@contextmanager
def answering(data: bytes) -> Iterator[str]:
    """The address of a server that answers all calls but watches by these bytes."""
    handler: grpc.RpcMethodHandler[bytes, bytes]
    handler = grpc.unary_unary_rpc_method_handler(lambda _request, _context: data)
    names = ("ResolveEndpoints", "ListServices", "ExplainEndpoints", "GetVersion")
    methods = dict.fromkeys(names, handler)
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(f"vmsvc.v1.{service}", methods)
                for service in ("EndpointService", "ServerService")
            ]
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


async def asked(client: AsyncClient, call: str) -> object:
    match call:
        case "resolve":
            return await client.resolve("shop/web")
        case "explain":
            return await client.explain("shop/web")
        case "version":
            return await client.version()
        case _:
            return [each async for each in client.list()]


def asked_sync(client: Client, call: str) -> object:
    match call:
        case "resolve":
            return client.resolve("shop/web")
        case "explain":
            return client.explain("shop/web")
        case "version":
            return client.version()
        case _:
            return list(client.list())


def test_a_verdict_of_a_newer_server_is_unknown() -> None:
    with ScriptedServer() as server, Client(server.address) as client:
        newer = pb.VirtualMachineExplanation(vm_name="web-1", verdict=99)  # type: ignore[arg-type] # newer
        server.unary["ExplainEndpointsRequest"] = pb.ExplainEndpointsResponse(
            service="shop/web", virtual_machines=[newer]
        )
        [explained] = client.explain("shop/web").virtual_machines
        assert explained.verdict is Verdict.UNKNOWN
