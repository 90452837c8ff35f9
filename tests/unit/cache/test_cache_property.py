"""Whatever the order of events, the cache equals a naive rebuild from what it holds."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec import structs

from tests.unit.leavings import leavings
from tests.unit.objects import service, spec, vm
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.topic import Absent
from vmsvc_grpc.model.endpoints import Endpoint, FilterClass
from vmsvc_grpc.model.events import Apply, Delete, Init, InitDone
from vmsvc_grpc.model.objects import Key, Kind, Probe, Readiness, ServiceSpec, VirtualMachine
from vmsvc_grpc.model.problem import Problem
from vmsvc_grpc.model.resolve import AddressRules, families, resolved
from vmsvc_grpc.model.selector import matches

RULES = AddressRules()
REFUSAL = (Problem("spec.type", "no"),)

namespaces = st.sampled_from(["shop", "other"])
labels = st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy"), max_size=2)
vms = st.builds(
    vm,
    st.sampled_from("123"),
    st.sampled_from(["", "10.0.0.1", "10.0.0.2", "127.0.0.1"]),
    namespace=namespaces,
    labels=labels,
    deleting=st.booleans(),
    probe=st.sampled_from([None, Probe.TCP_SOCKET]),
    ready=st.sampled_from([None, *Readiness]),
)
keys = st.builds(Key, namespaces, st.sampled_from(["web", "db"]))
specs = st.none() | st.builds(spec, labels, cluster_ip=st.sampled_from(["", "None"]))


class CacheMachine(RuleBasedStateMachine):
    """Applies events to the cache and, naively, to a model of it."""

    @initialize()
    def start(self) -> None:
        self.cache = Cache(RULES)
        for kind in (Kind.VIRTUAL_MACHINE, Kind.VIRTUAL_MACHINE_SERVICE):
            self.cache.apply(Init(kind))
            self.cache.apply(InitDone(kind))
        self.vms: dict[Key, VirtualMachine] = {}
        self.uids: dict[Key, str] = {}
        self.specs: dict[Key, ServiceSpec] = {}
        self.ready: dict[Key, set[str]] = {}
        self.versions: dict[tuple[Key, FilterClass], int] = {}

    def rebuild(self) -> None:
        """Who is ready next, from who was ready: what the pure function says."""
        for key in self.uids:
            given = self.specs.get(key)
            # Without a selector, the stored Endpoints stay as they were.
            if given is None or given.selector:
                self.ready[key] = {e.vm_uid for e in self.expected(key) if e.ready}

    def expected(self, key: Key) -> tuple[Endpoint, ...]:
        given = self.specs.get(key)
        if given is None:
            return ()
        there = [v for v in self.vms.values() if v.key.namespace == key.namespace]
        wanted = families(given, (), RULES.cluster_families)
        return resolved(given, wanted, there, self.ready.get(key, set()).__contains__, RULES)

    def selected(self, key: Key) -> set[Key]:
        """The VMs that are the service's, with an address or without."""
        return {
            one.key
            for one in self.vms.values()
            if one.key.namespace == key.namespace
            and not one.deleting
            and matches(self.specs[key].selector, one.labels)
        }

    @rule(one=vms, generation=st.integers(1, 2))
    def put_vm(self, one: VirtualMachine, generation: int) -> None:
        # A uid belongs to one object; the same name may come back with another.
        one = structs.replace(one, uid=f"{one.key}-{generation}")
        self.vms[one.key] = one
        self.cache.apply(Apply(one))
        self.rebuild()

    @rule(one=vms)
    def delete_vm(self, one: VirtualMachine) -> None:
        self.vms.pop(one.key, None)
        self.cache.apply(Delete(Kind.VIRTUAL_MACHINE, one.key))
        self.rebuild()

    @rule(key=keys, given=specs, uid=st.sampled_from(["s1", "s2"]))
    def put_service(self, key: Key, given: ServiceSpec | None, uid: str) -> None:
        if self.uids.get(key) != uid:
            self.specs.pop(key, None)
            self.ready.pop(key, None)
        self.uids[key] = uid
        if given is not None:
            self.specs[key] = given
        problems = () if given else REFUSAL
        self.cache.apply(Apply(service(key, given, uid=uid, problems=problems)))
        self.rebuild()

    @rule(key=keys)
    def delete_service(self, key: Key) -> None:
        self.uids.pop(key, None)
        self.specs.pop(key, None)
        self.ready.pop(key, None)
        self.cache.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, key))

    @rule(kept=st.sets(st.sampled_from("123")))
    def relist_vms(self, kept: set[str]) -> None:
        self.vms = {key: one for key, one in self.vms.items() if key.name in kept}
        self.cache.apply(Init(Kind.VIRTUAL_MACHINE))
        for one in self.vms.values():
            self.cache.apply(Apply(one))
        self.cache.apply(InitDone(Kind.VIRTUAL_MACHINE))
        self.rebuild()

    @invariant()
    def equals_the_rebuild(self) -> None:
        for key in self.uids:
            for filter_class in FilterClass:
                publication = self.cache.state(key, filter_class)
                state = publication.state
                last = self.versions.get((key, filter_class), 0)
                assert publication.version >= last
                self.versions[key, filter_class] = publication.version
                if key not in self.specs:
                    assert isinstance(state, Absent)
                    continue
                assert not isinstance(state, Absent)
                known = self.cache.services[key]
                assert set(known.contributions) == self.selected(key)
                assert known.members == sorted(known.contributions)
                given = [of[0].ready for of in known.contributions.values() if of]
                assert (known.ready, known.not_ready) == (sum(given), len(given) - sum(given))
                assert state.version == publication.version
                assert state.endpoints == tuple(
                    e for e in self.expected(key) if filter_class is FilterClass.ALL or e.ready
                )

    def teardown(self) -> None:
        for key in self.uids:
            self.cache.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, key))
        for key in self.vms:
            self.cache.apply(Delete(Kind.VIRTUAL_MACHINE, key))
        assert leavings(self.cache) == []


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
