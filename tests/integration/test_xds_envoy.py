"""A real Envoy follows VMs by xDS: over ADS in both forms, and for endpoints alone."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster

from tests import program
from tests.integration.delaying import delaying
from tests.integration.envoy import Envoy, Machines, bootstrap, envoy, machines, on_demand
from tests.integration.serving import PATIENCE_S, Serving, make_transport, serving, until
from tests.program import Program
from tests.unit.objects import WEB, service, spec, vm
from tests.unit.server.endpoint_service.watching import listed
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply, Delete
from vmsvc_grpc.model.objects import Key, Kind, Probe, Readiness, ServicePort
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.server.call import Code
from vmsvc_grpc.server.listen import Server
from vmsvc_grpc.server.transport import Listener
from vmsvc_grpc.server.xds import resources as xds_resources
from vmsvc_grpc.server.xds.following import XdsScope
from vmsvc_grpc.server.xds.resources import TypeUrl

ADS = ("GRPC", "DELTA_GRPC")
MODES = pytest.mark.parametrize("mode", [*ADS, "EDS", "DELTA_EDS"])
BOTH_FORMS = pytest.mark.parametrize("mode", ADS)


class Traffic:
    """Requests, one after the other, until told to stop; who answered, or what went wrong."""

    def __init__(self, running: Envoy) -> None:
        self.seen: Counter[str] = Counter()
        self._envoy = running
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            self.seen[await self._envoy.call()] += 1
            await asyncio.sleep(0.001)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


class World:
    """Machines, a cache that says they are VMs of `web`, our server, and an Envoy."""

    def __init__(self, machines: Machines, running: Serving, stack: AsyncExitStack) -> None:
        self.machines = machines
        self.running = running
        self.stack = stack

    def vm(self, name: str, address_of: str = "", **fields: Any) -> None:
        address = self.machines.addresses[address_of or name]
        self.running.apply(Apply(vm(name, address, **fields)))

    def gone(self, name: str) -> None:
        self.running.apply(Delete(Kind.VIRTUAL_MACHINE, Key("shop", name)))

    def serve(self, port: int = 80) -> None:
        ports = (ServicePort("http", "TCP", port, self.machines.port),)
        self.running.apply(Apply(service(WEB, spec(ports=ports))))

    def withdraw(self) -> None:
        self.running.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, WEB))


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    cache = Cache(AddressRules(allow_loopback=True))
    listed(cache)
    async with (
        machines("a", "b", "c") as local,
        serving(cache=cache) as running,
        AsyncExitStack() as stack,
    ):
        made = World(local, running, stack)
        made.serve()
        made.vm("a")
        made.vm("b")
        yield made


@MODES
async def test_traffic_follows_the_vms(mode: str, tmp_path: Path) -> None:
    async with world() as here, envoy(bootstrap([here.running.address], mode), tmp_path) as proxy:
        await proxy.answers("a", "b")
        traffic = Traffic(proxy)
        here.vm("c")
        await proxy.answers("a", "b", "c")
        here.gone("a")
        await proxy.answers("b", "c")
        here.vm("b", probe=Probe.TCP_SOCKET, ready=Readiness.FALSE)
        await proxy.answers("c")
        here.vm("c", address_of="a")
        await proxy.answers("a")
        await traffic.stop()
        assert traffic.seen.total() > 0
        assert traffic.seen.keys() <= {"a", "b", "c"}, "no request failed"


@MODES
async def test_a_service_is_deleted_and_created(mode: str, tmp_path: Path) -> None:
    async with world() as here, envoy(bootstrap([here.running.address], mode), tmp_path) as proxy:
        await proxy.answers("a", "b")
        here.withdraw()
        await proxy.answers("503")
        here.serve()
        await proxy.answers("a", "b")
        here.withdraw()
        here.serve()
        await proxy.answers("a", "b")
        await clean(proxy)


@BOTH_FORMS
async def test_clusters_come_go_and_come_back_though_there_were_none_at_first(
    mode: str, tmp_path: Path
) -> None:
    async with world() as here:
        here.withdraw()
        async with envoy(bootstrap([here.running.address], mode), tmp_path) as proxy:
            assert await proxy.call() == "503"
            for _ in range(2):
                here.serve()
                await proxy.answers("a", "b")
                here.withdraw()
                await proxy.answers("503")
            await clean(proxy)


@BOTH_FORMS
async def test_a_port_is_changed_and_no_cluster_waits(mode: str, tmp_path: Path) -> None:
    async with world() as here, envoy(bootstrap([here.running.address], mode), tmp_path) as proxy:
        await proxy.answers("a", "b")
        for port in (81, 80, 81):
            here.serve(port)
            # Well below the 15 s after which Envoy takes a cluster without its endpoints.
            async with asyncio.timeout(10):
                await proxy.answers("a", "b", cluster=f"web.shop:{port}")
            assert list(await proxy.clusters()) == [f"web.shop:{port}"]
        await clean(proxy)


@BOTH_FORMS
@pytest.mark.parametrize(("delay_ms", "a_second"), [(20, 25), (20, 200), (5, 200)])
async def test_a_new_service_arrives_from_afar_while_another_changes(
    mode: str, delay_ms: int, a_second: int, tmp_path: Path
) -> None:
    """At 40 ms and 25 changes a second it never came, and Envoy gave up after its 15 s.

    That it takes two round trips and half a second at most is held by `test_far_property`, in which
    time is a number: here it also depends on how busy the machine is.
    """
    async with (
        world() as here,
        delaying(here.running.address, delay_ms / 1000) as far,
        envoy(bootstrap([far], mode), tmp_path) as proxy,
    ):
        await proxy.answers("a", "b")
        busy = asyncio.create_task(_change(here, 1 / a_second))
        ports = (ServicePort("http", "TCP", 80, here.machines.port),)
        for name in ("new0", "new1", "new2"):
            here.running.apply(Apply(service(Key("shop", name), spec(ports=ports))))
            async with asyncio.timeout(12):  # It would be 15 s, or never.
                await proxy.answers("a", "b", cluster=f"{name}.shop:80")
        busy.cancel()
        await asyncio.wait([busy])
        await clean(proxy)


async def _change(here: World, every_s: float) -> None:
    """Endpoints of the busy service change, again and again."""
    here.running.apply(Apply(service(Key("shop", "busy"), spec({"app": "busy"}))))
    number = 0
    while True:
        number += 1
        address = f"127.0.1.{number % 250}"
        here.running.apply(Apply(vm("busy", address, labels={"app": "busy"})))
        await asyncio.sleep(every_s)


async def clean(proxy: Envoy) -> None:
    """Nothing waits, and nothing was refused."""
    assert await proxy.warming() == []
    assert await proxy.stat("cluster_manager.cds.update_rejected") == 0
    assert await proxy.stat("cluster.web.shop_80.update_rejected") == 0
    assert await proxy.stat("cluster.web.shop_80.init_fetch_timeout") == 0


@MODES
async def test_envoy_takes_what_changed_while_the_server_was_away(
    mode: str, tmp_path: Path
) -> None:
    async with world() as here:
        first = Server(here.running.cache, [Listener("127.0.0.1:0")], make_transport)
        (address,) = await first.start()
        async with envoy(bootstrap([address], mode), tmp_path) as proxy:
            await proxy.answers("a", "b")
            await first.stop()
            here.vm("c")
            here.gone("a")
            await proxy.answers("a", "b")
            second = Server(here.running.cache, [Listener(address)], make_transport)
            assert await second.start() == (address,)
            await proxy.answers("b", "c")
            await clean(proxy)
        await until(lambda: not second.counts.streams_open.total())
        await second.stop()


@BOTH_FORMS
@pytest.mark.parametrize("endpoints", ["the same", "others"])
async def test_a_release_whose_clusters_differ_leaves_none_of_them_waiting(
    mode: str, endpoints: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """envoy#22418: as deltas, Envoy says which endpoints it holds, and then waited for them."""
    async with world() as here:
        with monkeypatch.context() as earlier:
            earlier.setitem(xds_resources._CONTENTS, TypeUrl.CLUSTER, _earlier_cluster)
            first = Server(here.running.cache, [Listener("127.0.0.1:0")], make_transport)
            (address,) = await first.start()
            proxy = await here.stack.enter_async_context(
                envoy(bootstrap([address], mode), tmp_path)
            )
            await proxy.answers("a", "b")
            assert await proxy.alternative_name() == "earlier"
            await first.stop()
        if endpoints == "others":
            here.vm("c")
        second = Server(here.running.cache, [Listener(address)], make_transport)
        assert await second.start() == (address,)
        # Well below the 15 s after which Envoy takes a cluster without its endpoints.
        async with asyncio.timeout(10):
            while await proxy.alternative_name():  # noqa: ASYNC110 - in Envoy
                await asyncio.sleep(0.01)
        await proxy.answers("a", "b", *(["c"] if endpoints == "others" else []))
        await clean(proxy)
        await here.stack.aclose()
        await until(lambda: not second.counts.streams_open.total())
        await second.stop()


