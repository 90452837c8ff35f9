"""Whatever happens in whatever order: a watch's client ends with what the cache holds."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.leavings import leavings
from tests.unit.objects import service, spec, vm
from tests.unit.server.endpoint_service.watching import (
    KINDS,
    Held,
    Watcher,
    emptied,
    listed,
    request,
    truth,
)
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.cache import changes
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.events import Apply, Delete, Event, Init, InitDone
from vmsvc_grpc.model.objects import (
    Key,
    Kind,
    Object,
    Probe,
    Readiness,
    ServicePort,
    VirtualMachine,
    VirtualMachineService,
)
from vmsvc_grpc.model.problem import Problem
from vmsvc_grpc.model.resolve import AddressRules

NAMES = [Key("n1", "s1"), Key("n1", "s2"), Key("n2", "s1")]
VMS = [Key("n1", "a"), Key("n1", "b"), Key("n2", "a")]
CLASSES = {pb.READINESS_READY_ONLY: FilterClass.READY_ONLY, pb.READINESS_ALL: FilterClass.ALL}

# Few of each, so that much happens to one service.
names = st.sampled_from(NAMES)
apps = st.sampled_from([{"app": "x"}, {"app": "x"}, {"app": "y"}])
addresses = st.sampled_from([("10.0.0.1",), ("10.0.0.2",), ("10.0.0.3",), ()])
uids = st.sampled_from(["u1", "u2"])
ports = st.sampled_from([80, 81]).map(lambda number: (ServicePort("p", "TCP", number, 9000),))
seldom = st.integers(0, 5).map(lambda number: number == 5)


@st.composite
def vms(draw: st.DrawFn) -> VirtualMachine:
    key = draw(st.sampled_from(VMS))
    return vm(
        key.name,
        *draw(addresses),
        namespace=key.namespace,
        uid=draw(uids),
        labels=draw(apps),
        probe=draw(st.sampled_from([None, Probe.TCP_SOCKET])),
        ready=draw(st.sampled_from([None, Readiness.TRUE, Readiness.FALSE])),
        deleting=draw(seldom),
    )


@st.composite
def services(draw: st.DrawFn) -> VirtualMachineService:
    key, uid, deleting = draw(names), draw(uids), draw(seldom)
    if draw(seldom):
        flaw = draw(st.sampled_from(["spec.type", "spec.ports"]))
        return service(key, uid=uid, deleting=deleting, problems=(Problem(flaw, "is wrong"),))
    return service(key, spec(draw(apps), ports=draw(ports)), uid=uid, deleting=deleting)


deletions = st.one_of(
    st.builds(Delete, st.just(Kind.VIRTUAL_MACHINE), st.sampled_from(VMS)),
    st.builds(Delete, st.just(Kind.VIRTUAL_MACHINE_SERVICE), names),
)
applied_vms = vms().map(Apply)
events: st.SearchStrategy[Event] = st.one_of(
    applied_vms, applied_vms, applied_vms, services().map(Apply), deletions
)


@st.composite
def requests(draw: st.DrawFn) -> pb.WatchEndpointsRequest:
    named = draw(st.lists(names, unique=True))
    scope = draw(st.sampled_from([[], ["n1"], ["n1", "n2"], None]))
    everything = scope is None or not (named or scope)
    return request(
        *map(str, named),
        namespaces=scope or [],
        all_services=everything,
        readiness=draw(st.sampled_from(list(CLASSES))),
    )


@dataclass
class Client:
    """One watch, and what it asked for."""

    watcher: Watcher
    request: pb.WatchEndpointsRequest

    def wants(self, name: str) -> bool:
        namespace = name.partition("/")[0]
        named = any(watched.service == name for watched in self.request.services)
        return named or self.request.all_services or namespace in self.request.namespaces

    def truth(self, cache: Cache) -> dict[str, Held]:
        known = truth(cache, CLASSES[self.request.readiness])
        return {name: held for name, held in known.items() if self.wants(name)}


class Watching(RuleBasedStateMachine):
    """Objects come and go; clients watch, read as much as they like, leave and resume."""

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[Client] = []
        self.patch = pytest.MonkeyPatch()

    @initialize(
        unsynced=seldom,
        changes_kept=st.sampled_from([1, 2, 5, changes.CHANGES_KEPT]),
        asked=st.lists(requests(), min_size=2, max_size=3),
    )
    def begin(
        self, unsynced: bool, changes_kept: int, asked: list[pb.WatchEndpointsRequest]
    ) -> None:
        self.patch.setattr(changes, "CHANGES_KEPT", changes_kept)
        self.cache = Cache(AddressRules())
        if not unsynced:
            listed(self.cache, *(service(key, spec({"app": "x"})) for key in NAMES))
        for one in asked:
            self.watch(one)

    @rule(objects=st.lists(st.one_of(vms(), services()), max_size=12))
    def list_again(self, objects: list[Object]) -> None:
        listed(self.cache, *objects)

    @rule(changes=st.lists(st.tuples(events, st.integers(0, 15)), min_size=1, max_size=10))
    def change(self, changes: list[tuple[Event, int]]) -> None:
        """After each event some clients read what there is (a bit for each), others wait."""
        for event, keen in changes:
            self.cache.apply(event)
            for number, client in enumerate(self.clients):
                if keen & 1 << number:
                    client.watcher.read_all()

    @rule(counts=st.lists(st.integers(0, 3), min_size=4, max_size=4))
    def read(self, counts: list[int]) -> None:
        for client, count in zip(self.clients, counts, strict=False):
            for _ in range(count):
                client.watcher.read()

    @precondition(lambda self: len(self.clients) < 4)
    @rule(asked=requests())
    def one_more(self, asked: pb.WatchEndpointsRequest) -> None:
        self.watch(asked)

    def watch(self, asked: pb.WatchEndpointsRequest) -> None:
        self.clients.append(Client(Watcher(self.cache, asked), asked))

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.clients.remove(client := data.draw(st.sampled_from(self.clients)))
        client.watcher.close()

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), everything=st.booleans())
    def resume(self, data: st.DataObject, everything: bool) -> None:
        """Connect again with what is held, of the same class."""
        self.clients.remove(client := data.draw(st.sampled_from(self.clients)))
        client.watcher.close()
        holding = dict(client.watcher.reader.held)
        if not (holding or everything):
            return
        asked = request(
            *((name, held.revision) for name, held in holding.items()),
            all_services=everything,
            readiness=client.request.readiness,
        )
        resumed = Client(Watcher(self.cache, asked), asked)
        resumed.watcher.reader.held = holding
        self.clients.append(resumed)

    @invariant()
    def what_a_stream_holds_is_bounded(self) -> None:
        for client in self.clients:
            assert len(client.watcher.stream._noted) <= len(client.request.services)
            assert len(client.watcher.stream._cursors) <= len(client.request.services)

    @rule()
    def everybody_catches_up(self) -> None:
        for client in self.clients:
            client.watcher.read_all()
            assert client.watcher.reader.synced == self.cache.synced
            if self.cache.synced:
                assert client.watcher.reader.held == client.truth(self.cache)
                for followed in client.watcher.stream._followed:
                    assert not followed.reader._ahead, "one version is all that is left"

    def teardown(self) -> None:
        self.patch.undo()
        self.everybody_catches_up()
        for client in self.clients:
            client.watcher.close()
        emptied(self.cache)
        for kind in KINDS:  # What is malformed or half listed goes too.
            self.cache.apply(Init(kind))
            self.cache.apply(InitDone(kind))
        assert leavings(self.cache) == []


TestWatching = Watching.TestCase
TestWatching.settings = settings(max_examples=200, stateful_step_count=20, deadline=None)
