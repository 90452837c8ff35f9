"""The live table: what a person sees after which events, at which size, and when."""

from __future__ import annotations

import grpc
import pytest
from rich.console import Console

from vmsvc import (
    Absence,
    AbsenceReason,
    Disconnected,
    Endpoint,
    Event,
    Port,
    Readiness,
    ServiceState,
    Synced,
    UnavailableError,
)
from vmsvc.live import Board, age, change, fitted, reach

HTTP = Port("http", 80, 8080, "TCP")
METRICS = Port("metrics", 9100, 9100, "TCP")
WEB = "shop/web"
SERVER = "10.9.9.9:50051"


def endpoint(number: int, *, ready: bool = True) -> Endpoint:
    return Endpoint(f"10.0.0.{number}", ready, f"vm-{number}", f"uid-{number}", "zone-a")


def web(*numbers: int, service: str = WEB) -> ServiceState:
    return ServiceState(service, (HTTP,), tuple(map(endpoint, numbers)))


def absent(reason: AbsenceReason, message: str = "", service: str = WEB) -> ServiceState:
    return ServiceState(service, absence=Absence(reason, message))


GONE = absent(AbsenceReason.NOT_FOUND)
LOST = Disconnected(
    UnavailableError(
        f"server {SERVER} cannot be reached: Connection refused", code=grpc.StatusCode.UNAVAILABLE
    ),
    retry_in_s=4,
)


def screen(
    *events: tuple[Event, float],
    now: float = 100.0,
    width: int = 80,
    height: int = 24,
    named: tuple[str, ...] = (),
    readiness: Readiness = Readiness.READY_ONLY,
) -> list[str]:
    """The lines on a terminal of that size, at `now`, after events at their times."""
    board = Board(SERVER, named, readiness)
    for event, at in events:
        board.take(event, at)
    console = Console(width=width, height=height, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(board.render(now, width, height))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_one_service_is_shown_an_endpoint_a_line() -> None:
    assert screen((web(1, 2), 1), (Synced(), 1)) == [
        "server 10.9.9.9:50051: live",
        "",
        "SERVICE   READY  ENDPOINT       VM    ZONE    CHANGED",
        "shop/web  2      10.0.0.1:8080  vm-1  zone-a",
        "                 10.0.0.2:8080  vm-2  zone-a",
        "1 service, 2 endpoints ready",
    ]


def test_with_all_endpoints_those_not_ready_are_counted() -> None:
    state = ServiceState(WEB, (HTTP,), (endpoint(1), endpoint(2, ready=False)))
    lines = screen((state, 1), (Synced(), 1), readiness=Readiness.ALL)
    assert lines[3].startswith("shop/web  1/2    10.0.0.1:8080")
    assert lines[-1] == "1 service, 1 of 2 endpoints ready"


def test_a_change_is_told_with_its_age() -> None:
    lines = screen((web(1, 2), 1), (Synced(), 1), (web(1, 3), 88), now=100)
    assert lines[3].endswith("zone-a  12s +10.0.0.3 -10.0.0.2")


def test_what_came_at_the_beginning_is_no_change_and_what_came_later_was_created() -> None:
    lines = screen((web(1), 1), (Synced(), 1), (web(2, service="shop/new"), 97))
    assert lines[3].endswith("zone-a  3s created")
    assert lines[4].endswith("zone-a")


@pytest.mark.parametrize(
    ("events", "status"),
    [
        pytest.param([], "connecting", id="before the first answer"),
        pytest.param([(Synced(), 1)], "live", id="all is known"),
        pytest.param(
            [(LOST, 99)],
            "not connected, next try in 3s (Connection refused)",
            id="never reached",
        ),
        pytest.param(
            [(Synced(), 1), (LOST, 40), (LOST, 99)],
            "lost 1m ago, next try in 3s (Connection refused)",
            id="lost: since when, and why",
        ),
        pytest.param(
            [(Synced(), 1), (LOST, 90)],
            "lost 10s ago, trying (Connection refused)",
            id="trying now",
        ),
        pytest.param([(Synced(), 1), (LOST, 90), (Synced(), 91)], "live", id="back again"),
    ],
)
def test_status(events: list[tuple[Event, float]], status: str) -> None:
    assert screen(*events)[0] == f"server {SERVER}: {status}"


def test_the_last_known_stays_while_the_server_is_lost() -> None:
    lines = screen((web(1), 1), (Synced(), 1), (LOST, 2))
    assert lines[3].startswith("shop/web  1      10.0.0.1:8080")


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        pytest.param(web(), "0      none is ready", id="no endpoints"),
        pytest.param(GONE, "-      not found", id="no service"),
        pytest.param(
            absent(AbsenceReason.REFUSED, "spec.type: \x1b[31mno"),
            "-      refused: spec.type: ?[31mno",
            id="refused, and nothing of it reaches the terminal as a command",
        ),
    ],
)
def test_a_service_with_nothing_to_show(state: ServiceState, shown: str) -> None:
    assert screen((state, 1), (Synced(), 1), width=160)[3] == f"shop/web  {shown}"


