"""The project's targets, and what a run says of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from bench import following, servers
from bench.results import Outcome, Results
from bench.standstills.causes import CAUSES

_OURS, _GO = servers.OURS.name, servers.GRPC_GO.name


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
    yield Target("a", "p50 beside grpc-go", ratio("delivery_p50_ms", _OURS, _GO), most=2)
    for key, most in (("b", 1.0), ("c", 0.6), ("d", 1.0), ("e", 0.5)):
        yield Target(key, "CPU a message beside grpc-go", ratio(_CPU, _OURS, _GO), most=most)
    for key in ("c", "e"):
        what = "change to last stream, p50, beside grpc-go"
        yield Target(key, what, ratio("last_stream_p50_ms", _OURS, _GO), most=0.8)
    rss = "rss_kib_a_stream"
    yield Target("e", "RSS a stream", median(rss), most=6, unit="KiB")
    yield Target("e", "RSS a stream beside grpc-go", ratio(rss, _OURS, _GO), most=0.4)
    for what in ("anew", "resumed"):
        yield Target("f", f"failures, {what}", worst(f"{what}_failures"), most=0, unit="")
        time = f"time until all are back, {what}, beside grpc-go"
        yield Target("f", time, ratio(f"{what}_s", _OURS, _GO), most=1.2)
    yield Target("f", "fewer bytes with a true revision", _fewer_bytes, least=5)
    stalled, free = "10 stalled", "none stalled"
    what = "p99 beside that without stalled ones"
    yield Target("g", what, ratio("delivery_p99_ms", stalled, free), most=1.1)
    what = "changes that the others were not told"
    yield Target("g", what, worst("skipped", stalled), most=0, unit="")
    yield Target("h", "p99 lag beside grpc-go", ratio("lag_p99_ms", _OURS, _GO), most=0.5)
    what = "streams that do not end on the newest state"
    yield Target("h", what, worst("behind"), most=0, unit="")
    yield from _xds()
    for library, bare in (
        (following.PYTHON_ASYNC, following.PYTHON_BARE),
        (following.PYTHON_SYNC, following.PYTHON_BARE),
        (following.GO, following.GO_BARE),
    ):
        what = f"{{}} of a client, {library.name}, beside {bare.name}"
        cpu, memory = "client_cpu_us_a_state", "client_rss_kib_a_stream"
        yield Target("r", what.format("CPU"), ratio(cpu, library.name, bare.name))
        yield Target("r", what.format("RSS a stream"), ratio(memory, library.name, bare.name))
    what = "CPU a message beside grpc-go with TLS"
    yield Target("n", what, ratio(_CPU, servers.OURS_TLS.name, servers.GRPC_GO_TLS.name), most=0.8)
    ours, tokens = servers.OURS_TLS.name, servers.OURS_TOKENS.name
    what = "CPU a message with tokens beside that without"
    yield Target("n", what, ratio(_CPU, tokens, ours), most=1.1)
    for how in ("first", "anew", "resumed"):
        for name in (ours, tokens):
            what = f"failures, {how}, {name}"
            yield Target("p", what, worst(f"{how}_failures", name), most=0, unit="")
            what = f"time until all are in, {how}, {name}"
            yield Target("p", what, median(f"{how}_s", name), most=10, unit="s")
            what = f"loop stood still, {how}, {name}"
            yield Target("p", what, worst(f"{how}_stood_ms", name), most=50, unit="ms")
    yield Target("o", "p99", worst("delivery_p99_ms"), most=1_000, unit="ms")
    yield Target("o", "RSS", worst("rss_mib"), most=700, unit="MiB")
    for name in ("connect_failures", "behind", "ended"):
        yield Target("o", name.replace("_", " "), worst(name), most=0, unit="")
    few, many = "10 services", "10,000 services"
    yield Target("j", f"an event with {many} beside {few}", ratio("us", many, few), most=1.3)
    yield Target("j", "CPU an event", median("us", many), most=100, unit="µs")
    yield from _standstills()


def _xds() -> Iterator[Target]:
    pairs = (
        (servers.OURS_DELTA.name, servers.CONTROL_PLANE_DELTA.name),
        (servers.OURS_SOTW.name, servers.CONTROL_PLANE_SOTW.name),
    )
    for key in ("i-b", "i-c", "i-e"):
        for ours, theirs in pairs:
            what = f"CPU a message by {ours.partition(', ')[2]} beside go-control-plane"
            yield Target(key, what, ratio(_CPU, ours, theirs), most=0.8)
        what = "CPU a message by xDS delta beside the own API"
        yield Target(key, what, ratio(_CPU, servers.OURS_DELTA.name, _OURS))


def _standstills() -> Iterator[Target]:
    for cause in CAUSES:
        name = cause.title
        yield Target("q", f"lag while {name}", worst("lag_ms", name), most=50, unit="ms")
        what = f"but for waiting for a core, while {name}"
        yield Target("q", what, worst("stood_ms", name), most=50, unit="ms")
        yield Target("q", f"memory after {name}", worst("kept", name), most=1.2)
        yield Target("q", f"ended while {name}", worst("ended", name), most=0, unit="")


STREAMS = tuple(_targets())
"""The targets of `make bench`."""
