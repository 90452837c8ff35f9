"""`python -m bench`, each part of it small: what it counts is right, and what it reports is so.

Nothing is asserted of time, and nothing of what is measured by it.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from bench import plot, report, results, servers, streams, targets
from bench.dataset import DataSet
from bench.events import measured as measured_events
from bench.following import FOLLOWERS, Follower, followed
from bench.results import Outcome, Results
from bench.servers import Load, Server
from bench.streams import Contender, Scenario
from bench.targets import Target
from bench.trial import Changes, reconnected, streamed
from tests.unit.collector import unchanged_collector

pytestmark = pytest.mark.nightly

__all__ = ["unchanged_collector"]

_ROOT = Path(__file__).parents[2]
_DATA = DataSet(services=3, endpoints=4)
_LOAD = Load(streams=12, connections=3)

# Slow enough for any machine to tell each change by itself would be a guess: so what is told
# and what is skipped are counted together.
_CHANGES = Changes(count=30, per_s=60.0)
_PAIRS = 30 * 4  # Each change is of one service, which 4 of the 12 streams follow.


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    subprocess.run(["make", "bench-tools"], cwd=_ROOT, check=True, capture_output=True)


@pytest.mark.parametrize(
    "server",
    [
        servers.OURS,
        servers.OURS_GRPCIO,
        servers.OURS_TLS,
        servers.OURS_TOKENS,
        servers.GRPC_GO_TLS,
        servers.BARE,
        servers.OURS_DELTA,
        servers.OURS_SOTW,
        servers.BARE_DELTA,
    ],
    ids=lambda server: server.name,
)
def test_each_change_is_told_or_skipped_and_nothing_is_wrong(server: Server) -> None:
    got = streamed(server, _DATA, _LOAD, _CHANGES)
    assert got["deliveries"] + got["skipped"] == _PAIRS
    wrong = {name: got[name] for name in report.WRONG}
    assert wrong == dict.fromkeys(report.WRONG, 0)


@pytest.mark.parametrize("server", [servers.OURS, servers.GRPC_GO], ids=lambda s: s.name)
def test_a_lean_client_is_told_the_same(server: Server) -> None:
    got = streamed(server, _DATA, replace(_LOAD, lean=True), _CHANGES)
    assert got["deliveries"] + got["skipped"] == _PAIRS
    assert {name: got[name] for name in report.WRONG} == dict.fromkeys(report.WRONG, 0)


@pytest.mark.parametrize("follower", FOLLOWERS, ids=lambda f: f.name)
def test_each_client_is_told_the_newest_state(follower: Follower) -> None:
    got = followed(follower, Load(6, 2), Changes(count=20, per_s=60.0))
    assert got["received"] + got["skipped"] == 6 * 20
    assert (got["behind"], got["received"] > 0) == (0, True)


def test_a_true_revision_spares_most_bytes() -> None:
    got = reconnected(servers.OURS, DataSet(services=1, endpoints=50), Load(8, 8))
    assert (got["anew_failures"], got["resumed_failures"]) == (0, 0)
    assert got["resumed_bytes"] * 5 < got["anew_bytes"]


def test_clients_with_tokens_are_known_again() -> None:
    got = reconnected(servers.OURS_TOKENS, DataSet(services=1, endpoints=4), Load(8, 8))
    assert [got[f"{how}_failures"] for how in ("first", "anew", "resumed")] == [0, 0, 0]


def test_an_event_looks_at_one_service_however_many_there_are(unchanged_collector: None) -> None:
    got = measured_events(DataSet(services=200, endpoints=2), events=50)
    assert (got["evaluations"], got["woken"]) == (1, 1)


def test_every_scenario_has_a_name_of_its_own_and_the_targets_know_it() -> None:
    keys = [scenario.key for scenario in streams.scenarios()]
    assert len(set(keys)) == len(keys)
    assert {target.scenario for target in targets.STREAMS} <= set(keys)
    assert {scenario.key for scenario in streams.quick()} <= set(keys)


def test_a_part_that_is_measured_anew_leaves_the_rest_of_a_report() -> None:
    def measured(value: float, *names: str) -> Outcome:
        return Outcome(
            "t", {name: [{"us": value}] for name in names}, dict.fromkeys(names, f"{value}")
        )

    def nothing() -> dict[str, float]:
        return {}

    of = [Contender("a", nothing), Contender("b", nothing)]
    both = [Scenario("x", "t", tuple(of)), Scenario("y", "t", (of[0],))]
    kept = Results({"cpu": "old"}, {"x": measured(1, "gone", "b", "a"), "y": measured(1, "a")})
    new = Results({"cpu": "new"}, {"x": measured(2, "b")})
    got = results.merged(kept, new, both)
    assert got.machine == {"cpu": "new"}
    assert got.outcomes["x"].measured == {"a": [{"us": 1}], "b": [{"us": 2}]}
    assert got.outcomes["x"].dates == {"a": "1", "b": "2"}
    assert got.outcomes["y"] == kept.outcomes["y"]


def test_contenders_take_turns() -> None:
    turns: list[str] = []

    def contender(name: str, *, once: bool = False) -> Contender:
        def measure() -> dict[str, float]:
            turns.append(name)
            return {"us": len(turns)}

        return Contender(name, measure, once=once)

    of = (contender("a"), contender("b"), contender("c", once=True))
    got = results.run([Scenario("x", "turns", of, repeats=2)], lambda _: None)
    assert turns == ["a", "b", "c", "a", "b"]
    assert got.outcomes["x"].measured == {
        "a": [{"us": 1}, {"us": 4}],
        "b": [{"us": 2}, {"us": 5}],
        "c": [{"us": 3}],
    }


def test_who_is_measured_once_is_judged_by_no_target() -> None:
    once = {c.name for s in streams.scenarios() for c in s.contenders if c.once}
    assert once
    ratios = [
        target.measure.keywords for target in targets.STREAMS if isinstance(target.measure, partial)
    ]
    judged = {name for each in ratios for name in (each["ours"], each["theirs"])}
    assert judged
    assert not once & judged


def outcome(**values: list[float]) -> Outcome:
    measured = {name: [{"us": value} for value in each] for name, each in values.items()}
    return Outcome("title", {name: list(each) for name, each in measured.items()})


def test_a_spread_is_of_all_repeats_and_a_ratio_of_medians() -> None:
    got = outcome(ours=[3.0, 1.0, 2.0], theirs=[4.0])
    spread = got.spread("ours", "us")
    assert spread is not None
    assert (spread.median, spread.least, spread.most) == (2.0, 1.0, 3.0)
    assert got.ratio("us", "ours", "theirs") == 0.5
    assert got.ratio("us", "ours", "nobody") is None
    assert got.spread("ours", "nothing") is None


@pytest.mark.parametrize(
    ("most", "least", "value", "met"),
    [
        pytest.param(2, None, 2, True, id="the most"),
        pytest.param(2, None, 2.1, False, id="above the most"),
        pytest.param(None, 5, 5, True, id="the least"),
        pytest.param(None, 5, 4.9, False, id="below the least"),
        pytest.param(None, None, 7, None, id="only told"),
    ],
)
def test_a_target_is_met_up_to_its_bound(
    most: float | None, least: float | None, value: float, met: bool | None
) -> None:
    assert Target("j", "what", lambda _: None, most=most, least=least).met(value) is met


def test_a_report_says_what_was_missed_and_what_was_wrong(tmp_path: Path) -> None:
    few, many = outcome(**{"10 services": [10.0]}), outcome(**{"10,000 services": [150.0]})
    events = Outcome("an event", {**few.measured, **many.measured})
    wrong = Outcome(
        "streams",
        {"vmsvc-grpc": [{"cpu_us_a_message": 9.0, "delivery_p99_ms": 5.0, "wrong_state": 2}]},
    )
    got = Results({"cpu": "one"}, {"j": events, "b": wrong})
    text = report.markdown(got, plot.plots(got, tmp_path))
    assert "| j: CPU an event | ≤ 100 µs | 150 µs | **missed** |" in text
    assert "- vmsvc-grpc: wrong state: up to 2" in text
    assert (tmp_path / "cpu_us_a_message.svg").stat().st_size > 1_000
    got.save(tmp_path / "kept.json")
    assert results.load(tmp_path / "kept.json") == got
