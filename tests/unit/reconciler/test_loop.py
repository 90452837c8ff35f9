"""The loop with a store in memory: what is held at the end, what is reported, what is left."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from itertools import count, pairwise
from typing import Any

import pytest

from tests.reconciling import attempts, turns
from tests.unit.objects import APP_WEB, WEB, service, spec, vm
from vmsvc_grpc.backoff import Backoff
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.evaluation import MATCHED_MAX
from vmsvc_grpc.cache.membership import CachedService
from vmsvc_grpc.model.events import Apply, Delete, Event, Init, InitDone
from vmsvc_grpc.model.objects import (
    ACCEPTED,
    IPFamily,
    Key,
    Kind,
    ObjectMeta,
    OwnerReference,
    ServiceType,
    StoredEndpoints,
    StoredEndpointSlice,
    StoredService,
    VirtualMachineService,
)
from vmsvc_grpc.model.ownership import service_of_slice
from vmsvc_grpc.model.problem import Problem
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.reconciler.bounds import ReconcilerBounds
from vmsvc_grpc.reconciler.counts import Attempt, Turn
from vmsvc_grpc.reconciler.desired import desired
from vmsvc_grpc.reconciler.held import Child, Failure, Held, HeldObjects
from vmsvc_grpc.reconciler.loop import QUEUED_MAX, Reconciler
from vmsvc_grpc.reconciler.notice import Notice
from vmsvc_grpc.reconciler.plan import Change, Verb, plan
from vmsvc_grpc.reconciler.rules import Rules
from vmsvc_grpc.reconciler.store import ChangeError, Conflict, Gone
from vmsvc_grpc.reconciler.yielding import Patience

DEADLINE_S = 10.0
FAST = ReconcilerBounds(
    workers=2,
    writes_per_s=1e6,
    writes_burst=1000,
    cooldown_s=0.0,
    backoff=Backoff(0.001, 0.002),
    lead_poll_s=0.01,
)
DEPLOYMENT = OwnerReference("apps/v1", "Deployment", "someone", "uid-someone", True)
DB = Key("shop", "db")


class Crash(BaseException):
    """The process is killed here."""


class MemoryStore:
    """Holds objects as an API server would: it gives uids, and refuses what is outdated."""

    def __init__(self, *kinds: Kind) -> None:
        self.kinds = frozenset(kinds or (Kind.SERVICE, Kind.ENDPOINTS))
        self.held: dict[tuple[Kind, Key], Held] = {}
        self.writes: list[str] = []
        self.trouble: list[BaseException] = []
        self.gate: asyncio.Event | None = None
        self.refused: Callable[[Change], ChangeError | None] = lambda _: None
        self.dies_at: tuple[int, bool] | None = None
        self.under_way = 0
        self.most_under_way = 0
        self._given = 0

    async def apply(self, change: Change) -> Held | None:
        assert change.kind in self.kinds
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await (self.gate.wait() if self.gate else asyncio.sleep(0))
            if self.trouble:
                raise self.trouble.pop(0)
            if refusal := self.refused(change):
                raise refusal
            if self.dies_at == (len(self.writes), False):
                raise Crash
            dies = self.dies_at == (len(self.writes), True)
            held = self._apply(change)
            if dies:
                raise Crash
            return held
        finally:
            self.under_way -= 1

    def _apply(self, change: Change) -> Held | None:
        at = change.kind, change.key
        if self.held.get(at) != change.before:
            raise Conflict(cause="its cause")
        self.writes.append(str(change))
        if change.after is None:
            del self.held[at]
            return None
        self._given += 1
        meta = replace(
            change.after.meta,
            uid=change.after.meta.uid or f"uid-given-{self._given}",
            resource_version=str(self._given),
        )
        if meta.deleting and not meta.finalizers:
            del self.held[at]
            return None
        self.held[at] = replace(change.after, meta=meta)
        return self.held[at]

    @property
    def holds_vmservices(self) -> bool:
        return Kind.VIRTUAL_MACHINE_SERVICE in self.kinds

    def made_anew(self, slice_: StoredEndpointSlice) -> StoredEndpointSlice:
        """Another of the same name and content: a uid never comes back."""
        self._given += 1
        meta = replace(
            slice_.meta, uid=f"uid-given-{self._given}", resource_version=str(self._given)
        )
        return replace(slice_, meta=meta)

    def children(self, key: Key) -> HeldObjects:
        stored, endpoints = (self.held.get((kind, key)) for kind in (Kind.SERVICE, Kind.ENDPOINTS))
        assert stored is None or isinstance(stored, StoredService)
        assert endpoints is None or isinstance(endpoints, StoredEndpoints)
        slices = [held for held in self.held.values() if isinstance(held, StoredEndpointSlice)]
        return HeldObjects(
            service=stored,
            endpoints=endpoints,
            slices=tuple(
                sorted((s for s in slices if service_of_slice(s) == key), key=lambda s: s.key)
            ),
        )


ALL_KINDS = frozenset(Kind) - {Kind.VIRTUAL_MACHINE}
FINALIZER = "vmoperator.vmware.com/virtualmachineservice"
FLAW = Problem("spec.type", "is not supported")


class Cluster(MemoryStore):
    """Holds VMServices, too, as an API server does and a directory does not."""

    def __init__(self) -> None:
        super().__init__(*ALL_KINDS)

    def vmservice(self, key: Key = WEB) -> VirtualMachineService:
        held = self.held[Kind.VIRTUAL_MACHINE_SERVICE, key]
        assert isinstance(held, VirtualMachineService)
        return held

    def accepted(self, key: Key = WEB) -> tuple[str, str, str] | None:
        for condition in self.vmservice(key).conditions:
            if condition.type == ACCEPTED:
                return condition.status, condition.reason, condition.message
        return None


class World:
    """A cache, a store and a reconciler, wired as the program wires them."""

    def __init__(
        self, store: MemoryStore | None = None, bounds: ReconcilerBounds = FAST, **options: Any
    ) -> None:
        self.store = store or MemoryStore()
        self.direct = options.pop("direct_slices", False)
        self.failures: list[tuple[Key, Failure | None]] = []
        self.notices: list[tuple[Key, str, str]] = []
        self.cache = Cache(AddressRules(), kinds=Kind)
        self.reconciler = Reconciler(
            self.cache,
            self.store,
            bounds=bounds,
            rules=Rules(direct_slices=self.direct, vmservices_held=self.store.holds_vmservices),
            on_failure=lambda key, failure: self.failures.append((key, failure)),
            on_notice=self._noticed,
            random=lambda: 1.0,
            **{"now": lambda: "now", **options},
        )

    def _noticed(self, about: VirtualMachineService, told: Notice) -> None:
        self.notices.append((about.key, told.reason, told.note))

    def put(self, *objects: Held) -> None:
        """Somebody writes them: they are stored, and told."""
        for one in objects:
            self.store.held[one.kind, one.key] = one
        self.apply(*objects)

    def tell(self, *events: Event) -> None:
        for event in events:
            self.reconciler.enqueue(self.cache.apply(event))

    def apply(self, *objects: Any) -> None:
        self.tell(*(Apply(one) for one in objects))

    def list(self, *objects: Any) -> None:
        """All there is: these objects, and what the store holds."""
        self.tell(*(Init(kind) for kind in Kind))
        for one in objects:
            if isinstance(one, VirtualMachineService) and self.store.holds_vmservices:
                self.store.held[one.kind, one.key] = one
        self.apply(*objects, *self.store.held.values())
        self.tell(*(InitDone(kind) for kind in Kind))

    @property
    def failing(self) -> Mapping[Key, Failure]:
        """Each service whose objects are not as they should be, as reported last."""
        return {key: failure for key, failure in dict(self.failures).items() if failure}

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        return bool(self.reconciler.queue_depth or self.reconciler.working)

    async def settled(self) -> None:
        """Wait until nothing is left to do."""
        await until(lambda: not self.busy)

    @property
    def right(self) -> bool:
        """Whether what is held is what a fresh computation gives, and the cache knows it."""
        return all(map(self._is_right, self.cache.services.values()))

    def _is_right(self, one: CachedService) -> bool:
        key = one.object.key
        known = HeldObjects(
            vmservice=one.object,
            service=self.cache.stored_services.get(key),
            endpoints=self.cache.stored_endpoints.get(key),
            slices=self.cache.stored_slices.of(key),
        )
        rules = Rules(direct_slices=self.direct, vmservices_held=self.store.holds_vmservices)
        fresh = desired(known, one.spec, one.endpoints, rules, now="now")
        held = replace(self.store.children(key), vmservice=one.object)
        return held == known and not plan(fresh.objects, known)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.001)


async def looked_at(world: World, key: Key = WEB) -> None:
    """Return once a turn of the service that was begun from now on has ended."""
    await until(lambda: not world.reconciler.working)
    begun = turns(world.reconciler.counts)
    world.reconciler.enqueue([key])
    await until(lambda: turns(world.reconciler.counts) > begun)
    await until(lambda: not world.reconciler.working)


@asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    task = asyncio.create_task(world.reconciler.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def reconciled(*objects: Any, **options: Any) -> AsyncIterator[World]:
    """A world that has listed these objects, and come to rest."""
    world = World(**options)
    async with running(world):
        world.list(*objects)
        await world.settled()
        yield world


@contextmanager
def no_writes(world: World) -> Iterator[None]:
    before = list(world.store.writes)
    yield
    assert world.store.writes == before


# -- What is held --


async def test_a_service_is_created_with_its_endpoints_the_service_first() -> None:
    async with reconciled(service(), vm("a", "10.0.0.1")) as world:
        assert world.store.writes == ["create Service shop/web", "create Endpoints shop/web"]
        assert world.right
        assert attempts(world.reconciler.counts, Attempt.WRITTEN) == {
            (Kind.SERVICE, Verb.CREATE): 1,
            (Kind.ENDPOINTS, Verb.CREATE): 1,
        }


async def test_nothing_is_written_while_a_large_service_is_evaluated_for_the_first_time() -> None:
    """Its endpoints are not known yet: they would be written as if there were none."""
    vms = [vm(f"vm-{n}", f"10.0.{n >> 8}.{n & 255}") for n in range(MATCHED_MAX + 1)]
    async with reconciled(*vms) as world:
        world.reconciler.enqueue(world.cache.take_in(Apply(service())))
        for _ in range(2):
            await looked_at(world)
            assert world.store.writes == []
        while world.cache.unfinished:
            world.reconciler.enqueue(world.cache.proceed())
        await until(lambda: len(world.store.writes) == 2)
        assert world.right
        assert world.cache.stored_endpoints[WEB].ready_uids() == {one.uid for one in vms}
        assert not world.failing


async def test_all_services_are_queued_in_slices() -> None:
    """When a replica began to lead, 10,000 keys were queued in one piece of 16 ms."""
    world = World()  # Nothing is listed yet, so none of them has its turn.
    keys = {Key("shop", f"s{number}") for number in range(3 * QUEUED_MAX + 1)}
    async with running(world):
        world.reconciler.enqueue(keys)
        queued = [0]
        while queued[-1] < len(keys):
            await asyncio.sleep(0)
            assert world.reconciler.queue_depth == len(keys)
            queued.append(len(world.reconciler._term.queue))
        assert max(after - before for before, after in pairwise(queued)) <= QUEUED_MAX


async def test_nothing_happens_before_everything_is_listed() -> None:
    world = World()
    async with running(world):
        world.tell(*(Init(kind) for kind in Kind))
        world.apply(service(), vm("a", "10.0.0.1"))
        world.tell(*(InitDone(kind) for kind in Kind if kind is not Kind.ENDPOINTS))
        world.reconciler.enqueue([WEB])
        for _ in range(20):
            await asyncio.sleep(0)
        assert (world.store.writes, turns(world.reconciler.counts)) == ([], 0)
        world.tell(InitDone(Kind.ENDPOINTS))
        await world.settled()
        assert world.right
        assert len(world.store.writes) == 2


async def test_the_loop_begins_with_everything_there_is() -> None:
    world = World()
    world.list(service())
    world.reconciler = Reconciler(world.cache, world.store, bounds=FAST, rules=Rules())
    async with running(world):
        await until(lambda: len(world.store.writes) == 2)


async def test_changes_are_followed() -> None:
    async with reconciled(service(), vm("a", "10.0.0.1")) as world:
        world.apply(vm("b", "10.0.0.2"))
        await world.settled()
        assert world.store.writes[2:] == ["update Endpoints shop/web"]
        world.apply(service(given=spec(type=ServiceType.LOAD_BALANCER)))
        await world.settled()
        assert world.store.writes[3:] == ["update Service shop/web"]
        world.tell(Delete(Kind.VIRTUAL_MACHINE, Key("shop", "a")))
        await world.settled()
        assert world.right
        endpoints = world.store.children(WEB).endpoints
        assert endpoints is not None
        assert [a.ip for s in endpoints.subsets for a in s.addresses] == ["10.0.0.2"]


@pytest.mark.parametrize("deleted_whole", [True, False], ids=["gone at once", "deleting first"])
async def test_the_objects_of_a_deleted_vmservice_go_the_endpoints_first(
    deleted_whole: bool,
) -> None:
    async with reconciled(service(), vm("a", "10.0.0.1")) as world:
        if not deleted_whole:
            world.apply(service(deleting=True))
            await world.settled()
        world.tell(Delete(Kind.VIRTUAL_MACHINE_SERVICE, WEB))
        await world.settled()
        assert world.store.writes[2:] == ["delete Endpoints shop/web", "delete Service shop/web"]
        assert world.store.held == {}
        assert world.reconciler._term.work._planning._seen == set()


async def test_a_vmservice_created_anew_gets_objects_of_its_own() -> None:
    async with reconciled(service(), vm("a", "10.0.0.1")) as world:
        world.apply(service(uid="uid-new"))
        await world.settled()
        assert world.store.writes[2:] == [
            "delete Endpoints shop/web",
            "delete Service shop/web",
            "create Service shop/web",
            "create Endpoints shop/web",
        ]
        assert world.right


async def test_what_somebody_edits_or_deletes_is_put_right() -> None:
    async with reconciled(service(), vm("a", "10.0.0.1")) as world:
        held = world.store.children(WEB)
        assert held.service is not None
        assert held.endpoints is not None
        edited = replace(held.service, selector={"app": "pods"}, ports=())
        emptied = replace(held.endpoints, subsets=())
        world.store.held[Kind.SERVICE, WEB] = edited
        world.store.held[Kind.ENDPOINTS, WEB] = emptied
        world.apply(edited, emptied)
        await world.settled()
        assert world.right
        del world.store.held[Kind.SERVICE, WEB]
        world.tell(Delete(Kind.SERVICE, WEB))
        await world.settled()
        assert world.right
        assert world.store.children(WEB).service is not None


async def test_at_rest_nothing_is_written() -> None:
    objects = (service(), service(DB), vm("a", "10.0.0.1"))
    async with reconciled(*objects) as world:
        with no_writes(world):
            world.apply(*objects, *world.store.held.values())
            world.apply(vm("c", "10.0.0.9", labels={"app": "other"}))
            world.reconciler.enqueue([WEB, DB])
            await world.settled()


async def test_a_vmservice_that_was_never_valid_has_nothing_written() -> None:
    refused = service(problems=(Problem("spec.type", "is not supported"),))
    async with reconciled(refused, vm("a", "10.0.0.1")) as world:
        assert world.store.writes == []
        world.apply(service())
        await world.settled()
        assert world.right
        with no_writes(world):
            world.apply(refused)
            await world.settled()


# -- What is left from before --


def left_from(name: str) -> list[Child]:
    owner = OwnerReference(
        "vmoperator.vmware.com/v1alpha6", "VirtualMachineService", name, "u", True
    )
    meta = ObjectMeta(key=Key("shop", name), uid=f"uid-{name}", owner_references=(owner,))
    return [StoredService(meta=meta), StoredEndpoints(meta=meta)]


def holding(*children: Child) -> MemoryStore:
    store = MemoryStore()
    for child in children:
        kind = Kind.SERVICE if isinstance(child, StoredService) else Kind.ENDPOINTS
        store.held[kind, child.key] = child
    return store


async def test_what_a_vmservice_left_that_is_gone_is_removed() -> None:
    theirs = StoredService(meta=ObjectMeta(key=Key("shop", "x"), uid="x"))
    async with reconciled(service(), store=holding(*left_from("old"), theirs)) as world:
        assert set(world.store.held) == {
            (Kind.SERVICE, WEB),
            (Kind.ENDPOINTS, WEB),
            (Kind.SERVICE, Key("shop", "x")),
        }


async def test_it_stays_while_its_vmservice_may_be_among_the_unread() -> None:
    everything_read = False
    world = World(holding(*left_from("old")), all_listed=lambda: everything_read)
    async with running(world):
        world.list(service())
        await until(lambda: len(world.store.writes) == 2)
        await until(lambda: turns(world.reconciler.counts, Turn.FAILED) > 2)
        old = Key("shop", "old")
        assert len(world.store.held) == 4
        assert [(key, f and f.reason) for key, f in world.failures] == [
            (old, "VirtualMachineServiceUnread")
        ]
        # One that was there in the life of this process is known to be gone.
        world.tell(Delete(Kind.VIRTUAL_MACHINE_SERVICE, WEB))
        await until(lambda: len(world.store.held) == 2)
        everything_read = True
        await world.settled()
        assert world.store.held == {}
        assert world.failures[-1] == (old, None)


# -- What is in the way --


async def test_a_foreign_service_is_reported_once_and_tried_again_when_it_changes() -> None:
    foreign = StoredService(
        meta=ObjectMeta(key=WEB, uid="f", owner_references=(DEPLOYMENT,)), type="ClusterIP"
    )
    async with reconciled(service(), vm("a", "10.0.0.1"), store=holding(foreign)) as world:
        assert world.store.writes == []
        world.apply(vm("b", "10.0.0.2"))
        await world.settled()
        assert [(key, f and f.reason) for key, f in world.failures] == [(WEB, "ServiceNotOurs")]
        assert world.failing[WEB].reason == "ServiceNotOurs"
        del world.store.held[Kind.SERVICE, WEB]
        world.tell(Delete(Kind.SERVICE, WEB))
        await world.settled()
        assert world.right
        assert world.failures[1:] == [(WEB, None)]
        assert world.failing == {}


def foreign(at: int, key: Key) -> tuple[StoredService, StoredEndpoints]:
    """Those of a Service with Pods, as they are at a time."""
    meta = ObjectMeta(key=key, uid="f", resource_version=str(at), labels={"at": str(at)})
    controlled = replace(meta, owner_references=(DEPLOYMENT,))
    return StoredService(meta=meta, selector={f"a{at}": "b"}), StoredEndpoints(meta=controlled)


async def test_changes_of_foreign_objects_are_no_turns() -> None:
    """Each was one, of 105 µs, as its resource version differed."""
    others = [Key("shop", f"pods-{n}") for n in range(5)]
    held = [one for key in (WEB, *others) for one in foreign(0, key)]
    async with reconciled(service(), store=holding(*held)) as world:
        assert turns(world.reconciler.counts) == 1
        for at in range(1, 101):
            for key in (WEB, *others):
                world.apply(*foreign(at, key))
                assert not world.busy
        assert turns(world.reconciler.counts) == 1
        assert world.failing[WEB].reason == "ServiceNotOurs"
        world.reconciler.enqueue_all()
        await world.settled()
        assert turns(world.reconciler.counts) == 2
        assert world.store.writes == []


async def test_the_failure_of_a_vmservice_that_goes_is_forgotten() -> None:
    foreign = StoredService(meta=ObjectMeta(key=WEB, uid="f", owner_references=(DEPLOYMENT,)))
    async with reconciled(service(), store=holding(foreign)) as world:
        world.tell(Delete(Kind.VIRTUAL_MACHINE_SERVICE, WEB))
        await world.settled()
        assert world.failing == {}


# -- Trouble with writes --


async def test_a_failed_write_is_reported_once_for_each_message_and_tried_again() -> None:
    store = MemoryStore()
    store.trouble = [
        ChangeError("WriteFailed", "the disk is full"),
        ChangeError("WriteFailed", "the disk is full"),
        ChangeError("WriteFailed", "the disk is gone"),
    ]
    async with reconciled(service(), store=store) as world:
        assert world.right
        assert turns(world.reconciler.counts, Turn.FAILED) == 3
        assert world.failures == [
            (WEB, Failure("WriteFailed", "the disk is full")),
            (WEB, Failure("WriteFailed", "the disk is gone")),
            (WEB, None),
        ]


async def test_trouble_with_one_service_holds_up_no_other() -> None:
    world = World(bounds=replace(FAST, backoff=Backoff(3600.0, 3600.0)))
    world.store.trouble = [ChangeError("WriteFailed", "the disk is full")]
    async with running(world):
        world.list(service(), service(DB))
        await until(lambda: len(world.store.writes) == 2)
        assert len(world.failing) == 1


async def test_a_conflict_is_observed_again_and_not_reported() -> None:
    store = MemoryStore()
    store.trouble = [Conflict(cause="its cause"), Conflict(cause="its cause")]
    async with reconciled(service(), store=store) as world:
        assert world.right
        assert attempts(world.reconciler.counts, Attempt.CONFLICT).total() == 2
        assert not world.failures


class Stubborn(Cluster):
    """A store that empties every Endpoints that is written, for as long as it says so."""

    stubborn = True

    def _apply(self, change: Change) -> Held | None:
        held = super()._apply(change)
        if self.stubborn and isinstance(held, StoredEndpoints):
            held = replace(held, subsets=())
            self.held[change.kind, change.key] = held
        return held


class Stripping(Cluster):
    """An API server on which somebody takes our condition off each VMService at once."""

    def _apply(self, change: Change) -> Held | None:
        held = super()._apply(change)
        if isinstance(held, VirtualMachineService):
            others = (c for c in held.conditions if c.type != ACCEPTED)
            held = replace(held, conditions=tuple(others))
            self.held[change.kind, change.key] = held
        return held


HASTY = Patience(rounds_max=3, pause_first_s=0.02, pause_max_s=0.1, quiet_s=0.3)


class Witnessing:
    """Knows who else writes, and what is there although no list shows it."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.asked: list[tuple[Kind, tuple[str, ...]]] = []

    async def find(self, kind: Kind, key: Key) -> Held | None:
        return self._store.held.get((kind, key))

    async def other_writer(self, kind: Kind, key: Key, fields: Collection[tuple[str, ...]]) -> str:
        self.asked.append((kind, tuple(".".join(path) for path in fields)))
        return "'policy-engine'"


