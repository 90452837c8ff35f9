"""The names of all services, in order, whatever comes and goes."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tests.unit.objects import WEB, service, vm
from tests.unit.server.endpoint_service.watching import synced_cache
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.collection import Collection
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.events import Apply, Delete
from vmsvc_grpc.model.objects import Key, Kind, Probe, Readiness
from vmsvc_grpc.model.problem import Problem

keys = st.builds(Key, st.sampled_from(["a", "a-b", "b"]), st.sampled_from(["db", "web", "x"]))


@given(st.lists(st.tuples(st.booleans(), keys)), st.data())
def test_a_page_is_the_next_names_in_order(
    steps: list[tuple[bool, Key]], data: st.DataObject
) -> None:
    collection, naive = Collection(), set[Key]()
    for add, key in steps:
        if add:
            assert collection.add(key) == (key not in naive)
            naive.add(key)
        else:
            collection.discard(key)
            naive.discard(key)
    assert len(collection) == len(naive)
    namespace = data.draw(st.sampled_from([None, "", "a", "a-b", "b", "c"]))
    after = data.draw(st.none() | keys)
    size = data.draw(st.integers(1, 4))
    expected = sorted(
        key
        for key in naive
        if namespace in (None, key.namespace) and (after is None or key > after)
    )
    assert collection.page(namespace, after, size) == expected[:size]


@pytest.mark.parametrize("uid", ["", "another"])
def test_a_service_that_is_being_deleted_is_not_in_it(uid: str) -> None:
    cache = synced_cache(service())
    assert cache.collection.page(None, None, 9) == [WEB]
    cache.apply(Apply(service(deleting=True)))
    assert cache.collection.page(None, None, 9) == []
    cache.apply(Apply(service(uid=uid)))
    assert cache.collection.page("shop", None, 9) == [WEB]
    cache.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, WEB))
    assert cache.collection.page(None, None, 9) == []


class Follower:
    """Who follows services, and keeps which of them it was handed out."""

    def __init__(self, cache: Cache, namespace: str | None, shown: FilterClass) -> None:
        self.wakes = 0
        self.reader = cache.follow(namespace, shown, self.wake)

    def wake(self) -> None:
        self.wakes += 1

    def taken(self) -> list[str]:
        self.wakes = 0
        names = []
        while (due := self.reader.take()) is not None or self.reader.behind:
            if due is not None:
                names.append(f"{due.name}{'' if due.cell.there else ' gone'}")
        return names


def test_who_follows_hears_of_what_its_scope_and_class_show() -> None:
    cache = synced_cache(service(), service(Key("office", "web")))
    ready, everything = (Follower(cache, "shop", shown) for shown in FilterClass)
    assert ready.taken() == everything.taken() == ["shop/web"]
    sick = vm("a", "10.0.0.1", probe=Probe.TCP_SOCKET, ready=Readiness.FALSE)
    for event, by_class in (
        (Apply(sick), ([], ["shop/web"])),
        (Apply(vm("a", "10.0.0.1")), (["shop/web"], ["shop/web"])),
        (Apply(vm("a", "10.0.0.1", namespace="office")), ([], [])),
        (Apply(service(deleting=True)), (["shop/web gone"], ["shop/web gone"])),
        (Delete(Kind.VIRTUAL_MACHINE_SERVICE, WEB), ([], [])),
        (Apply(service(problems=(Problem("spec.type", "no"),))), (["shop/web"], ["shop/web"])),
        (Apply(service()), (["shop/web"], ["shop/web"])),
        (Delete(Kind.VIRTUAL_MACHINE_SERVICE, WEB), (["shop/web gone"], ["shop/web gone"])),
    ):
        cache.apply(event)
        assert (ready.wakes, everything.wakes) == tuple(map(len, by_class)), event
        assert (ready.taken(), everything.taken()) == by_class, event


def test_a_change_is_noted_once_for_all_who_follow_and_nowhere_if_nobody_does() -> None:
    cache = synced_cache(service())
    assert not cache.collection._logs
    followers = [Follower(cache, None, FilterClass.ALL) for _ in range(100)]
    for follower in followers:
        follower.taken()
    cache.apply(Apply(vm("a", "10.0.0.1")))
    (log,) = cache.collection._logs.values()
    assert len(log._part.changes) == 1
    for follower in followers:
        assert follower.taken() == ["shop/web"]
        follower.reader.close()
    assert not cache.collection._logs
