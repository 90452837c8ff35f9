"""What the end of a list leaves to do is done in slices, and other events come in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tests.unit.objects import WEB, service, spec, vm
from tests.unit.server.endpoint_service.watching import KINDS, synced_cache, watch
from vmsvc_grpc.cache import cache as cache_module
from vmsvc_grpc.cache.cache import AT_ONCE_MAX, Cache
from vmsvc_grpc.cache.topic import Absent
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.events import Apply, Delete, Event, Init, InitDone, Malformed
from vmsvc_grpc.model.objects import Key, Kind, Object
from vmsvc_grpc.model.problem import Problem
from vmsvc_grpc.model.resolve import AddressRules

VMS, SERVICES = KINDS
NAMES = "abc"

vms = st.builds(
    vm,
    st.sampled_from(NAMES),
    st.sampled_from(["10.0.0.1", "10.0.0.2"]),
    labels=st.sampled_from([{"app": "x"}, {"app": "y"}]),
)
services = st.builds(
    lambda name, app: service(Key("shop", name), spec({"app": app})),
    st.sampled_from(NAMES),
    st.sampled_from("xy"),
)
deletions = st.builds(
    Delete, st.sampled_from(KINDS), st.builds(Key, st.just("shop"), st.sampled_from(NAMES))
)
singles: st.SearchStrategy[list[Event]] = st.one_of(
    vms.map(Apply), services.map(Apply), deletions
).map(lambda event: [event])


def _list(kind: Kind, objects: Sequence[Object]) -> list[Event]:
    return [Init(kind), *map(Apply, objects), InitDone(kind)]


lists = st.one_of(
    st.lists(vms, max_size=3).map(lambda objects: _list(VMS, objects)),
    st.lists(services, max_size=3).map(lambda objects: _list(SERVICES, objects)),
)


def shown(cache: Cache) -> list[object]:
    """All that a reader may see, but for versions."""
    states = (cache.state(Key("shop", name), c).state for name in NAMES for c in FilterClass)
    return [
        cache.synced,
        cache.collection.page(None, None, 9),
        sorted(cache.vms.keys()),
        [s.absence if isinstance(s, Absent) else (s.ports, s.endpoints) for s in states],
    ]


def proceed_some(cache: Cache, slices: int) -> None:
    """Do so many slices, each as small as can be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_module, "AT_ONCE_MAX", 1)
        for _ in range(slices):
            cache.proceed()


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(singles, lists), max_size=12),
    st.lists(st.integers(0, 3), min_size=60, max_size=60),
)
def test_it_ends_as_if_it_were_done_at_once(batches: list[list[Event]], slices: list[int]) -> None:
    at_once, sliced = Cache(AddressRules()), Cache(AddressRules())
    everything, counts = watch(sliced, all_services=True), iter(slices)
    for event in (event for batch in batches for event in batch):
        at_once.apply(event)
        sliced.take_in(event)
        proceed_some(sliced, next(counts, 0))
        everything.read_all()
    while sliced.unfinished:
        proceed_some(sliced, 1)
    assert shown(sliced) == shown(at_once)
    everything.read_all()
    there = sliced.collection.page(None, None, 9) if sliced.synced else []
    assert sorted(everything.reader.held) == list(map(str, there))


def _slices(cache: Cache) -> Iterator[int]:
    """The work of each slice: VMs held against services, and publications."""
    while cache.unfinished:
        before = cache.counts
        cache.proceed()
        after = cache.counts
        yield after.evaluations - before.evaluations + after.publications - before.publications


@pytest.mark.parametrize("vms_a_service", [1, 50], ids=["small services", "large ones"])
def test_no_slice_is_long_at_a_first_list_nor_at_one_that_lacks_all(vms_a_service: int) -> None:
    cache, count = Cache(AddressRules()), 1000
    app = [vm(f"v{n}", f"10.0.{n // 250}.{n % 250 + 1}") for n in range(vms_a_service)]
    for kind in KINDS:
        cache.take_in(Init(kind))
    objects: list[Object] = [service(Key("shop", f"s{number}")) for number in range(count)]
    for one in (*app, *objects):
        cache.take_in(Apply(one))
    for kind in KINDS:
        assert cache.take_in(InitDone(kind)) == frozenset()
    assert cache.unfinished
    work = list(_slices(cache))
    assert cache.synced
    assert len(work) >= count // AT_ONCE_MAX
    assert max(work) < 2 * AT_ONCE_MAX + 2000 + vms_a_service
    cache.take_in(Init(SERVICES))
    assert cache.take_in(InitDone(SERVICES)) == frozenset()
    assert len(cache.services) == count
    assert max(_slices(cache)) <= 2 * AT_ONCE_MAX
    assert not cache.services


def test_slices_say_that_every_service_may_need_work() -> None:
    cache = Cache(AddressRules())
    watcher = watch(cache, all_services=True)
    for event in (Init(VMS), InitDone(VMS), Init(SERVICES), Apply(service()), InitDone(SERVICES)):
        assert cache.take_in(event) == frozenset()
    assert (watcher.wakes, watcher.read()) == (0, None)
    assert cache.proceed() == {WEB}
    assert watcher.wakes == 1
    assert watcher.read_all() == [("snapshot", "shop/web"), ("synced", "")]
    assert not cache.unfinished


def test_a_deletion_of_all_that_is_left_to_do_does_not_keep_it_from_being_synced() -> None:
    cache = Cache(AddressRules())
    for event in (Init(VMS), InitDone(VMS), Init(SERVICES), Apply(service()), InitDone(SERVICES)):
        cache.take_in(event)
    cache.take_in(Delete(SERVICES, WEB))
    assert cache.unfinished
    assert cache.proceed() == frozenset()
    assert cache.synced
    assert not cache.unfinished


def test_no_slice_says_it_of_more_than_it_may_do() -> None:
    """10,000 services were enqueued in one go, and announced in the same: some 30 ms."""
    cache = Cache(AddressRules())
    names = {Key("shop", f"s{n}") for n in range(3 * AT_ONCE_MAX)}
    for kind in (SERVICES, VMS):
        cache.take_in(Init(kind))
    for name in names:
        cache.take_in(Apply(service(name)))
    for kind in (SERVICES, VMS):
        assert cache.take_in(InitDone(kind)) == frozenset()
    said: list[frozenset[Key]] = []
    while cache.unfinished:
        said.append(cache.proceed())
    assert frozenset().union(*said) == names
    assert max(map(len, said)) <= AT_ONCE_MAX


@pytest.mark.parametrize(
    ("told", "stays"),
    [
        pytest.param(Apply(service()), True, id="it is there"),
        pytest.param(Malformed(SERVICES, WEB, Problem("", "no")), True, id="it cannot be read"),
        pytest.param(Delete(SERVICES, WEB), False, id="it is deleted"),
        pytest.param(Init(SERVICES), False, id="a new list begins"),
    ],
)
def test_what_is_told_after_the_list_counts(told: Event, stays: bool) -> None:
    cache = synced_cache(service())
    for event in (Init(SERVICES), InitDone(SERVICES), told):
        cache.take_in(event)
    while cache.unfinished:
        cache.proceed()
    assert (WEB in cache.services) is stays