async def test_what_is_changed_back_is_left_alone_told_of_and_right_once_it_stays() -> None:
    store = Stubborn()
    witness = Witnessing(store)
    world = World(store, bounds=replace(FAST, patience=HASTY), witness=witness)
    async with running(world):
        world.list(service(), vm("a", "10.0.0.1"))
        await until(lambda: len(world.failures) > 0)
        ((key, failure),) = world.failures
        assert failure is not None
        assert (key, failure.reason) == (WEB, "ChangesDoNotStay")
        for word in ("Endpoints shop/web", "subsets", "'policy-engine'", "3 times"):
            assert word in failure.message
        # A machine that takes longer for a turn than the pause makes an attempt first.
        reported = ("False", "ChangesDoNotStay", failure.message)
        await until(lambda: store.accepted() == reported)
        assert witness.asked == [(Kind.ENDPOINTS, ("subsets",))]
        await asyncio.sleep(0.5)
        # 0.02 s, 0.04 s, 0.08 s and then 0.1 s between attempts, after three rounds.
        assert len([w for w in store.writes if "Endpoints" in w]) <= 3 + 3 + 5
        assert world.failures == [(WEB, failure)]
        store.stubborn = False
        await until(lambda: bool(store.held[Kind.ENDPOINTS, WEB].subsets))  # type: ignore[union-attr]
        assert store.accepted() == reported
        await world.settled()
        assert world.right
        assert store.accepted() == ("True", "Accepted", "")
        assert world.failures[1:] == [(WEB, None)]
        assert [reason for _, reason, _ in world.notices].count("ChangesDoNotStay") == 1


