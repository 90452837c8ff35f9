"""What an open page is sent, without its port."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.unit.leavings import leavings
from tests.unit.objects import WEB, service, spec, vm
from tests.unit.server.endpoint_service.watching import emptied, key, listed, synced_cache
from tests.unit.server.page.telling import facts
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply, Delete, Init
from vmsvc_grpc.model.objects import Key, Kind, Object, Probe, Readiness
from vmsvc_grpc.model.problem import Problem
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.place import SourceState
from vmsvc_grpc.server.call import LATER
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.endpoint_service.encode import Encoder
from vmsvc_grpc.server.endpoint_service.lookup import Lookup
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.page.board import LOOK_AGAIN_S, ROWS_MAX
from vmsvc_grpc.server.page.page import Page, QueryError
from vmsvc_grpc.server.page.views import PageStream

NODE_PORT = (Problem("spec.type", "NodePort is not supported"),)
SICK = vm("b", "10.0.0.2", probe=Probe.TCP_SOCKET, ready=Readiness.FALSE)


def page(cache: Cache, **given: Any) -> Page:
    limits = Limits()
    lookup = Lookup(cache, Encoder(ServerCounts()), limits)
    told = facts(troubles=lambda: ("a file is \x1b[31mred",), **given)
    return Page(cache, lookup, lambda _kind, _key: (), limits, told)


@dataclass
class Visit:
    """An open page, its events, and the time."""

    cache: Cache
    of: Page
    query: dict[str, str]
    now: float = 100.0
    woken: int = 0
    rows: dict[str, Any] = field(default_factory=dict)
    stream: PageStream = field(init=False)

    def __post_init__(self) -> None:
        self.stream = self.of.open(self.query, self.wake)

    def wake(self) -> None:
        self.woken += 1

    def read(self) -> list[tuple[str, Any]]:
        """All events there are now."""
        events = []
        while (said := self.stream.next(self.now)) is not None:
            if said is LATER:
                continue
            name, data, *_ = said.decode().split("\n")
            event = name.removeprefix("event: "), json.loads(data.removeprefix("data: "))
            if event[0] == "rows":
                self.rows |= {row["service"]: row for row in event[1]}
            events.append(event)
        return events

    def later(self, seconds: float) -> list[tuple[str, Any]]:
        """All events there are after so long."""
        self.now += seconds
        return self.read()

    def apply(self, *objects: Object) -> None:
        for one in objects:
            self.cache.apply(Apply(one))


def visit(cache: Cache, **query: str) -> Visit:
    return Visit(cache, page(cache), query)


def named(events: list[tuple[str, Any]]) -> list[str]:
    return [name for name, _ in events]


def news(events: list[tuple[str, Any]]) -> list[str]:
    """Those that are not about the server as a whole."""
    return [name for name in named(events) if name != "status"]


def services(count: int) -> list[Object]:
    return [service(Key("shop", f"s-{n:04}"), spec({"app": f"s-{n}"})) for n in range(count)]


def test_first_come_all_services_then_the_end_of_them_is_said() -> None:
    seen = visit(synced_cache(service(), vm("a", "10.0.0.1"), SICK), view="services")
    assert named(seen.read()) == ["status", "rows", "complete"]
    row = seen.rows["shop/web"]
    assert (row["matching"], row["ready"], row["not_ready"], row["refused"]) == (2, 1, 1, False)
    assert row["ports"] == ["http 80→9376"]


def test_a_change_wakes_the_page_and_only_its_row_is_sent() -> None:
    cache = synced_cache(service(), *services(3), vm("a", "10.0.0.1"))
    seen = visit(cache, view="services")
    seen.read()
    seen.woken = 0
    seen.apply(vm("c", "10.0.0.3"))
    assert seen.woken == 1
    (changed,) = seen.read()
    assert [row["service"] for row in changed[1]] == ["shop/web"]
    assert seen.rows["shop/web"]["ready"] == 2


def test_changes_that_come_together_are_sent_together_and_only_the_newest() -> None:
    seen = visit(synced_cache(service(), vm("a", "10.0.0.1")), view="services")
    seen.read()
    seen.apply(vm("b", "10.0.0.2"))
    seen.read()
    for n in range(3, 9):
        seen.apply(vm(f"v-{n}", f"10.0.0.{n}"))
        assert seen.read() == []
    assert news(seen.later(0.2)) == ["rows"]
    assert seen.rows["shop/web"]["ready"] == 8


def test_a_service_that_comes_and_one_that_goes() -> None:
    seen = visit(synced_cache(service()), view="services")
    seen.read()
    seen.apply(service(key("shop/new"), spec({"app": "new"})))
    seen.later(1)
    assert "shop/new" in seen.rows
    seen.cache.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, WEB))
    seen.later(1)
    assert seen.rows["shop/web"] == {"service": "shop/web", "gone": True}


def test_what_no_stream_of_endpoints_shows_is_found_by_looking_again() -> None:
    """A VM without an address changes no endpoints, but it counts."""
    seen = visit(synced_cache(service(), *services(500)), view="services")
    seen.read()
    seen.apply(vm("silent"))
    assert seen.read() == []
    assert news(seen.later(LOOK_AGAIN_S + 1)) == ["rows"]
    assert seen.rows["shop/web"]["matching"] == 1


def test_a_service_whose_newest_spec_is_refused_says_so() -> None:
    seen = visit(synced_cache(service(), vm("a", "10.0.0.1")), view="services")
    seen.read()
    seen.apply(service(problems=NODE_PORT))
    seen.later(LOOK_AGAIN_S + 1)
    assert seen.rows["shop/web"]["refused"]
    assert seen.rows["shop/web"]["ready"] == 1, "the last valid one is served"


def test_rows_are_made_once_for_all_pages_and_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = synced_cache(*services(3 * ROWS_MAX))
    made: list[Key] = []
    shared = page(cache)
    summary = shared._lookup.summary

    def counted(one: Key) -> pb.ServiceSummary:
        made.append(one)
        return summary(one)

    monkeypatch.setattr(shared._lookup, "summary", counted)
    first, second = (Visit(cache, shared, {"view": "services"}) for _ in range(2))
    for _ in range(3):
        before = len(made)
        first.stream.next(first.now)
        assert len(made) - before <= ROWS_MAX
    first.read()
    second.read()
    assert first.rows == second.rows
    assert len(made) == 3 * ROWS_MAX
    second.later(LOOK_AGAIN_S + 1)
    assert len(made) == 3 * ROWS_MAX, "a look at one that has not changed makes nothing"


def test_nothing_is_shown_before_everything_has_been_read() -> None:
    cache = Cache(AddressRules())
    seen = visit(cache, view="services")
    assert named(seen.read()) == ["status"]
    listed(cache, service())
    assert seen.woken
    assert news(seen.later(2)) == ["rows", "complete"]


@pytest.mark.parametrize(
    "query",
    [
        {"view": "services"},
        {"view": "service", "name": "shop/web"},
        {"view": "problems"},
        {"view": "clients"},
        {"view": "server"},
    ],
    ids=lambda query: query["view"],
)
def test_a_page_that_is_closed_leaves_nothing(query: dict[str, str]) -> None:
    cache = synced_cache(service(), vm("a", "10.0.0.1"))
    seen = visit(cache, **query)
    seen.read()
    seen.stream.close()
    seen.woken = 0
    seen.apply(vm("b", "10.0.0.2"))
    assert seen.woken == 0
    emptied(cache)
    assert leavings(cache) == []
    assert len(seen.of._board) == 0


def test_one_service_with_why_each_vm_is_in_it_or_not() -> None:
    other = vm("canary", "10.0.0.9", labels={"app": "canary"})
    cache = synced_cache(service(), vm("a", "10.0.0.1", zone="z1"), SICK, vm("c"), other)
    shown = dict(visit(cache, view="service", name="shop/web").read())["service"]
    assert [(one["name"], one["verdict"]) for one in shown["vms"]] == [
        ("a", "READY"),
        ("b", "NOT_READY"),
        ("c", "NO_ADDRESS"),
        ("canary", "LABELS_DIFFER"),
    ]
    assert shown["vms"][0]["addresses"] == ["10.0.0.1"]
    assert shown["vms"][0]["zone"] == "z1"
    assert shown["selector"] == {"app": "web"}
    assert shown["summary"]["ready"] == 1


def test_a_service_changes_at_once_and_a_burst_in_few_events() -> None:
    seen = visit(synced_cache(service(), vm("a", "10.0.0.1")), view="service", name="shop/web")
    seen.read()
    seen.later(0.5)
    seen.woken = 0
    seen.apply(vm("b", "10.0.0.2"))
    assert seen.woken
    assert named(seen.read()) == ["service"]
    for n in range(3, 9):
        seen.apply(vm(f"v-{n}", f"10.0.0.{n}"))
        assert seen.read() == []
    assert len(dict(seen.later(60))["service"]["vms"]) == 8


def test_a_service_that_is_not_there_is_shown_once_it_is() -> None:
    seen = visit(synced_cache(), view="service", name="shop/web")
    shown = dict(seen.read())["service"]
    assert "there is no VirtualMachineService shop/web" in shown["absent"]
    seen.apply(service())
    assert seen.woken
    assert dict(seen.later(1))["service"]["vms"] == []


def test_one_vm_of_a_service_and_one_that_does_not_exist() -> None:
    cache = synced_cache(service(), vm("a", "10.0.0.1"), SICK)
    shown = dict(visit(cache, view="service", name="shop/web", vm="b").read())["service"]
    assert [one["name"] for one in shown["vms"]] == ["b"]
    shown = dict(visit(cache, view="service", name="shop/web", vm="x").read())["service"]
    assert (shown["vms"], shown["no_vm"]) == ([], "there is no VirtualMachine shop/x")


def test_a_large_service_comes_in_pages() -> None:
    vms = [vm(f"v-{n:03}", f"10.0.{n // 250}.{n % 250}") for n in range(300)]
    cache = synced_cache(service(), *vms)
    first = dict(visit(cache, view="service", name="shop/web").read())["service"]
    seen = visit(cache, view="service", name="shop/web", after=first["next"])
    second = dict(seen.read())["service"]
    assert [one["name"] for one in (*first["vms"], *second["vms"])] == [one.key.name for one in vms]


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"view": "nonsense"},
        {"view": "service"},
        {"view": "service", "name": "web"},
        {"view": "service", "name": "shop/web", "vm": "Not A Name"},
        {"view": "service", "name": "shop/web", "after": "x" * 10_000},
    ],
    ids=str,
)
def test_what_there_cannot_be_is_refused_in_words(query: dict[str, str]) -> None:
    with pytest.raises(QueryError, match=r"\w+ .*"):
        visit(synced_cache(), **query)


def test_problems_are_listed_and_bounded() -> None:
    refused = [service(Key("shop", f"s-{n:04}"), problems=NODE_PORT) for n in range(300)]
    shown = dict(visit(synced_cache(*refused), view="problems").read())["problems"]
    assert shown["count"] == 300
    assert len(shown["objects"]) == 200
    assert shown["objects"][0] == [
        "VirtualMachineService",
        "shop/s-0000",
        ["spec.type: NodePort is not supported"],
    ]


def test_the_status_says_what_is_wrong_in_text_that_is_safe_to_print() -> None:
    status = dict(visit(synced_cache(service()), view="services").read())["status"]
    assert (status["version"], status["reads"], status["services"]) == ("1.2.3", "a test", 1)
    assert "\x1b" not in status["troubles"][0]


def test_something_is_sent_now_and_then_so_that_silence_means_that_we_are_away() -> None:
    seen = visit(synced_cache(service()), view="services")
    seen.read()
    assert seen.later(1) == []
    assert named(seen.later(5)) == ["beat"]
    assert seen.stream.due <= seen.now + 5


def test_text_of_others_stays_in_its_event() -> None:
    """No name or message can end an event and begin another."""
    words = "x\n\nevent: status\ndata: {}\r\n\r\n</script>\u2028"
    refused = service(problems=(Problem("spec", words),))
    cache = synced_cache(refused)
    stream = visit(cache, view="service", name="shop/web").stream
    raw = [said for _ in range(5) if isinstance(said := stream.next(1), bytes)]
    assert len(raw) == 2
    assert all(len(said.splitlines()) == 3 for said in raw)


def test_a_relist_in_which_a_service_is_missing_takes_its_row() -> None:
    seen = visit(synced_cache(service(), *services(3)), view="services")
    seen.read()
    seen.cache.apply(Init(Kind.VIRTUAL_MACHINE_SERVICE))
    listed(seen.cache, *services(3))
    seen.later(1)
    assert seen.rows["shop/web"]["gone"]


def test_the_server_says_what_it_reads_and_who_writes() -> None:
    sources = (
        SourceState("VirtualMachine in all namespaces", "listed, and watched", True, 3.7),
        SourceState("Service in namespace shop", "refused\n: 403", False),
    )
    shared = page(synced_cache(), sources=lambda: sources, writing=lambda: "nobody leads yet")
    shown = dict(Visit(shared._cache, shared, {"view": "server"}).read())["server"]
    assert shown["writing"] == "nobody leads yet"
    assert [(one["what"], one["well"], one["silence_s"]) for one in shown["sources"]] == [
        ("VirtualMachine in all namespaces", True, 3),
        ("Service in namespace shop", False, None),
    ]
    assert "\n" not in shown["sources"][1]["how"]


def test_the_server_is_shown_anew_while_it_changes() -> None:
    said = ["nobody leads yet"]
    shared = page(synced_cache(), writing=lambda: said[0])
    seen = Visit(shared._cache, shared, {"view": "server"})
    seen.read()
    assert news(seen.later(2)) == []
    said[0] = "this replica leads"
    assert news(seen.later(2)) == ["server"]
