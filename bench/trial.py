"""One run of one scenario against one server: what was measured, by name.

Names end in their unit. Whatever is wrong with what arrived is a number too, and 0 is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.dataset import DataSet
from bench.process import BenchError, Process
from bench.servers import Load, Server, loading, serving

Measured = dict[str, float]

# What is seen of the event loop meanwhile, as `Witness` has it.
_SEEN = ("lag", "stood", "turn")

# After the last change: 10,000 streams of a slow server take some seconds.
_SETTLE_S = 60.0


@dataclass(frozen=True, slots=True)
class Changes:
    """How many changes, at how many a second."""

    count: int
    per_s: float


def streamed(server: Server, data: DataSet, load: Load, changes: Changes) -> Measured:
    """Open the streams, make the changes, and see how each arrived."""
    with serving(server, data) as (process, address):
        idle_bytes = process.rss_bytes()
        with loading(server, address, data, load) as client:
            opened = client.ask("open")
            _warm_up(process, client, data)
            loaded_bytes = process.rss_bytes()
            client.ask("mark")
            cpu_s = process.cpu_s()
            process.send("change", count=changes.count, rate=changes.per_s)
            changed = process.answer(changes.count / changes.per_s + _SETTLE_S)
            made = data.services + changes.count
            settled = client.ask("settle", last_seq=data.newest(made), timeout_s=_SETTLE_S)
            cpu_s = process.cpu_s() - cpu_s
            told = client.ask(
                "report", first_seq=changed["first_seq"], applied_ns=changed["applied_ns"]
            )
            grown_bytes = process.rss_bytes() - loaded_bytes
    if not told["deliveries"]:
        raise BenchError(f"{server.name} delivered nothing: {told}")
    return {
        "connect_s": opened["seconds"],
        "connect_failures": opened["failures"],
        "cpu_us_a_message": cpu_s / told["deliveries"] * 1e6,
        "rss_kib_a_stream": (loaded_bytes - idle_bytes) / load.streams / 1024,
        "rss_mib": (loaded_bytes + grown_bytes) / 2**20,
        "rss_growth_mib": grown_bytes / 2**20,
        "deliveries": told["deliveries"],
        "bytes_a_message": told["bytes"] / told["messages"],
        "delivery_p50_ms": told["delivery_ms"]["p50"],
        "delivery_p99_ms": told["delivery_ms"]["p99"],
        "lag_p99_ms": told["lag_ms"]["p99"],
        "last_stream_p50_ms": told["last_stream_ms"]["p50"],
        "last_stream_p99_ms": told["last_stream_ms"]["p99"],
        "skipped": told["skipped"],
        "client_cpu_us_a_message": told["cpu_s"] / told["deliveries"] * 1e6,
        **_wrong(told, settled),
    }


def reconnected(server: Server, data: DataSet, load: Load) -> Measured:
    """Have all clients connect at once, for the first time and again.

    Again they come knowing nothing, and with a true revision.
    """
    measured: Measured = {}
    with (
        serving(server, data) as (process, address),
        loading(server, address, data, load) as client,
    ):
        for name, how in (
            ("first", {"do": "open"}),
            ("anew", {"do": "reopen", "revision": False}),
            ("resumed", {"do": "reopen", "revision": True}),
        ):
            if server.ours:
                process.ask("witness")
            cpu_s = process.cpu_s()
            opened = client.ask(**how)
            measured |= {
                f"{name}_s": opened["seconds"],
                f"{name}_p99_ms": opened["p99_ms"],
                f"{name}_failures": opened["failures"] + opened["retries"],
                f"{name}_bytes": opened["bytes"],
                f"{name}_cpu_us_a_stream": (process.cpu_s() - cpu_s) / load.streams * 1e6,
            }
            if server.ours:
                seen = process.ask("witness")
                measured |= {f"{name}_{what}_ms": seen[f"{what}_s"] * 1e3 for what in _SEEN}
    return measured


def _warm_up(process: Process, client: Process, data: DataSet) -> None:
    """One change of each service, so that nothing is done for the first time while we measure."""
    process.ask("change", count=data.services, rate=100.0)
    settled = client.ask("settle", last_seq=data.newest(data.services), timeout_s=_SETTLE_S)
    if settled["behind"]:
        raise BenchError(f"{settled['behind']} streams were not told of the first change")


def _wrong(told: dict[str, Any], settled: dict[str, Any]) -> Measured:
    return {
        "behind": settled["behind"],
        "out_of_order": told["out_of_order"],
        "lost": told["lost"],
        "wrong_state": told["wrong_state"],
        "ended": sum(told["ended"].values()),
    }