async def test_a_condition_that_is_taken_away_is_the_same_whenever_it_was_written() -> None:
    """Written again after each rest, for ever and in silence, as its time differed (point 19)."""
    store = Stripping()
    times = count()
    patience = replace(HASTY, pause_first_s=1000.0, pause_max_s=1000.0)
    bounds = replace(FAST, patience=patience)
    world = World(store, bounds=bounds, witness=Witnessing(store), now=lambda: f"at {next(times)}")
    async with running(world):
        world.list(service(problems=(FLAW,)))
        await until(lambda: bool(world.failures))
        ((_, failure),) = world.failures
        assert failure is not None
        assert failure.reason == "ChangesDoNotStay"
        for word in ("the status of VirtualMachineService shop/web", "status.conditions"):
            assert word in failure.message
        await until(lambda: not world.reconciler.working)
        before = len(store.writes)
        for _ in range(10):
            await looked_at(world)
        assert len(store.writes) <= before + 1  # That they do not stay is news, once.


async def test_what_is_left_alone_is_written_when_something_else_is_wanted() -> None:
    store = Stubborn()
    patience = replace(HASTY, pause_first_s=1000.0, pause_max_s=1000.0)
    world = World(store, bounds=replace(FAST, patience=patience))
    async with running(world):
        world.list(service(), vm("a", "10.0.0.1"))
        await until(lambda: len(world.failures) > 0)
        await until(lambda: not world.reconciler.working)
        before = len(store.writes)
        world.apply(vm("a", "10.0.0.1", zone="b"))
        await looked_at(world)
        assert len(store.writes) == before
        store.stubborn = False
        world.apply(vm("b", "10.0.0.2"))
        await until(lambda: bool(store.held[Kind.ENDPOINTS, WEB].subsets))  # type: ignore[union-attr]


