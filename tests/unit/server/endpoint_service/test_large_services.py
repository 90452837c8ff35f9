"""Messages about large services: made in pieces, and of parts that later versions have, too."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.objects import APP_WEB, WEB, service, spec, vm
from tests.unit.server.endpoint_service.watching import (
    Watcher,
    key,
    listed,
    request,
    truth,
    watch,
)
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.endpoints import Endpoint, FilterClass
from vmsvc_grpc.model.events import Apply, Delete
from vmsvc_grpc.model.objects import Kind, VirtualMachine
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.server.call import LATER, Call
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.endpoint_service.encode import Encoder
from vmsvc_grpc.server.endpoint_service.lookup import Lookup
from vmsvc_grpc.server.endpoint_service.parts import LARGE, Parts
from vmsvc_grpc.server.limits import Limits

SIZE = LARGE + 1_500
PIECES = SIZE // 1_000 + 1  # Of all digests, or of all endpoints as bytes.
NAME = str(WEB)


def member(number: int, *, zone: str = "a", again: int = 0) -> VirtualMachine:
    address = f"10.{again}.{number >> 8}.{number & 255}"
    return vm(f"vm{number}", address, labels=APP_WEB, zone=zone)


def worked(cache: Cache) -> Cache:
    while cache.unfinished:
        cache.proceed()
    return cache


def large(size: int = SIZE) -> Cache:
    cache = Cache(AddressRules())
    listed(cache, service(given=spec(APP_WEB)), *map(member, range(size)))
    return worked(cache)


def pieces(watcher: Watcher) -> int:
    """How many pieces there have been since the last question."""
    count, watcher.slices = watcher.slices, 0
    return count


@pytest.mark.parametrize("asked", [{}, {"all_services": True}], ids=["by name", "all services"])
def test_the_first_snapshot_is_made_in_pieces_and_shared(asked: dict[str, bool]) -> None:
    cache = large()
    first = watch(cache, *([] if asked else [NAME]), **asked)
    made = [first.stream.next_message() for _ in range(3)]
    assert made == [LATER] * 3
    assert not first.stream.quiet
    other = watch(cache, *([] if asked else [NAME]), **asked)
    other.stream._encoder = first.stream._encoder
    assert other.read() == ("snapshot", NAME)
    assert other.slices > 0, "it goes on where the first one is"
    assert first.read() == ("snapshot", NAME)
    assert first.slices == 0
    assert first.read_all() == [("synced", "")]
    assert first.counts.encodings["snapshot"] == 1
    assert first.reader.held == other.reader.held == truth(cache, FilterClass.READY_ONLY)


def test_a_change_of_a_large_service_leaves_the_parts_of_all_else() -> None:
    cache = large()
    old = watch(cache, NAME)
    old.read_all()
    assert pieces(old) > 2
    for number in range(5):
        cache.apply(Apply(member(number, again=1)))
        assert old.read_all() == [("delta", NAME)]
        new = watch(cache, NAME)
        new.stream._encoder = old.stream._encoder
        assert new.read() == ("snapshot", NAME)
        assert pieces(old) == pieces(new) == 0
        assert new.reader.held == old.reader.held == truth(cache, FilterClass.READY_ONLY)


def test_changes_do_not_keep_a_large_snapshot_from_being_made() -> None:
    cache = large()
    watcher = watch(cache, NAME)
    asked = 0
    while (message := watcher.stream.next_message()) is LATER:
        asked += 1
        cache.apply(Apply(member(asked, again=1)))
    assert isinstance(message, bytes)
    assert watcher.reader.take(message) == ("snapshot", NAME)
    assert asked <= 2 * PIECES
    watcher.read_all()
    assert watcher.reader.held == truth(cache, FilterClass.READY_ONLY)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_large_service_that_keeps_changing_is_soon_sent_by_its_changes(turns: int) -> None:
    """One change in so many turns: many while the first snapshot is made."""
    cache = large()
    watcher = watch(cache, NAME)
    told: list[str] = []
    later: list[int] = []  # The turns without a message.
    for turn in range(SIZE // 10):
        message = watcher.stream.next_message()
        if isinstance(message, bytes):
            told.append(watcher.reader.take(message)[0])
        elif message is LATER:
            later.append(turn)
        if turn % turns == 0:
            cache.apply(Apply(member(turn, again=1)))
    assert told.count("snapshot") <= 3, "the first, and until the newest is caught up with"
    assert len(told) > SIZE // 10 // turns - 20
    assert len(later) <= 2 * PIECES + 1
    assert max(later) < 3 * PIECES
    watcher.read_all()
    assert watcher.reader.held == truth(cache, FilterClass.READY_ONLY)


def test_a_message_that_is_finished_leaves_the_pieces_of_others() -> None:
    cache = large()
    old = watch(cache, NAME)
    assert old.stream.next_message() is LATER
    listed(cache, service(given=spec(APP_WEB)), *(member(n, zone="b") for n in range(SIZE)))
    worked(cache)
    new = watch(cache, NAME)
    new.stream._encoder = old.stream._encoder
    for _ in range(PIECES - 1):
        assert new.stream.next_message() is LATER
    assert old.read() == ("snapshot", NAME)
    assert new.read() == ("snapshot", NAME)
    assert new.slices <= PIECES + 1, "it goes on where it was"
    assert new.reader.held == truth(cache, FilterClass.READY_ONLY)


def test_who_holds_the_revision_of_a_large_service_is_sent_no_endpoints() -> None:
    cache = large()
    before = watch(cache, NAME)
    before.read_all()
    revision = before.reader.held[NAME].revision
    fresh = large()
    again = Watcher(fresh, request((NAME, revision)))
    assert again.read_all() == [("current", NAME), ("synced", "")]
    assert again.slices > 2, "the digest is worked out in pieces, too"
    assert "snapshot" not in again.counts.encodings


def gone_then(cache: Cache) -> None:
    cache.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, WEB))


def small_then(cache: Cache) -> None:
    cache.apply(Apply(service(given=spec({"app": "other"}))))
    worked(cache)


@pytest.mark.parametrize("then", [gone_then, small_then])
def test_what_happens_while_a_message_is_made_comes_after_it(
    then: Callable[[Cache], None],
) -> None:
    cache = large()
    watcher = watch(cache, NAME)
    assert watcher.stream.next_message() is LATER
    then(cache)
    assert watcher.read() == ("snapshot", NAME)
    assert len(watcher.reader.held[NAME].endpoints) == SIZE
    watcher.read_all()
    assert watcher.reader.held == truth(cache, FilterClass.READY_ONLY)
    assert watcher.stream.quiet
    # A client that comes now needs nothing of what was made; nor is it kept.
    watch(cache, NAME).read_all()
    assert cache.state(WEB, FilterClass.READY_ONLY).kept is None


def test_a_stream_may_be_closed_while_a_message_is_made() -> None:
    cache = large()
    watcher = watch(cache, NAME)
    assert watcher.stream.next_message() is LATER
    wakes = watcher.wakes
    watcher.close()
    cache.apply(Apply(member(1, again=1)))
    assert watcher.stream._making is None
    assert watcher.wakes == wakes


def test_a_change_of_most_endpoints_is_sent_as_a_snapshot_and_of_few_as_a_delta() -> None:
    """A delta would name each endpoint twice, and would be made in one piece."""
    cache = large()
    for number in range(20):
        cache.apply(Apply(vm(f"lone{number}", f"10.9.0.{number}", labels={"app": "lone"})))
    watcher = watch(cache, NAME)
    watcher.read_all()
    listed(cache, service(given=spec(APP_WEB)), *(member(n, zone="b") for n in range(SIZE)))
    worked(cache)
    assert watcher.read_all() == [("snapshot", NAME)], "it was many changes"
    assert watcher.reader.held == truth(cache, FilterClass.READY_ONLY)
    # Twenty that are gone with a list are taken out together, in a new evaluation.
    listed(cache, service(given=spec(APP_WEB)), *(member(n, zone="b") for n in range(20, SIZE)))
    worked(cache)
    assert watcher.read_all() == [("delta", NAME)]
    assert watcher.reader.held == truth(cache, FilterClass.READY_ONLY)
    cache.apply(Apply(service(given=spec({"app": "lone"}))))
    worked(cache)
    assert watcher.read_all() == [("snapshot", NAME)]
    assert watcher.reader.held == truth(cache, FilterClass.READY_ONLY)


def endpoint(number: int) -> Endpoint:
    return Endpoint(f"10.0.{number >> 8}.{number & 255}", f"uid{number}", True, f"vm{number}", "")


def test_each_part_is_made_once_in_pieces_of_bounded_size() -> None:
    made: list[Endpoint] = []

    def name(each: Endpoint) -> str:
        made.append(each)
        return each.vm_name

    parts = Parts(name)
    endpoints = tuple(map(endpoint, range(4_500)))
    sizes = []
    while not parts.proceed(endpoints):
        sizes.append(len(made))
    assert sizes == [1_000, 2_000, 3_000, 4_000]
    assert parts.of(endpoints) == [each.vm_name for each in endpoints]
    later = (endpoint(9_999), *endpoints[1:])
    assert parts.proceed(later), "only one is missing"
    assert len(made) == 4_501
    few = endpoints[:100]
    assert parts.proceed(few)
    assert parts.of(few) == [each.vm_name for each in few]
    assert not parts.proceed(endpoints), "what is no longer used was dropped"


def test_the_fields_of_a_large_snapshot_are_those_that_protobuf_would_write() -> None:
    cache = large()
    watcher = watch(cache, NAME)
    message = watcher.stream.next_message()
    while message is LATER:
        message = watcher.stream.next_message()
    assert isinstance(message, bytes)
    assert pb.WatchEndpointsResponse.FromString(message).SerializeToString() == message
    assert key(pb.WatchEndpointsResponse.FromString(message).snapshot.service) == WEB


def test_a_look_up_is_made_in_pieces_of_what_was_there_when_it_was_asked() -> None:
    """It took 190 ms in one piece for 43,600 endpoints."""
    cache = large()
    lookup = Lookup(cache, Encoder(ServerCounts()), Limits())
    asked = pb.ResolveEndpointsRequest(service=NAME).SerializeToString()
    making = lookup.resolve_endpoints(asked, Call("ipv4:192.0.2.1:1"))
    assert not isinstance(making, bytes)
    version = cache.state(WEB, FilterClass.READY_ONLY).version
    pieces = 1
    while (made := making()) is LATER:
        pieces += 1
        cache.apply(Apply(member(pieces, again=1)))  # It changes all the time.
    assert pieces >= 2 * PIECES - 1
    found = pb.ResolveEndpointsResponse.FromString(made).endpoint_set
    assert found.version == version
    assert len(found.endpoints) == SIZE
    again = lookup.resolve_endpoints(asked, Call("ipv4:192.0.2.1:1"))
    assert not isinstance(again, bytes), "it has changed"
