"""What a feed says of itself: to the log, to systemd, to Prometheus and to probes."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from vmsvc import __version__
from vmsvc.errors import VmsvcError
from vmsvc.feed.held import Held
from vmsvc.feed.output import Applied, OutputError
from vmsvc.feed.systemd import Notifier
from vmsvc.model import ServiceState
from vmsvc.state import Disconnected, Event, Synced

_log = logging.getLogger("vmsvc.feed")

_APPLY_BUCKETS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0)

# Of a loop that turns, each second gives a sign of life.
_BEAT_S_MAX = 30.0


class Report:
    """The state of a feed, for those who look after it. Read by threads, written by the loop."""

    def __init__(self, output: str, notifier: Notifier) -> None:
        self.registry = CollectorRegistry()
        self._notifier = notifier
        self._metrics = _Metrics(self.registry, output)
        self._fault: str | None = "the server has not answered yet"
        self._connected = False
        self._started = False
        self._reloading = False
        self._beat_at = time.monotonic()

    def beat(self) -> None:
        """The event loop turns."""
        self._beat_at = time.monotonic()
        self._notifier.alive()

    def reloading(self) -> None:
        """SIGHUP has come; the output is looked at."""
        _log.info("SIGHUP: looking at once")
        self._reloading = True
        self._notifier.reloading()

    def live(self) -> str | None:
        """Why the feed does not run as it should; None: it does."""
        late_s = time.monotonic() - self._beat_at
        return f"it has stood still for {late_s:.0f} s" if late_s > _BEAT_S_MAX else None

    def ready(self) -> str | None:
        """Why the output may not be as it should be; None: it is, as far as is known."""
        return self._fault

    def received(self, event: Event, held: Held) -> None:
        """The watch has yielded an event, and `held` has taken it in."""
        match event:
            case Synced():
                if not self._connected:
                    _log.info("synced: all states are up to date")
                self._connected = True
            case Disconnected():
                if self._connected:
                    self._metrics.lost.inc()
                self._connected = False
            case ServiceState():
                self._metrics.received.inc()
        self._metrics.connected.set(self._connected)
        self._metrics.kept.set(held.kept)

    def refused(self, error: VmsvcError, again_s: float) -> None:
        """The server does not let us watch."""
        self._connected = False
        self._metrics.connected.set(False)
        _log.error("%s; the states held stay, and it is asked again in %.0f s", error, again_s)

    def applied(
        self, applied: Applied, states: Mapping[str, ServiceState], held: Held, took_s: float
    ) -> None:
        """The output is as it should be."""
        counts = _Counts.of(states)
        if self._fault is not None:
            _log.info("the output is right: %s", counts)
        mended, self._fault = self._fault is not None, None
        self._metrics.took.observe(took_s)
        self._metrics.applied.labels("changed" if applied.changes else "unchanged").inc()
        self._metrics.changes.inc(applied.changes)
        self._metrics.good_at.set_to_current_time()
        self._metrics.failing.set(False)
        self._metrics.services.set(counts.services)
        self._metrics.endpoints.labels("true").set(counts.ready)
        self._metrics.endpoints.labels("false").set(counts.not_ready)
        if applied.changes and not mended:
            _log.debug("%d changes made in %.3f s", applied.changes, took_s)
        text = f"{counts}" + (f", {held.kept} kept by policy" if held.kept else "")
        text += "" if self._connected else "; the server is away"
        if mended or self._reloading:
            self._started, self._reloading = True, False
            self._notifier.ready(text)
        self._notifier.status(text)

    def failed(self, error: OutputError, again_s: float, took_s: float) -> None:
        """The output could not be made right."""
        self._metrics.took.observe(took_s)
        self._metrics.applied.labels("failed").inc()
        self._metrics.failing.set(True)
        # Each fault is one line, however often it is met.
        if str(error) != self._fault:
            _log.error("%s; tried again within %.1f s, and from then on", error, again_s)
        self._fault = str(error)
        text = f"failing: {error}"
        if self._started and self._reloading:
            # Asked to look, it has; who asked waits for no more than that.
            self._reloading = False
            self._notifier.ready(text)
        self._notifier.status(text)


class _Metrics:
    def __init__(self, registry: CollectorRegistry, output: str) -> None:
        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"vmsvc_feed_{name}", text, labels, registry=registry)

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"vmsvc_feed_{name}", text, labels, registry=registry)

        gauge("info", "Always 1; what runs.", ("version", "output")).labels(
            __version__, output
        ).set(1)
        self.connected = gauge("connected", "Whether all states are up to date (1) or may be old.")
        self.lost = counter("disconnects", "Streams lost.")
        self.received = counter("states_received", "Changes of services received.")
        self.applied = counter("applies", "Looks at the output, by what came of them.", ("result",))
        for result in ("changed", "unchanged", "failed"):
            self.applied.labels(result)
        self.changes = counter("changes", "Changes made to the output.")
        self.took = Histogram(
            "vmsvc_feed_apply_seconds",
            "How long a look at the output, and making it right, took.",
            buckets=_APPLY_BUCKETS_S,
            registry=registry,
        )
        self.good_at = gauge(
            "last_success_timestamp_seconds", "When the output was last seen, or made, right."
        )
        self.failing = gauge("failing", "Whether the last try to make the output right failed.")
        self.services = gauge("services", "Services fed that exist.")
        self.kept = gauge("kept_services", "Services fed by an earlier state, by --on-... keep.")
        self.endpoints = gauge("endpoints", "Endpoints fed.", ("ready",))


class _Counts(NamedTuple):
    """How much is fed."""

    services: int
    ready: int
    not_ready: int

    @classmethod
    def of(cls, states: Mapping[str, ServiceState]) -> _Counts:
        endpoints = sum(len(state.endpoints) for state in states.values())
        ready = sum(endpoint.ready for state in states.values() for endpoint in state.endpoints)
        return cls(sum(state.present for state in states.values()), ready, endpoints - ready)

    def __str__(self) -> str:
        return f"{_number(self.services, 'service')}, {_number(self.ready, 'endpoint')} ready"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
