"""gRPC's own xDS clients, of four languages, follow VMs with `xds:///web.shop:80`."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from tests.integration.serving import PATIENCE_S, Serving, serving
from tests.unit.objects import WEB, service, spec, vm
from tests.unit.server.endpoint_service.watching import listed
from tests.xds.clients import LANGUAGES, command
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply, Delete
from vmsvc_grpc.model.objects import Key, Kind, Probe, Readiness, ServicePort, ServiceSpec
from vmsvc_grpc.model.resolve import AddressRules

NAMES = {"a": "127.0.0.21", "b": "127.0.0.22", "c": "127.0.0.23"}
TARGET = "xds:///web.shop:80"

# As many answers of one target tell who serves it: round robin has given each its turn.
_ENOUGH = 12
_LINE_MAX = 1_000


class Client:
    """A client process: who answered each of its targets, newest last."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._said: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=_ENOUGH))

    async def answers(self, *expected: str, targets: Sequence[str] = (TARGET,)) -> None:
        """Read until just these answer each target, each of them."""
        self._said.clear()
        assert self._process.stdout is not None
        left = set(targets)
        try:
            async with asyncio.timeout(2 * PATIENCE_S):
                while left:
                    line = (await self._process.stdout.readline()).decode().split()
                    assert line, "the client has ended"
                    said = self._said[line[0]]
                    said.append(line[1])
                    if len(said) == _ENOUGH and set(said) == set(expected):
                        left.discard(line[0])
        except TimeoutError:
            shown = {target: list(self._said[target]) for target in left}
            raise AssertionError(f"not {expected}, but {shown}") from None

    def failures(self) -> list[str]:
        """What went wrong lately."""
        return [one for said in self._said.values() for one in said if one.startswith("!")]


@asynccontextmanager
async def client(language: str, address: str, folder: Path, *targets: str) -> AsyncIterator[Client]:
    """A client that calls the targets, as our server at `address` resolves them."""
    bootstrap = folder / "bootstrap.json"
    server = {
        "server_uri": address,
        "channel_creds": [{"type": "insecure"}],
        "server_features": ["xds_v3"],
    }
    node = {"id": language, "locality": {"zone": "z1"}}  # grpc-js asks for a locality.
    bootstrap.write_text(json.dumps({"xds_servers": [server], "node": node}))
    built = await asyncio.to_thread(command, language)
    with (folder / "client.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *built,
            *(targets or (TARGET,)),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env={**os.environ, "GRPC_XDS_BOOTSTRAP": str(bootstrap)},
            limit=_LINE_MAX,
        )
    try:
        yield Client(process)
    finally:
        process.kill()
        assert process.stdout is not None
        await process.stdout.read()  # Else its pipe is closed after the loop.
        await process.wait()


@asynccontextmanager
async def machines() -> AsyncIterator[int]:
    """A gRPC server for each name, that answers with it; the port, which is the same for all."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
    servers = [_machine(name, f"{address}:{port}") for name, address in NAMES.items()]
    for server in servers:
        await server.start()
    try:
        yield port
    finally:
        for server in servers:
            await server.stop(None)


def _machine(name: str, address: str) -> grpc.aio.Server:
    async def am(_request: bytes, _context: object) -> bytes:
        return b"\x0a" + bytes([len(name)]) + name.encode()  # A StringValue.

    server = grpc.aio.server()
    method: grpc.RpcMethodHandler[bytes, bytes]
    method = grpc.unary_unary_rpc_method_handler(am)
    handler = grpc.method_handlers_generic_handler("test.Who", {"Am": method})
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(address)
    return server


@asynccontextmanager
async def world(*services: Key) -> AsyncIterator[tuple[Serving, int]]:
    """Our server over VMs `a` and `b`, which serve these services; and the VMs' port."""
    cache = Cache(AddressRules(allow_loopback=True))
    async with serving(cache=cache) as running, machines() as port:
        made = [service(key, _spec(port)) for key in services]
        listed(cache, *made, vm("a", NAMES["a"]), vm("b", NAMES["b"]))
        yield running, port


def _spec(port: int) -> ServiceSpec:
    return spec(ports=(ServicePort("grpc", "TCP", 80, port),))


@pytest.mark.parametrize("language", LANGUAGES)
async def test_round_robin_follows_the_vms(language: str, tmp_path: Path) -> None:
    async with (
        world(WEB) as (running, _),
        client(language, running.address, tmp_path) as calls,
    ):
        await calls.answers("a", "b")
        running.apply(Apply(vm("c", NAMES["c"], zone="z1")))
        await calls.answers("a", "b", "c")
        running.apply(Delete(Kind.VIRTUAL_MACHINE, Key("shop", "a")))
        await calls.answers("b", "c")
        sick = vm("b", NAMES["b"], probe=Probe.TCP_SOCKET, ready=Readiness.FALSE)
        running.apply(Apply(sick))
        await calls.answers("c")
        running.apply(Apply(vm("c", NAMES["a"])), Apply(vm("d", NAMES["a"])))
        await calls.answers("a")
        assert calls.failures() == []
        assert running.counts.xds_nacks.total() == 0


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_service_that_does_not_exist_yet(language: str, tmp_path: Path) -> None:
    async with (
        world() as (running, port),
        client(language, running.address, tmp_path) as calls,
    ):
        async with asyncio.timeout(PATIENCE_S):
            while not running.counts.streams_open.total():  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
        running.apply(Apply(service(WEB, _spec(port))))
        await calls.answers("a", "b")
        running.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, WEB))
        running.apply(Apply(service(WEB, _spec(port))))
        await calls.answers("a", "b")
        assert running.counts.xds_nacks.total() == 0


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_vm_of_two_families_is_one_endpoint(language: str, tmp_path: Path) -> None:
    """A headless service has both; a client takes the second address as one more of the same."""
    async with (
        world() as (running, port),
        client(language, running.address, tmp_path) as calls,
    ):
        ports = (ServicePort("grpc", "TCP", 80, port),)
        running.apply(Apply(vm("a", NAMES["a"], "::1")), Apply(vm("c", NAMES["c"], "::1")))
        running.apply(Apply(service(WEB, spec(ports=ports, cluster_ip="None"))))
        await calls.answers("a", "b", "c")
        assert calls.failures() == []
        assert running.counts.xds_nacks.total() == 0


async def test_fifty_targets_of_one_process(tmp_path: Path) -> None:
    keys = [Key("shop", f"s{number}") for number in range(50)]
    targets = [f"xds:///{key.name}.{key.namespace}:80" for key in keys]
    async with (
        world(*keys) as (running, _),
        client("python", running.address, tmp_path, *targets) as calls,
    ):
        await calls.answers("a", "b", targets=targets)
        running.apply(Delete(Kind.VIRTUAL_MACHINE, Key("shop", "a")))
        await calls.answers("b", targets=targets)
        assert running.counts.xds_nacks.total() == 0
