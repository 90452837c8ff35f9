"""One run of one cause: what happened to everybody else, by name, each in its unit."""

from __future__ import annotations

import math
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import servers
from bench.dataset import NAMESPACE, DataSet, service_name
from bench.process import BenchError, Process, python
from bench.servers import Load, loading
from bench.standstills.places import MOVING, ApiServerPlace, Directory, Place, api_server

Measured = dict[str, float]

_READERS = Load(200, 20)
# By this address the server tells the readers from those who cause something.
_READERS_ADDRESS = "127.0.0.2"

_CHANGES_PER_S = 4.0
_LOOK_UP_EVERY_S = 0.01
_SETTLE_S = 60.0
_POLL_S = 0.05
_START_S = 120.0

# All who cause something come from one address, and stand for many clients.
_FLAGS = (
    "--listen=127.0.0.1:0",
    "--http-listen=127.0.0.1:0",
    "--streams-per-client-max=20000",
    "--connections-per-client-max=20000",
)

_HISTOGRAM = "vmsvc_loop_lag_seconds_bucket"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything there is; `rest_s` after a cause is over, memory is looked at."""

    data: DataSet
    envoys: int
    ports: int
    file_bytes: int
    calls: int
    absent_streams: int
    absent_names: int
    absent_s: float
    clients: int
    rest_s: float
    within_s: float = 180.0


@dataclass(frozen=True, slots=True)
class Stage:
    """The program under test, where it reads from, and clients that can cause something."""

    size: Size
    place: Place
    server: Process
    address: str
    callers: Process
    wrong: list[str] = field(default_factory=list)
    """What ended or failed, of those who cause something, and should not have."""

    @property
    def directory(self) -> Directory:
        """The manifests that are read."""
        assert isinstance(self.place, Directory), "the cause needs files"
        return self.place

    @property
    def api_server(self) -> ApiServerPlace:
        """The API server that is read from."""
        assert isinstance(self.place, ApiServerPlace), "the cause needs an API server"
        return self.place

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Return once the condition holds. Raises BenchError if it does not come to hold."""
        deadline = time.monotonic() + self.size.within_s
        while not condition():
            if time.monotonic() > deadline:
                raise BenchError(f"not {what} within {self.size.within_s:g} s")
            time.sleep(_POLL_S)


Step = Callable[[Stage], None]


def _nothing(_stage: Stage) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Cause:
    """What may hold up everybody: `happen` begins it, and returns once it is over.

    `prepare` comes before anything is measured. `flags` are for the program.
    """

    key: str
    title: str
    happen: Step
    prepare: Step = _nothing
    from_api_server: bool = False
    flags: tuple[str, ...] = ()


def provoked(cause: Cause, size: Size, transport: str = "http2") -> Measured:
    """Have it happen, beside streams that are sent changes and a client that looks one up.

    `transport` is that of the program, as its flag names it.
    """
    flags = (*_FLAGS, *cause.flags, f"--transport={transport}")
    with (
        tempfile.TemporaryDirectory(prefix="standstills-") as name,
        _place(cause, Path(name), size.data) as place,
        python("bench.standstills.subject", *flags, *place.flags) as server,
    ):
        serves = server.answer(_START_S)
        target = f"--target={serves['address']}"
        with (
            loading(servers.OURS, serves["address"], size.data, _READERS, _READERS_ADDRESS) as read,
            python("bench.standstills.callers", target) as callers,
            python("bench.standstills.callers", target) as prober,
        ):
            read.ask("open")
            stage = Stage(size, place, server, serves["address"], callers)
            cause.prepare(stage)
            measuring = _Measuring(stage, serves["http"], read, prober)
            return measuring.around(cause)


def _place(cause: Cause, folder: Path, data: DataSet) -> Any:
    if cause.from_api_server:
        return api_server(folder, data)
    return nullcontext(Directory(folder, data))