async def test_a_conflict_without_end_is_told_of_after_a_bounded_number() -> None:
    store = Cluster()
    bounds = replace(FAST, retries_max=5)
    async with reconciled(service(), vm("a", "10.0.0.1"), store=store, bounds=bounds) as world:
        conflicting = True
        real = store._apply

        def apply(change: Change) -> Held | None:
            if conflicting and change.kind is Kind.ENDPOINTS:
                raise Conflict(cause="its cause")
            return real(change)

        store._apply = apply  # type: ignore[method-assign]
        world.apply(vm("b", "10.0.0.2"))
        await until(lambda: len(world.failures) > 0)
        assert attempts(world.reconciler.counts, Attempt.CONFLICT).total() >= 5
        ((key, failure),) = world.failures
        assert failure is not None
        assert (key, failure.reason) == (WEB, "UpdateEndpointsConflicts")
        assert failure.message == (
            "cannot update Endpoints shop/web, tried 5 times in a row: its cause"
        )
        assert store.accepted() == ("False", failure.reason, failure.message)
        assert [reason for _, reason, _ in world.notices].count(failure.reason) == 1
        conflicting = False
        await world.settled()
        assert store.accepted() == ("True", "Accepted", "")


async def test_what_may_pass_and_does_not_is_told_of_after_a_bounded_number() -> None:
    store = Cluster()
    async with reconciled(service(), store=store, bounds=replace(FAST, retries_max=3)) as world:
        busy = ChangeError("UpdateServiceFailed", "busy", passing=True)

        def refused(change: Change) -> ChangeError | None:
            again = ChangeError(busy.failure.reason, busy.failure.message, passing=True)
            return again if change.kind is Kind.SERVICE else None

        store.refused = refused
        world.put(replace(store.vmservice(), spec=spec(type=ServiceType.LOAD_BALANCER)))
        await until(lambda: store.accepted() is not None)
        assert store.accepted() == ("False", "UpdateServiceFailed", "busy")
        store.refused = lambda change: None
        await world.settled()
        assert store.accepted() == ("True", "Accepted", "")


async def test_what_changes_during_each_write_is_no_trouble_and_waits_for_a_rest() -> None:
    class Churning(MemoryStore):
        """A store that is slow: by the time it answers, another VM has come."""

        def _apply(self, change: Change) -> Held | None:
            number = len(self.writes)
            if number < 20:
                world.apply(vm(f"vm-{number}", f"10.0.0.{number}"))
            return super()._apply(change)

    world = World(Churning())
    async with running(world):
        world.list(service())
        await until(lambda: len(world.store.writes) >= 20)
        await world.settled()
        assert world.right
        assert world.failures == []
        # The first turn writes two objects, each other one.
        assert turns(world.reconciler.counts) >= len(world.store.writes) - 1


# -- How much at once --


async def test_a_burst_of_changes_becomes_few_writes() -> None:
    bounds = replace(FAST, cooldown_s=0.1)
    async with reconciled(service(), bounds=bounds) as world:
        before = len(world.store.writes)
        for number in range(200):
            world.apply(vm(f"vm-{number}", f"10.0.1.{number}"))
            await asyncio.sleep(0.0025)
        await world.settled()
        assert world.right
        # Half a second of changes, rests of a tenth: one at once, and one after each rest.
        assert 2 <= len(world.store.writes) - before <= 20


async def test_no_more_services_are_in_work_than_there_are_workers() -> None:
    world = World()
    world.store.gate = asyncio.Event()
    async with running(world):
        world.list(*(service(Key("shop", f"s{number}")) for number in range(20)))
        await until(lambda: world.store.under_way == 2)
        assert (world.reconciler.working, world.reconciler.queue_depth) == (2, 18)
        world.store.gate.set()
        await world.settled()
        assert (len(world.store.writes), world.store.most_under_way) == (40, 2)


