"""Streams that share their messages: whatever their clients do, each ends with what is true."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.integration.http2_watches import Client, Played
from tests.unit.objects import service, spec, vm
from tests.unit.server.endpoint_service.test_watch_property import CLASSES, NAMES, events
from tests.unit.server.endpoint_service.watching import emptied, listed, request, truth
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.events import Apply, Event
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.server.call import Code, RpcError
from vmsvc_grpc.server.endpoint_service.watch import WatchStream
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.transport.http2_calls import StreamCall

LIMITS = Limits(unread_bytes_max=64_000)


class Sharing(RuleBasedStateMachine):
    """Services change; streams of some connections are opened, stall, read, end."""

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[Client] = []

    @initialize(streams=st.integers(2, 5))
    def begin(self, streams: int) -> None:
        cache = self.cache = Cache(AddressRules())
        listed(cache, *(service(key, spec({"app": "x"})) for key in NAMES))
        played = self.played = Played(cache, LIMITS)
        self.clients, self.run, self.transport = played.clients, played.run, played.transport
        for _ in range(2):
            played.connect()
        self.run(lambda: self.open_some(0, streams, 0, pb.READINESS_READY_ONLY))

    def open_some(self, client: int, count: int, name: int, readiness: int) -> None:
        for _ in range(count):
            asked = request(str(NAMES[name]), readiness=readiness)
            self.clients[client].watch(asked)

    @rule(
        client=st.integers(0, 1),
        count=st.integers(1, 3),
        name=st.sampled_from((0, 0, 0, 1)),
        readiness=st.sampled_from(list(CLASSES)),
    )
    def open(self, client: int, count: int, name: int, readiness: int) -> None:
        self.run(lambda: self.open_some(client, count, name, readiness))

    @rule(client=st.integers(0, 1), names=st.lists(st.sampled_from(NAMES), unique=True))
    def open_others(self, client: int, names: list[object]) -> None:
        """One that follows several services, or all: it shares nothing."""
        asked = request(*map(str, names), all_services=len(names) < 2)
        self.run(lambda: self.clients[client].watch(asked))

    @rule(changes=st.lists(events, min_size=1, max_size=4), apart=st.booleans())
    def change(self, changes: list[Event], apart: bool) -> None:
        """What changes in one turn of the event loop may be sent at once."""
        if not apart:
            self.run(lambda: [self.cache.apply(event) for event in changes])
            return
        for event in changes:
            self.run(lambda event=event: self.cache.apply(event))  # type: ignore[misc]

    @rule(addresses=st.lists(st.integers(1, 9), min_size=1, max_size=6, unique=True))
    def flap(self, addresses: list[int]) -> None:
        """The first service is there, and its endpoint moves."""
        self.run(lambda: self.cache.apply(Apply(service(NAMES[0], spec({"app": "x"})))))
        for address in addresses:
            moved = Apply(vm("a", f"10.0.1.{address}", namespace="n1", labels={"app": "x"}))
            self.run(lambda moved=moved: self.cache.apply(moved))  # type: ignore[misc]

    def some(self, data: st.DataObject) -> tuple[Client, list[int]]:
        client = data.draw(st.sampled_from(self.clients))
        opened = [stream for stream, watch in client.watches.items() if not watch.over]
        return client, data.draw(st.lists(st.sampled_from(opened), unique=True)) if opened else []

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        client, streams = self.some(data)

        def steps() -> None:
            for stream in streams:
                client.read(stream)

        self.run(steps)

    @rule(data=st.data(), events=st.lists(events, max_size=2))
    def reset(self, data: st.DataObject, events: list[Event]) -> None:
        """Resets come beside changes: before those are sent, and after."""
        client, streams = self.some(data)

        def steps() -> None:
            for stream in streams:
                client.engine.reset_stream(stream)
                client.watches[stream].over = True
            client.send()
            for event in events:
                self.cache.apply(event)

        self.run(steps)

    @rule(data=st.data(), full=st.booleans())
    def fill_the_socket(self, data: st.DataObject, full: bool) -> None:
        client = data.draw(st.sampled_from(self.clients))
        client.wire.full = full
        self.run(client.connection.pause_writing if full else client.connection.resume_writing)

    @rule(count=st.integers(1, 3))
    def drain(self, count: int) -> None:
        error = RpcError(Code.UNAVAILABLE, "drained")
        self.run(lambda: self.transport.end_streams(count, error))

    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """A connection is gone; another takes its place."""
        client = data.draw(st.sampled_from(self.clients))
        self.run(client.wire.close)
        self.clients.remove(client)
        self.played.connect()

    @invariant()
    def those_in_a_group_have_one_that_listens(self) -> None:
        for cohort in self.transport.cohorts.values():
            assert not cohort._due, "a round is over by now"
            assert any(group.members for group in cohort._groups)
            lead = cohort._lead
            assert isinstance(lead, WatchStream)
            assert lead in lead.common.subscriptions
            assert lead.quiet
            assert cohort.place == lead.place
        for client in self.clients:
            for call in client.connection._calls.values():
                if isinstance(call, StreamCall) and (group := call.group) is not None:
                    stream = call._session._stream
                    assert isinstance(stream, WatchStream)
                    assert stream not in stream.common.subscriptions
                    assert group.members[call.id] == (call, stream)
                    assert self.transport.cohorts[stream.common] is group.cohort
                    assert not call._waiting
                    assert not call._stalled
                    assert not client.connection._engine.queued_body_size(call.id)

    @rule()
    def everybody_catches_up(self) -> None:
        def room() -> None:
            for client in self.clients:
                client.wire.full = False
                client.connection.resume_writing()

        self.run(room)
        self.played.read_all()
        assert not self.played.faults, self.played.faults
        for client in self.clients:
            assert not client.wire.closing
            for watch in client.watches.values():
                if not watch.over:
                    all_states = watch.request.readiness == pb.READINESS_ALL
                    shown = FilterClass.ALL if all_states else FilterClass.READY_ONLY
                    known = truth(self.cache, shown)
                    names = {one.service for one in watch.request.services}
                    everything = watch.request.all_services
                    assert watch.reader.synced
                    assert watch.reader.held == {
                        name: held for name, held in known.items() if everything or name in names
                    }

    def teardown(self) -> None:
        if self.clients:
            self.everybody_catches_up()
            self.played.close()
            emptied(self.cache)
            assert not self.cache.topic_count


TestSharing = Sharing.TestCase
TestSharing.settings = settings(deadline=None, stateful_step_count=30)
