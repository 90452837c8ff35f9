"""Many streams: what one costs the others, counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count

import grpc
import pytest

from tests.integration.serving import SMALL_WINDOW, Serving, Watch, serving, until
from tests.unit.leavings import leavings
from tests.unit.objects import service, spec, vm
from tests.unit.server.endpoint_service.watching import key, request, truth
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.events import Apply, Delete
from vmsvc_grpc.model.objects import Kind
from vmsvc_grpc.server.limits import Limits

BIG = key("shop/big")
READY = FilterClass.READY_ONLY
MANY = Limits(streams_per_client_max=10_000)


def channels(running: Serving, number: int) -> list[grpc.aio.Channel]:
    return [running.channel() for _ in range(number)]


def opened(running: Serving, number: int, over: Sequence[grpc.aio.Channel]) -> list[Watch]:
    """That many watches of shop/web."""
    return [running.watch(request("shop/web"), over[n % len(over)]) for n in range(number)]


def flipped(number: int) -> Apply:
    """shop/big with all of its VMs replaced by others: one large delta."""
    return Apply(service(BIG, spec({"side": "ab"[number % 2]})))


async def stalled_by(change: Callable[[], None], handed: Callable[[], int]) -> None:
    """Change things as long as each is told; TimeoutError once one is not."""

    def told(before: int) -> bool:
        return handed() > before

    while True:
        before = handed()
        change()
        await until(partial(told, before), within_s=1.0)


async def test_a_thousand_streams_of_which_one_never_reads() -> None:
    """linkerd2 #11480, #11279, #10590: one client that did not read froze everyone.

    And of its queue of 100 entries: it overflows, and ends the call with OK.
    """
    vms = [
        vm(f"{side}{i}", f"10.{n}.0.{i + 1}", labels={"side": side})
        for n, side in enumerate("ab")
        for i in range(200)
    ]
    async with serving(service(), service(BIG, spec({"side": "b"})), *vms, limits=MANY) as running:
        stalled = running.watch(request("shop/web", "shop/big"), running.channel(*SMALL_WINDOW))
        others = opened(running, 999, channels(running, 20))
        await asyncio.gather(*(watch.until_synced() for watch in others))
        await until(lambda: running.streams_open == 1000)

        def handed() -> int:
            """How many messages the stalled stream has given to gRPC."""
            return running.counts.messages.total() - sum(w.reader.taken for w in others)

        flips = count()
        with pytest.raises(TimeoutError):
            await stalled_by(lambda: running.apply(flipped(next(flips))), handed)
        taken, encoded = handed(), running.counts.encodings.copy()
        for number in range(5):
            running.apply(Apply(vm("w", f"10.9.9.{number + 1}")))
            running.apply(flipped(next(flips)))
            for watch in others:
                assert await watch.read() == ("delta", "shop/web"), "each version, at once"
        assert running.counts.encodings - encoded == {"delta": 5}, "one each for 999 readers"
        assert handed() == taken < 50, "nothing is given to gRPC while it takes nothing"
        in_flight = [await stalled.read() for _ in range(taken)]
        newest = [await stalled.read() for _ in range(2)]
        assert in_flight[-1][1] == "shop/big"
        assert sorted(newest) == [("snapshot", "shop/big"), ("snapshot", "shop/web")]
        assert handed() == taken + 2
        assert stalled.reader.held == truth(running.cache, READY)


async def test_five_thousand_subscriptions_at_once_under_churn() -> None:
    """linkerd2 #15583: a mass of first subscriptions held a lock, and CPU stayed up after."""
    names = [f"shop/s{i}" for i in range(50)]
    services = [service(key(name), spec({"app": name[5:]})) for name in names]

    def change(number: int) -> Apply:
        app, address = f"s{number % 50}", f"10.{number // 250}.0.{number % 250 + 1}"
        return Apply(vm(f"v{number % 50}", address, labels={"app": app}))

    async with serving(*services, *(change(i).object for i in range(50)), limits=MANY) as running:
        over = channels(running, 50)
        watches = [running.watch(request(names[n % 50]), over[(n // 50) % 50]) for n in range(5000)]
        reading = asyncio.gather(*(watch.until_synced() for watch in watches))
        changes = 0
        evaluated = running.cache.counts.evaluations
        while not reading.done():
            changes += 1
            running.apply(change(50 + changes))
            await asyncio.sleep(0.1)
        assert running.cache.counts.evaluations - evaluated == changes, "one for each change"
        # A version is encoded once as a snapshot, and once as a delta, for whoever asks.
        assert running.counts.encodings.total() <= 2 * (50 + changes)
        for watch in watches:
            name = next(iter(watch.reader.held))
            await watch.until_version(name, running.cache.state(key(name), READY).version)
        known = truth(running.cache, READY)
        assert all(known.items() >= watch.reader.held.items() for watch in watches)
        sent = running.counts.messages.total()
        for channel in over:
            await channel.close()
        await until(lambda: not running.streams_open)
        running.apply(change(0))
        assert running.counts.messages.total() == sent, "nobody is at work any more"


async def test_cycles_of_create_subscribe_and_delete_leave_nothing() -> None:
    """linkerd2 #8270: subscription keys leaked."""
    async with serving() as running:
        channel = running.channel()
        tasks = len(asyncio.all_tasks())
        for number in range(300):
            name = f"shop/s{number}"
            watch = running.watch(request(name, all_services=bool(number % 2)), channel)
            await watch.until_synced()
            running.apply(Apply(service(key(name))))
            assert await watch.read() == ("snapshot", name)
            watch.call.cancel()
            running.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, key(name)))
        await until(lambda: not leavings(running.cache))
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
