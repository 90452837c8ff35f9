"""A watch of thousands of names: some in each turn, from the request to the first answers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.unit.leavings import leavings
from tests.unit.objects import service, vm
from tests.unit.server.endpoint_service.watching import (
    Watcher,
    emptied,
    key,
    request,
    synced_cache,
    watch,
)
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.collection import ServiceReader
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.server.call import LATER, Code, RpcError
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.followed import FollowedNames
from vmsvc_grpc.server.limits import Limits

COUNT, A_TURN = 5_000, 1_000
NAMESPACES = ["shop", *(f"n{number}" for number in range(COUNT - 1))]
SERVICES = ["shop/web", *(f"n{number}/web" for number in range(COUNT - 1))]


class CountingCache(Cache):
    """Counts how many collections are followed in all."""

    followed = 0

    def follow(
        self, namespace: str | None, filter_class: FilterClass | None, wake: Callable[[], None]
    ) -> ServiceReader:
        self.followed += 1
        return super().follow(namespace, filter_class, wake)


def test_namespaces_are_followed_some_in_a_turn() -> None:
    cache = synced_cache(service(), vm("a", "10.0.0.1"))
    cache.__class__ = CountingCache
    assert isinstance(cache, CountingCache)
    watcher = watch(cache, namespaces=NAMESPACES)
    followed = [0]
    while (said := watcher.stream.next_message()) is LATER:
        followed.append(cache.followed)
    assert followed[-1] == COUNT
    assert max(after - before for before, after in pairwise(followed)) <= A_TURN
    assert said is not None
    told = [watcher.reader.take(said), *watcher.read_all()]
    assert told == [("snapshot", "shop/web"), ("synced", "")]
    # They are read, followed and looked at, and the one that has a service is the last in order.
    assert len(followed) > 3 * (COUNT // A_TURN - 1)
    watcher.close()


def test_a_name_that_is_wrong_is_refused_whichever_it_is() -> None:
    watcher = watch(synced_cache(), *SERVICES, "Nobody/x")
    with pytest.raises(RpcError, match=r"services\[5000\].service") as refused:
        watcher.read()
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert watcher.slices >= COUNT / A_TURN - 1


def test_names_that_there_is_no_room_for_are_refused_once_they_are_counted() -> None:
    limits = Limits(names_per_client_max=COUNT - 1)
    names = FollowedNames(limits, ServerCounts().refusals)
    watcher = Watcher(synced_cache(), request(*SERVICES), limits, names)
    with pytest.raises(RpcError, match="names_per_client_max") as refused:
        watcher.read()
    assert refused.value.code is Code.RESOURCE_EXHAUSTED
    watcher.close()
    assert names.names == 0


@pytest.mark.parametrize("turns", range(0, 12, 2))
@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(request(*SERVICES), id="services"),
        pytest.param(request(namespaces=NAMESPACES), id="namespaces"),
        pytest.param(request(*SERVICES, namespaces=NAMESPACES[:2500]), id="both"),
    ],
)
def test_a_stream_that_is_closed_before_it_has_begun_leaves_nothing(
    asked: pb.WatchEndpointsRequest, turns: int
) -> None:
    cache = synced_cache(service(), vm("a", "10.0.0.1"))
    names = FollowedNames(Limits(), ServerCounts().refusals)
    watcher = Watcher(cache, asked, Limits(), names)
    for _ in range(turns):
        watcher.stream.next_message()
    watcher.close()
    assert names.names == names.name_bytes == 0
    emptied(cache)
    assert leavings(cache) == []


def test_what_was_named_or_followed_is_let_go_of_step_by_step_and_heard_of_no_more() -> None:
    cache = synced_cache(*(service(key(name)) for name in SERVICES[:100]))
    watcher = watch(cache, *SERVICES[:100], namespaces=NAMESPACES[:50])
    watcher.read_all()
    watcher.stream.close()
    wakes = watcher.wakes
    (steps,) = watcher.left

    def left() -> int:
        subscribed = sum(len(topic.subscriptions) for topic in cache._topics._topics.values())
        return subscribed + len(cache.collection._logs)

    before = left()
    for _ in steps:
        cache.apply(Apply(vm("a", f"10.0.1.{left() % 250}")))
        assert before - left() == 1
        before = left()
    assert before == 0
    assert watcher.wakes == wakes
