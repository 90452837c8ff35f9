"""The parts of the soak that decide: whether memory grew, what is done when, and what is left."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace

import pytest

from soak.acting import Deck, repeating
from soak.inspection import Holding
from soak.memory import Sample, growth
from soak.report import markdown

MIB = 2**20


def samples(*, rise: float, noise: float = 0.0, warm_up: float = 0.0) -> list[Sample]:
    """Five minutes of a process of 80 MiB: its growth an hour, and while it warms up, in MiB."""
    dice = random.Random(1)
    return [
        Sample(
            float(at),
            int(
                MIB
                * (
                    80
                    + min(at, 100) / 100 * warm_up
                    + rise * at / 3600
                    + dice.uniform(-noise, noise)
                )
            ),
        )
        for at in range(300)
    ]


@pytest.mark.parametrize(
    ("given", "flat"),
    [
        pytest.param(samples(rise=0.0), True, id="nothing happens"),
        pytest.param(samples(rise=0.0, warm_up=60.0), True, id="it grows while it warms up"),
        pytest.param(samples(rise=0.0, noise=5.0), True, id="it comes and goes"),
        pytest.param(samples(rise=200.0), False, id="it leaks"),
        pytest.param(samples(rise=200.0, noise=5.0), False, id="it leaks, while it comes and goes"),
    ],
)
def test_growth_is_what_is_left_when_the_warm_up_is_over(given: list[Sample], flat: bool) -> None:
    assert growth(given).flat is flat


def test_one_peak_decides_nothing() -> None:
    given = samples(rise=0.0)
    peak = [s._replace(bytes=s.bytes * 2) if s.at_s > 290 else s for s in given]
    assert growth(peak).flat


def test_growth_depends_on_no_pace_of_sampling() -> None:
    given = samples(rise=200.0)
    assert growth(given[::7]).grown_bytes == pytest.approx(growth(given).grown_bytes, rel=0.1)


def test_each_act_is_done_once_before_any_is_done_again_and_the_dice_are_the_seeds() -> None:
    def played(seed: int) -> list[str]:
        done: list[str] = []
        acts = {name: lambda name=name: done.append(name) for name in "abcd"}
        Deck(acts, seed).play(0.0, 0.0)
        return done

    assert sorted(played(1)) == ["a", "b", "c", "d"], "however short the time"
    assert played(1) == played(1)
    assert len({tuple(played(seed)) for seed in range(9)}) > 1


def test_what_fails_in_a_thread_fails_the_run() -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), repeating("fails", fail, 0.0):
        pass


def test_what_repeats_repeats_until_the_block_ends() -> None:
    done: list[int] = []
    with repeating("works", lambda: done.append(1), 0.0):
        while len(done) < 3:
            time.sleep(0.001)
    assert "works" not in {thread.name for thread in threading.enumerate()}


NOTHING = Holding(descriptors=17, tasks={"run": 1}, objects={"a.B": 2}, cached=(), gauges={})


@pytest.mark.parametrize(
    ("now", "left"),
    [
        pytest.param(NOTHING, [], id="nothing"),
        pytest.param(replace(NOTHING, descriptors=16, tasks={}), [], id="less than before"),
        pytest.param(
            replace(NOTHING, descriptors=18), ["18 descriptors, 17 before"], id="a descriptor"
        ),
        pytest.param(
            replace(NOTHING, tasks={"run": 1, "pump": 1}), ["tasks: 1 pump, 0 before"], id="a task"
        ),
        pytest.param(
            replace(NOTHING, objects={"a.B": 3}), ["objects: 3 a.B, 2 before"], id="an object"
        ),
        pytest.param(
            replace(NOTHING, gauges={"topics": 2.0}), ["gauges: 2 topics, 0 before"], id="a topic"
        ),
        pytest.param(
            replace(NOTHING, cached=("Cache.x",)), ["the cache still has Cache.x"], id="an entry"
        ),
    ],
)
def test_leavings_are_what_was_not_there_before(now: Holding, left: list[str]) -> None:
    assert list(now.leavings(NOTHING)) == left


def test_the_report_says_what_was_done_how_often_and_what_is_wrong() -> None:
    memory = {"replica 1": samples(rise=0.0)}
    text = markdown(7, 90.0, {"reconnects": 1234}, memory, ["a task is left"])
    for part in ("1.5 minutes, seed 7", "| reconnects | 1,234 |", "- a task is left", "80.0 MiB"):
        assert part in text
    assert "Nothing is wrong" in markdown(7, 90.0, {}, memory, [])