def _earlier_cluster(name: str) -> bytes:
    made: Any = Cluster.FromString(xds_resources.cluster(name))
    made.alt_stat_name = "earlier"
    return bytes(made.SerializeToString())


@pytest.mark.parametrize("header", ["", "*", "x" * 5_000, "\udcff\udcfe.shop:80", "%00", "a b"])
async def test_an_on_demand_cluster_of_any_name_costs_its_request_alone(
    header: str, tmp_path: Path
) -> None:
    """One HTTP request with a long `x-cluster` ended Envoy's stream, and each one after it."""
    async with world() as here:
        config = on_demand(bootstrap([here.running.address], "DELTA_GRPC"))
        async with envoy(config, tmp_path) as proxy:
            await proxy.answers("a", "b")
            assert await proxy.call_raw(header) == 503
            here.vm("c")
            await proxy.answers("a", "b", "c")
            calls = here.running.counts.calls
            assert not [path for path, code in calls if code is not Code.OK], "no stream has ended"
            await clean(proxy)


@pytest.mark.parametrize("names", [["*"], ["none.shop:80", "*"], ["*", "none.shop:80", "*"]])
async def test_a_wildcard_on_demand_costs_its_request_alone_though_nothing_is_served(
    names: list[str], tmp_path: Path
) -> None:
    """An empty response crashes an Envoy 1.40, whose first request hides that it is on demand."""
    async with world() as here:
        here.withdraw()
        config = on_demand(bootstrap([here.running.address], "DELTA_GRPC"))
        async with envoy(config, tmp_path) as proxy:
            for name in names:
                assert await proxy.call_raw(name) == 503
            here.serve()
            await proxy.answers("a", "b")
            await clean(proxy)


