"""A watch's stream without a server: what it tells, when, and what it holds on to."""

from __future__ import annotations

import gc
import tracemalloc
from itertools import chain

import pytest

from tests.unit.leavings import leavings
from tests.unit.objects import APP_WEB, HTTP, service, spec, vm
from tests.unit.server.endpoint_service.watching import (
    Told,
    Watcher,
    emptied,
    key,
    listed,
    request,
    synced_cache,
    truth,
    watch,
)
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.cache import changes
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.changes import READER_LOOKS_MAX
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.events import Apply, Delete, Event
from vmsvc_grpc.model.objects import (
    Key,
    Kind,
    Probe,
    Readiness,
    ServicePort,
    VirtualMachine,
    VirtualMachineService,
)
from vmsvc_grpc.model.problem import Problem
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.endpoint_service.encode import Encoder

WEB, DB, OTHER = key("shop/web"), key("shop/db"), key("office/web")
SYNCED: Told = ("synced", "")
A, B = vm("a", "10.0.0.1"), vm("b", "10.0.0.2")
NODE_PORT = (Problem("spec.type", "NodePort is not supported"),)
REFUSED = service(problems=NODE_PORT)


def gone(what: Key | VirtualMachine) -> Delete:
    if isinstance(what, Key):
        return Delete(Kind.VIRTUAL_MACHINE_SERVICE, what)
    return Delete(Kind.VIRTUAL_MACHINE, what.key)


def not_ready(name: str, address: str) -> VirtualMachine:
    return vm(name, address, probe=Probe.TCP_SOCKET, ready=Readiness.FALSE)


@pytest.mark.parametrize(
    ("objects", "asked", "told"),
    [
        pytest.param(
            [service(), A], request("shop/web"), [("snapshot", "shop/web")], id="one that exists"
        ),
        pytest.param(
            [service()], request("shop/web"), [("snapshot", "shop/web")], id="one with no endpoints"
        ),
        pytest.param([], request("shop/web"), [("absent", "shop/web")], id="one that does not"),
        pytest.param(
            [service(deleting=True)],
            request("shop/web"),
            [("absent", "shop/web")],
            id="one that is being deleted",
        ),
        pytest.param([REFUSED], request("shop/web"), [("absent", "shop/web")], id="a refused one"),
        pytest.param(
            [service(), service(OTHER)],
            request("office/web", "shop/none", "shop/web"),
            [("snapshot", "office/web"), ("absent", "shop/none"), ("snapshot", "shop/web")],
            id="several by name",
        ),
        pytest.param(
            [service(), service(OTHER)],
            request(namespaces=["shop"]),
            [("snapshot", "shop/web")],
            id="a namespace",
        ),
        pytest.param(
            [service(), service(OTHER), service(key("lab/web"))],
            request(namespaces=["shop", "office"]),
            [("snapshot", "office/web"), ("snapshot", "shop/web")],
            id="two namespaces",
        ),
        pytest.param(
            [service(), service(OTHER)],
            request("office/web", namespaces=["shop"]),
            [("snapshot", "office/web"), ("snapshot", "shop/web")],
            id="a namespace, and one outside by name",
        ),
        pytest.param(
            [service(), service(OTHER), service(DB, deleting=True)],
            request(all_services=True),
            [("snapshot", "office/web"), ("snapshot", "shop/web")],
            id="all, of which one is being deleted",
        ),
        pytest.param([], request(all_services=True), [], id="all of none"),
        pytest.param([], request(namespaces=["none"]), [], id="a namespace that does not exist"),
        pytest.param(
            [service()],
            request(("shop/web", "means nothing"), ("shop/old", "gone"), all_services=True),
            [("snapshot", "shop/web"), ("absent", "shop/old")],
            id="all, with revisions of which one is of another release and one is gone",
        ),
        pytest.param(
            [REFUSED, service(DB)],
            request(all_services=True),
            [("snapshot", "shop/db"), ("absent", "shop/web")],
            id="all, of which one is refused",
        ),
    ],
)
def test_every_service_has_a_first_answer_and_then_comes_synced(
    objects: list[VirtualMachineService], asked: pb.WatchEndpointsRequest, told: list[Told]
) -> None:
    watcher = Watcher(synced_cache(*objects), asked)
    assert watcher.read_all() == [*told, SYNCED]