class _Measuring:
    """Looks at the server, its readers and its memory, before, while and after it happens."""

    def __init__(self, stage: Stage, http: str, readers: Process, prober: Process) -> None:
        self._stage = stage
        self._http = http
        self._readers = readers
        self._prober = prober

    def around(self, cause: Cause) -> Measured:
        stage, server = self._stage, self._stage.server
        self._readers.ask("mark")
        looked_up = f"{NAMESPACE}/{service_name(stage.size.data.services // 2 - 1)}"
        self._prober.ask("probe", service=looked_up, every_s=_LOOK_UP_EVERY_S)
        with _changing(stage) as changes:
            before_bytes = server.rss_bytes()
            server.forget_peak()
            before = _histogram(self._http)
            self._prober.ask("probed")
            server.ask("mark")
            began, cpu_s = time.monotonic(), server.cpu_s()
            cause.happen(stage)
            took_s, cpu_s = time.monotonic() - began, server.cpu_s() - cpu_s
            seen, looked_up_ms = server.ask("report"), self._prober.ask("probed")
            at_most_s = _at_most(before, _histogram(self._http))
            peak_bytes = server.peak_bytes()
        time.sleep(stage.size.rest_s)
        after_bytes = server.rss_bytes()
        self._show(cause, seen)
        lags_s = sorted(seen["lags_s"])
        took_ms = sorted(looked_up_ms["took_ms"])
        stage.wrong.extend(Counter(looked_up_ms["failed"]).elements())
        return {
            "lag_ms": lags_s[-1] * 1000,
            "lag_p99_ms": _quantile(lags_s, 0.99) * 1000,
            "histogram_ms": at_most_s * 1000,
            "stood_ms": max(seen["stood_s"]) * 1000,
            "step_cpu_ms": seen["longest_step_s"] * 1000,
            "turn_cpu_ms": max(seen["spent_s"]) * 1000,
            "look_up_ms": took_ms[-1],
            "look_up_p50_ms": _quantile(took_ms, 0.5),
            "look_up_p99_ms": _quantile(took_ms, 0.99),
            "took_s": took_s,
            "cpu_s": cpu_s,
            "before_mib": before_bytes / 2**20,
            "peak_mib": peak_bytes / 2**20,
            "after_mib": after_bytes / 2**20,
            "kept": after_bytes / before_bytes,
            **self._told(changes),
        }

    def _show(self, cause: Cause, seen: dict[str, Any]) -> None:
        """What the longest steps were, and where the loop was found in long turns."""
        for name, longest_s, count in seen["steps"]:
            text = f"{longest_s * 1000:.0f} ms of CPU at most, {count} x {name}"
            print(f"    {cause.key}: {text}", file=sys.stderr, flush=True)
        for place, times in seen["places"]:
            print(f"    {cause.key}: found {times} x in {place}", file=sys.stderr, flush=True)

    def _told(self, changes: _Changes) -> Measured:
        data = self._stage.size.data
        newest = data.newest(len(changes.applied_ns))
        settled = self._readers.ask("settle", last_seq=newest, timeout_s=_SETTLE_S)
        told = self._readers.ask("report", first_seq=data.first_seq, applied_ns=changes.applied_ns)
        ended = sum(told["ended"].values())
        for text in (*told["ended"], *self._stage.wrong):
            print(f"    ended: {text}", file=sys.stderr, flush=True)
        return {
            "behind": settled["behind"],
            "out_of_order": told["out_of_order"],
            "lost": told["lost"],
            "wrong_state": told["wrong_state"],
            "ended": ended + len(self._stage.wrong),
        }


@dataclass(slots=True)
class _Changes:
    """The changes made so far, and when each was, in ns since the epoch."""

    applied_ns: list[int] = field(default_factory=list)


@contextmanager
def _changing(stage: Stage) -> Iterator[_Changes]:
    """VMs that change their address until the block ends, as many as can."""
    changes, over = _Changes(), threading.Event()
    failed: list[BaseException] = []

    def change() -> None:
        first = stage.size.data.first_seq
        try:
            for number in range(min(MOVING, stage.size.data.services)):
                if over.wait(1 / _CHANGES_PER_S):
                    return
                changes.applied_ns.append(time.time_ns())
                stage.place.change(first + number)
        except (OSError, BenchError) as error:
            failed.append(error)

    thread = threading.Thread(target=change, name="changes")
    thread.start()
    try:
        yield changes
    finally:
        over.set()
        thread.join()
    if failed:
        raise BenchError(f"no change can be made: {failed[0]}")


def _histogram(http: str) -> dict[str, float]:
    """How many ticks of the server's own were at or below each bound, by bound."""
    with urllib.request.urlopen(f"http://{http}/metrics") as page:
        lines = page.read().decode().splitlines()
    found = (line.rsplit(" ", 1) for line in lines if line.startswith(_HISTOGRAM))
    return {name.partition('le="')[2].partition('"')[0]: float(count) for name, count in found}


def _at_most(before: dict[str, float], after: dict[str, float]) -> float:
    """The least bound that all ticks between were at or below, in seconds."""
    counts = {bound: after[bound] - before[bound] for bound in after}
    return min(float(bound) for bound, count in counts.items() if count == counts["+Inf"])


def _quantile(ordered: Sequence[float], q: float) -> float:
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]
