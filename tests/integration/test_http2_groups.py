"""Streams that follow the same are woken and asked once, and all are sent it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.http2_watches import Client, Played
from tests.unit.objects import service, spec, vm
from tests.unit.server.endpoint_service.watching import request, synced_cache
from vmsvc_grpc.cache.topic import Publication
from vmsvc_grpc.histogram import Histogram
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.deliveries import BOUNDS_S
from vmsvc_grpc.server.endpoint_service.encode import Encoder
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.transport.http2_groups import GROUP_STREAMS_MAX

WEB = Key("n1", "web")
LARGE_WINDOW = 1_000_000


@pytest.fixture
def played() -> Iterator[Played]:
    playing = Played(synced_cache(service(WEB, spec({"app": "x"}))), Limits())
    yield playing
    playing.close()


def move(played: Played, number: int) -> None:
    """The service's only endpoint is at another address from now on."""
    moved = Apply(vm("a", f"10.0.0.{number}", namespace="n1", labels={"app": "x"}))
    played.run(lambda: played.cache.apply(moved))


def watch(played: Played, client: Client, count: int) -> list[int]:
    """So many streams that have had their first answers, and a change."""
    streams: list[int] = []
    played.run(lambda: streams.extend(client.watch(request(str(WEB))) for _ in range(count)))
    move(played, 100 + len(played.clients))
    played.read_all()
    return streams


def listening(played: Played) -> int:
    """How many streams the next change wakes."""
    publication = played.cache.subscribe(WEB, FilterClass.READY_ONLY, None)  # type: ignore[arg-type]
    played.cache.unsubscribe(publication, None)  # type: ignore[arg-type]
    return len(publication.subscriptions)


def groups(played: Played) -> list[int]:
    """How many streams each group has that follow the service."""
    return [
        len(group.members) for one in played.transport.cohorts.values() for group in one._groups
    ]


def newest(played: Played) -> int:
    """The version of the newest state."""
    return played.cache.state(WEB, FilterClass.READY_ONLY).version


def test_a_change_wakes_and_is_encoded_once_for_all_connections(played: Played) -> None:
    for _ in range(3):
        watch(played, played.connect(LARGE_WINDOW), 10)
    assert listening(played) == 1
    assert groups(played) == [10, 10, 10]
    counts = played.server.counts
    encoded, sent = counts.encodings.total(), counts.messages["delta"]
    move(played, 1)
    assert counts.encodings.total() == encoded + 1
    assert counts.messages["delta"] == sent + 30
    for client in played.clients:
        for one in client.watches.values():
            assert one.reader.versions[str(WEB)] == newest(played)


def test_a_group_is_bounded(played: Played) -> None:
    """All of it is sent to in one go."""
    watch(played, played.connect(LARGE_WINDOW), 2 * GROUP_STREAMS_MAX + 1)
    assert groups(played) == [GROUP_STREAMS_MAX, GROUP_STREAMS_MAX, 1]