def test_a_revision_that_is_still_true_gets_no_endpoints() -> None:
    cache = synced_cache(service(), A)
    first = watch(cache, "shop/web")
    first.read_all()
    held = first.reader.held["shop/web"]
    again = watch(cache, ("shop/web", held.revision))
    again.reader.held["shop/web"] = held
    assert again.read_all() == [("current", "shop/web"), SYNCED]
    cache.apply(Apply(B))
    assert again.read_all() == [("delta", "shop/web")], "it builds on what `current` confirmed"
    assert again.reader.held == truth(cache, FilterClass.READY_ONLY)


def test_a_revision_holds_on_another_replica() -> None:
    first, second = synced_cache(service(), A, B), synced_cache(B, A, service(OTHER), service())
    told = watch(first, "shop/web")
    told.read_all()
    resumed = watch(second, ("shop/web", told.reader.held["shop/web"].revision))
    assert resumed.read_all() == [("current", "shop/web"), SYNCED]


def test_a_revision_counts_for_the_class_that_is_asked_for() -> None:
    cache = synced_cache(service(), A, not_ready("b", "10.0.0.2"))
    ready = watch(cache, "shop/web")
    ready.read_all()
    revision = ready.reader.held["shop/web"].revision
    everything = watch(cache, ("shop/web", revision), readiness=pb.READINESS_ALL)
    assert everything.read_all() == [("snapshot", "shop/web"), SYNCED]


def test_a_revision_of_a_service_that_went_and_came_back_counts_no_more() -> None:
    cache = synced_cache()
    reference = synced_cache(service(), A)
    told = watch(reference, "shop/web")
    told.read_all()
    resumed = watch(cache, ("shop/web", told.reader.held["shop/web"].revision))
    assert resumed.read_all() == [("absent", "shop/web"), SYNCED]
    for event in (Apply(A), Apply(service())):
        cache.apply(event)
    # It was told to drop what it holds.
    assert resumed.read_all() == [("snapshot", "shop/web")]


CHANGES = [
    pytest.param([Apply(B)], [("delta", "shop/web")], id="a VM more"),
    pytest.param([gone(A)], [("delta", "shop/web")], id="the last VM goes"),
    pytest.param([Apply(vm("a", "10.0.0.9"))], [("delta", "shop/web")], id="another address"),
    pytest.param([Apply(not_ready("a", "10.0.0.1"))], [("delta", "shop/web")], id="not ready"),
    pytest.param([Apply(A)], [], id="the same again"),
    pytest.param(
        [Apply(vm("a", "10.0.0.1", labels={**APP_WEB, "x": "y"}))], [], id="a label of no interest"
    ),
    pytest.param([Apply(vm("z", "10.0.0.9", labels={"app": "z"}))], [], id="another's VM"),
    pytest.param([Apply(not_ready("b", "10.0.0.2"))], [], id="one more that is not ready"),
    pytest.param([Apply(service(DB))], [], id="another service"),
    pytest.param(
        [Apply(service(given=spec(ports=(ServicePort("http", "TCP", 81, 9376),))))],
        [("delta", "shop/web")],
        id="another port",
    ),
    pytest.param([gone(WEB)], [("absent", "shop/web")], id="deleted"),
    pytest.param([Apply(service(deleting=True))], [("absent", "shop/web")], id="being deleted"),
    pytest.param(
        [Apply(service(deleting=True)), gone(WEB)],
        [("absent", "shop/web")],
        id="being deleted, then deleted: told once",
    ),
    pytest.param(
        [gone(WEB), Apply(service())], [("snapshot", "shop/web")], id="deleted and created again"
    ),
    pytest.param(
        [gone(WEB), Apply(service()), gone(WEB)],
        [("absent", "shop/web")],
        id="deleted, created and deleted again",
    ),
    pytest.param(
        [Apply(B), Apply(vm("c", "10.0.0.3"))],
        [("snapshot", "shop/web")],
        id="two changes at once: further behind than a delta leads",
    ),
    pytest.param([Apply(REFUSED)], [], id="refused now, and served by its last valid spec"),
]


