"""A watch that is sent what others are sent: when it shares, rests, and goes on by itself."""

from __future__ import annotations

import pytest

from tests.unit.objects import service, vm
from tests.unit.server.endpoint_service.watching import Watcher, key, synced_cache, watch
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.cache.topic import Publication
from vmsvc_grpc.model.events import Apply, Delete
from vmsvc_grpc.model.objects import Kind

WEB = key("shop/web")
A, B = vm("a", "10.0.0.1"), vm("b", "10.0.0.2")


def ready(*watchers: Watcher) -> None:
    for watcher in watchers:
        watcher.read_all()
        watcher.wakes = 0


def shares(watcher: Watcher) -> bool:
    return watcher.stream.shared is watcher.stream


def test_it_shares_once_it_is_up_to_date_and_not_while_it_has_news() -> None:
    cache = synced_cache(service(), A)
    watcher = watch(cache, "shop/web")
    assert not shares(watcher), "it has not had its first answers"
    ready(watcher)
    assert shares(watcher)
    cache.apply(Apply(B))
    assert not shares(watcher)
    ready(watcher)
    assert shares(watcher)


@pytest.mark.parametrize(
    ("names", "fields"),
    [
        pytest.param(("shop/web", "shop/db"), {}, id="two services"),
        pytest.param((), {"all_services": True}, id="all"),
        pytest.param(("shop/web",), {"namespaces": ["office"]}, id="a service and a namespace"),
    ],
)
def test_what_follows_more_than_one_service_shares_nothing(
    names: tuple[str, ...], fields: dict[str, object]
) -> None:
    watcher = watch(synced_cache(service(), A), *names, **fields)
    watcher.read_all()
    assert not shares(watcher)


def test_streams_have_their_service_and_class_in_common() -> None:
    cache = synced_cache(service(), A)
    one, same, all_states = watchers = [
        watch(cache, "shop/web"),
        watch(cache, "shop/web"),
        watch(cache, "shop/web", readiness=pb.READINESS_ALL),
    ]
    ready(*watchers)
    assert one.stream.common == same.stream.common
    assert one.stream.place == same.stream.place
    assert one.stream.common != all_states.stream.common


@pytest.mark.parametrize("event", [Apply(B), Delete(Kind.VIRTUAL_MACHINE_SERVICE, WEB)])
def test_one_that_rests_is_not_woken_and_goes_on_where_the_other_is(
    event: Apply | Delete,
) -> None:
    cache = synced_cache(service(), A)
    asked, resting = watchers = watch(cache, "shop/web"), watch(cache, "shop/web")
    ready(*watchers)
    resting.stream.rest()
    cache.apply(event)
    assert (asked.wakes, resting.wakes) == (1, 0)
    before = asked.stream.place
    asked.read_all()

    resting.stream.resume(before)
    assert resting.wakes == 1, "it lacks what the other has been sent since"
    resting.read_all()
    assert resting.reader.held == asked.reader.held
    assert resting.stream.place == asked.stream.place

    ready(*watchers)
    resting.stream.rest()
    resting.stream.resume(asked.stream.place)
    assert resting.wakes == 0, "it lacks nothing"
    assert resting.read_all() == []


def test_a_fault_in_making_a_message_leaves_the_place_where_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else those for which it was asked would never be sent what it was about."""
    cache = synced_cache(service(), A)
    faulty, resting = watchers = watch(cache, "shop/web"), watch(cache, "shop/web")
    ready(*watchers)
    resting.stream.rest()
    cache.apply(Apply(B))

    def fails(_publication: Publication) -> bytes:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(faulty.stream._encoder, "delta", fails)
    with pytest.raises(RuntimeError):
        faulty.read()
    resting.stream.resume(faulty.stream.place)
    assert resting.wakes == 1
    assert resting.read_all() == [("delta", "shop/web")]


def test_messages_to_others_are_counted_by_the_kind_of_its_own() -> None:
    cache = synced_cache(service(), A)
    watcher = watch(cache, "shop/web")
    ready(watcher)
    cache.apply(Apply(B))
    watcher.read_all()
    watcher.stream.count(9)
    assert watcher.counts.messages == {"snapshot": 1, "synced": 1, "delta": 10}


def test_a_topic_that_was_dropped_does_not_take_its_successor_with_it() -> None:
    """A stream may unsubscribe late, from a topic that nobody has followed for a while."""
    cache = synced_cache()
    late = watch(cache, "shop/web")
    ready(late)
    topic = late.stream.common
    late.stream.rest()
    assert not cache.topic_count
    follows = watch(cache, "shop/web")
    ready(follows)
    cache.unsubscribe(topic, late.stream)
    cache.apply(Apply(service()))
    assert follows.read_all() == [("snapshot", "shop/web")]
