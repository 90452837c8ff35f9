"""Answers and a watch overtake one another; what the cache holds in the end is what is stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.objects import WEB, service
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.objects import SliceIndex
from vmsvc_grpc.model.events import Answer, Apply, Delete, Event, Init, InitDone
from vmsvc_grpc.model.objects import (
    Key,
    Kind,
    ObjectMeta,
    StoredEndpointSlice,
    StoredService,
    VirtualMachineService,
)
from vmsvc_grpc.model.ownership import service_of_slice
from vmsvc_grpc.model.resolve import AddressRules

SERVICES = Kind.SERVICE
DB = Key("shop", "db")
ENDLESS = ObjectMeta(key=WEB, uid="u", resource_version="9" * 5_000)


def stored(version: int, key: Key = WEB, uid: str = "u") -> StoredService:
    """A Service that tells by its type when it was written."""
    meta = ObjectMeta(key=key, uid=uid, resource_version=str(version))
    return StoredService(meta=meta, type=f"at {version}")


def gone(version: int) -> Delete:
    return Delete(SERVICES, WEB, str(version))


def listed(version: int, *objects: StoredService) -> Iterator[Event]:
    yield Init(SERVICES)
    yield from map(Apply, objects)
    yield InitDone(SERVICES, None, str(version))


@pytest.mark.parametrize(
    ("events", "held"),
    [
        pytest.param([Answer(stored(5))], 5, id="an answer before the watch tells"),
        pytest.param([Answer(stored(5)), Apply(stored(5))], 5, id="the watch tells it, too"),
        pytest.param([Answer(stored(5)), Apply(stored(4))], 5, id="the watch is behind"),
        pytest.param([Answer(stored(5)), Apply(stored(4)), Apply(stored(6))], 6, id="and goes on"),
        pytest.param([Apply(stored(6)), Answer(stored(5))], 6, id="the answer is behind"),
        pytest.param([Answer(stored(5)), Answer(stored(4))], 5, id="answers out of order"),
        pytest.param([Apply(stored(4)), gone(6), Answer(stored(5))], None, id="deleted meanwhile"),
        pytest.param([Answer(stored(5)), gone(3)], 5, id="a former one's deletion is told late"),
        pytest.param([Answer(stored(5)), gone(6)], None, id="deleted after it was written"),
        pytest.param([Apply(stored(9)), Apply(stored(4))], 4, id="what the source tells counts"),
        pytest.param([*listed(9, stored(3)), Answer(stored(5))], 3, id="older than the list"),
        pytest.param([*listed(9), Answer(stored(5))], None, id="gone before the list"),
        pytest.param(
            [Init(SERVICES), Answer(stored(10)), InitDone(SERVICES, None, "9")],
            10,
            id="made after the list began",
        ),
        pytest.param(
            [Init(SERVICES), Answer(stored(8)), InitDone(SERVICES, None, "9")],
            None,
            id="made before the list, and gone then",
        ),
        pytest.param(
            [Answer(stored(5)), *listed(3, stored(2))], 2, id="a server restored from a backup"
        ),
        pytest.param(
            [Answer(replace(stored(5), meta=ObjectMeta(key=WEB, uid="u"))), Apply(stored(4))],
            4,
            id="no resource version, no order",
        ),
        pytest.param(
            [Apply(replace(stored(9), meta=ENDLESS)), Answer(stored(5))],
            5,
            id="5,000 digits are no resource version",
        ),
    ],
)
def test_the_newer_telling_counts(events: list[Event], held: int | None) -> None:
    cache = Cache(AddressRules())
    for event in events:
        cache.apply(event)
    service = cache.stored_services.get(WEB)
    assert (service and service.type) == (held and f"at {held}")


def test_an_answer_of_one_namespace_waits_for_no_other() -> None:
    cache = Cache(AddressRules(), kinds=[SERVICES], namespaces=["shop", "other"])
    cache.apply(Apply(stored(9, Key("other", "web"))))
    cache.apply(Answer(stored(5)))
    assert cache.stored_services[WEB].type == "at 5"


def test_an_older_telling_of_a_vmservice_is_not_taken_in() -> None:
    def at(version: int, uid: str = "u") -> VirtualMachineService:
        return replace(service(), meta=ObjectMeta(key=WEB, uid=uid, resource_version=str(version)))

    cache = Cache(AddressRules(), kinds=())
    assert cache.apply(Answer(at(5))) == {WEB}
    assert cache.apply(Apply(at(4, "a former one"))) == frozenset()
    assert cache.services[WEB].object == at(5)
    assert cache.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, WEB, "6")) == {WEB}
    assert cache.apply(Answer(at(5))) == frozenset()
    assert cache.idle()


class Server:
    """Stores objects; tells of them by one watch, and by answers that take their time."""

    def __init__(self) -> None:
        self.version = 0
        self.objects: dict[Key, StoredService] = {}
        self.watch: list[Event] = []
        self.answers: list[Event] = []

    def write(self, key: Key, *, answered: bool) -> None:
        self.version += 1
        held = self.objects.get(key)
        written = stored(self.version, key, held.meta.uid if held else str(self.version))
        self.objects[key] = written
        self.watch.append(Apply(written))
        if answered:
            self.answers.append(Answer(written))

    def delete(self, key: Key) -> None:
        if self.objects.pop(key, None):
            self.version += 1
            self.watch.append(Delete(SERVICES, key, str(self.version)))

    def listed(self) -> Iterator[Event]:
        """A list of now. What the watch had not told yet it never will."""
        self.watch.clear()
        return listed(self.version, *self.objects.values())


STEPS = st.sampled_from(["others write", "we write", "delete", "watch", "answer", "list"])


@given(st.lists(st.tuples(STEPS, st.sampled_from([WEB, DB]), st.randoms(use_true_random=False))))
def test_once_everything_is_told_the_cache_is_what_is_stored(
    steps: list[tuple[str, Key, Random]],
) -> None:
    server, cache = Server(), Cache(AddressRules(), kinds=[SERVICES])
    listing: list[Event] = []
    for step, key, random in steps:
        if step in ("others write", "we write"):
            server.write(key, answered=step == "we write")
        elif step == "delete":
            server.delete(key)
        elif step == "answer" and server.answers:
            cache.apply(server.answers.pop(random.randrange(len(server.answers))))
        elif step == "watch" and listing:
            cache.apply(listing.pop(0))
        elif step == "watch" and server.watch:
            cache.apply(server.watch.pop(0))
        elif step == "list" and not listing:
            listing = list(server.listed())
    for event in (*listing, *server.watch, *server.answers):
        cache.apply(event)
    assert cache.stored_services == server.objects
    for key in list(server.objects):
        cache.apply(Delete(SERVICES, key, str(server.version + 1)))
    assert cache.idle()


namespaces = st.sampled_from(["shop", "other"])


@given(st.lists(st.tuples(namespaces, st.sampled_from("123"), st.sampled_from("ab")), max_size=20))
def test_slices_by_service(made: list[tuple[str, str, str]]) -> None:
    index = SliceIndex()
    held: dict[Key, StoredEndpointSlice] = {}
    for namespace, name, labelled in made:
        labels = {"kubernetes.io/service-name": labelled}
        meta = ObjectMeta(key=Key(namespace, name), uid="u", labels=labels)
        slice_ = StoredEndpointSlice(meta=meta, address_type="IPv4")
        assert index.put(slice_) == held.get(slice_.key)
        held[slice_.key] = slice_
    assert index.keys() == set(held)
    for service_key in {service_of_slice(slice_) for slice_ in held.values()}:
        of_service = sorted(key for key in held if service_of_slice(held[key]) == service_key)
        assert index.of(service_key) == tuple(held[key] for key in of_service)
    for key, slice_ in held.items():
        assert index.remove(key) == slice_
        assert index.remove(key) is None
    assert index.empty()
    assert not index._by_service