@pytest.mark.parametrize("fields", [{}, {"all_services": True}, {"namespaces": ["shop"]}])
@pytest.mark.parametrize(("events", "told"), CHANGES)
def test_what_changes_is_told_once(
    events: list[Event], told: list[Told], fields: dict[str, object]
) -> None:
    cache = synced_cache(service(), A)
    watcher = watch(cache, *([] if fields else ["shop/web"]), **fields)
    watcher.read_all()
    for event in events:
        cache.apply(event)
    assert [t for t in watcher.read_all() if t[1] == "shop/web"] == told
    watched = {n: h for n, h in truth(cache, FilterClass.READY_ONLY).items() if n == "shop/web"}
    assert {n: h for n, h in watcher.reader.held.items() if n == "shop/web"} == watched


@pytest.mark.parametrize("fields", [{}, {"all_services": True}, {"namespaces": ["shop"]}])
def test_absent_created_changed_deleted_and_created_again_on_one_stream(
    fields: dict[str, object],
) -> None:
    cache = synced_cache(A)
    watcher = watch(cache, "shop/web", **fields)
    assert watcher.read_all() == [("absent", "shop/web"), SYNCED]
    for event, told in (
        (Apply(service()), "snapshot"),
        (Apply(B), "delta"),
        (gone(WEB), "absent"),
        (Apply(service(uid="another")), "snapshot"),
        (gone(A), "delta"),
        (Apply(service(uid="another", deleting=True)), "absent"),
        # A relist may show the new object without the old one's end.
        (Apply(service(uid="third")), "snapshot"),
    ):
        cache.apply(event)
        assert watcher.read_all() == [(told, "shop/web")], event
    assert watcher.reader.held == truth(cache, FilterClass.READY_ONLY)


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(
            [Apply(vm("a", "10.0.0.9")), Apply(vm("b", "10.0.0.1"))], id="a lets go first"
        ),
        pytest.param([Apply(vm("b", "10.0.0.1")), Apply(vm("a", "10.0.0.9"))], id="b takes first"),
        pytest.param([gone(A), Apply(vm("b", "10.0.0.1"))], id="a is deleted first"),
        pytest.param([Apply(vm("b", "10.0.0.1")), gone(A)], id="a is deleted last"),
        pytest.param([Apply(vm("a", "10.0.0.1", uid="new"))], id="one event: a new VM, same name"),
    ],
)
@pytest.mark.parametrize("reads", [True, False], ids=["read each", "read at the end"])
def test_an_address_moves_between_vms(events: list[Event], reads: bool) -> None:
    """linkerd2: Add(b) then Remove(a) of one address left the client with nothing."""
    cache = synced_cache(service(), A, B)
    watcher = watch(cache, "shop/web")
    watcher.read_all()
    for event in events:
        cache.apply(event)
        if reads:
            watcher.read_all()
    watcher.read_all()
    assert watcher.reader.held == truth(cache, FilterClass.READY_ONLY)
    assert "10.0.0.1" in {e[0] for e in watcher.reader.held["shop/web"].endpoints}


def test_a_refusal_is_told_with_its_reason_and_again_when_that_changes() -> None:
    cache = synced_cache(REFUSED)
    watcher = watch(cache, all_services=True)
    assert watcher.read_all() == [("absent", "shop/web"), SYNCED]
    cache.apply(Apply(service(problems=(Problem("spec.ports", "one is required"),))))
    assert watcher.read_all() == [("absent", "shop/web")]
    cache.apply(Apply(service()))
    assert watcher.read_all() == [("snapshot", "shop/web")]