async def test_an_envoy_comes_back_with_all_that_was_asked_for_on_demand(tmp_path: Path) -> None:
    """It never lets go of a name, and lists them all when it connects again."""
    async with world() as here:
        first = Server(here.running.cache, [Listener("127.0.0.1:0")], make_transport)
        (address,) = await first.start()
        config = on_demand(bootstrap([address], "DELTA_GRPC"))
        proxy = await here.stack.enter_async_context(envoy(config, tmp_path))
        await proxy.answers("a", "b")
        names = ["", "*", "none.shop:80", *(f"{'x' * 500}{number}" for number in range(40))]
        for name in names:
            assert await proxy.call_raw(name) == 503
        await first.stop()
        here.vm("c")
        second = Server(here.running.cache, [Listener(address)], make_transport)
        assert await second.start() == (address,)
        await proxy.answers("a", "b", "c")
        ports = (ServicePort("http", "TCP", 80, here.machines.port),)
        here.running.apply(Apply(service(Key("shop", "none"), spec(ports=ports))))
        await proxy.answers("a", "b", "c", cluster="none.shop:80")
        calls = second.counts.calls
        assert not [path for path, code in calls if code is not Code.OK], "no stream has ended"
        await clean(proxy)
        await here.stack.aclose()
        await until(lambda: not second.counts.streams_open.total())
        await second.stop()


@MODES
async def test_what_is_deleted_while_the_server_is_away_goes_once_it_knows_all(
    mode: str, tmp_path: Path
) -> None:
    """A server that starts says nothing before it knows all, and Envoy keeps what it has."""
    async with world() as here:
        first = Server(here.running.cache, [Listener("127.0.0.1:0")], make_transport)
        (address,) = await first.start()
        async with envoy(bootstrap([address], mode), tmp_path) as proxy:
            await proxy.answers("a", "b")
            await first.stop()
            anew = Cache(AddressRules(allow_loopback=True))
            second = Server(anew, [Listener(address)], make_transport)
            assert await second.start() == (address,)
            await until(second.counts.streams_open.total)
            await proxy.answers("a", "b")
            listed(anew)
            await proxy.answers("503")
        await until(lambda: not second.counts.streams_open.total())
        await second.stop()


