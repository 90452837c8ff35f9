"""A watch against a model of the server, over any run of changes, lags and lost streams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.client.told import SYNCED, current, endpoint, not_found, snapshot
from vmsvc import Event, ServiceState, Synced
from vmsvc.state import Scope, WatchState
from vmsvc.v1 import endpoint_service_pb2 as pb

SERVICES = ("a/x", "a/y", "b/z")
Content = frozenset[tuple[str, bool]]  # address and ready


@dataclass
class Server:
    """What a server holds, and what it has told on the one stream, by the contract."""

    scope: Scope
    services: dict[str, Content] = field(default_factory=dict)
    version: int = 0
    sent: dict[str, Content | None] = field(default_factory=dict)

    def open(self, request: pb.WatchEndpointsRequest) -> list[pb.WatchEndpointsResponse]:
        revisions = {s.service: s.revision for s in request.services}
        covered = [s for s in self.services if self.scope.all_services]
        self.sent = {}
        return [
            self._first(name, revisions.get(name, ""))
            for name in dict.fromkeys([*revisions, *covered])
        ]

    def changes(self) -> list[pb.WatchEndpointsResponse]:
        """What a reader that is up to date, but for what changed since, is told."""
        names = set(self.sent) | (set(self.services) if self.scope.all_services else set())
        return [m for name in sorted(names) if (m := self._change(name)) is not None]

    def _first(self, name: str, revision: str) -> pb.WatchEndpointsResponse:
        content = self.sent[name] = self.services.get(name)
        self.version += 1
        if content is None:
            return not_found(name)
        if revision == digest(content):
            return current(name, self.version, revision)
        return self._snapshot(name, content)

    def _snapshot(self, name: str, content: Content) -> pb.WatchEndpointsResponse:
        message = snapshot(name, self.version, revision=digest(content))
        message.snapshot.endpoints.extend(endpoint(a, ready=r) for a, r in sorted(content))
        return message

    def _change(self, name: str) -> pb.WatchEndpointsResponse | None:
        before, after = self.sent.get(name), self.services.get(name)
        if before == after:
            return None
        self.sent[name] = after
        self.version += 1
        if after is None:
            return not_found(name)
        if before is None or self.version % 3 == 0:  # As to a reader that is far behind.
            return self._snapshot(name, after)
        kept = {address for address, _ in after}
        gone = sorted({address for address, _ in before} - kept)
        return pb.WatchEndpointsResponse(
            delta=pb.Delta(
                service=name,
                version=self.version,
                revision=digest(after),
                removed=[pb.EndpointKey(address=a, vm_uid=f"uid-{a}") for a in gone],
                upserted=[endpoint(a, ready=r) for a, r in sorted(after - before)],
            )
        )


class Change(NamedTuple):
    service: str
    content: Content | None


class Read(NamedTuple):
    messages: int


class Lose(NamedTuple):
    resume: bool


Step = Change | Read | Lose


def digest(content: Content) -> str:
    return repr(sorted(content))


contents = st.dictionaries(st.sampled_from(["1", "2", "3"]), st.booleans()).map(
    lambda d: frozenset(d.items())
)
steps = st.one_of(
    st.builds(Change, st.sampled_from(SERVICES), st.none() | contents),
    st.builds(Read, st.integers(0, 4)),
    st.builds(Lose, st.booleans()),
)
scopes = st.sampled_from([Scope(services=SERVICES[:2]), Scope(all_services=True)])


class Reader:
    """One watch on one server, over as many streams as it takes."""

    def __init__(self, scope: Scope) -> None:
        self.server = Server(scope)
        self.state = WatchState(scope)
        self.told: dict[str, ServiceState] = {}
        self.on_the_way: list[pb.WatchEndpointsResponse] = []
        self.lose(resume=True)

    def lose(self, *, resume: bool) -> None:
        self.state.lost(resume=resume)
        self.on_the_way = [*self.server.open(self.state.begin()), SYNCED]

    def read(self, count: int | None = None) -> list[Event]:
        if not self.on_the_way:
            self.on_the_way = self.server.changes()
        taken = self.on_the_way[:count]
        del self.on_the_way[:count]
        events = [event for message in taken for event in self.state.receive(message)]
        for event in events:
            if isinstance(event, ServiceState):
                assert self.told.get(event.service) != event, "a state is told once"
                self.told[event.service] = event
        return events


@settings(max_examples=300)
@given(scopes, st.lists(steps, max_size=30))
def test_a_watch_ends_with_what_the_server_holds(scope: Scope, run: list[Step]) -> None:
    reader = Reader(scope)
    services = reader.server.services
    for step in run:
        match step:
            case Change(name, content) if content is not None:
                services[name] = content
            case Change(name):
                services.pop(name, None)
            case Read(count):
                reader.read(count)
            case Lose(resume):
                reader.lose(resume=resume)
    reader.read()  # What is on the way,
    reader.read()  # and what has changed since.

    wanted = SERVICES if scope.all_services else scope.services
    truth = {name: services[name] for name in wanted if name in services}
    assert held(reader.state.states) == truth
    assert held(reader.told) == truth
    reader.lose(resume=True)
    assert reader.read() == [Synced()], "a reconnect that changes nothing tells nothing"


def held(states: Mapping[str, ServiceState]) -> dict[str, Content]:
    return {
        name: frozenset((e.address, e.ready) for e in state.endpoints)
        for name, state in states.items()
        if state.present
    }