def test_all_endpoints_are_those_not_ready_too() -> None:
    cache = synced_cache(service(), A, not_ready("b", "10.0.0.2"))
    everything = watch(cache, "shop/web", readiness=pb.READINESS_ALL)
    ready = watch(cache, "shop/web", readiness=pb.READINESS_READY_ONLY)
    for watcher in (everything, ready):
        watcher.read_all()
    cache.apply(Apply(vm("b", "10.0.0.2")))
    assert everything.read_all() == ready.read_all() == [("delta", "shop/web")]
    cache.apply(Apply(not_ready("c", "10.0.0.3")))
    assert everything.read_all() == [("delta", "shop/web")]
    assert ready.read_all() == [], "what the class does not show is not told"
    assert everything.reader.held == truth(cache, FilterClass.ALL)
    assert ready.reader.held == truth(cache, FilterClass.READY_ONLY)


@pytest.mark.parametrize(
    "ports", [(), (HTTP,), (HTTP, ServicePort("dns", "UDP", 53, 5353))], ids=["none", "one", "two"]
)
def test_ports_are_told_as_they_are_and_may_be_none(ports: tuple[ServicePort, ...]) -> None:
    """linkerd2: an endpoint without a port crashed the process."""
    headless = service(given=spec(ports=ports, cluster_ip="None"))
    cache = synced_cache(headless, A)
    watcher = watch(cache, "shop/web")
    assert watcher.read_all() == [("snapshot", "shop/web"), SYNCED]
    cache.apply(Apply(B))
    assert watcher.read_all() == [("delta", "shop/web")]
    assert watcher.reader.held == truth(cache, FilterClass.READY_ONLY)


def test_a_watch_waits_without_a_word_until_the_cache_is_synced() -> None:
    cache = Cache(AddressRules())
    watchers = [watch(cache, "shop/web"), watch(cache, all_services=True)]
    for watcher in watchers:
        assert watcher.read() is None
    listed(cache, service(), A)
    for watcher in watchers:
        assert watcher.wakes == 1
        assert watcher.read_all() == [("snapshot", "shop/web"), SYNCED]


def test_a_reader_that_does_not_read_is_woken_once_and_holds_no_message() -> None:
    """linkerd2 #11480, #11279, #10590, and the queue that came of them."""
    cache = synced_cache(service(), A)
    stalled, reading = watch(cache, "shop/web"), watch(cache, "shop/web")
    for watcher in (stalled, reading):
        watcher.read_all()
        watcher.wakes = 0
    for number in range(1000):
        cache.apply(Apply(vm("a", f"10.1.{number // 250}.{number % 250 + 1}")))
        assert reading.read_all() == [("delta", "shop/web")]
    assert stalled.wakes == 1
    assert len(stalled.stream._noted) == 1
    assert stalled.read_all() == [("snapshot", "shop/web")], "one newest message"
    assert stalled.reader.held == reading.reader.held


def test_a_thousand_readers_share_one_encoding() -> None:
    cache = synced_cache(service(), A)
    first = watch(cache, "shop/web")
    watchers = [watch(cache, "shop/web") for _ in range(1000)]
    for watcher in watchers:
        watcher.stream._encoder = first.stream._encoder
    for watcher in watchers:
        watcher.read_all()
    assert first.counts.encodings == {"snapshot": 1}
    cache.apply(Apply(B))
    for watcher in watchers:
        assert watcher.read_all() == [("delta", "shop/web")]
    assert first.counts.encodings == {"snapshot": 1, "delta": 1}


def test_services_are_told_in_the_order_in_which_they_changed() -> None:
    """One that changes all the time does not keep the others waiting."""
    names = [f"shop/s{i}" for i in range(3)]
    apps = {name: service(key(name), spec({"app": name[5:]})) for name in names}
    cache = synced_cache(*apps.values())
    watcher = watch(cache, all_services=True)
    watcher.read_all()

    def change(number: int, address: str) -> None:
        cache.apply(Apply(vm(f"v{number}", address, labels={"app": f"s{number}"})))

    change(0, "10.0.0.1")
    change(1, "10.0.0.2")
    change(0, "10.0.0.3")
    assert watcher.read() == ("snapshot", "shop/s0")
    change(0, "10.0.0.4")
    change(2, "10.0.0.5")
    assert watcher.read_all() == [
        ("delta", "shop/s1"),
        ("delta", "shop/s0"),
        ("delta", "shop/s2"),
    ]