@pytest.mark.parametrize("namespaces", [1, 20], ids=["in one namespace", "in many"])
async def test_writes_that_are_never_answered_leave_workers_to_the_others(namespaces: int) -> None:
    """Each is given up after seconds, and tried again: nobody else had a turn meanwhile.

    In their first round they took all workers, as nobody knew yet.
    """
    keys = [Key(f"n{number % namespaces}", f"hangs-{number}") for number in range(60)]
    others = [Key("shop", f"s{number}") for number in range(20)]
    store = Cluster()
    hanging = asyncio.Event()
    tried = Counter[Key]()
    real = store.apply
    world = World(store, bounds=replace(FAST, workers=4, hang_s=0.05, retries_max=1_000_000))

    async def apply(change: Change) -> Held | None:
        if change.key in keys:
            tried[change.key] += 1
            await hanging.wait()
        return await real(change)

    store.apply = apply  # type: ignore[method-assign]
    async with running(world):
        world.list(*(service(key) for key in keys + others))
        await until(lambda: all((Kind.ENDPOINTS, key) in store.held for key in others))
        assert not any((Kind.ENDPOINTS, key) in store.held for key in keys)
        await until(lambda: len(tried) == len(keys))
        world.put(service(WEB))
        await until(lambda: (Kind.ENDPOINTS, WEB) in store.held)
        assert world.reconciler.working <= 4
        hanging.set()
        await world.settled()
        assert world.right


async def test_writes_keep_to_their_rate_and_are_planned_when_they_are_due() -> None:
    bounds = replace(FAST, writes_per_s=50.0, writes_burst=1)
    clock = asyncio.get_running_loop().time
    began = clock()
    world = World(bounds=bounds)
    async with running(world):
        world.list(*(service(Key("shop", f"s{number}")) for number in range(4)))
        await until(lambda: len(world.store.writes) >= 3 and not world.store.under_way)
        # While the others wait for their turn to write, they go.
        before = len(world.store.writes)
        for number in range(4):
            world.tell(Delete(Kind.VIRTUAL_MACHINE_SERVICE, Key("shop", f"s{number}")))
        await world.settled()
        assert world.store.held == {}
        assert {write.split()[0] for write in world.store.writes[before:]} == {"delete"}
        assert (len(world.store.writes) - 1) / (clock() - began) <= 50


# -- Ends --


async def test_cancelled_anywhere_it_leaves_nothing_and_may_run_again() -> None:
    """A new turn of the loop converges wherever the one before was broken off."""
    for steps in range(40):
        await broken_off_after(steps)


async def broken_off_after(steps: int) -> None:
    world = World()
    world.list(service(), service(DB), vm("a", "10.0.0.1"))
    task = asyncio.create_task(world.reconciler.run())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert world.reconciler.working == 0
    async with running(world):
        await until(lambda: len(world.store.held) == 4)
        await world.settled()
        assert world.right


@pytest.mark.parametrize("writes", range(7))
async def test_killed_before_any_write_and_started_again_it_converges(writes: int) -> None:
    """What is killed has written some, and knows none of it: neither cache nor queue is left."""

    class Mortal(MemoryStore):
        def _apply(self, change: Change) -> Held | None:
            if len(self.writes) == writes:
                raise Crash
            return super()._apply(change)

    doomed = World(Mortal())
    task = asyncio.create_task(doomed.reconciler.run())
    doomed.store.held.update(holding(*left_from("old")).held)
    doomed.list(service(), service(DB), vm("a", "10.0.0.1", labels=APP_WEB))
    if writes < 6:
        with pytest.raises(BaseExceptionGroup) as crash:
            await task
        assert crash.group_contains(Crash)
    else:
        await doomed.settled()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert len(doomed.store.writes) == writes
    survivors = MemoryStore()
    survivors.held = dict(doomed.store.held)
    async with reconciled(service(), service(DB), vm("a", "10.0.0.1"), store=survivors) as world:
        assert world.right
        assert len(world.store.held) == 4
        assert len(world.store.writes) == 6 - writes


# -- What a VMService says itself --

CREATED = [
    "update VirtualMachineService shop/web",
    "create Service shop/web",
    "create Endpoints shop/web",
    "update VirtualMachineService shop/web",
]


async def test_a_vmservice_is_claimed_before_its_objects_and_reports_after_them() -> None:
    async with reconciled(service(), vm("a", "10.0.0.1"), store=Cluster()) as world:
        assert world.store.writes == CREATED
        assert isinstance(world.store, Cluster)
        told = world.store.vmservice()
        assert told.meta.finalizers == (FINALIZER,)
        assert [(c.type, c.last_transition_time) for c in told.conditions] == [
            ("VirtualMachineServiceServiceReady", "now")
        ]
        assert world.notices == [(WEB, "CreateK8sServiceSuccess", "CreateK8sService success")]
        with no_writes(world):
            world.apply(*world.store.held.values())
            world.reconciler.enqueue_all()
            await world.settled()


def going(store: Cluster) -> VirtualMachineService:
    held = store.vmservice()
    return replace(held, meta=replace(held.meta, deleting=True))


async def test_a_deleted_vmservice_is_let_go_when_its_objects_are_gone() -> None:
    store = Cluster()
    async with reconciled(service(), vm("a", "10.0.0.1"), store=store) as world:
        world.put(going(store))
        await world.settled()
        assert world.store.writes[4:] == [
            "delete Endpoints shop/web",
            "delete Service shop/web",
            "update VirtualMachineService shop/web",
        ]
        assert store.held == {}
        assert world.cache.services == {}
        assert world.notices[1:] == [(WEB, "DeleteK8sServiceSuccess", "DeleteK8sService success")]


async def test_it_is_not_let_go_while_one_cannot_be_deleted() -> None:
    store = Cluster()
    async with reconciled(service(), store=store) as world:
        store.trouble = [ChangeError("DeleteServiceFailed", "forbidden")] * 3
        world.put(going(store))
        await until(lambda: turns(world.reconciler.counts, Turn.FAILED) == 2)
        assert store.vmservice().meta.finalizers == (FINALIZER,)
        assert store.accepted() == ("False", "DeleteServiceFailed", "forbidden")
        await world.settled()
        assert store.held == {}
        assert [reason for _, reason, _ in world.notices[1:]] == [
            "DeleteServiceFailed",
            "DeleteK8sServiceSuccess",
        ]


async def test_a_refused_vmservice_says_so_and_nothing_else_is_written() -> None:
    store = Cluster()
    async with reconciled(service(problems=(FLAW,)), store=store) as world:
        assert world.store.writes == ["update VirtualMachineService shop/web"]
        assert store.accepted() == ("False", "Invalid", str(FLAW))
        assert store.vmservice().meta.finalizers == ()
        assert world.notices == [(WEB, "Invalid", "spec.type: is not supported")]
        assert world.failures == []
        with no_writes(world):
            world.reconciler.enqueue_all()
            await world.settled()
        world.put(replace(store.vmservice(), spec=spec(), problems=()))
        await world.settled()
        assert world.store.writes[1:] == CREATED
        assert store.accepted() == ("True", "Accepted", "")
        refused = replace(store.vmservice(), spec=None, problems=(FLAW,))
        world.put(refused)
        await world.settled()
        assert world.store.writes[5:] == ["update VirtualMachineService shop/web"]
        assert [reason for _, reason, _ in world.notices] == [
            "Invalid",
            "CreateK8sServiceSuccess",
            "Invalid",
        ]