def test_a_refusal_leaves_room_for_changes() -> None:
    refusal = absent(AbsenceReason.REFUSED, "a long sentence " * 9, "shop/old")
    lines = screen((refusal, 1), (web(1), 1), (Synced(), 1), (web(2), 99))
    assert lines[3] == "shop/old  -      refused: a long sentence…"
    assert lines[4].endswith("zone-a  1s +10.0.0.2 -10.0.0.1")


@pytest.mark.parametrize("height", [24, 6], ids=["an endpoint a line", "a service a line"])
def test_nothing_is_cut_while_there_is_room(height: int) -> None:
    """At the width of the longest line all is there, and a column less cuts something."""
    old = f"shop/{'old' * 20}"
    refusal = absent(AbsenceReason.REFUSED, f"a {'long ' * 20}sentence", old)
    events: list[tuple[Event, float]] = [(refusal, 1), (web(1, 2, 3), 1), (Synced(), 1)]
    events += [(refusal, 1), (absent(AbsenceReason.NOT_FOUND, service=old), 98), (refusal, 99)]
    wide = screen(*events, width=1_000, height=height)
    assert "refused: a long long" in wide[3]
    assert "sentence" in wide[3]
    longest = max(map(len, wide))
    assert screen(*events, width=longest, height=height) == wide
    narrower = screen(*events, width=longest - 1, height=height)
    assert "…" not in "".join(wide)
    assert "…" in "".join(narrower)


def test_a_deleted_service_is_shown_for_a_while() -> None:
    deleted: list[tuple[Event, float]] = [(web(1), 1), (Synced(), 1), (GONE, 50)]
    assert screen(*deleted, now=79)[3].split() == [WEB, "-", "not", "found", "29s", "deleted"]
    assert screen(*deleted, now=81)[-1] == "0 services, 0 endpoints ready"


def test_a_deleted_service_that_was_asked_for_by_name_stays() -> None:
    lines = screen((web(1), 1), (Synced(), 1), (GONE, 50), now=5000, named=(WEB,))
    assert "not found" in lines[3]


def many(count: int) -> list[tuple[Event, float]]:
    states = [web(1, 2, 3, service=f"shop/s{number:02}") for number in range(count)]
    return [*((state, 1.0) for state in states), (Synced(), 1.0)]


def test_many_services_are_shown_a_service_a_line() -> None:
    lines = screen(*many(19), height=24)
    assert len(lines) == 23
    assert lines[2:4] == [
        "SERVICE   READY  ENDPOINTS                   CHANGED",
        "shop/s00  3      10.0.0.1 10.0.0.2 10.0.0.3",
    ]
    assert lines[-1] == "19 services, 57 endpoints ready"


