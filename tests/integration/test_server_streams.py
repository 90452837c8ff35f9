"""Watches over a real connection."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.rpc import error_details_pb2

from tests.integration.serving import detail, serving, until
from tests.unit.objects import service, vm
from tests.unit.server.endpoint_service.watching import key, listed, request, synced_cache, truth
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.events import Apply, Delete, Event
from vmsvc_grpc.model.objects import Kind
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.server.limits import Limits

WEB = key("shop/web")
A, B = vm("a", "10.0.0.1"), vm("b", "10.0.0.2")
READY = FilterClass.READY_ONLY
NO_WEB = Delete(Kind.VIRTUAL_MACHINE_SERVICE, WEB)


async def test_absent_created_changed_deleted_and_created_again_on_one_stream() -> None:
    """linkerd2: a service that was deleted and created again stayed empty."""
    async with serving(A) as running:
        watch = running.watch(request("shop/web"))
        assert await watch.until_synced() == [("absent", "shop/web"), ("synced", "")]
        for event, told in (
            (Apply(service()), "snapshot"),
            (Apply(B), "delta"),
            (NO_WEB, "absent"),
            (Apply(service(uid="another")), "snapshot"),
        ):
            running.apply(event)
            assert await watch.read() == (told, "shop/web")
        assert watch.reader.held == truth(running.cache, READY)
        watch.call.cancel()


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([[Apply(vm("a", "10.0.0.9")), Apply(vm("b", "10.0.0.1"))]], id="at once"),
        pytest.param([[Apply(vm("b", "10.0.0.1"))], [Apply(vm("a", "10.0.0.9"))]], id="in two"),
        pytest.param([[Apply(vm("a", "10.0.0.1", uid="new"))]], id="a new VM of the same name"),
    ],
)
async def test_an_address_moves_between_vms(steps: list[list[Event]]) -> None:
    """linkerd2: Add(b) then Remove(a) of one address left the client with nothing."""
    async with serving(service(), A, B) as running:
        watch = running.watch(request("shop/web"))
        await watch.until_synced()
        for events in steps:
            running.apply(*events)
            await watch.until_version("shop/web", running.cache.state(WEB, READY).version)
        assert watch.reader.held == truth(running.cache, READY)


async def test_a_client_resumes_with_the_revision_that_it_holds() -> None:
    async with serving(service(), A) as running:
        first = running.watch(request("shop/web"))
        await first.until_synced()
        first.call.cancel()
        held = first.reader.held["shop/web"]
        still = running.watch(request(("shop/web", held.revision)))
        assert await still.until_synced() == [("current", "shop/web"), ("synced", "")]
        still.reader.held["shop/web"] = held
        running.apply(Apply(B))
        assert await still.read() == ("delta", "shop/web")
        assert still.reader.held == truth(running.cache, READY)
        outdated = running.watch(request(("shop/web", held.revision)))
        assert await outdated.until_synced() == [("snapshot", "shop/web"), ("synced", "")]


async def test_a_stream_waits_until_the_cache_is_synced() -> None:
    async with serving(cache=Cache(AddressRules())) as running:
        watch = running.watch(request("shop/web", all_services=True))
        await until(lambda: running.streams_open)
        assert not running.counts.messages
        listed(running.cache, service(), A)
        assert await watch.until_synced() == [("snapshot", "shop/web"), ("synced", "")]


async def test_a_request_that_is_wrong_ends_with_every_violation() -> None:
    asked = pb.WatchEndpointsRequest(
        services=[pb.WatchedService(service="web")], all_services=True, namespaces=["Shop"]
    )
    async with serving() as running:
        error = await running.watch(asked).ending()
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        found = detail(error, error_details_pb2.BadRequest).field_violations
        fields = [violation.field for violation in found]
        assert fields == ["namespaces", "services[0].service", "namespaces[0]"]


async def test_violations_without_end_reach_a_client_with_default_options() -> None:
    bad = [pb.WatchedService(service=f"Shop/{'x' * 200}{i}") for i in range(1000)]
    async with serving() as running:
        error = await running.watch(pb.WatchEndpointsRequest(services=bad)).ending()
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert detail(error, error_details_pb2.BadRequest).field_violations[-1].field == "(others)"


async def test_a_watch_of_all_has_no_limit_but_one_of_names() -> None:
    async with serving(service(), limits=Limits(services_per_stream_max=1)) as running:
        watch = running.watch(request(all_services=True))
        await watch.until_synced()
        running.apply(Apply(service(key("shop/db"))))
        assert await watch.read() == ("snapshot", "shop/db")
        error = await running.watch(request("shop/web", "shop/db")).ending()
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "services_per_stream_max" in (error.details() or "")


@pytest.mark.parametrize("setting", ["streams_max", "streams_per_client_max"])
async def test_streams_beyond_a_limit_end_and_say_which(setting: str) -> None:
    async with serving(service(), limits=Limits(**{setting: 2})) as running:
        channel = running.channel()
        watches = [running.watch(request("shop/web"), channel) for _ in range(2)]
        for watch in watches:
            await watch.until_synced()
        error = await running.watch(request("shop/web")).ending()
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert f"({setting})" in (error.details() or "")
        watches[0].call.cancel()
        await until(lambda: running.streams_open == 1)
        await running.watch(request("shop/web")).until_synced()


async def test_a_message_beyond_the_limit_is_refused() -> None:
    async with serving(service(), limits=Limits(message_bytes_max=1000)) as running:
        asked = request(("shop/web", "r" * 2000))
        error = await running.watch(asked).ending()
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await running.watch(request("shop/web")).until_synced()


@pytest.mark.parametrize("is_synced", [True, False], ids=["synced", "not synced"])
async def test_a_client_that_goes_away_at_any_moment_leaves_nothing(
    is_synced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """linkerd2 #14621, #14693: deadlock of stop and send, leaked tasks."""
    cache = synced_cache(service(), A) if is_synced else Cache(AddressRules())
    async with serving(cache=cache) as running:
        channel = running.channel()
        await channel.channel_ready()
        tasks = len(asyncio.all_tasks())
        for turns in range(60):
            watch = running.watch(request("shop/none", all_services=True), channel)
            for _ in range(turns):
                await asyncio.sleep(0)
                running.apply(Apply(vm("a", f"10.0.0.{turns + 1}")))
            watch.call.cancel()
        await until(lambda: not running.streams_open)
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
    assert not caplog.records


async def test_a_connection_that_is_old_is_closed_and_its_client_resumes() -> None:
    limits = Limits(connection_age_s=0.3, connection_age_grace_s=0.1)
    async with serving(service(), A, limits=limits) as running:
        watch = running.watch(request("shop/web"))
        await watch.until_synced()
        assert (await watch.ending()).code() is grpc.StatusCode.UNAVAILABLE
        revision = watch.reader.held["shop/web"].revision
        again = running.watch(request(("shop/web", revision)))
        assert await again.until_synced() == [("current", "shop/web"), ("synced", "")]