async def test_each_flaw_is_told_by_itself_up_to_a_bound() -> None:
    flaws = tuple(Problem(f"spec.ports[{n}].port", "0 is not a port") for n in range(12))
    store = Cluster()
    async with reconciled(service(problems=flaws), store=store) as world:
        assert [note for _, _, note in world.notices] == [str(flaw) for flaw in flaws[:10]]
        accepted = store.accepted()
        assert accepted is not None
        assert accepted[2] == "; ".join(map(str, flaws))


async def test_what_is_in_the_way_is_told_until_it_is_gone() -> None:
    foreign = StoredService(meta=ObjectMeta(key=WEB, uid="f", owner_references=(DEPLOYMENT,)))
    store = Cluster()
    store.held[foreign.kind, foreign.key] = foreign
    async with reconciled(service(), store=store) as world:
        assert world.store.writes == ["update VirtualMachineService shop/web"] * 2
        accepted = store.accepted()
        assert accepted is not None
        assert accepted[:2] == ("False", "ServiceNotOurs")
        assert [reason for _, reason, _ in world.notices] == ["ServiceNotOurs"]
        del store.held[foreign.kind, foreign.key]
        world.tell(Delete(Kind.SERVICE, WEB))
        await world.settled()
        assert store.accepted() == ("True", "Accepted", "")


async def test_a_refused_write_is_told_once_and_is_true_again_when_it_succeeds() -> None:
    store = Cluster()
    async with reconciled(service(), store=store) as world:
        refusal = ChangeError("UpdateServiceFailed", "Invalid value")
        store.refused = lambda change: refusal if change.kind is Kind.SERVICE else None
        world.put(
            replace(store.vmservice(), spec=spec(type=ServiceType.LOAD_BALANCER)),
        )
        await until(lambda: turns(world.reconciler.counts, Turn.FAILED) > 3)
        assert store.accepted() == ("False", "UpdateServiceFailed", "Invalid value")
        reasons = [reason for _, reason, _ in world.notices]
        assert reasons == ["CreateK8sServiceSuccess", "UpdateServiceFailed"]
        store.refused = lambda change: None
        await world.settled()
        assert store.accepted() == ("True", "Accepted", "")
        assert [reason for _, reason, _ in world.notices[2:]] == ["UpdateK8sServiceSuccess"]


async def refused_again(world: World, times: int = 5) -> None:
    """Return once as many more writes have been refused."""
    most = turns(world.reconciler.counts, Turn.FAILED) + times
    await until(lambda: turns(world.reconciler.counts, Turn.FAILED) >= most)


async def test_a_refusal_that_has_another_number_each_time_is_one_until_something_is_edited() -> (
    None
):
    """An admission webhook may give each refusal an id; a network error has a port of its own."""
    numbers = count()
    store = Cluster()
    async with reconciled(service(), store=store) as world:

        def refused(change: Change) -> ChangeError | None:
            if change.kind is not Kind.SERVICE:
                return None
            message = f"denied: request 7f3e-{next(numbers)} over 10.0.0.1:{next(numbers)}"
            return ChangeError("UpdateServiceFailed", message)

        store.refused = refused
        settled = len(store.writes)
        balanced = replace(store.vmservice(), spec=spec(type=ServiceType.LOAD_BALANCER))
        for generation in (1, 2):
            meta = replace(store.vmservice().meta, generation=generation)
            world.put(replace(balanced, meta=meta, conditions=store.vmservice().conditions))
            await refused_again(world)
            assert len(world.failures) == generation
        messages = [failure.message for _, failure in world.failures if failure]
        assert [note for _, reason, note in world.notices if "Failed" in reason] == messages
        reports = [write for write in store.writes[settled:] if "VirtualMachineService" in write]
        assert len(reports) == 2  # Once for each generation.
        assert store.accepted() == ("False", "UpdateServiceFailed", messages[-1])
        store.refused = lambda change: None
        await world.settled()
        assert store.accepted() == ("True", "Accepted", "")


async def test_what_passes_is_reported_but_not_told_by_the_vmservice() -> None:
    store = Cluster()
    async with reconciled(service(), store=store) as world:
        store.trouble = [ChangeError("UpdateServiceFailed", "busy", passing=True)]
        world.put(replace(store.vmservice(), spec=spec(type=ServiceType.LOAD_BALANCER)))
        await world.settled()
        assert [failure and failure.message for _, failure in world.failures] == ["busy", None]
        assert store.accepted() is None
        assert [reason for _, reason, _ in world.notices[1:]] == ["UpdateK8sServiceSuccess"]


async def test_a_server_that_asks_for_a_pause_gets_it() -> None:
    store = MemoryStore()
    store.trouble = [ChangeError("CreateServiceFailed", "busy", passing=True, retry_after_s=0.2)]
    clock = asyncio.get_running_loop().time
    began = clock()
    async with reconciled(service(), store=store) as world:
        assert clock() - began >= 0.2
        assert world.right


async def test_a_pause_that_is_long_is_reported_at_once() -> None:
    """Ten attempts of ten minutes each were silence for more than an hour."""
    store = Cluster()
    async with reconciled(service(), store=store) as world:
        busy = ChangeError("UpdateServiceFailed", "busy", passing=True, retry_after_s=600.0)
        store.trouble = [busy]
        world.put(replace(store.vmservice(), spec=spec(type=ServiceType.LOAD_BALANCER)))
        await until(lambda: bool(world.failures))
        assert store.accepted() == ("False", "UpdateServiceFailed", "busy")
        assert [reason for _, reason, _ in world.notices[1:]] == ["UpdateServiceFailed"]


async def test_more_addresses_than_kubernetes_mirrors_are_told_of_unless_they_are_written() -> None:
    vms = [vm(f"vm-{n}", f"10.0.{n // 250}.{n % 250}") for n in range(1001)]
    for direct in (False, True):
        store = Cluster()
        async with reconciled(service(), *vms, store=store, direct_slices=direct) as world:
            endpoints = store.held[Kind.ENDPOINTS, WEB]
            assert isinstance(endpoints, StoredEndpoints)
            assert len(endpoints.subsets[0].addresses) == 1001
            told = [reason for _, reason, _ in world.notices]
            assert told.count("TooManyAddressesToMirror") == (0 if direct else 1)
            slices = [held for kind, held in store.held.items() if kind[0] is Kind.ENDPOINT_SLICE]
            assert len(slices) == (11 if direct else 0)


async def test_slices_go_when_the_option_is_turned_off() -> None:
    store = Cluster()
    async with reconciled(service(), vm("a", "10.0.0.1"), store=store, direct_slices=True):
        assert (Kind.ENDPOINT_SLICE, Key("shop", "web-ipv4-0")) in store.held
    before = len(store.writes)
    async with reconciled(store=store) as world:
        assert world.right
        assert store.writes[before:] == [
            "update Service shop/web",
            "update Endpoints shop/web",
            "delete EndpointSlice shop/web-ipv4-0",
        ]


class Mirror:
    """Kubernetes, which mirrors a service's Endpoints when the test says so."""

    def __init__(self) -> None:
        self.address_types: frozenset[str] = frozenset()
        self.asked = 0
        self.trouble: list[ChangeError] = []

    async def __call__(self, service: Key) -> frozenset[str]:
        assert service == WEB
        self.asked += 1
        if self.trouble:
            raise self.trouble.pop()
        return self.address_types


