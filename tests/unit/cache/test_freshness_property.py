"""Sources lag, answers take their time, connections break; what is held never goes back.

A server keeps a history, as an API server does. A source follows each kind by a list and a
watch, and what it tells is as old as it likes. A writer plans from what the cache holds, and
its answers come whenever they do. Issue 9, point 20.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from tests.unit.leavings import leavings
from tests.unit.objects import service, spec, vm
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.events import Answer, AnswerGone, Apply, Delete, Event, Init, InitDone
from vmsvc_grpc.model.objects import (
    MANAGED_BY,
    MANAGED_BY_LABEL,
    NEWEST_API_VERSION,
    Key,
    Kind,
    Object,
    ObjectMeta,
    OwnerReference,
    StoredEndpoints,
    StoredEndpointSlice,
    StoredService,
    Subset,
    VirtualMachine,
)
from vmsvc_grpc.model.resolve import AddressRules, families, resolved

RULES = AddressRules()
NAMESPACES = ("shop", "other")
WRITTEN = tuple(kind for kind in Kind if kind is not Kind.VIRTUAL_MACHINE)

# Few, and of a kind or two in one run, so that they meet.
keys = st.sampled_from(
    [Key("shop", "web"), Key("shop", "web"), Key("shop", "db"), Key("other", "web")]
)
choices = st.integers(0, 2)
besides = st.integers(0, 4)


def made(kind: Kind, key: Key, uid: str, version: int, choice: int) -> Object:
    """An object that says by its content which one of three it is."""
    owner = OwnerReference(NEWEST_API_VERSION, "VirtualMachineService", key.name, "s", True)
    meta = ObjectMeta(
        key=key,
        uid=uid,
        resource_version=str(version),
        labels={MANAGED_BY_LABEL: MANAGED_BY},
        owner_references=(owner,),
    )
    match kind:
        case Kind.VIRTUAL_MACHINE:
            labels = {"app": ("web", "db", "web")[choice]}
            one = vm(key.name, f"10.0.0.{choice}", "fd00::1", namespace=key.namespace)
            return structs.replace(one, uid=uid, labels=labels, deleting=choice == 2)
        case Kind.VIRTUAL_MACHINE_SERVICE:
            one_spec = spec({"app": ("web", "db", "none")[choice]})
            return replace(
                service(key, one_spec),
                meta=replace(meta, deleting=choice == 2, owner_references=()),
            )
        case Kind.SERVICE:
            chosen = (("IPv4",), ("IPv6",), ())[choice]
            return StoredService(meta=meta, ip_families=chosen)
        case Kind.ENDPOINTS:
            return StoredEndpoints(meta=meta, subsets=(Subset((), (), ()),) * choice)
        case Kind.ENDPOINT_SLICE:
            return StoredEndpointSlice(meta=meta, address_type=str(choice))


class Change(NamedTuple):
    """What became of an object, and as of when."""

    version: int
    kind: Kind
    key: Key
    object: Object | None


class Identity(NamedTuple):
    version: int
    uid: str


class Server:
    """Objects, and how they came to be so."""

    def __init__(self) -> None:
        self.version = 1
        self.held: dict[tuple[Kind, Key], Object] = {}
        self.identities: dict[tuple[Kind, Key], Identity] = {}
        self.history: list[Change] = []

    def write(self, kind: Kind, key: Key, choice: int) -> Object:
        self.version += 1
        before = self.identities.get((kind, key))
        uid = before.uid if before else f"uid-{self.version}"
        object_ = made(kind, key, uid, self.version, choice)
        self.held[kind, key] = object_
        self.identities[kind, key] = Identity(self.version, uid)
        self.history.append(Change(self.version, kind, key, object_))
        return object_

    def delete(self, kind: Kind, key: Key) -> None:
        if self.held.pop((kind, key), None) is not None:
            del self.identities[kind, key]
            self.version += 1
            self.history.append(Change(self.version, kind, key, None))

    def of(self, kind: Kind, namespace: str | None) -> list[Object]:
        return [
            object_
            for (of, key), object_ in self.held.items()
            if of is kind and namespace in (None, key.namespace)
        ]


class Follower:
    """One kind in one namespace, or in all: lists, then watches, each as late as it is asked."""

    def __init__(self, server: Server, kind: Kind, namespace: str | None) -> None:
        self.server, self.kind, self.namespace = server, kind, namespace
        self.steps = self.run()

    def run(self) -> Iterator[Event | None]:
        """The next thing that is told, or None if nothing is (yet)."""
        yield Init(self.kind, self.namespace)
        yield None  # The list is asked for; it is of the moment when this goes on.
        at, items = self.server.version, self.server.of(self.kind, self.namespace)
        yield None  # The answer is on its way.
        yield from map(Apply, items)
        yield InitDone(self.kind, self.namespace, str(at))
        while True:
            change = next((c for c in self.server.history if self.tells(c, at)), None)
            if change is None:
                yield None
                continue
            at = change.version
            if change.object is None:
                yield Delete(self.kind, change.key, str(at))
            else:
                yield Apply(change.object)

    def tells(self, change: Change, after: int) -> bool:
        return (
            change.version > after
            and change.kind is self.kind
            and self.namespace in (None, change.key.namespace)
        )

    def broken(self) -> None:
        """The connection is lost: all begins anew."""
        self.steps = self.run()


class FreshnessMachine(RuleBasedStateMachine):
    """Whatever comes when, nothing goes back behind an answer, and all is right in the end."""

    @initialize(
        scoped=st.booleans(),
        kinds=st.sampled_from(WRITTEN),
        beside=st.sampled_from(Kind),
        synced=st.booleans(),
    )
    def start(self, scoped: bool, kinds: Kind, beside: Kind, synced: bool) -> None:
        self.kinds = kinds, beside
        namespaces = NAMESPACES if scoped else ()
        self.cache = Cache(RULES, kinds=Kind, namespaces=namespaces)
        self.server = Server()
        self.followers = [
            Follower(self.server, kind, namespace)
            for kind in Kind
            for namespace in namespaces or (None,)
        ]
        self.answers: list[Answer | AnswerGone] = []
        # What was answered, by what it was about: the newest state, and uids that are gone.
        self.states: dict[tuple[Kind, Key], int] = {}
        self.gone: set[str] = set()
        if synced:
            self.drain(answers_first=False)

    # -- What others do, and what we do --

    @rule(ours=st.booleans(), at_once=st.booleans(), beside=besides, key=keys, choice=choices)
    def write(self, ours: bool, at_once: bool, beside: int, key: Key, choice: int) -> None:
        kind = self.kind(beside)
        object_ = self.server.write(kind, key, choice)
        if ours and kind is not Kind.VIRTUAL_MACHINE:
            self.answered(Answer(object_), at_once)

    @rule(beside=besides, key=keys)
    def others_delete(self, beside: int, key: Key) -> None:
        self.server.delete(self.kind(beside), key)

    @rule(at_once=st.booleans(), beside=besides, key=keys)
    def we_delete(self, at_once: bool, beside: int, key: Key) -> None:
        """From what is held, which may not be what is there any more."""
        kind = self.kind(beside)
        held = self.held(kind, key) if kind is not Kind.VIRTUAL_MACHINE else None
        if held is None:
            return
        there = self.server.identities.get((kind, key))
        if there is None or there == held:
            self.server.delete(kind, key)
            self.answered(AnswerGone(kind, key, held.uid, str(held.version)), at_once)
        else:  # A conflict, and we look.
            self.answered(Answer(self.server.held[kind, key]), at_once)

    def answered(self, answer: Answer | AnswerGone, at_once: bool) -> None:
        if at_once:
            self.take(answer)
        else:
            self.answers.append(answer)

    def kind(self, beside: int) -> Kind:
        return self.kinds[0] if beside else self.kinds[1]

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        self.take(self.answers.pop(data.draw(st.integers(0, len(self.answers) - 1))))

    def take(self, answer: Answer | AnswerGone) -> None:
        self.cache.apply(answer)
        match answer:
            case Answer(object_):
                assert not isinstance(object_, VirtualMachine)
                id_ = object_.kind, object_.key
                version = int(object_.meta.resource_version)
                self.states[id_] = max(version, self.states.get(id_, 0))
            case AnswerGone():
                self.gone.add(answer.uid)

    # -- What is told --

    @rule(data=st.data(), steps=st.integers(1, 3))
    def relist(self, data: st.DataObject, steps: int) -> None:
        """A connection is lost, and a list begun."""
        follower = self.follower(data)
        follower.broken()
        self.told_by(follower, steps)

    @rule(data=st.data(), steps=st.integers(1, 4))
    def tell(self, data: st.DataObject, steps: int) -> None:
        self.told_by(self.follower(data), steps)

    def told_by(self, follower: Follower, steps: int) -> None:
        for _ in range(steps):
            if (event := next(follower.steps)) is not None:
                self.cache.apply(event)

    def follower(self, data: st.DataObject) -> Follower:
        return data.draw(st.sampled_from([f for f in self.followers if f.kind in self.kinds]))

    def drain(self, answers_first: bool) -> None:
        """Everything is told and answered."""
        if answers_first:
            self.answer_all()
        for follower in self.followers:
            quiet = 0
            while quiet < 3:
                event = next(follower.steps)
                quiet = 0 if event else quiet + 1
                if event is not None:
                    self.cache.apply(event)
                self.never_goes_back()
        self.answer_all()
        self.holds_what_is_there()

    def answer_all(self) -> None:
        while self.answers:
            self.take(self.answers.pop(0))
            self.never_goes_back()

    # -- What must hold --

    def held(self, kind: Kind, key: Key) -> Identity | None:
        meta = self.cache._meta(kind, key)
        return Identity(int(meta.resource_version), meta.uid) if meta else None

    @invariant()
    def never_goes_back(self) -> None:
        for (kind, key), version in self.states.items():
            held = self.held(kind, key)
            if held is not None:
                assert held.version >= version, f"{kind} {key} is of before its answer"
                continue
            ends = (
                c for c in self.server.history if (c.kind, c.key, c.object) == (kind, key, None)
            )
            assert any(c.version > version for c in ends), f"{kind} {key} was lost"
        for kind in WRITTEN:
            for key in self.names(kind):
                held = self.held(kind, key)
                assert held is not None
                assert held.uid not in self.gone, f"{kind} {key} came back"

    def vm(self, name: Key) -> VirtualMachine | None:
        return self.cache.vms.get(name)

    def names(self, kind: Kind) -> set[Key]:
        return set(self.cache._names(kind))

    def holds_what_is_there(self) -> None:
        assert self.cache.synced
        assert not self.cache.problems
        for kind in Kind:
            expected = {key for of, key in self.server.held if of is kind}
            assert self.names(kind) == expected
        for (kind, key), there in self.server.identities.items():
            if kind is not Kind.VIRTUAL_MACHINE:
                assert self.held(kind, key) == there
            else:
                assert self.cache.vms.get(key) == self.server.held[kind, key]
        assert leavings(self.cache._objects._freshness) == []

    @invariant()
    def equals_a_naive_rebuild(self) -> None:
        services = self.cache.services
        there = sorted(
            key for key, one in services.items() if one.evaluated and not one.object.meta.deleting
        )
        assert self.cache.collection.page(None, None, 9) == there
        if not self.cache.synced:
            return
        vms = [found for name in self.names(Kind.VIRTUAL_MACHINE) if (found := self.vm(name))]
        for key, one in services.items():
            assert one.spec is not None
            stored = self.cache.stored_services.get(key)
            chosen = stored.ip_families if stored else ()
            wanted = families(one.spec, chosen, RULES.cluster_families)
            own = [v for v in vms if v.key.namespace == key.namespace]
            endpoints = resolved(one.spec, wanted, own, lambda _: False, RULES)
            assert one.endpoints == endpoints
            state = self.cache.state(key, FilterClass.ALL).state
            shown = getattr(state, "endpoints", None)
            assert shown == (None if one.object.meta.deleting else endpoints)

    def teardown(self) -> None:
        if not hasattr(self, "server"):
            return
        self.drain(answers_first=False)
        for kind, key in list(self.server.held):
            self.server.delete(kind, key)
        self.drain(answers_first=True)
        assert leavings(self.cache) == []


TestFreshnessMachine = FreshnessMachine.TestCase
TestFreshnessMachine.settings = settings(max_examples=500, stateful_step_count=30, deadline=None)
