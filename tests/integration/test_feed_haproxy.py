"""`vmsvc feed haproxy` against a real HAProxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration import haproxy as real
from tests.integration.haproxy import Haproxy, Vms
from tests.integration.serving import PATIENCE_S, until
from tests.unit.client.feed.states import WEB, endpoint, state
from vmsvc.feed.haproxy.output import Backends, Settings
from vmsvc.feed.haproxy.runtime import Place, Runtime
from vmsvc.feed.haproxy.wanted import State
from vmsvc.feed.output import OutputError
from vmsvc.feed.target import Target
from vmsvc.model import Endpoint, Port, ServiceState

A, B, C = "127.0.1.1", "127.0.1.2", "127.0.1.3"


@pytest.fixture
async def haproxy() -> AsyncIterator[Haproxy]:
    async with real.prepared() as made:
        yield made


@pytest.fixture
async def vms() -> AsyncIterator[Vms]:
    async with real.vms(A, B, C, "::1") as made:
        yield made


def backends(haproxy: Haproxy, **settings: object) -> Backends:
    targets = (Target("web", WEB),)
    return Backends(haproxy.runtime, targets, Settings(**settings))  # type: ignore[arg-type]


def serving(vms: Vms, *endpoints: str | Endpoint) -> dict[str, ServiceState]:
    return {WEB: state(WEB, *endpoints, ports=(Port("http", 80, vms.port, "TCP"),))}


async def test_dynamic_servers_follow_the_endpoints(haproxy: Haproxy, vms: Vms) -> None:
    haproxy.configure(real.DYNAMIC + "    server fixed 127.0.0.1:9 weight 0\n")
    await haproxy.start()
    output = backends(haproxy, server_options="check inter 100")
    assert (await output.apply(serving(vms, A, "::1"))).changes == 6
    assert (await output.apply(serving(vms, A, "::1"))).changes == 0
    assert {await haproxy.get() for _ in range(4)} == {A, "::1"}

    assert (await output.apply(serving(vms, endpoint(A, ready=False), B))).changes
    assert {await haproxy.get() for _ in range(4)} == {B}
    found = await haproxy.servers()
    assert found[f"vmsvc_{A}_{vms.port}"] == f"{A}:{vms.port} MAINT"
    assert found["fixed"] == "127.0.0.1:9 no check"
    async with asyncio.timeout(PATIENCE_S):
        # HAProxy may keep a connection for a moment.
        while f"vmsvc_::1_{vms.port}" in await haproxy.servers():
            await output.apply(serving(vms, endpoint(A, ready=False), B))


async def test_a_service_that_is_not_known_changes_nothing(haproxy: Haproxy, vms: Vms) -> None:
    haproxy.configure()
    await haproxy.start()
    output = backends(haproxy)
    await output.apply(serving(vms, A))
    assert (await output.apply({})).changes == 0
    assert await haproxy.get() == A
    assert (await output.apply(serving(vms))).changes
    assert await haproxy.get() == "503"


async def test_slots_follow_the_endpoints(haproxy: Haproxy, vms: Vms) -> None:
    haproxy.configure(real.SLOTS, slots=2)
    await haproxy.start()
    output = backends(haproxy)
    assert (await output.apply(serving(vms, A, "::1"))).changes == 4
    assert (await output.apply(serving(vms, A, "::1"))).changes == 0
    assert {await haproxy.get() for _ in range(4)} == {A, "::1"}
    with pytest.raises(OutputError, match=r"^backend web has 1 slots too few$"):
        await output.apply(serving(vms, A, B, C))
    assert (await haproxy.get(), await haproxy.get()) in ((A, B), (B, A))


async def test_requests_under_way_end_before_their_server_is_deleted(
    haproxy: Haproxy, vms: Vms
) -> None:
    haproxy.configure()
    await haproxy.start()
    output = backends(haproxy)
    await output.apply(serving(vms, A))
    waits = asyncio.create_task(haproxy.get("/wait"))
    await until(lambda: vms.waiting[A])
    assert (await output.apply(serving(vms, B))).again_in_s is not None
    assert {await haproxy.get() for _ in range(3)} == {B}
    assert (await output.apply(serving(vms, B))).changes == 0
    assert (await haproxy.servers())[f"vmsvc_{A}_{vms.port}"].endswith(" MAINT")

    vms.go()
    assert await waits == A
    async with asyncio.timeout(PATIENCE_S):
        # HAProxy may keep a connection for a moment.
        while not (await output.apply(serving(vms, B))).changes:
            pass
    assert set(await haproxy.servers()) == {f"vmsvc_{B}_{vms.port}"}


@pytest.mark.parametrize("layout", [real.DYNAMIC, real.SLOTS], ids=["dynamic", "slots"])
async def test_requests_that_do_not_end_are_ended_in_time(
    haproxy: Haproxy, vms: Vms, layout: str
) -> None:
    haproxy.configure(layout, slots=2)
    await haproxy.start()
    await backends(haproxy).apply(serving(vms, A))
    waits = asyncio.create_task(haproxy.get("/wait"))
    await until(lambda: vms.waiting[A])
    await backends(haproxy).apply(serving(vms, B))
    async with asyncio.timeout(PATIENCE_S):
        while not waits.done():
            await backends(haproxy, drain_s=1).apply(serving(vms, B))
    assert await waits != A
    assert await haproxy.get() == B


@pytest.mark.parametrize("layout", [real.DYNAMIC, real.SLOTS], ids=["dynamic", "slots"])
async def test_what_somebody_else_changes_is_put_right(
    haproxy: Haproxy, vms: Vms, layout: str
) -> None:
    haproxy.configure(layout + "    server fixed 127.0.0.1:9 disabled\n", slots=3)
    await haproxy.start()
    output, states = backends(haproxy), serving(vms, A, B)
    await output.apply(states)
    before = await haproxy.servers()
    first, second = (name for name, said in before.items() if ":0 " not in said and name != "fixed")
    await haproxy.ask(
        f"set server web/{first} weight 0%",
        f"set server web/{first} addr 127.0.1.9 port 9",
        f"set server web/{second} state maint",
        "set server web/fixed weight 0%",
    )
    assert (await output.apply(states)).changes >= 3
    assert await haproxy.servers() == before
    if layout == real.DYNAMIC:
        await haproxy.ask(f"set server web/{second} state maint", f"del server web/{second}")
        assert set(await haproxy.servers()) == {first, "fixed"}
        assert (await output.apply(states)).changes == 2
    assert (await output.apply(states)).changes == 0
    assert {await haproxy.get() for _ in range(4)} == {A, B}
    (said,) = await haproxy.ask("show servers state web")
    assert " fixed 127.0.0.1 0 5 0 1 " in said


@pytest.mark.parametrize(
    "layout",
    [
        real.DYNAMIC,
        real.SLOTS + "    server slot9 0.0.0.0:0 disabled backup\n",
    ],
    ids=["dynamic", "slots"],
)
async def test_another_zone_serves_when_ours_does_not(
    haproxy: Haproxy, vms: Vms, layout: str
) -> None:
    haproxy.configure(layout, slots=2)
    await haproxy.start()
    output = backends(haproxy, zone="here")
    here, there = endpoint(A, zone="here"), endpoint(B, zone="there")
    await output.apply(serving(vms, here, there))
    assert {await haproxy.get() for _ in range(4)} == {A}
    await output.apply(serving(vms, endpoint(A, zone="here", ready=False), there))
    assert {await haproxy.get() for _ in range(4)} == {B}
    # Another feed prefers another zone: servers change their roles, and none is missing meanwhile.
    await backends(haproxy, zone="there").apply(serving(vms, here, there))
    assert {await haproxy.get() for _ in range(4)} == {B}


async def test_endpoints_that_are_not_ready_may_drain(haproxy: Haproxy, vms: Vms) -> None:
    haproxy.configure(
        "backend web\n    balance roundrobin\n    dynamic-cookie-key k\n"
        "    cookie S insert indirect dynamic\n"
    )
    await haproxy.start()
    output = backends(haproxy, not_ready=State.DRAIN)
    await output.apply(serving(vms, A, endpoint(B, ready=False)))
    assert {await haproxy.get() for _ in range(4)} == {A}
    assert (await haproxy.servers())[f"vmsvc_{B}_{vms.port}"].endswith(" DRAIN")


async def test_a_restart_begins_with_the_slots_as_they_were(
    haproxy: Haproxy, vms: Vms, tmp_path: Path
) -> None:
    file = tmp_path / "servers"
    haproxy.configure(
        real.RESTORED_SLOTS,
        more=f"server-state-file {file}",
        slots=3,
    )
    await haproxy.start()
    output = backends(haproxy, state_file=file)
    await output.apply(serving(vms, A, B, "::1"))
    await output.apply(serving(vms, A, "::1"))
    before = await haproxy.servers()
    written = file.stat().st_mtime_ns
    await output.apply(serving(vms, A, "::1"))
    assert file.stat().st_mtime_ns == written

    await haproxy.stop()
    await haproxy.start()
    assert await haproxy.servers() == before
    assert {await haproxy.get() for _ in range(4)} == {A, "::1"}
    assert (await output.apply(serving(vms, A, "::1"))).changes == 0


async def test_slots_that_haproxy_would_not_restore_are_not_used(
    haproxy: Haproxy, vms: Vms, tmp_path: Path
) -> None:
    file = tmp_path / "servers"
    haproxy.configure(real.SLOTS, slots=3)
    await haproxy.start()
    with pytest.raises(OutputError, match=r"^backend web has slots whose addresses .*; .* too few"):
        await backends(haproxy, state_file=file).apply(serving(vms, A))
    assert await haproxy.get() == "503"
    assert not file.exists()


async def test_servers_that_were_added_are_added_again_after_a_restart(
    haproxy: Haproxy, vms: Vms
) -> None:
    haproxy.configure()
    await haproxy.start()
    output = backends(haproxy)
    await output.apply(serving(vms, A))
    await haproxy.stop()
    with pytest.raises(OutputError, match=r"^HAProxy at /.*/admin.sock cannot be asked: "):
        await output.apply(serving(vms, A))
    await haproxy.start()
    assert await haproxy.get() == "503"
    await output.apply(serving(vms, A))
    assert await haproxy.get() == A
    await haproxy.reload()
    await output.apply(serving(vms, A))
    assert await haproxy.get() == A


async def test_the_runtime_api_may_be_at_a_port_or_the_masters(haproxy: Haproxy, vms: Vms) -> None:
    haproxy.configure()
    await haproxy.start()
    for place, address in (
        (Place(host="127.0.0.1", port=haproxy.runtime_port), A),
        (Place(path=str(haproxy.folder / "master.sock")), B),
    ):
        output = Backends(Runtime(place, timeout_s=PATIENCE_S), (Target("web", WEB),), Settings())
        await output.apply(serving(vms, address))
        assert (await output.apply(serving(vms, address))).changes == 0
        assert {await haproxy.get() for _ in range(2)} == {address}


async def test_what_is_wrong_with_one_backend_keeps_no_other_from_following(
    haproxy: Haproxy, vms: Vms
) -> None:
    haproxy.configure(real.DYNAMIC + "backend still\n    balance static-rr\n")
    await haproxy.start()
    targets = (
        Target("none", WEB),
        Target("still", WEB),
        Target("udp", "shop/dns"),
        Target("still", WEB, "https"),
        Target("web", WEB),
    )
    states = serving(vms, A) | {"shop/dns": state("shop/dns", A, ports=(Port("", 53, 53, "UDP"),))}
    with pytest.raises(OutputError) as caught:
        await Backends(haproxy.runtime, targets, Settings()).apply(states)
    *told, refusal = str(caught.value).split("; ")
    assert told == [
        "HAProxy has no backend none",
        "HAProxy has no backend udp",
        "still: service shop/web has no port 'https': it has http",
    ]
    assert refusal.startswith(f"'add server still/vmsvc_{A}_{vms.port} {A}:{vms.port}' is answered")
    assert "dynamic load balancing" in refusal
    assert await haproxy.get() == A


async def test_a_socket_without_the_right_to_change_is_told(haproxy: Haproxy, vms: Vms) -> None:
    haproxy.configure()
    await haproxy.start()
    weak = Runtime(Place(path=str(haproxy.folder / "user.sock")), timeout_s=PATIENCE_S)
    with pytest.raises(OutputError, match="Permission denied"):
        await Backends(weak, (Target("web", WEB),), Settings()).apply(serving(vms, A))


async def test_a_weight_that_an_agent_sets_is_left_alone(haproxy: Haproxy, vms: Vms) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"up 50%\n")
        writer.close()

    async with await asyncio.start_server(say, A, 0) as agent:
        port = agent.sockets[0].getsockname()[1]
        haproxy.configure()
        await haproxy.start()
        options = f"weight 100 agent-check agent-inter 50ms agent-port {port}"
        output = backends(haproxy, server_options=options)
        await output.apply(serving(vms, A))
        async with asyncio.timeout(PATIENCE_S):
            while " 50 100 " not in await state_of(haproxy):  # noqa: ASYNC110 - HAProxy tells nobody
                await asyncio.sleep(0.01)
        assert (await output.apply(serving(vms, A))).changes == 0
        assert await haproxy.get() == A
        # HAProxy deletes no server that an agent could bring up again.
        async with asyncio.timeout(PATIENCE_S):
            while await haproxy.servers():
                await output.apply(serving(vms))


async def state_of(haproxy: Haproxy) -> str:
    (said,) = await haproxy.ask("show servers state web")
    return said
