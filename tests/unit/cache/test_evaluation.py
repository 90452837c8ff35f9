"""A large service is evaluated in pieces; what is served of it is the old state, then the new."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from msgspec import structs

from tests.unit.leavings import leavings
from tests.unit.objects import HTTP, WEB, service, spec, vm
from tests.unit.server.endpoint_service.watching import KINDS, synced_cache, watch
from vmsvc_grpc.cache import evaluation, membership
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.evaluation import MATCHED_MAX
from vmsvc_grpc.cache.topic import Absence, Absent, Publication
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.events import Apply, Delete, Event, Init, InitDone
from vmsvc_grpc.model.objects import (
    IPFamily,
    Key,
    ObjectMeta,
    Probe,
    Readiness,
    ServicePort,
    ServiceSpec,
    StoredService,
    VirtualMachine,
    VirtualMachineService,
)
from vmsvc_grpc.model.problem import Problem
from vmsvc_grpc.model.resolve import AddressRules

VMS, SERVICES = KINDS
COUNT = 3 * MATCHED_MAX
RED, BLUE = {"app": "web", "half": "red"}, {"app": "web", "half": "blue"}
OTHER_PORT = ServicePort("other", "TCP", 81, 9377)


def machine(number: int, *, half: str = "", address: str = "") -> VirtualMachine:
    labels = {"app": "web", "half": half or ("red", "blue")[number % 2]}
    address = address or f"10.0.{number >> 8}.{number & 255}"
    return vm(f"vm-{number:05}", address, f"fd00::{number + 1:x}", labels=labels)


MACHINES = [machine(number) for number in range(COUNT)]


@pytest.fixture
def cache() -> Cache:
    """Holds a service of many VMs, evaluated."""
    return synced_cache(*MACHINES, service())


def names(cache: Cache) -> set[str]:
    state = cache.state(WEB, FilterClass.ALL).state
    return {e.vm_name for e in state.endpoints} if not isinstance(state, Absent) else set()


def finished(cache: Cache) -> int:
    """Do all that is left; in how many slices."""
    slices = 0
    while cache.unfinished:
        cache.proceed()
        slices += 1
    return slices


def in_pieces(cache: Cache) -> Iterator[int]:
    """The VMs looked at in each slice."""
    while cache.unfinished:
        before = cache.counts.evaluations
        cache.proceed()
        yield cache.counts.evaluations - before


# What evaluates a service anew, and the VMs that it then has.
CAUSES = [
    pytest.param(Apply(service(WEB, spec(RED))), len(MACHINES) // 2, id="selector"),
    pytest.param(
        Apply(service(WEB, spec(ip_families=(IPFamily.IPV6,)))), len(MACHINES), id="families asked"
    ),
    pytest.param(
        Apply(StoredService(meta=ObjectMeta(key=WEB, uid="s"), ip_families=("IPv6",))),
        len(MACHINES),
        id="families given by the API server",
    ),
    pytest.param(Apply(service(uid="another")), len(MACHINES), id="another object of the name"),
]


@pytest.mark.parametrize(("cause", "vms"), CAUSES)
def test_it_is_in_pieces_and_published_once(cache: Cache, cause: Event, vms: int) -> None:
    """A change of the selector of 5,000 VMs was one piece of 22 ms; of 43,600, of 440 ms."""
    before = cache.state(WEB, FilterClass.ALL)
    evaluations, publications = cache.counts.evaluations, cache.counts.publications
    cache.take_in(cause)
    assert cache.counts.evaluations == evaluations
    pieces = []
    for looks in in_pieces(cache):
        pieces.append(looks)
        if cache.unfinished:
            assert cache.state(WEB, FilterClass.ALL) is before
    assert max(pieces) <= MATCHED_MAX
    assert sum(pieces) in (vms, len(MACHINES))
    assert len(names(cache)) == vms
    changed = cache.state(WEB, FilterClass.ALL) is not before
    assert cache.counts.publications == publications + (2 if changed else 0)


def test_a_new_service_is_absent_until_it_is_whole(cache: Cache) -> None:
    key = Key("shop", "new")
    watcher = watch(cache, all_services=True)
    watcher.read_all()
    cache.take_in(Apply(service(key)))
    while cache.unfinished:
        state = cache.state(key, FilterClass.ALL).state
        assert isinstance(state, Absent)
        assert state.absence is Absence.NOT_FOUND
        assert cache.collection.page(None, None, 9) == [WEB]
        cache.proceed()
    assert cache.collection.page(None, None, 9) == [key, WEB]
    assert watcher.read_all() == [("snapshot", str(key))]
    assert len(cache.services[key].members) == COUNT


def test_only_other_ports_need_no_evaluation(cache: Cache) -> None:
    evaluations = cache.counts.evaluations
    cache.take_in(Apply(service(WEB, spec(ports=(HTTP, OTHER_PORT)))))
    assert not cache.unfinished
    assert cache.counts.evaluations == evaluations
    state = cache.state(WEB, FilterClass.ALL).state
    assert not isinstance(state, Absent)
    assert state.ports == (HTTP, OTHER_PORT)


def test_all_is_evaluated_before_the_cache_is_synced() -> None:
    cache = Cache(AddressRules())
    events: list[Event] = [*map(Init, KINDS), *map(Apply, MACHINES), Apply(service())]
    for event in (*events, *map(InitDone, KINDS)):
        cache.take_in(event)
    said: list[frozenset[Key]] = []
    while not cache.synced:
        assert not any(said)
        said.append(cache.proceed())
    assert len(said) > COUNT / MATCHED_MAX
    assert len(names(cache)) == COUNT
    finished(cache)


def test_ports_that_change_meanwhile_are_published_with_the_result(cache: Cache) -> None:
    cache.take_in(Apply(service(WEB, spec(RED))))
    cache.take_in(Apply(service(WEB, spec(RED, ports=(OTHER_PORT,)))))
    finished(cache)
    state = cache.state(WEB, FilterClass.ALL).state
    assert not isinstance(state, Absent)
    assert (state.ports, len(state.endpoints)) == ((OTHER_PORT,), COUNT // 2)


def _appears(cache: Cache) -> set[str]:
    cache.take_in(Apply(machine(COUNT, half="red")))
    return {machine(COUNT).key.name}


def _begins_to_match(cache: Cache) -> set[str]:
    cache.take_in(Apply(machine(1, half="red")))
    cache.take_in(Apply(machine(COUNT - 1, half="red")))
    return {machine(1).key.name, machine(COUNT - 1).key.name}


def _changes(cache: Cache) -> set[str]:
    for number in (0, COUNT - 2):
        cache.take_in(Apply(machine(number, address=f"10.9.9.{number & 255}")))
    return set()


def _goes(cache: Cache) -> set[str]:
    for number in (0, COUNT - 2):
        cache.take_in(Delete(VMS, machine(number).key))
    return set()


@pytest.mark.parametrize("change", [_appears, _begins_to_match, _changes, _goes])
@pytest.mark.parametrize("piece", range(9))
def test_a_vm_that_changes_meanwhile_is_right_in_the_result(
    cache: Cache, change: Callable[[Cache], set[str]], piece: int
) -> None:
    cache.take_in(Apply(service(WEB, spec(RED))))
    for _ in range(piece):
        cache.proceed()
    change(cache)
    finished(cache)
    vms = [one for key in cache.vms.keys() if (one := cache.vms.get(key))]  # noqa: SIM118
    naive = synced_cache(*vms, service(WEB, spec(RED)))
    shown, expected = (c.services[WEB] for c in (cache, naive))
    assert shown.endpoints == expected.endpoints
    assert shown.members == expected.members
    assert (shown.ready, shown.not_ready) == (expected.ready, expected.not_ready)


def test_a_service_that_always_changes_is_published_and_delays_nobody(cache: Cache) -> None:
    """Its spec changes more often than it can be evaluated."""
    watcher = watch(cache, "shop/web")
    watcher.read_all()
    heard = 0
    for turn in range(200):
        cache.take_in(Apply(service(WEB, spec((RED, BLUE)[turn % 2]))))
        cache.take_in(Apply(machine(turn % COUNT, address=f"10.1.0.{turn}")))
        cache.proceed()
        heard += len(watcher.read_all())
        if turn == 100:
            small = Key("shop", "small")
            cache.take_in(Apply(service(small, spec({"half": "none"}))))
            assert not isinstance(cache.state(small, FilterClass.ALL).state, Absent)
    assert heard > 3
    finished(cache)
    assert cache.services[WEB].spec == spec(BLUE)


@pytest.mark.parametrize("again", [False, True], ids=["for good", "and made again"])
def test_a_service_that_is_deleted_meanwhile(cache: Cache, again: bool) -> None:
    cache.take_in(Apply(service(WEB, spec(RED))))
    cache.proceed()
    cache.take_in(Delete(SERVICES, WEB))
    assert isinstance(cache.state(WEB, FilterClass.ALL).state, Absent)
    if again:
        cache.take_in(Apply(service(WEB, spec(BLUE), uid="another")))
    finished(cache)
    assert len(names(cache)) == (COUNT // 2 if again else 0)


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_what_is_abandoned_midway_leaves_nothing_for_the_collector(cache: Cache, how: str) -> None:
    """What a collector has frozen it never takes, so a cycle here would stay for ever."""
    gc.collect()
    gc.disable()
    try:
        cache.take_in(Apply(service(WEB, spec(RED))))
        cache.proceed()
        abandoned = weakref.ref(cache.services[WEB].evaluation)
        gone = Delete(SERVICES, WEB) if how == "deleted" else Apply(service(uid="another"))
        cache.take_in(gone)
        assert abandoned() is None
    finally:
        gc.enable()
    finished(cache)


def test_a_service_that_is_being_deleted_meanwhile_is_absent_at_once(cache: Cache) -> None:
    cache.take_in(Apply(service(WEB, spec(RED))))
    cache.take_in(Apply(service(WEB, spec(RED), deleting=True)))
    assert isinstance(cache.state(WEB, FilterClass.ALL).state, Absent)
    finished(cache)
    assert isinstance(cache.state(WEB, FilterClass.ALL).state, Absent)


def test_the_last_valid_spec_counts_though_a_refused_one_came_meanwhile(cache: Cache) -> None:
    cache.take_in(Apply(service(WEB, spec(RED))))
    cache.take_in(Apply(service(WEB, spec(BLUE))))
    cache.take_in(Apply(service(WEB, None, problems=(Problem("spec.type", "no"),))))
    finished(cache)
    assert cache.services[WEB].spec == spec(BLUE)


def test_many_vms_that_a_list_lacks_are_one_publication(cache: Cache) -> None:
    """One by one they took 26 s for half of 43,600, and 200 ms a slice."""
    publications = cache.counts.publications
    cache.take_in(Init(VMS))
    for one in MACHINES[::2]:
        cache.take_in(Apply(one))
    cache.take_in(InitDone(VMS))
    finished(cache)
    assert cache.counts.publications == publications + 2
    assert names(cache) == {one.key.name for one in MACHINES[::2]}


# -- Whatever comes in between --

# Most have a probe: then it matters who was ready before.
small_vms = st.builds(
    vm,
    st.sampled_from("123"),
    st.sampled_from(["10.0.0.1", "10.0.0.1", "10.0.0.2", ""]),
    labels=st.sampled_from([{"app": "x"}, {"app": "y"}]),
    deleting=st.sampled_from([False, False, False, True]),
    probe=st.sampled_from([Probe.TCP_SOCKET, Probe.TCP_SOCKET, None]),
    ready=st.sampled_from([None, None, Readiness.TRUE, Readiness.FALSE]),
)
specs = st.builds(
    spec,
    st.sampled_from([{"app": "x"}, {"app": "y"}]),
    cluster_ip=st.sampled_from(["", "None"]),
    ports=st.sampled_from([(HTTP,), (OTHER_PORT,)]),
)


class EvaluationMachine(RuleBasedStateMachine):
    """A cache that evaluates every service in the smallest pieces, and one that does it at once.

    A service whose spec changes while it is being evaluated is as if its spec had changed at the
    end of that. Then both show the same, those who are remembered to have been ready included.
    """

    @initialize()
    def start(self) -> None:
        self.cache, self.at_once = synced_cache(), synced_cache()
        self.shown: dict[FilterClass, Publication] = {}
        self.owed: VirtualMachineService | None = None

    @contextmanager
    def smallest_pieces(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("MATCHED_MAX", "_SORTED_MAX", "_COMPARED_MAX", "_LATE_MAX"):
                patch.setattr(evaluation, name, 1)
            patch.setattr(membership, "MATCHED_MAX", 1)
            yield

    def take_in(self, event: Event) -> None:
        with self.smallest_pieces():
            self.cache.take_in(event)

    @property
    def evaluating(self) -> bool:
        known = self.cache.services.get(WEB)
        return known is not None and known.evaluation is not None

    def note(self) -> None:
        self.shown = {c: self.cache.state(WEB, c) for c in FilterClass}

    @rule(one=small_vms, generation=st.sampled_from([1, 1, 1, 2]))
    def put_vm(self, one: VirtualMachine, generation: int) -> None:
        one = structs.replace(one, uid=f"{one.key}-{generation}")
        self.take_in(Apply(one))
        self.at_once.apply(Apply(one))

    @rule(name=st.sampled_from("123"))
    def delete_vm(self, name: str) -> None:
        gone = Delete(VMS, Key("shop", name))
        self.take_in(gone)
        self.at_once.apply(gone)

    @rule(given=specs)
    def put_service(self, given: ServiceSpec) -> None:
        changed = service(WEB, given)
        was_evaluating = self.evaluating
        self.take_in(Apply(changed))
        if was_evaluating:
            self.owed = changed
        else:
            self.at_once.apply(Apply(changed))
        self.note()

    @precondition(lambda self: WEB in self.cache.services)
    @rule()
    def delete_service(self) -> None:
        self.take_in(Delete(SERVICES, WEB))
        self.at_once.apply(Delete(SERVICES, WEB))
        self.owed = None
        self.note()

    @precondition(lambda self: self.cache.unfinished)
    @rule(slices=st.integers(1, 4))
    def proceed(self, slices: int) -> None:
        for _ in range(slices):
            under_way = self.evaluating and self.cache.services[WEB].evaluation
            with self.smallest_pieces():
                self.cache.proceed()
            if under_way and self.cache.services[WEB].evaluation is not under_way:
                if self.owed is not None:
                    self.at_once.apply(Apply(self.owed))
                    self.owed = None
                self.note()

    @invariant()
    def nothing_is_shown_of_an_evaluation_under_way(self) -> None:
        if self.evaluating:
            for filter_class, shown in self.shown.items():
                assert self.cache.state(WEB, filter_class).state == shown.state

    @invariant()
    def is_as_if_done_at_once(self) -> None:
        if self.evaluating:
            return
        for filter_class in FilterClass:
            ours, other = (c.state(WEB, filter_class).state for c in (self.cache, self.at_once))
            if isinstance(other, Absent):
                assert isinstance(ours, Absent)
                continue
            assert not isinstance(ours, Absent)
            assert (ours.ports, ours.endpoints) == (other.ports, other.endpoints)
        if WEB in self.cache.services:
            here, there = self.cache.services[WEB], self.at_once.services[WEB]
            assert (here.members, here.contributions) == (there.members, there.contributions)
            assert (here.ready, here.not_ready) == (there.ready, there.not_ready)

    def teardown(self) -> None:
        while self.cache.unfinished:
            self.proceed(1)
        self.is_as_if_done_at_once()
        for cache in (self.cache, self.at_once):
            cache.apply(Delete(SERVICES, WEB))
            for key in list(cache.vms.keys()):
                cache.apply(Delete(VMS, key))
            assert leavings(cache) == []


TestEvaluationMachine = EvaluationMachine.TestCase
TestEvaluationMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