async def test_slices_are_kept_right_until_kubernetes_mirrors_what_they_hold() -> None:
    """Otherwise the service would have none for as long as that takes, many seconds perhaps."""
    store, mirror = Cluster(), Mirror()
    dual = spec(ip_families=(IPFamily.IPV4, IPFamily.IPV6))
    vms = [vm("a", "10.0.0.1", "2001:db8::1"), vm("b", "10.0.0.2")]
    async with reconciled(service(given=dual), *vms, store=store, direct_slices=True):
        pass
    world = World(store, mirrored=mirror)
    async with running(world):
        world.list(*vms)
        await until(lambda: mirror.asked > 1)
        mirror.address_types = frozenset(["IPv4"])
        asked = mirror.asked
        world.apply(vm("b", "10.0.0.3"))
        await until(lambda: mirror.asked > asked + 1)
        assert [s.address_type for s in store.children(WEB).slices] == ["IPv4", "IPv6"]
        first = store.children(WEB).slices[0]
        assert [e.addresses[0] for e in first.endpoints] == ["10.0.0.1", "10.0.0.3"]
        mirror.trouble = [ChangeError("EndpointSlicesUnread", "busy", passing=True)]
        mirror.address_types = frozenset(["IPv4", "IPv6"])
        await world.settled()
        assert world.right
        assert store.children(WEB).slices == ()
        # Another leader writes them again: they are handed over like any.
        mirror.address_types = frozenset()
        asked = mirror.asked
        world.put(store.made_anew(first))
        await until(lambda: mirror.asked > asked + 1)
        assert [s.address_type for s in store.children(WEB).slices] == ["IPv4", "IPv6"]
    assert [failure and failure.reason for _, failure in world.failures] == [
        "EndpointSlicesUnread",
        None,
    ]


async def test_slices_do_not_wait_for_what_nobody_will_mirror() -> None:
    """Where nobody mirrors at all, and where there is nothing to be mirrored."""
    for vms, hand_over_s in (([], 1e6), ([vm("a", "10.0.0.1")], 0.01)):
        store, mirror = Cluster(), Mirror()
        async with reconciled(service(), *vms, store=store, direct_slices=True):
            pass
        options = {"bounds": replace(FAST, hand_over_s=hand_over_s), "mirrored": mirror}
        async with reconciled(*vms, store=store, **options) as world:
            assert world.right
            assert store.children(WEB).slices == ()


SLICE = Key("shop", "web-ipv4-0")
OURS = OwnerReference(
    "vmoperator.vmware.com/v1alpha6", "VirtualMachineService", "web", "uid-web", True, True
)
MANAGED = "endpointslice.kubernetes.io/managed-by"


class Hiding(Cluster):
    """An API server with a slice that none of our lists shows, for want of our label."""

    def _apply(self, change: Change) -> Held | None:
        held = self.held.get((change.kind, change.key))
        if change.before is None and held is not None:
            raise Conflict(held, cause="its cause")
        return super()._apply(change)


@pytest.mark.parametrize(
    ("owner", "manager", "shown"),
    [
        pytest.param(None, "someone", False, id="nobody's, and managed by another"),
        pytest.param(None, "vmsvc-grpc", True, id="nobody's, with our label"),
        pytest.param(OURS, "someone", False, id="ours by its owner alone"),
        pytest.param(DEPLOYMENT, "vmsvc-grpc", True, id="another's, with our label"),
        pytest.param(
            OURS._replace(name="db", uid="uid-db"), "vmsvc-grpc", True, id="another VMService's"
        ),
    ],
)
async def test_a_slice_in_the_place_of_ours_stays_and_ours_has_the_next_name(
    owner: OwnerReference | None, manager: str, shown: bool
) -> None:
    meta = ObjectMeta(
        key=SLICE,
        uid="theirs",
        labels={MANAGED: manager, "kubernetes.io/service-name": "web"},
        owner_references=(owner,) if owner else (),
    )
    theirs = StoredEndpointSlice(meta=meta, address_type="IPv4")
    store = Hiding()
    store.held[theirs.kind, SLICE] = theirs
    bounds = replace(FAST, recheck_s=0.3)
    world = World(store, bounds, direct_slices=True, witness=Witnessing(store))
    async with running(world):
        hidden = [] if shown else [store.held.pop((theirs.kind, SLICE))]
        world.list(service(), vm("a", "10.0.0.1"))
        store.held[theirs.kind, SLICE] = theirs
        del hidden
        await until(lambda: store.accepted() is not None)
        assert store.held[theirs.kind, SLICE] == theirs
        ours = store.held[Kind.ENDPOINT_SLICE, Key("shop", "web-ipv4-1")]
        assert isinstance(ours, StoredEndpointSlice)
        assert [e.addresses for e in ours.endpoints] == [("10.0.0.1",)]
        accepted = store.accepted()
        assert accepted is not None
        assert accepted[:2] == ("False", "EndpointSliceNotOurs")
        assert str(SLICE) in accepted[2]
        assert [reason for _, reason, _ in world.notices].count("EndpointSliceNotOurs") == 1
        assert [f and f.reason for _, f in world.failures] == ["EndpointSliceNotOurs"]
        assert attempts(world.reconciler.counts, Attempt.CONFLICT).total() == 1
        del store.held[theirs.kind, SLICE]
        world.tell(Delete(theirs.kind, SLICE))
        await world.settled()
        assert store.accepted() == ("True", "Accepted", "")
        assert Key("shop", "web-ipv4-1") in {key for _, key in store.held}


def theirs_at(number: int) -> StoredEndpointSlice:
    labels = {MANAGED: "someone", "kubernetes.io/service-name": "web"}
    meta = ObjectMeta(key=Key("shop", f"web-ipv4-{number}"), uid=f"theirs-{number}", labels=labels)
    return StoredEndpointSlice(meta=meta, address_type="IPv4")


async def test_many_slices_in_the_place_of_ours_are_passed_at_once_and_reported_meanwhile() -> None:
    """Each next name waited for its back-off, and none was reported before the last (point 18)."""
    store = Hiding()
    bounds = replace(FAST, retries_max=5, backoff=Backoff(1000.0, 1000.0))
    world = World(store, bounds, direct_slices=True, witness=Witnessing(store))
    async with running(world):
        world.list(service(), vm("a", "10.0.0.1"))
        for number in range(7):
            one = theirs_at(number)
            store.held[one.kind, one.key] = one
        await until(lambda: store.accepted() is not None)
        assert attempts(world.reconciler.counts, Attempt.CONFLICT).total() == 5
        world.reconciler.enqueue([WEB])
        ours = Kind.ENDPOINT_SLICE, Key("shop", "web-ipv4-7")
        await until(lambda: ours in store.held and not world.reconciler.working)
        accepted = store.accepted()
        assert accepted is not None
        assert all(str(theirs_at(number).key) in accepted[2] for number in range(7))


class Taking(Hiding):
    """An API server on which somebody makes each slice of ours its own, when it is written."""

    def _apply(self, change: Change) -> Held | None:
        held = super()._apply(change)
        if isinstance(held, StoredEndpointSlice):
            meta = replace(held.meta, labels={**held.meta.labels, MANAGED: "policy"})
            held = replace(held, meta=meta)
            self.held[change.kind, change.key] = held
        return held