@pytest.mark.parametrize(
    "asked",
    [
        request("shop/web", "shop/none"),
        request(namespaces=["shop"]),
        request(all_services=True),
        request("shop/none", all_services=True),
    ],
    ids=["by name", "a namespace", "all", "all and a name"],
)
@pytest.mark.parametrize("reads", [0, 1, 2, 100])
@pytest.mark.parametrize("is_synced", [True, False])
def test_a_closed_stream_leaves_nothing(
    asked: pb.WatchEndpointsRequest, reads: int, is_synced: bool
) -> None:
    """linkerd2 #8270: subscription keys leaked."""
    cache = synced_cache(service(), A, REFUSED) if is_synced else Cache(AddressRules())
    watcher = Watcher(cache, asked)
    for _ in range(reads):
        watcher.read()
    cache.apply(gone(WEB))
    cache.apply(Apply(service()))
    watcher.close()
    emptied(cache)
    assert leavings(cache) == []


def test_cycles_of_create_subscribe_and_delete_leave_nothing() -> None:
    """linkerd2 #8270: subscription keys leaked."""
    cache = synced_cache()
    for number in range(10_000):
        name = f"shop/s{number}"
        watcher = watch(cache, name)
        cache.apply(Apply(service(key(name))))
        assert watcher.read_all() == [("snapshot", name), SYNCED]
        cache.apply(gone(key(name)))
        watcher.close()
    assert leavings(cache) == []


@pytest.mark.parametrize("fields", [{"all_services": True}, {"namespaces": ["shop"]}])
def test_a_stream_of_all_services_holds_nothing_for_those_that_are_gone(
    fields: dict[str, object],
) -> None:
    cache = synced_cache()
    watcher = watch(cache, **fields)
    watcher.read_all()
    for number in range(10_000):
        name = f"shop/s{number % 7}"
        cache.apply(Apply(service(key(name))))
        assert watcher.read_all() == [("snapshot", name)]
        if number % 2:
            cache.apply(Apply(service(key(name), deleting=True)))
            assert watcher.read_all() == [("absent", name)]
        cache.apply(gone(key(name)))
        assert watcher.read_all() == ([] if number % 2 else [("absent", name)])
        assert cache.topic_count == 0
    watcher.close()
    assert leavings(cache) == []


