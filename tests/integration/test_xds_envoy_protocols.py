"""Whatever a VM serves, a real Envoy brings it there: HTTP/1.1, HTTP/2 with gRPC, TCP, UDP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import cast

import grpc
import pytest
from aiohttp import web

from tests.integration.envoy import Envoy, bootstrap, envoy, with_proxies
from tests.integration.serving import PATIENCE_S, Serving, serving
from tests.unit.objects import WEB, service, spec, vm
from tests.unit.server.endpoint_service.watching import listed
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.model.objects import Probe, Readiness, ServicePort
from vmsvc_grpc.model.resolve import AddressRules

VMS = {"a": "127.0.0.31", "b": "127.0.0.32", "c": "127.0.0.33", "d": "127.0.0.34"}
PORTS = {"http": (80, "TCP"), "grpc": (81, "TCP"), "tcp": (82, "TCP"), "udp": (53, "UDP")}
WHO = "/tests.Who/Is"

_ANSWER_S = 0.5
_NOBODY = "nobody"


class _Datagrams(asyncio.DatagramProtocol):
    """Answers each datagram with a VM's name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # uvloop's is none by type.

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(self._name.encode(), addr)


async def _machine(stack: AsyncExitStack, name: str, address: str, ports: dict[str, int]) -> None:
    """A VM that answers with its name, in each protocol on its own port."""
    answer = name.encode()

    async def http(_request: web.BaseRequest) -> web.Response:
        return web.Response(text=name)

    async def tcp(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    runner = web.ServerRunner(web.Server(http))
    stack.push_async_callback(runner.cleanup)
    await runner.setup()
    await web.TCPSite(runner, address, ports["http"]).start()
    raw = await stack.enter_async_context(await asyncio.start_server(tcp, address, ports["tcp"]))
    assert raw.is_serving()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Datagrams(name), (address, ports["udp"])
    )
    stack.callback(transport.close)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])

    async def say(_request: bytes, _context: object) -> bytes:
        return answer

    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(say)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("tests.Who", {"Is": handler}),)
    )
    server.add_insecure_port(f"{address}:{ports['grpc']}")
    await server.start()
    stack.push_async_callback(server.stop, None)


class World:
    """VMs of `web` that serve each protocol, our server, and an Envoy that has all of them."""

    def __init__(self, running: Serving, proxy: Envoy) -> None:
        self.running = running
        self.proxy = proxy

    def ready(self, *names: str) -> None:
        """These VMs are ready, and no others."""
        for name, address in VMS.items():
            ready = Readiness.TRUE if name in names else Readiness.FALSE
            self.running.apply(Apply(vm(name, address, probe=Probe.TCP_SOCKET, ready=ready)))

    async def http(self) -> str:
        said = await self.proxy.call("web.shop:80")
        return _NOBODY if said == "503" else said

    async def grpc(self) -> str:
        async with grpc.aio.insecure_channel(self.proxy.entrance) as channel:
            method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(WHO)
            try:
                said = await method(b"", metadata=(("x-cluster", "web.shop:81"),))
            except grpc.aio.AioRpcError as error:
                return _NOBODY if error.code() is grpc.StatusCode.UNAVAILABLE else str(error)
        return said.decode()

    async def tcp(self) -> str:
        reader, writer = await asyncio.open_connection(*self.proxy.entrances["tcp"])
        try:
            return (await reader.read()).decode() or _NOBODY
        except ConnectionError:
            return _NOBODY
        finally:
            writer.close()

    async def udp(self) -> str:
        loop = asyncio.get_running_loop()
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(self.proxy.entrances["udp"])
            await loop.sock_sendall(client, b"?")
            try:
                async with asyncio.timeout(_ANSWER_S):
                    return (await loop.sock_recv(client, 100)).decode()
            except TimeoutError:
                return _NOBODY

    async def answer(self, call: Callable[[], Awaitable[str]], *expected: str) -> None:
        """Wait until just these answer."""
        found: set[str] = set()
        async with asyncio.timeout(PATIENCE_S):
            while found != set(expected):
                found = {await call() for _ in range(4 * len(expected))}


def _free_ports() -> dict[str, int]:
    found = {}
    for name, (_, protocol) in PORTS.items():
        kind = socket.SOCK_DGRAM if protocol == "UDP" else socket.SOCK_STREAM
        with socket.socket(type=kind) as probe:
            probe.bind(("", 0))
            found[name] = probe.getsockname()[1]
    return found


@asynccontextmanager
async def world(mode: str, folder: Path) -> AsyncIterator[World]:
    cache = Cache(AddressRules(allow_loopback=True))
    listed(cache)
    ports = _free_ports()
    async with AsyncExitStack() as stack:
        # First, as when it ends it waits for all that has begun since.
        running = await stack.enter_async_context(serving(cache=cache))
        for name, address in VMS.items():
            await _machine(stack, name, address, ports)
        served = tuple(ServicePort(n, p, number, ports[n]) for n, (number, p) in PORTS.items())
        running.apply(Apply(service(WEB, spec(ports=served))))
        config = bootstrap([running.address], mode, readiness="all")
        config = with_proxies(config, "web.shop:82", "web.shop:53")
        proxy = await stack.enter_async_context(envoy(config, folder))
        yield World(running, proxy)


@pytest.mark.parametrize("mode", ["GRPC", "DELTA_GRPC"])
async def test_each_protocol_reaches_the_vms_that_are_ready_and_no_others(
    mode: str, tmp_path: Path
) -> None:
    """By default HTTP/2 became HTTP/1.1, and all got a share once fewer than half were ready."""
    async with world(mode, tmp_path) as here:
        calls = {name: getattr(here, name) for name in PORTS}
        for ready in (("a",), (), ("b", "c"), tuple(VMS)):
            here.ready(*ready)
            for name, call in calls.items():
                try:
                    await here.answer(call, *(ready or [_NOBODY]))
                except TimeoutError:
                    raise AssertionError(f"{name}: not {ready}") from None
        assert await here.proxy.stat("cluster_manager.cds.update_rejected") == 0