@MODES
async def test_one_of_two_replicas_is_killed(mode: str, tmp_path: Path) -> None:
    """Two processes with the same manifests, of which the one that is used dies at once."""
    async with machines("a", "b", "c") as local:
        manifests = tmp_path / "manifests"
        manifests.mkdir()
        (manifests / "web.yaml").write_text(
            _service(local.port) + _vm("a", local) + _vm("b", local)
        )
        arguments = ["--manifests", str(manifests), "--allow-loopback", "--drain-s", "0"]
        async with AsyncExitStack() as stack:
            replicas = [
                await stack.enter_async_context(_program(arguments, tmp_path / f"log{number}"))
                for number in range(2)
            ]
            addresses = [replica.grpc for replica in replicas]
            proxy = await stack.enter_async_context(envoy(bootstrap(addresses, mode), tmp_path))
            await proxy.answers("a", "b")
            traffic = Traffic(proxy)
            used = next(replica for replica in replicas if _is_used(replica))
            used.process.kill()
            (tmp_path / "c").write_text(_vm("c", local))
            (tmp_path / "c").rename(manifests / "c.yaml")
            await proxy.answers("a", "b", "c")
            await traffic.stop()
            assert traffic.seen.keys() <= {"a", "b", "c"}, "no request failed"


@asynccontextmanager
async def _program(arguments: list[str], log: Path) -> AsyncIterator[Program]:
    """The real program, in a thread's care; it may have been killed when the block ends."""
    stack = ExitStack()
    try:
        yield await asyncio.to_thread(stack.enter_context, program.serving(arguments, log))
    finally:
        with suppress(program.ProgramError):
            await asyncio.to_thread(stack.close)


def _is_used(replica: Program) -> bool:
    """Whether a stream of xDS is open there."""
    with urllib.request.urlopen(f"http://{replica.http}/metrics") as page:
        text = page.read().decode()
    return bool(re.search(r'vmsvc_streams_open\{[^}]*grpc_service="envoy[^}]*\} [1-9]', text))


def _service(port: int) -> str:
    return f"""\
apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachineService
metadata: {{name: web, namespace: shop}}
spec: {{selector: {{app: web}}, ports: [{{name: http, port: 80, targetPort: {port}}}]}}
"""


def _vm(name: str, local: Machines) -> str:
    return f"""\
---
apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachine
metadata: {{name: {name}, namespace: shop, labels: {{app: web}}}}
status: {{network: {{primaryIP4: {local.addresses[name]}}}}}
"""


@BOTH_FORMS
async def test_a_scope_shows_the_namespace_of_the_node_alone(mode: str, tmp_path: Path) -> None:
    async with world() as here:
        here.running.apply(Apply(service(Key("lab", "web"))))
        cache, scope = here.running.cache, XdsScope.NAMESPACE
        server = Server(cache, [Listener("127.0.0.1:0")], make_transport, xds_scope=scope)
        config = bootstrap(list(await server.start()), mode, namespace="shop")
        async with envoy(config, tmp_path) as proxy:
            await proxy.answers("a", "b")
            here.running.apply(
                Apply(service(Key("lab", "new"))), Apply(service(Key("shop", "new")))
            )
            async with asyncio.timeout(PATIENCE_S):
                while "new.shop:80" not in await proxy.clusters():  # noqa: ASYNC110 - in Envoy
                    await asyncio.sleep(0.01)
            assert sorted(await proxy.clusters()) == ["new.shop:80", "web.shop:80"]
        await server.stop()


@BOTH_FORMS
async def test_a_vm_of_two_families_is_one_host(mode: str, tmp_path: Path) -> None:
    async with world() as here, envoy(bootstrap([here.running.address], mode), tmp_path) as proxy:
        ports = (ServicePort("http", "TCP", 80, here.machines.port),)
        here.running.apply(Apply(service(WEB, spec(ports=ports, cluster_ip="None"))))
        here.running.apply(Apply(vm("a", here.machines.addresses["a"], "::1")))
        here.vm("c")
        await proxy.answers("a", "b", "c")
        assert len((await proxy.clusters())["web.shop:80"]) == 3
        await clean(proxy)


async def test_an_envoy_can_have_those_that_are_not_ready_too(tmp_path: Path) -> None:
    async with world() as here:
        here.vm("b", probe=Probe.TCP_SOCKET, ready=Readiness.FALSE)
        config = bootstrap([here.running.address], "GRPC", readiness="all")
        async with envoy(config, tmp_path) as proxy:
            await proxy.answers("a")
            shown = await proxy.ask("/clusters")
            address = f"{here.machines.addresses['b']}:{here.machines.port}"
            assert f"{address}::health_flags::/failed_eds_health" in shown