def test_a_stalled_stream_of_all_services_hears_of_what_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However far behind: also when the log has let go of what was created and deleted since."""
    monkeypatch.setattr(changes, "CHANGES_KEPT", 10)
    cache = Cache(AddressRules())
    listed(cache, service(), service(DB), A)
    stalled, slow = (watch(cache, all_services=True) for _ in range(2))
    stalled.read_all()
    for _ in range(2):
        slow.read()  # Its first answers, but not `synced`.
    for number in range(1000):
        cache.apply(Apply(service(key(f"shop/s{number}"))))
        if number < 995:
            cache.apply(gone(key(f"shop/s{number}")))
    cache.apply(gone(DB))
    left = [("snapshot", f"shop/s{number}") for number in range(995, 1000)]
    assert sorted(stalled.read_all()) == [("absent", "shop/db"), *left]
    assert sorted(slow.read_all()) == [("absent", "shop/db"), *left, SYNCED]
    for watcher in (stalled, slow):
        assert watcher.reader.held == truth(cache, FilterClass.READY_ONLY)


def test_a_stream_of_all_services_takes_as_much_of_few_as_of_many() -> None:
    def bytes_a_stream(services: int) -> float:
        cache = synced_cache(*(service(key(f"shop/s{number}")) for number in range(services)))
        encoder = Encoder(ServerCounts())
        watch(cache, all_services=True).read_all()  # What is encoded and kept once for all.
        tracemalloc.start()
        watchers = [watch(cache, all_services=True) for _ in range(50)]
        for watcher in watchers:
            watcher.stream._encoder = encoder
            watcher.read_all()
            watcher.reader.held.clear()
            watcher.reader.versions.clear()
        cache.apply(Apply(service(key("shop/new"))))
        for watcher in watchers:
            assert watcher.read_all() == [("snapshot", "shop/new")]
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return taken / len(watchers)

    few, many = bytes_a_stream(20), bytes_a_stream(1000)
    assert many < few + 1000, "each has a fiftieth of the names, and no entry for them"


def test_a_stream_that_was_far_behind_looks_for_what_changed_in_slices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(changes, "CHANGES_KEPT", 10)
    cache = Cache(AddressRules())
    listed(cache, *(service(key(f"shop/s{number:04}")) for number in range(2000)))
    watcher = watch(cache, all_services=True)
    watcher.read_all()
    last = service(key("shop/s1999"), spec({"app": "last"}))
    for number in range(50):
        cache.apply(Apply(last))
        cache.apply(Apply(vm("a", f"10.0.0.{number + 1}", labels={"app": "last"})))
    assert watcher.read() == ("snapshot", "shop/s1999")
    assert watcher.slices == 2000 // READER_LOOKS_MAX, "the others had their turn as often"
    assert watcher.read_all() == []


def test_services_that_are_named_and_those_of_a_namespace_take_turns() -> None:
    cache = synced_cache(service(OTHER), *(service(key(f"shop/s{i}")) for i in range(3)))
    watcher = watch(cache, "office/web", namespaces=["shop"])
    watcher.read_all()
    for number in range(3):
        cache.apply(Apply(service(key(f"shop/s{number}"), spec({"app": "x"}, ports=()))))
    cache.apply(Apply(vm("a", "10.0.0.1", namespace="office")))
    assert ("delta", "office/web") in [watcher.read(), watcher.read()]


def test_deletions_are_encoded_once_for_all_who_follow() -> None:
    cache = synced_cache(service(), service(DB))
    watchers = [watch(cache, all_services=True) for _ in range(100)]
    for watcher in watchers:
        watcher.stream._encoder = watchers[0].stream._encoder
        watcher.read_all()
    encodings = watchers[0].counts.encodings
    encodings.clear()
    cache.apply(gone(WEB))
    cache.apply(Apply(service(DB, deleting=True)))
    cache.apply(gone(DB))
    for watcher in watchers:
        assert watcher.read_all() == [("absent", "shop/web"), ("absent", "shop/db")]
    assert encodings == {"absent": 2}


def test_a_set_does_not_change_under_a_reader() -> None:
    """linkerd2 #9896, #12010: a map was changed while a slow subscriber held it."""
    cache = synced_cache(service(), A)
    state = cache.state(WEB, FilterClass.READY_ONLY).state
    before = repr(state)
    for event in (Apply(B), gone(A), gone(WEB)):
        cache.apply(event)
    assert repr(state) == before


@pytest.mark.parametrize("order", ["vm first", "service first"])
def test_deletions_are_told_in_any_order(order: str) -> None:
    """linkerd2 #10003: removal needed an object that was already deleted."""
    cache = synced_cache(service(), A)
    watcher = watch(cache, "shop/web")
    watcher.read_all()
    events = [gone(A), gone(WEB)]
    for event in events if order == "vm first" else events[::-1]:
        cache.apply(event)
    assert watcher.read_all() == [("absent", "shop/web")]
    assert watcher.reader.held == {}


def test_deleting_one_of_two_vms_leaves_the_other() -> None:
    """linkerd2 #10370: deleting one of several sources sent "no endpoints"."""
    cache = synced_cache(service(), A, B)
    watcher = watch(cache, "shop/web")
    watcher.read_all()
    cache.apply(gone(A))
    assert watcher.read_all() == [("delta", "shop/web")]
    assert {e[0] for e in watcher.reader.held["shop/web"].endpoints} == {"10.0.0.2"}


def test_messages_are_counted_by_kind() -> None:
    cache = synced_cache(service(), A)
    watcher = watch(cache, "shop/web", "shop/none")
    told = watcher.read_all()
    cache.apply(Apply(B))
    told += watcher.read_all()
    kinds = list(chain.from_iterable([kind] for kind, _ in told))
    assert watcher.counts.messages == {kind: kinds.count(kind) for kind in kinds}
