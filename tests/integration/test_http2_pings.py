"""Pings and updates of the window as grpc-go sends them whenever data come, and messages after."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.http2_watches import Client, Played
from tests.unit.objects import service, spec, vm
from tests.unit.server.endpoint_service.watching import request, synced_cache
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.limits import Limits

WEB = Key("n1", "web")
STREAMS = 4

# RFC 9113, 6.9.2: the window of a connection begins with so much.
FIRST_WINDOW_BYTES = 65_535

# The client's engine does not mind what comes: what it opens is said by hand.
LARGE_BYTES = 1 << 30


@pytest.fixture
def played() -> Iterator[Played]:
    playing = Played(synced_cache(service(WEB, spec({"app": "x"}))), Limits())
    yield playing
    playing.close()


@pytest.fixture
def client(played: Played) -> Client:
    """One with some streams, which has taken what came and opened nothing."""
    client = played.connect(LARGE_BYTES)
    client.send()
    client.engine.set_local_window_size(LARGE_BYTES)
    client.engine.data_to_send()
    played.run(lambda: [client.watch(request(str(WEB))) for _ in range(STREAMS)])
    return client


def move(played: Played, number: int) -> None:
    """The service's only endpoint is at another address from now on."""
    address = f"10.0.{number // 250}.{number % 250}"
    moved = Apply(vm("a", address, namespace="n1", labels={"app": "x"}))
    played.run(lambda: played.cache.apply(moved))


def came(client: Client) -> int:
    """How many bytes of messages have come."""
    return sum(watch.unread for watch in client.watches.values())


def up_to_date(played: Played, client: Client) -> bool:
    """Whether all streams were sent the newest state."""
    (cohort,) = played.transport.cohorts.values()
    versions = {watch.reader.versions[str(WEB)] for watch in client.watches.values()}
    return versions == {cohort.place[0]}  # type: ignore[index]


def say(played: Played, client: Client, data: bytes) -> None:
    """What a client sends by hand, in one piece."""

    def steps() -> None:
        client.connection.get_buffer(len(data))[: len(data)] = data
        client.connection.buffer_updated(len(data))

    played.run(steps)


def update(size: int) -> bytes:
    return b"\0\0\x04\x08\0" + bytes(4) + size.to_bytes(4, "big")


def ping(text: bytes) -> bytes:
    return b"\0\0\x08\x06\0" + bytes(4) + text


def test_all_that_is_opened_by_hand_reaches_the_engine(played: Played, client: Client) -> None:
    """Three windows long: without the updates it would send no more after the first."""
    pings = 0
    while came(client) < 3 * FIRST_WINDOW_BYTES:
        before = came(client)
        move(played, pings)
        assert up_to_date(played, client)
        pings += 1
        say(played, client, update(came(client) - before) + ping(b"%08d" % pings))
        assert client.pongs[-1] == b"%08d" % pings
    assert len(client.pongs) == pings
    assert not played.server.counts.refusals


@pytest.mark.parametrize("opened", [5_000, FIRST_WINDOW_BYTES], ids=["a little", "all of it"])
def test_what_waits_for_an_update_is_sent_when_it_comes_with_a_ping(
    played: Played, client: Client, opened: int
) -> None:
    number = 0
    while up_to_date(played, client):
        number += 1
        move(played, number)
    assert came(client) == FIRST_WINDOW_BYTES
    say(played, client, update(opened) + ping(b"whatever"))
    assert up_to_date(played, client)
    assert client.pongs == [b"whatever"]


def test_an_update_that_came_before_it_mattered_is_used_in_the_end(
    played: Played, client: Client
) -> None:
    say(played, client, update(10_000) + ping(b"whatever"))
    assert client.connection._kept_window == 10_000
    sent_now, _ = client.connection.windows()
    assert sent_now == FIRST_WINDOW_BYTES - came(client) + 10_000
    number = 0
    while up_to_date(played, client):
        number += 1
        move(played, number)
    assert came(client) == FIRST_WINDOW_BYTES + 10_000


@pytest.mark.parametrize("kept", [0, 10_000], ids=["at once", "after another"])
@pytest.mark.parametrize("size", [0, 2**31 - 1], ids=["by nothing", "too far"])
def test_an_update_that_is_wrong_ends_the_connection(
    played: Played, client: Client, kept: int, size: int
) -> None:
    other = played.connect(LARGE_BYTES)
    played.run(lambda: other.watch(request(str(WEB))))
    if kept:
        say(played, client, update(kept) + ping(b"whatever"))
    say(played, client, update(size) + ping(b"whatever"))
    assert client.wire.closing
    move(played, 1)
    assert up_to_date(played, other)
