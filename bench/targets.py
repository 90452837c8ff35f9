"""The project's targets, and what a run says of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

from bench import servers
from bench.results import Outcome, Results
from bench.standstills.causes import CAUSES

_OURS, _BARE, _GO = servers.OURS.name, servers.BARE.name, servers.GRPC_GO.name


@dataclass(frozen=True, slots=True)
class Target:
    """A number of one scenario, and the most or the least that it may be.

    Without either it is only reported. `unit` is `x` for a ratio of two medians.
    """

    scenario: str
    what: str
    measure: Callable[[Outcome], float | None]
    most: float | None = None
    least: float | None = None
    unit: str = "x"

    @property
    def bound(self) -> str:
        """The target as a person reads it."""
        if self.most is not None:
            return f"≤ {self.most:g} {self.unit}"
        return "reported" if self.least is None else f"≥ {self.least:g} {self.unit}"

    def met(self, measured: float) -> bool | None:
        """Whether a number is within the bound; None where there is none."""
        if self.most is not None:
            return measured <= self.most
        return None if self.least is None else measured >= self.least


def verdicts(results: Results, targets: Iterable[Target]) -> Iterator[tuple[Target, float]]:
    """Each target that the run can say something of, and what was measured."""
    for target in targets:
        if (outcome := results.outcomes.get(target.scenario)) is not None:
            measured = target.measure(outcome)
            if measured is not None:
                yield target, measured


def ratio(metric: str, ours: str, theirs: str) -> Callable[[Outcome], float | None]:
    """How many times theirs ours is, of medians."""
    return partial(Outcome.ratio, metric=metric, ours=ours, theirs=theirs)


def median(metric: str, name: str = _OURS) -> Callable[[Outcome], float | None]:
    """The median of a contender's metric."""

    def measure(outcome: Outcome) -> float | None:
        spread = outcome.spread(name, metric)
        return spread.median if spread else None

    return measure


def worst(metric: str, name: str = _OURS) -> Callable[[Outcome], float | None]:
    """The most of a contender's metric."""

    def measure(outcome: Outcome) -> float | None:
        spread = outcome.spread(name, metric)
        return spread.most if spread else None

    return measure


def _fewer_bytes(outcome: Outcome) -> float | None:
    anew, resumed = outcome.spread(_OURS, "anew_bytes"), outcome.spread(_OURS, "resumed_bytes")
    return anew.median / resumed.median if anew and resumed else None


_CPU = "cpu_us_a_message"


def _targets() -> Iterator[Target]:
    for key in ("c", "e"):
        what = "CPU a message beside bare grpc.aio"
        yield Target(key, what, ratio(_CPU, _OURS, _BARE), most=1.15)
        yield Target(key, "CPU a message beside grpc-go", ratio(_CPU, _OURS, _GO))
        what = "CPU a message on libnghttp2 beside grpc-go"
        yield Target(key, what, ratio(_CPU, servers.OURS_HTTP2.name, _GO))
    yield Target("e", "RSS a stream", median("rss_kib_a_stream"), most=28, unit="KiB")
    yield Target("f", "failures, anew", worst("anew_failures"), most=0, unit="")
    yield Target("f", "failures, resumed", worst("resumed_failures"), most=0, unit="")
    yield Target("f", "fewer bytes with a true revision", _fewer_bytes, least=5)
    stalled, free = "10 stalled", "none stalled"
    what = "p99 beside that without stalled ones"
    yield Target("g", what, ratio("delivery_p99_ms", stalled, free), most=1.2)
    what = "changes that the others were not told"
    yield Target("g", what, worst("skipped", stalled), most=0, unit="")
    yield Target("h", "p99 lag", median("lag_p99_ms"), most=1_000, unit="ms")
    what = "streams that do not end on the newest state"
    yield Target("h", what, worst("behind"), most=0, unit="")
    for key in ("i-b", "i-c", "i-e"):
        for name in (servers.OURS_DELTA.name, servers.OURS_SOTW.name):
            what = f"CPU a message by {name.partition(', ')[2]} beside the own API"
            yield Target(key, what, ratio(_CPU, name, _OURS), most=1.15)
        what = "CPU a message by xDS delta beside bare grpc.aio that reads ACKs"
        yield Target(key, what, ratio(_CPU, servers.OURS_DELTA.name, servers.BARE_DELTA.name))
    few, many = "10 services", "10,000 services"
    yield Target("j", f"an event with {many} beside {few}", ratio("us", many, few), most=1.3)
    yield Target("j", "CPU an event", median("us", many), most=100, unit="µs")
    yield from _standstills()


def _standstills() -> Iterator[Target]:
    for key, cause in product(("q", "q2"), CAUSES):
        name = cause.title
        yield Target(key, f"lag while {name}", worst("lag_ms", name), most=50, unit="ms")
        what = f"but for waiting for a core, while {name}"
        yield Target(key, what, worst("stood_ms", name), most=50, unit="ms")
        yield Target(key, f"memory after {name}", worst("kept", name), most=1.2)
        yield Target(key, f"ended while {name}", worst("ended", name), most=0, unit="")


STREAMS = tuple(_targets())
"""The targets of `make bench`."""
