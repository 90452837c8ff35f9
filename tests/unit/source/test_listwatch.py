"""What the machine asks next, after each answer that an API server may give."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from vmsvc_grpc.model.events import Apply, Delete, Event, Init, InitDone, Malformed
from vmsvc_grpc.model.objects import GROUP, Kind, VirtualMachine
from vmsvc_grpc.source.listwatch import (
    Discover,
    ListPage,
    ListWatch,
    ListWatchRequest,
    OpenWatch,
    RequestFailure,
)

VM = Kind.VIRTUAL_MACHINE
V6, V5 = "v1alpha6", "v1alpha5"
GONE = RequestFailure(410, "too old resource version")
LOST = RequestFailure(0, "connection lost")
SILENT = RequestFailure(0, "nothing came", silent=True)
UNREADABLE = RequestFailure(0, "garbage", unreadable=True)
FROM_START = ListPage(V6, "")
RESUMED = OpenWatch(V6, "10")


def vm(name: str, resource_version: int = 5, **parts: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "shop", "resourceVersion": str(resource_version)}
    return {"apiVersion": f"{GROUP}/{V6}", "kind": "VirtualMachine", "metadata": meta, **parts}


def page(*items: Any, more: str = "", resource_version: int = 10) -> bytes:
    meta = {"resourceVersion": str(resource_version)} | ({"continue": more} if more else {})
    return json.dumps({"metadata": meta, "items": items or None}).encode()


def line(type_: str, object_: Any) -> bytes:
    return json.dumps({"type": type_, "object": object_}).encode()


def told(events: list[Event] | RequestFailure) -> list[str]:
    """Events, short: what is told of which VM."""
    assert not isinstance(events, RequestFailure)
    return [short(event) for event in events]


def short(event: Event) -> str:
    match event:
        case Apply(VirtualMachine() as one):
            return f"+{one.key}"
        case Malformed(_, key):
            return f"?{key}"
        case Delete(_, key):
            return f"-{key}"
        case Init() | InitDone():
            return type(event).__name__
    raise AssertionError(event)


def listing() -> ListWatch:
    machine = ListWatch(VM)
    machine.discovered(V6)
    return machine


def paging() -> ListWatch:
    machine = listing()
    list(machine.page(page(vm("a"), more="token"), 0.0))
    return machine


def waiting() -> ListWatch:
    """Listed, and about to watch."""
    machine = listing()
    list(machine.page(page(vm("a")), 0.0))
    return machine


def watching(*, told: bool = True) -> ListWatch:
    machine = waiting()
    machine.opened(0.0)
    if told:
        machine.line(line("BOOKMARK", vm("", 10)), 0.0)
    return machine


def test_a_list_in_pages_is_one_list() -> None:
    machine = ListWatch(VM)
    assert machine.request() == Discover()
    machine.discovered(V6)
    assert machine.request() == FROM_START
    assert told(machine.asks()) == ["Init"]
    assert told(list(machine.page(page(vm("a"), more="token"), 1.0))) == ["+shop/a"]
    assert machine.asks() == []
    assert machine.counts.lists == 0
    assert machine.request() == ListPage(V6, "token")
    assert told(list(machine.page(page(vm("b")), 2.0))) == ["+shop/b", "InitDone"]
    assert machine.counts.lists == 1
    assert machine.request() == RESUMED
    assert machine.contact == 2.0


def test_an_empty_list_is_a_list() -> None:
    machine = listing()
    assert told([*machine.asks(), *machine.page(page(), 0.0)]) == ["Init", "InitDone"]
    assert machine.asks() == []


def test_a_namespace_is_listed_by_itself() -> None:
    machine = ListWatch(VM, "shop", version="v1")
    events = [*machine.asks(), *machine.page(page(), 0.0)]
    assert events == [Init(VM, "shop"), InitDone(VM, "shop")]


def test_a_page_that_is_none_tells_nothing() -> None:
    machine = waiting()
    with pytest.raises(msgspec.DecodeError):
        machine.page(b"<html>", 1.0)
    with pytest.raises(msgspec.DecodeError):
        machine.page(b'{"metadata": {}, "items": []}', 1.0)
    assert machine.contact == 0.0


def test_a_list_that_goes_round_in_a_circle_is_not_gone_on_with() -> None:
    """It was asked for without end, and without a word."""
    machine = paging()
    assert told(list(machine.page(page(vm("b"), more="another"), 0.0))) == ["+shop/b"]
    with pytest.raises(msgspec.DecodeError, match="continue: is that of the page itself"):
        machine.page(page(vm("b"), more="another"), 0.0)
    machine.failed(UNREADABLE, 0.0, 0.5)
    machine.discovered(V6)
    assert machine.request() == FROM_START


@pytest.mark.parametrize(
    ("type_", "object_", "expected", "resumed_at"),
    [
        pytest.param("ADDED", vm("b", 11), ["+shop/b"], "11", id="one is created"),
        pytest.param("MODIFIED", vm("a", 12), ["+shop/a"], "12", id="one changes"),
        pytest.param("DELETED", vm("a", 13), ["-shop/a"], "13", id="one goes"),
        pytest.param("BOOKMARK", vm("", 14), [], "14", id="a bookmark only moves us on"),
        pytest.param(
            "MODIFIED", vm("a", 15, spec="?"), ["?shop/a"], "15", id="one cannot be read any more"
        ),
        pytest.param(
            "MODIFIED", vm("A b", 16), [], "16", id="one whose name cannot be is passed over"
        ),
    ],
)
def test_a_line_is_an_event_and_moves_us_on(
    type_: str, object_: dict[str, Any], expected: list[str], resumed_at: str
) -> None:
    machine = watching()
    assert told(machine.line(line(type_, object_), 7.0)) == expected
    assert machine.contact == 7.0
    assert machine.failed(LOST, 7.0, 0.0) == 0.0
    assert machine.request() == OpenWatch(V6, resumed_at)


def test_a_vm_nested_as_deep_as_an_api_server_takes_it() -> None:
    """One such VM made every list of VMs unreadable, and the process end."""
    commands: list[Any] = []
    for _ in range(500):
        commands = [commands]
    shallower = json.dumps(vm("deep", 11, spec={"bootstrap": commands})).encode()
    raw = shallower.replace(b"[]", b"[" * 9_000 + b"]" * 9_000)
    machine = watching()
    assert told(machine.line(b'{"type": "ADDED", "object": %s}' % raw, 0.0)) == ["+shop/deep"]
    list_of_it = b'{"metadata": {"resourceVersion": "12"}, "items": [%s]}' % raw
    assert told(list(listing().page(list_of_it, 0.0))) == ["+shop/deep", "InitDone"]


def test_an_object_without_a_name_is_passed_over() -> None:
    machine = watching()
    assert machine.line(line("ADDED", vm("")), 0.0) == []
    assert told(machine.line(line("ADDED", vm("web-1")), 0.0)) == ["+shop/web-1"]


@pytest.mark.parametrize(
    ("raw", "failure"),
    [
        pytest.param(
            line("ERROR", {"code": 410, "message": "too old", "reason": "Expired"}),
            RequestFailure(410, "too old"),
            id="an error of the server, though the status was 200",
        ),
        pytest.param(
            line("ERROR", {"code": 500, "reason": "InternalError"}),
            RequestFailure(500, "InternalError"),
            id="an error without a message",
        ),
    ],
)
def test_a_watch_may_fail_in_the_middle(raw: bytes, failure: RequestFailure) -> None:
    assert watching().line(raw, 0.0) == failure


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b'{"type": "ADDED", "obj', id="a line that is cut off"),
        pytest.param(b"<html>", id="something else"),
        pytest.param(b'{"type": "BOOKMARK", "object": {"metadata": {}}}', id="no resource version"),
    ],
)
def test_a_line_that_cannot_be_read_ends_in_a_new_list(raw: bytes) -> None:
    machine = watching()
    failure = machine.line(raw, 0.0)
    assert isinstance(failure, RequestFailure)
    machine.failed(failure, 0.0, 0.0)
    machine.discovered(V6)
    assert machine.request() == FROM_START


@pytest.mark.parametrize(
    ("machine", "failure", "then"),
    [
        pytest.param(watching(), LOST, RESUMED, id="a connection is lost: resume"),
        pytest.param(watching(), SILENT, RESUMED, id="nothing comes any more: resume"),
        pytest.param(
            watching(), RequestFailure(500, "oh"), RESUMED, id="the server has a problem: resume"
        ),
        pytest.param(watching(), RequestFailure(429, "busy"), RESUMED, id="it is busy: resume"),
        pytest.param(waiting(), RequestFailure(401, "who?"), RESUMED, id="a token ran out: resume"),
        pytest.param(waiting(), RequestFailure(403, "no"), RESUMED, id="we may not watch: resume"),
        pytest.param(waiting(), GONE, Discover(), id="it has forgotten: list anew"),
        pytest.param(watching(), GONE, Discover(), id="it forgets meanwhile: list anew"),
        pytest.param(
            waiting(), RequestFailure(404, "what?"), Discover(), id="the kind is gone: look"
        ),
        pytest.param(
            waiting(), RequestFailure(400, "huh?"), Discover(), id="it refuses: list anew"
        ),
        pytest.param(listing(), LOST, FROM_START, id="a list is lost: again"),
        pytest.param(listing(), RequestFailure(403, "no"), FROM_START, id="we may not list: again"),
        pytest.param(listing(), RequestFailure(404, "what?"), Discover(), id="there is none: look"),
        pytest.param(paging(), LOST, ListPage(V6, "token"), id="a page is lost: that page again"),
        pytest.param(
            paging(), RequestFailure(429, "busy"), ListPage(V6, "token"), id="busy: that page"
        ),
        pytest.param(paging(), GONE, Discover(), id="the pages have expired: all anew"),
        pytest.param(paging(), UNREADABLE, Discover(), id="a page is garbage: all anew"),
        pytest.param(
            ListWatch(VM), RequestFailure(404, "none"), Discover(), id="not installed: look"
        ),
        pytest.param(ListWatch(VM), LOST, Discover(), id="nobody there: look again"),
    ],
)
def test_after_a_failure(
    machine: ListWatch, failure: RequestFailure, then: ListWatchRequest
) -> None:
    machine.failed(failure, 0.0, 0.0)
    assert machine.request() == then


def test_what_was_read_in_pages_that_expire_is_told_as_a_list_anew() -> None:
    machine = paging()
    machine.failed(GONE, 0.0, 0.0)
    machine.discovered(V6)
    assert machine.request() == FROM_START
    events = [*machine.asks(), *machine.page(page(vm("b")), 0.0)]
    assert told(events) == ["Init", "+shop/b", "InitDone"]


def test_a_kind_of_one_version_is_never_looked_for() -> None:
    machine = ListWatch(Kind.SERVICE, version="v1")
    assert machine.request() == ListPage("v1", "")
    list(machine.page(page(more="token"), 0.0))
    machine.failed(RequestFailure(404, "?"), 0.0, 0.0)
    assert machine.request() == ListPage("v1", "")
    list(machine.page(page(), 0.0))
    machine.opened(0.0)
    machine.ended(300.0, 0.0)
    assert machine.request() == OpenWatch("v1", "10")


@pytest.mark.parametrize(
    ("found", "then"),
    [
        pytest.param(V6, RESUMED, id="the same version: resume"),
        pytest.param(V5, ListPage(V5, ""), id="another: list, as objects then say other things"),
    ],
)
def test_when_a_watch_ends_the_version_is_looked_for(found: str, then: ListWatchRequest) -> None:
    machine = watching()
    assert machine.ended(300.0, 1.0) == 0.0
    assert machine.request() == Discover()
    machine.discovered(found)
    assert machine.request() == then


def test_a_kind_that_was_gone_is_listed_anew() -> None:
    machine = watching()
    machine.ended(300.0, 1.0)
    machine.failed(RequestFailure(404, "not installed"), 300.0, 1.0)
    assert machine.request() == Discover()
    machine.discovered(V6)
    assert machine.request() == FROM_START


def test_two_watches_without_a_word_end_in_a_new_list() -> None:
    """A server whose etcd was restored has nothing to say to who comes from the future."""
    machine = watching(told=False)
    machine.failed(SILENT, 75.0, 0.0)
    assert machine.request() == RESUMED
    machine.opened(75.0)
    machine.failed(SILENT, 150.0, 0.0)
    assert machine.request() == Discover()


def test_a_watch_that_had_a_word_is_resumed_however_often() -> None:
    machine = watching()
    for time in range(5):
        machine.failed(SILENT, 75.0 * time, 0.0)
        assert machine.request() == RESUMED
        machine.opened(75.0 * time)
        machine.line(line("BOOKMARK", vm("", 10)), 75.0 * time)


@pytest.mark.parametrize(
    ("failures", "delay_s"),
    [
        pytest.param([LOST], 0.5, id="the first"),
        pytest.param([LOST] * 3, 2.0, id="it doubles"),
        pytest.param([LOST] * 100, 30.0, id="it is bounded"),
        pytest.param([GONE], 0.0, id="a version that is forgotten is listed anew at once"),
        pytest.param([GONE, GONE], 1.0, id="but not over and over"),
        pytest.param([RequestFailure(429, "busy", 7.0)], 7.0, id="the server says when"),
        pytest.param([LOST] * 9 + [RequestFailure(503, "", 7.0)], 30.0, id="sooner than we would"),
    ],
)
def test_how_long_to_wait(failures: list[RequestFailure], delay_s: float) -> None:
    machine = waiting()
    delays = [machine.failed(failure, 0.0, jitter=1.0) for failure in failures]
    assert delays[-1] == delay_s


def test_a_word_ends_the_row_of_failures() -> None:
    machine = watching()
    for _ in range(5):
        machine.failed(LOST, 0.0, 1.0)
    machine.opened(0.0)
    machine.line(line("ADDED", vm("b", 11)), 0.0)
    assert machine.failed(LOST, 0.0, 1.0) == 0.5


def test_a_list_that_is_forgotten_at_once_does_not_end_it() -> None:
    machine = waiting()
    delays = []
    for _ in range(4):
        delays.append(machine.failed(GONE, 0.0, 1.0))
        machine.discovered(V6)
        list(machine.page(page(), 0.0))
    assert delays == [0.0, 1.0, 2.0, 4.0]


def test_a_quiet_watch_that_held_ends_it() -> None:
    """Some load balancers cut what is quiet for half a minute, over and over."""
    machine = watching(told=False)
    for time in range(0, 300, 30):
        machine.opened(float(time))
        assert machine.failed(LOST, time + 30.0, 1.0) == 0.5


def test_a_server_that_ends_watches_at_once_is_not_asked_over_and_over() -> None:
    machine = waiting()
    delays = []
    for _ in range(3):
        machine.opened(5.0)
        delays.append(machine.ended(5.1, 1.0))
        machine.discovered(V6)
    assert delays == [0.5, 1.0, 2.0]
    assert machine.trouble == "the server ends watches at once"


@pytest.mark.parametrize(
    ("failures", "trouble"),
    [
        pytest.param([LOST], "", id="what is lost once is soon found"),
        pytest.param([GONE], "", id="to be forgotten is usual"),
        pytest.param([RequestFailure(429, "busy")], "", id="so is a busy server"),
        pytest.param([LOST, LOST], "connection lost", id="nobody there"),
        pytest.param(
            [RequestFailure(403, "403 forbidden")],
            "VirtualMachine in all namespaces: 403 forbidden",
            id="we may not",
        ),
        pytest.param(
            [RequestFailure(404, "not installed")],
            "VirtualMachine in all namespaces: not installed",
            id="there is no such kind",
        ),
        pytest.param(
            [UNREADABLE], "VirtualMachine in all namespaces: garbage", id="somebody else answers"
        ),
    ],
)
def test_what_is_said_of_a_failure(failures: list[RequestFailure], trouble: str) -> None:
    machine = listing()
    for failure in failures:
        machine.failed(failure, 0.0, 0.0)
    assert machine.trouble == trouble
    machine.discovered(V6)
    list(machine.page(page(), 1.0))
    assert machine.trouble == ""


def test_trouble_ends_when_a_watch_opens() -> None:
    machine = ListWatch(VM, "shop")
    machine.discovered(V6)
    list(machine.page(page(), 0.0))
    machine.failed(RequestFailure(403, "no"), 1.0, 0.0)
    assert machine.trouble == "VirtualMachine in namespace shop: no"
    assert machine.contact == 0.0
    machine.opened(2.0)
    assert machine.trouble == ""
    assert machine.contact == 2.0


def test_what_happens_is_counted() -> None:
    machine = watching()
    machine.failed(GONE, 0.0, 0.0)
    machine.discovered(V6)
    list(machine.page(page(), 0.0))
    machine.failed(LOST, 0.0, 0.0)
    counts = machine.counts
    assert (counts.lists, counts.watches) == (2, 1)
    assert counts.failures == {410: 1, 0: 1}
