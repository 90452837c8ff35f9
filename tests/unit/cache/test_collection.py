"""The names of all services, in order, whatever comes and goes."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tests.unit.objects import WEB, service, spec, vm
from tests.unit.server.endpoint_service.watching import synced_cache
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.collection import Collection
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.events import Apply, Delete
from vmsvc_grpc.model.objects import Key, Kind, Probe, Readiness, ServicePort
from vmsvc_grpc.model.problem import Problem

keys = st.builds(Key, st.sampled_from(["a", "a-b", "b"]), st.sampled_from(["db", "web", "x"]))


@given(st.lists(st.tuples(st.booleans(), keys)), st.data())
def test_a_page_is_the_next_names_in_order(
    steps: list[tuple[bool, Key]], data: st.DataObject
) -> None:
    collection, naive = Collection(), set[Key]()
    for add, key in steps:
        if add:
            collection.add(key)
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

    def __init__(self, cache: Cache, namespace: str | None, shown: FilterClass | None) -> None:
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


@pytest.mark.parametrize("namespace", [None, "shop"])
def test_who_follows_ports_hears_of_nothing_else(namespace: str | None) -> None:
    cache = synced_cache(service())
    follower = Follower(cache, namespace, None)
    assert follower.taken() == ["shop/web"]
    other = spec(ports=(ServicePort("h", "TCP", 81, 81),))
    refused = service(uid="2", problems=(Problem("spec.type", "no"),))
    for event, heard in (
        (Apply(vm("a", "10.0.0.1")), []),
        (Apply(service(given=other)), ["shop/web"]),
        (Apply(vm("a", "10.0.0.2")), []),
        (Apply(service(given=spec({"app": "x"}, ports=other.ports))), []),
        (Apply(service(given=other, deleting=True)), ["shop/web gone"]),
        (Delete(Kind.VIRTUAL_MACHINE_SERVICE, WEB), []),
        (Apply(refused), ["shop/web"]),
        (Apply(vm("a", "10.0.0.3")), []),
        (Apply(service(uid="2")), ["shop/web"]),
        (Apply(service(deleting=True, uid="2")), ["shop/web gone"]),
        (Apply(service(uid="3")), ["shop/web"]),
        (Delete(Kind.VIRTUAL_MACHINE_SERVICE, WEB), ["shop/web gone"]),
    ):
        cache.apply(event)
        assert follower.wakes == len(heard), event
        assert follower.taken() == heard, event
    follower.reader.close()
    assert not cache.collection._logs


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