async def test_slices_that_are_taken_from_us_become_no_more_than_three() -> None:
    """One was made after each rest, for ever, and no condition said so (point 18)."""
    store = Taking()
    world = World(store, direct_slices=True, witness=Witnessing(store))
    async with running(world):
        world.list(service(), vm("a", "10.0.0.1"))
        await until(lambda: store.accepted() is not None and not world.reconciler.working)
        for _ in range(10):
            await looked_at(world)
        world.apply(vm("b", "10.0.0.2"))
        await looked_at(world)
        names = [key.name for kind, key in store.held if kind is Kind.ENDPOINT_SLICE]
        assert sorted(names) == [f"web-ipv4-{number}" for number in range(3)]
        accepted = store.accepted()
        assert accepted is not None
        assert accepted[:2] == ("False", "EndpointSliceTaken")
        for word in (*names, "'policy-engine'", "managed-by"):
            assert word in accepted[2]
        endpoints = store.held[Kind.ENDPOINTS, WEB]
        assert isinstance(endpoints, StoredEndpoints)
        assert len(endpoints.subsets[0].addresses) == 2  # What is still ours is kept right.


async def test_slices_are_kept_where_the_option_is_turned_on_again() -> None:
    store = Cluster()
    async with reconciled(service(), vm("a", "10.0.0.1"), store=store, direct_slices=True):
        pass
    async with reconciled(vm("a", "10.0.0.1"), store=store, direct_slices=True) as world:
        assert world.right
        assert len(store.children(WEB).slices) == 1


# -- Somebody else was first --


async def test_what_is_gone_already_counts_as_deleted_and_is_not_told() -> None:
    store = Cluster()
    async with reconciled(service(), store=store) as world:
        store.trouble = [Gone(), Gone()]
        world.put(going(store))
        await world.settled()
        assert store.writes[4:] == ["update VirtualMachineService shop/web"]
        assert world.cache.stored_services == {}
        assert len(world.notices) == 1


async def test_what_was_found_instead_is_planned_from() -> None:
    store = Cluster()
    async with reconciled(service(), store=store) as world:
        edited = replace(store.vmservice(), spec=spec(type=ServiceType.LOAD_BALANCER))
        edited = replace(edited, meta=replace(edited.meta, resource_version="99"))
        # It is stored, and told by nobody.
        store.held[edited.kind, edited.key] = edited
        store.trouble = [Conflict(edited, cause="its cause")]
        del store.held[Kind.ENDPOINTS, WEB]
        world.tell(Delete(Kind.ENDPOINTS, WEB))
        await world.settled()
        assert world.cache.services[WEB].object == edited
        assert "update Service shop/web" in store.writes


# -- Who may write --


async def test_while_another_leads_nothing_is_written_and_nothing_is_kept() -> None:
    """What changed while nobody led is made good by the next leader (linkerd2 #12021).

    It finds that in the cache. A replica that never led kept each key that there ever was.
    """
    leading = False
    world = World(Cluster(), may_write=lambda: leading)
    async with running(world):
        world.list(service(), vm("a", "10.0.0.1"))
        world.apply(vm("b", "10.0.0.2"), service(DB))
        world.tell(Delete(Kind.VIRTUAL_MACHINE_SERVICE, DB))
        await world.settled()
        assert (world.store.writes, turns(world.reconciler.counts)) == ([], 0)
        leading = True
        await until(lambda: len(world.store.writes) == len(CREATED))
        await world.settled()
        assert world.right
        assert world.store.writes == CREATED


@pytest.mark.parametrize("sort", ["it fails", "it conflicts", "it is changed back", "it hangs"])
async def test_who_loses_the_lease_keeps_neither_work_nor_failures_nor_memories(sort: str) -> None:
    """Its gauges stood at 3 for ever: services that had failed, and were deleted since."""
    leading = True
    patience = Patience(rounds_max=1)
    bounds = replace(FAST, backoff=Backoff(60.0, 60.0), retries_max=1, patience=patience)
    world = World(Cluster(), replace(bounds, hang_s=0.01), may_write=lambda: leading)
    store, reconciler = world.store, world.reconciler
    async with running(world):
        match sort:
            case "it fails":
                store.refused = lambda _: ChangeError("Refused", "no")
            case "it conflicts":
                store.trouble = [Conflict(cause="its cause") for _ in range(10)]
            case "it hangs":
                store.gate = asyncio.Event()
        world.list(service(), vm("a", "10.0.0.1"))
        if sort == "it is changed back":
            await world.settled()
            held = store.children(WEB).service
            assert held is not None
            world.put(replace(held, selector={"not": "ours"}))
        if sort == "it hangs":
            await until(lambda: bool(reconciler._term.queue._hung))
        else:
            await until(lambda: bool(reconciler.failures))
        leading = False
        reconciler.lead_changed()
        if store.gate:
            store.gate.set()
        world.tell(Delete(Kind.VIRTUAL_MACHINE_SERVICE, WEB))
        await until(lambda: not (world.busy or reconciler.failures))
        assert reconciler.due == 0
        assert not any(isinstance(one, Key) for one in reached(reconciler._term))


CONTAINERS = (dict, list, tuple, set, frozenset, deque, Counter, OrderedDict)


def reached(root: object) -> Iterator[object]:
    """All that the reconciler holds in containers, and in objects of its own classes."""
    seen, ahead = set[int](), [root]
    while ahead:
        one = ahead.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            own = type(one).__module__.startswith("vmsvc_grpc.reconciler.")
            if own or isinstance(one, CONTAINERS):
                ahead += gc.get_referents(one)


async def test_a_turn_ends_before_its_next_write_when_the_lease_is_lost() -> None:
    leading = True

    class Losing(Cluster):
        def _apply(self, change: Change) -> Held | None:
            nonlocal leading
            leading = len(self.writes) != 1
            return super()._apply(change)

    world = World(Losing(), may_write=lambda: leading)
    async with running(world):
        world.list(service(), vm("a", "10.0.0.1"))
        await until(lambda: not leading and not world.reconciler.working)
        assert world.store.writes == CREATED[:2]
        leading = True
        await until(lambda: len(world.store.writes) == len(CREATED))
        await world.settled()
        assert world.store.writes == CREATED


# -- Killed --


def found(store: Cluster, *, deleting: bool) -> list[Any]:
    """What a process that begins now finds, beside the objects of the VMService."""
    held = store.held.get((Kind.VIRTUAL_MACHINE_SERVICE, WEB))
    if held is None:
        return [vm("a", "10.0.0.1")]
    return [replace(held, meta=replace(held.meta, deleting=deleting)), vm("a", "10.0.0.1")]


async def survives(store: Cluster, *, deleting: bool) -> bool:
    """Whether a process comes to rest, and is not killed before."""
    world = World(store, direct_slices=True)
    task = asyncio.create_task(world.reconciler.run())
    world.list(*found(store, deleting=deleting))
    await until(lambda: task.done() or not world.busy)
    survived = not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return survived


@pytest.mark.parametrize("after", [False, True], ids=["before a write", "after a write"])
@pytest.mark.parametrize(("deleting", "writes"), [(False, 5), (True, 4)], ids=["made", "deleted"])
async def test_killed_at_any_write_of_a_vmservice_and_started_again_it_converges(
    deleting: bool, writes: int, after: bool
) -> None:
    for number in range(writes + 1):
        store = Cluster()
        store.held[Kind.VIRTUAL_MACHINE_SERVICE, WEB] = service()
        if deleting:
            assert await survives(store, deleting=False)
        store.dies_at = (len(store.writes) + number, after)
        assert await survives(store, deleting=deleting) == (number == writes)
        store.dies_at = None
        begun = found(store, deleting=deleting)
        async with reconciled(*begun, store=store, direct_slices=True) as world:
            assert world.right
            assert len(store.held) == (0 if deleting else 4)