def test_streams_that_come_take_the_places_of_those_that_left(played: Played) -> None:
    """Groups that streams had left stayed small for ever."""
    client = played.connect(LARGE_WINDOW)
    streams = watch(played, client, 3 * GROUP_STREAMS_MAX)
    assert groups(played) == [GROUP_STREAMS_MAX] * 3

    def leave(gone: list[int]) -> None:
        for stream in gone:
            client.engine.reset_stream(stream)

    played.run(lambda: leave(streams[::2]))
    watch(played, client, len(streams) // 2)
    assert groups(played) == [GROUP_STREAMS_MAX] * 3
    played.run(lambda: leave(client.open()))
    (connection,) = played.transport.connections
    assert not connection._groups, "nothing is left of groups without streams"
    assert not played.transport.cohorts, "nor of what they had in common"
    assert not listening(played)


@pytest.mark.parametrize("stalled", [0, 3], ids=["the first", "another"])
def test_one_whose_window_is_shut_holds_up_none_of_the_others(played: Played, stalled: int) -> None:
    client = played.connect()
    streams = watch(played, client, 5)
    slow = client.watches[streams[stalled]]
    for number in range(20):
        move(played, number)
        for stream in streams:
            if client.watches[stream] is not slow and client.watches[stream].unread:
                played.run(lambda stream=stream: client.read(stream))  # type: ignore[misc]
                assert client.watches[stream].reader.versions[str(WEB)] == newest(played)
    behind = slow.reader.versions[str(WEB)]
    assert behind < newest(played)
    taken = slow.reader.taken
    played.read_all()
    assert slow.reader.taken <= taken + 2, "one was in flight; then comes the newest"
    assert slow.reader.versions[str(WEB)] == newest(played)
    assert listening(played) == 1, "it follows the others again"


@pytest.mark.parametrize("gone", [0, 3], ids=["the first", "another"])
def test_one_that_goes_leaves_the_others_theirs(played: Played, gone: int) -> None:
    client = played.connect(LARGE_WINDOW)
    streams = watch(played, client, 5)
    left = [stream for stream in streams if stream != streams[gone]]

    def steps() -> None:
        client.engine.reset_stream(streams[gone])
        client.send()

    played.run(steps)
    move(played, 1)
    assert {client.watches[stream].reader.versions[str(WEB)] for stream in left} == {newest(played)}
    assert listening(played) == 1


def test_what_is_too_large_for_all_at_once_is_sent_to_each_in_its_turn(played: Played) -> None:
    client = played.connect(10_000_000)
    client.engine.set_local_window_size(100_000_000)
    streams = watch(played, client, 20)
    vms = [
        vm(f"v{n}", f"10.1.{n // 250}.{n % 250}", namespace="n1", labels={"app": "x"})
        for n in range(1_000)
    ]

    def steps() -> None:
        for one in vms:
            played.cache.apply(Apply(one))

    played.run(steps)
    played.read_all()
    readers = [client.watches[stream].reader for stream in streams]
    assert {reader.versions[str(WEB)] for reader in readers} == {newest(played)}
    sent = played.server.counts.messages.total()
    assert sent == sum(reader.taken for reader in readers), "each is counted once"


def test_a_change_counts_as_sent_once_the_last_stream_has_it(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be it too large for all at once: then the group's streams are asked one by one, later."""
    client = played.connect(10_000_000)
    client.engine.set_local_window_size(100_000_000)
    watch(played, client, 32)
    seen: list[str] = []
    write, deliveries = client.wire.write, played.server.counts.deliveries

    def noted(data: bytes) -> None:
        seen.append("written")
        write(data)

    class Noted(Histogram):
        def observe(self, seconds: float) -> None:
            seen.append("counted")
            super().observe(seconds)

    deliveries.to_last = Noted(BOUNDS_S)
    monkeypatch.setattr(client.wire, "write", noted)

    def steps() -> None:
        since = deliveries.clock()
        for n in range(400):
            each = vm(f"v{n}", f"10.1.{n // 250}.{n % 250}", namespace="n1", labels={"app": "x"})
            played.cache.apply(Apply(each))
        deliveries.published(since, played.cache.version)

    played.run(steps)
    played.read_all()
    assert seen.count("counted") == 1
    assert seen.count("written") >= 1
    assert seen[-1] == "counted"


def test_a_full_socket_stalls_each_of_them(played: Played) -> None:
    client = played.connect(LARGE_WINDOW)
    watch(played, client, 5)
    client.wire.full = True
    played.run(client.connection.pause_writing)
    move(played, 1)
    assert all(call._stalled for call in played.transport.streams)
    move(played, 2)
    client.wire.full = False
    played.run(client.connection.resume_writing)
    assert not any(call._stalled for call in played.transport.streams)
    for one in client.watches.values():
        assert one.reader.versions[str(WEB)] == newest(played)


def test_what_waited_on_streams_that_are_reset_counts_no_more_be_the_socket_full(
    played: Played,
) -> None:
    client = played.connect()
    streams = watch(played, client, 5)
    for number in range(5):
        move(played, number)
    waited = played.transport.unread.in_all
    assert waited
    client.wire.full = True
    played.run(client.connection.pause_writing)

    def reset(gone: list[int]) -> None:
        for stream in gone:
            client.engine.reset_stream(stream)
        client.send()

    played.run(lambda: reset(streams[:3]))
    assert 0 < played.transport.unread.in_all < waited
    played.run(lambda: reset(streams[3:]))
    assert not played.transport.unread.in_all


def test_streams_that_go_between_a_message_and_its_sending_are_not_sent_it(
    played: Played,
) -> None:
    """As where the time of a turn is over in between. The others were sent nothing, then."""
    gone, there = played.connect(LARGE_WINDOW), played.connect(LARGE_WINDOW)
    streams = watch(played, gone, 2)
    watch(played, there, 2)
    (cohort,) = played.transport.cohorts.values()

    def steps() -> None:
        played.cache.apply(Apply(vm("a", "10.0.0.1", namespace="n1", labels={"app": "x"})))
        played.transport._news.popleft().ask()
        for stream in streams:
            gone.engine.reset_stream(stream)
        gone.send()
        gone.connection.take_in()

    played.run(steps)
    assert not cohort._due
    for number in (2, 3):
        for one in there.watches.values():
            assert one.reader.versions[str(WEB)] == newest(played)
        move(played, number)


def test_a_connection_that_is_lost_holds_up_no_message_for_the_others(played: Played) -> None:
    """All groups have a message before the next one is made."""
    watch(played, played.connect(LARGE_WINDOW), 3)
    lost = played.connect(LARGE_WINDOW)
    watch(played, lost, 3)
    played.clients.remove(lost)

    def steps() -> None:
        played.cache.apply(Apply(vm("a", "10.0.0.1", namespace="n1", labels={"app": "x"})))
        lost.wire.close()

    played.run(steps)
    for number in (2, 3):
        move(played, number)
        for one in played.clients[0].watches.values():
            assert one.reader.versions[str(WEB)] == newest(played)


def test_a_fault_in_what_streams_share_is_logged_and_each_is_asked_for_itself(
    played: Played, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = played.connect(LARGE_WINDOW)
    streams = watch(played, client, 3)
    delta, faults = Encoder.delta, iter([RuntimeError("out of luck")])

    def fails_once(encoder: Encoder, publication: Publication) -> bytes:
        if (fault := next(faults, None)) is not None:
            raise fault
        return delta(encoder, publication)

    monkeypatch.setattr(Encoder, "delta", fails_once)
    move(played, 1)
    assert "out of luck" in caplog.text
    for stream in streams:
        assert client.watches[stream].reader.versions[str(WEB)] == newest(played)
    assert groups(played) == [3], "they share again"
