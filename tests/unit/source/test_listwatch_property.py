"""Whatever an API server does, what was told equals its objects once it calms down.

The server is a model: a history of resource versions, of which the beginning may be
forgotten (410, in both forms), watches that are cut, ended or silent, pages that fail,
versions that come and go, objects that cannot be read. Several lists and watches go on side
by side, each in its own order, and nothing orders one against another.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply, Delete, Event, Init, InitDone, Malformed
from vmsvc_grpc.model.from_wire import ParseError
from vmsvc_grpc.model.objects import GROUP, KNOWN_VERSIONS, Key, Kind, Object
from vmsvc_grpc.model.parse import parse_json
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.source.listwatch import Discover, ListPage, ListWatch, OpenWatch, RequestFailure

KINDS = (Kind.VIRTUAL_MACHINE, Kind.VIRTUAL_MACHINE_SERVICE)
NAMESPACES = ("shop", "other")
PAGE = 2
GONE, NOT_FOUND = 410, 404
# More than enough to discover, list anew and catch up.
CALM_STEPS = 30

kinds = st.sampled_from(KINDS)
keys = st.builds(Key, st.sampled_from(NAMESPACES), st.sampled_from(["a", "b", "c", "d", "e"]))


class Change(NamedTuple):
    """One entry of the history: an object as it was after it, or before its deletion."""

    resource_version: int
    type: str
    kind: Kind
    key: Key
    readable: bool


@dataclass
class Server:
    """An API server that keeps its objects by their history."""

    history: list[Change] = field(default_factory=list)
    compacted: int = 0
    versions: dict[Kind, list[str]] = field(
        default_factory=lambda: {kind: list(KNOWN_VERSIONS[-1:]) for kind in KINDS}
    )
    losses: Counter[tuple[Kind, Key]] = field(default_factory=Counter)
    """How often an object went."""

    @property
    def resource_version(self) -> int:
        return self.history[-1].resource_version if self.history else 1

    def change(self, type_: str, kind: Kind, key: Key, *, readable: bool = True) -> None:
        version = self.resource_version + 1
        self.history.append(Change(version, type_, kind, key, readable))
        if type_ == "DELETED":
            self.losses[kind, key] += 1

    def objects(self, kind: Kind, namespace: str, at: int | None = None) -> dict[Key, Change]:
        """What there is, or was at a resource version, by name."""
        there: dict[Key, Change] = {}
        for change in self.history:
            if at is not None and change.resource_version > at:
                break
            if change.kind is not kind or change.key.namespace != namespace:
                continue
            if change.type == "DELETED":
                del there[change.key]
            else:
                there[change.key] = change
        return dict(sorted(there.items()))

    def page(self, request: ListPage, loop: ListWatch) -> bytes | RequestFailure:
        if request.version not in self.versions[loop.kind]:
            return RequestFailure(NOT_FOUND, "no such resource")
        at, start = self.resource_version, ""
        if request.continue_token:
            text, _, start = request.continue_token.partition("/")
            at = int(text)
            if at < self.compacted:
                return RequestFailure(GONE, "the continue token has expired")
        assert loop.namespace is not None
        there = self.objects(loop.kind, loop.namespace, at)
        rest = [change for key, change in there.items() if key.name >= start]
        meta = {"resourceVersion": str(at)}
        if rest[PAGE:]:
            meta["continue"] = f"{at}/{rest[PAGE].key.name}"
        items = [rendered(change, request.version) for change in rest[:PAGE]]
        return json.dumps({"metadata": meta, "items": items}).encode()


def rendered(change: Change, version: str) -> dict[str, Any]:
    """An object, which says of itself at which resource version it became so."""
    metadata = {
        "name": change.key.name,
        "namespace": change.key.namespace,
        "uid": f"uid-{change.key.name}",
        "resourceVersion": str(change.resource_version),
        "labels": {"at": str(change.resource_version)},
    }
    # A VMService that cannot be read is refused, but told; only a VM is malformed.
    spec: Any = {"ports": [{"port": 80}]} if change.readable else "?"
    return {"apiVersion": f"{GROUP}/{version}", "metadata": metadata, "spec": spec}


def parsed(change: Change, version: str) -> Object | None:
    try:
        return parse_json(change.kind, json.dumps(rendered(change, version)).encode())
    except ParseError:
        return None


@dataclass
class Told:
    """What the events of all loops amount to, and that they keep to their order."""

    objects: dict[tuple[Kind, Key], Object] = field(default_factory=dict)
    malformed: set[tuple[Kind, Key]] = field(default_factory=set)
    listing: dict[tuple[Kind, str | None], set[Key]] = field(default_factory=dict)
    losses: Counter[tuple[Kind, Key]] = field(default_factory=Counter)

    def take(self, event: Event) -> None:
        match event:
            case Init(kind, namespace):
                self.listing[kind, namespace] = set()
            case Apply(object_):
                kind = Kind(type(object_).__name__)
                key = parsed_key(object_)
                self.objects[kind, key] = object_
                self.malformed.discard((kind, key))
                self.listing.get((kind, key.namespace), set()).add(key)
            case Malformed(kind, key):
                self.malformed.add((kind, key))
                self.listing.get((kind, key.namespace), set()).add(key)
            case Delete(kind, key):
                self.lose(kind, key)
            case InitDone(kind, namespace):
                listed = self.listing.pop((kind, namespace))
                for held, key in {*self.objects, *self.malformed}:
                    if held is kind and key.namespace == namespace and key not in listed:
                        self.lose(kind, key)

    def lose(self, kind: Kind, key: Key) -> None:
        self.objects.pop((kind, key), None)
        self.malformed.discard((kind, key))
        self.losses[kind, key] += 1


def parsed_key(object_: Object) -> Key:
    key = object_.key
    assert isinstance(key, Key)
    return key


@dataclass
class Loop:
    """One machine, and the watch that it has open: in which version, and how far it is."""

    machine: ListWatch
    watching: str = ""
    position: int = 0


class ApiServerMachine(RuleBasedStateMachine):
    """Everything that may happen, in any order."""

    @initialize(first=st.lists(st.tuples(kinds, keys), max_size=6, unique=True))
    def start(self, first: list[tuple[Kind, Key]]) -> None:
        self.server = Server()
        self.told = Told()
        self.now = 0.0
        self.cache = Cache(AddressRules(), kinds=KINDS, namespaces=NAMESPACES)
        self.loops = [Loop(ListWatch(kind, ns)) for kind in KINDS for ns in NAMESPACES]
        for kind, key in first:
            self.put(kind, key, readable=True)
        if first:
            # What is interesting happens to watches that are open.
            self.calm_down()

    # -- What the server does --

    @rule(kind=kinds, key=keys, readable=st.sampled_from([True, True, False]))
    def put(self, kind: Kind, key: Key, readable: bool) -> None:
        if self.server.versions[kind]:
            there = key in self.server.objects(kind, key.namespace)
            self.server.change("MODIFIED" if there else "ADDED", kind, key, readable=readable)

    @rule(kind=kinds, key=keys)
    def delete(self, kind: Kind, key: Key) -> None:
        if key in self.server.objects(kind, key.namespace):
            self.server.change("DELETED", kind, key)

    @rule()
    def compact(self) -> None:
        self.server.compacted = self.server.resource_version

    @rule(kind=kinds)
    def uninstall(self, kind: Kind) -> None:
        """Kubernetes deletes a CRD's objects first, then ends its watches."""
        for namespace in NAMESPACES:
            for key in self.server.objects(kind, namespace):
                self.server.change("DELETED", kind, key)
        self.serve(kind, [])

    @rule(kind=kinds, versions=st.lists(st.sampled_from(KNOWN_VERSIONS), min_size=1, unique=True))
    def install(self, kind: Kind, versions: list[str]) -> None:
        self.serve(kind, versions)

    def serve(self, kind: Kind, versions: list[str]) -> None:
        if versions == self.server.versions[kind]:
            return
        self.server.versions[kind] = versions
        for loop in self.loops:
            if loop.machine.kind is kind and loop.watching:
                self.deliver(loop, 100)
                self.end(loop)

    # -- What happens on the way --

    @rule(number=st.integers(0, 3), form=st.sampled_from(["status", "event"]))
    def ask(self, number: int, form: str) -> None:
        """One request of a loop, and its answer; a 410 of a watch in either form."""
        loop = self.loops[number]
        if loop.watching:
            return
        machine = loop.machine
        match machine.request():
            case Discover():
                served = [v for v in KNOWN_VERSIONS if v in self.server.versions[machine.kind]]
                if served:
                    machine.discovered(served[-1])
                else:
                    self.fail(loop, RequestFailure(NOT_FOUND, "not installed"))
            case ListPage() as request:
                self.take(machine.asks())
                answer = self.server.page(request, machine)
                if isinstance(answer, RequestFailure):
                    self.fail(loop, answer)
                else:
                    self.take(list(machine.page(answer, self.now)))
            case OpenWatch(version, resource_version):
                self.watch(loop, version, int(resource_version), form)

    def watch(self, loop: Loop, version: str, position: int, form: str) -> None:
        gone = RequestFailure(GONE, "too old resource version")
        if version not in self.server.versions[loop.machine.kind]:
            self.fail(loop, RequestFailure(NOT_FOUND, "no such resource"))
        elif position >= self.server.compacted:
            loop.machine.opened(self.now)
            loop.watching, loop.position = version, position
        elif form == "status":
            self.fail(loop, gone)
        else:
            loop.machine.opened(self.now)
            error = {"type": "ERROR", "object": {"code": GONE, "message": gone.message}}
            failure = loop.machine.line(json.dumps(error).encode(), self.now)
            assert failure == gone
            self.fail(loop, failure)

    @rule(number=st.integers(0, 3), lines=st.integers(1, 4))
    def hear(self, number: int, lines: int) -> None:
        if self.loops[number].watching:
            self.deliver(self.loops[number], lines)

    @rule(number=st.integers(0, 3))
    def bookmark(self, number: int) -> None:
        """A watch says how far the server is; only once it has told all before that."""
        loop = self.loops[number]
        if not loop.watching:
            return
        self.deliver(loop, 100)
        loop.position = self.server.resource_version
        meta = {"metadata": {"resourceVersion": str(loop.position)}}
        line = json.dumps({"type": "BOOKMARK", "object": meta}).encode()
        assert loop.machine.line(line, self.now) == []

    @rule(number=st.integers(0, 3))
    def end_watch(self, number: int) -> None:
        if self.loops[number].watching:
            self.end(self.loops[number])

    @rule(
        number=st.integers(0, 3),
        failure=st.builds(
            RequestFailure,
            st.sampled_from([0, 400, 401, 403, 404, 410, 429, 500, 503]),
            st.just("injected"),
            st.sampled_from([0.0, 1.0]),
            st.booleans(),
            st.booleans(),
        ),
    )
    def go_wrong(self, number: int, failure: RequestFailure) -> None:
        """A request, or the watch that is open, fails in any way."""
        self.fail(self.loops[number], failure)

    @rule(number=st.integers(0, 3))
    def garble(self, number: int) -> None:
        loop = self.loops[number]
        if loop.watching:
            failure = loop.machine.line(b'{"type": "MODIFIED", "obj', self.now)
            assert isinstance(failure, RequestFailure)
            self.fail(loop, failure)

    @rule(seconds=st.sampled_from([0.1, 5.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    def deliver(self, loop: Loop, lines: int) -> None:
        machine = loop.machine
        for change in self.server.history:
            if change.resource_version <= loop.position or not lines:
                continue
            loop.position = change.resource_version
            if change.kind is machine.kind and change.key.namespace == machine.namespace:
                lines -= 1
                line = {"type": change.type, "object": rendered(change, loop.watching)}
                events = machine.line(json.dumps(line).encode(), self.now)
                assert not isinstance(events, RequestFailure)
                self.take(events)

    def end(self, loop: Loop) -> None:
        loop.watching = ""
        delay_s = loop.machine.ended(self.now, jitter=1.0)
        assert 0.0 <= delay_s <= 30.0

    def fail(self, loop: Loop, failure: RequestFailure) -> None:
        loop.watching = ""
        delay_s = loop.machine.failed(failure, self.now, jitter=1.0)
        assert failure.retry_after_s <= delay_s <= 30.0 or failure.status == GONE

    def take(self, events: list[Event]) -> None:
        for event in events:
            self.told.take(event)
            self.cache.apply(event)

    # -- What must hold --

    @invariant()
    def nothing_is_lost_that_was_not_deleted(self) -> None:
        for object_id, times in self.told.losses.items():
            assert times <= self.server.losses[object_id]

    @rule()
    def calm_down(self) -> None:
        """With a server that answers, everything is soon as it is there."""
        for kind in KINDS:
            if not self.server.versions[kind]:
                self.serve(kind, list(KNOWN_VERSIONS))
        self.catch_up()
        self.now += 300.0
        for loop in self.loops:
            # A version that came while nobody watched is seen when the next watch ends.
            self.end(loop)
        self.catch_up()
        self.compare()

    def catch_up(self) -> None:
        for _ in range(CALM_STEPS):
            for number, loop in enumerate(self.loops):
                self.ask(number, "event")
                if loop.watching:
                    self.deliver(loop, 100)
        assert all(loop.watching for loop in self.loops)
        assert not any(loop.machine.trouble for loop in self.loops)

    def compare(self) -> None:
        expected: dict[tuple[Kind, Key], Object | None] = {}
        for loop in self.loops:
            machine = loop.machine
            assert machine.namespace is not None
            served = [v for v in KNOWN_VERSIONS if v in self.server.versions[machine.kind]]
            assert loop.watching == served[-1]
            for key, change in self.server.objects(machine.kind, machine.namespace).items():
                expected[machine.kind, key] = parsed(change, loop.watching)
        assert self.told.malformed == {known for known, one in expected.items() if one is None}
        readable = {known: one for known, one in expected.items() if one is not None}
        # Of one that cannot be read, what was last read of it stays.
        assert readable == {
            known: one
            for known, one in self.told.objects.items()
            if known not in self.told.malformed
        }
        assert self.cache.synced
        held = {key for kind, key in self.told.objects if kind is Kind.VIRTUAL_MACHINE}
        assert set(self.cache.vms.keys()) == held
        for (kind, key), one in readable.items():
            if kind is Kind.VIRTUAL_MACHINE:
                assert self.cache.vms.get(key) == one
            else:
                assert self.cache.services[key].object == one

    def teardown(self) -> None:
        if hasattr(self, "loops"):
            self.calm_down()


TestApiServerMachine = ApiServerMachine.TestCase
TestApiServerMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