def test_of_too_many_services_those_that_changed_last_are_shown() -> None:
    events = [*many(50), (web(1, service="shop/s41"), 90.0), (web(1, service="shop/s40"), 91.0)]
    lines = screen(*events, height=24)
    assert len(lines) == 23
    assert [line.split()[0] for line in lines[3:-1]] == [
        *(f"shop/s{number:02}" for number in range(17)),
        "shop/s40",
        "shop/s41",
    ]
    assert lines[-1] == "50 services, 146 endpoints ready; shown are the 19 that changed last"


@pytest.mark.parametrize("width", [20, 40, 60, 79, 80, 120, 300])
@pytest.mark.parametrize("height", [1, 5, 10, 24, 60])
def test_it_fits_a_terminal_of_any_size(width: int, height: int) -> None:
    long = ServiceState(
        f"{'n' * 63}/{'s' * 63}", (HTTP, METRICS), tuple(endpoint(n) for n in range(30))
    )
    events = [*many(50), (long, 90.0), (web(7, service="shop/s41"), 90.0), (LOST, 95.0)]
    lines = screen(*events, width=width, height=height)
    assert len(lines) < max(height, 6)
    assert max(map(len, lines)) <= width


def test_a_narrow_terminal_keeps_services_and_addresses() -> None:
    lines = screen((web(1, 2), 1), (Synced(), 1), (web(1), 98), width=46)
    assert lines[2:4] == [
        "SERVICE   READY  ENDPOINT       VM    CHANGED",
        "shop/web  1      10.0.0.1:8080  vm-1  2s -10.…",
    ]


@pytest.mark.parametrize(
    ("before", "after", "words", "touched"),
    [
        pytest.param(web(1), web(1, 2), "+10.0.0.2", {2}, id="one more"),
        pytest.param(web(1, 2), web(1), "-10.0.0.2", set(), id="one less"),
        pytest.param(web(1, 2), web(3, 4, 5), "+3 -2", {3, 4, 5}, id="several are counted"),
        pytest.param(
            web(1),
            ServiceState(WEB, (HTTP,), (endpoint(1, ready=False),)),
            "10.0.0.1 not ready",
            {1},
            id="not ready",
        ),
        pytest.param(
            ServiceState(WEB, (HTTP,), (endpoint(1, ready=False), endpoint(2, ready=False))),
            web(1, 2),
            "~2",
            {1, 2},
            id="several that changed are counted",
        ),
        pytest.param(
            web(1), ServiceState(WEB, (METRICS,), (endpoint(1),)), "ports", set(), id="ports"
        ),
        pytest.param(web(1), GONE, "deleted", set(), id="deleted"),
        pytest.param(web(1), absent(AbsenceReason.REFUSED), "refused", set(), id="refused"),
        pytest.param(GONE, web(1), "created", {1}, id="created"),
    ],
)
def test_change(before: ServiceState, after: ServiceState, words: str, touched: set[int]) -> None:
    expected = frozenset((f"10.0.0.{n}", f"uid-{n}") for n in touched)
    assert change(before, after) == (words, expected)


@pytest.mark.parametrize(
    ("address", "ports", "expected"),
    [
        ("10.0.0.1", (HTTP,), "10.0.0.1:8080"),
        ("fd00::1", (HTTP, METRICS), "[fd00::1]:8080,9100"),
        ("fd00::1", (), "fd00::1"),
        ("10.0.0.1", (HTTP, HTTP), "10.0.0.1:8080"),
    ],
)
def test_reach(address: str, ports: tuple[Port, ...], expected: str) -> None:
    assert reach(Endpoint(address, True, "", "", ""), ports) == expected


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        pytest.param(26, "10.0.0.1 10.0.0.2 10.0.0.3", id="all fit"),
        pytest.param(25, "10.0.0.1 10.0.0.2 +1", id="the last does not"),
        pytest.param(1, "10.0.0.1 +2", id="one is always shown"),
    ],
)
def test_fitted(width: int, expected: str) -> None:
    assert fitted(web(1, 2, 3).endpoints, width).plain == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-1, "0s"), (59.9, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (86_400 * 3, "3d")],
)
def test_age(seconds: float, expected: str) -> None:
    assert age(seconds) == expected
