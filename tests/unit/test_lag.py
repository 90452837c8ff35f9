"""The event loop's lag is measured, and a standstill is seen for what it is."""

from __future__ import annotations

import asyncio
import time

import pytest

from vmsvc_grpc.histogram import Histogram
from vmsvc_grpc.lag import BOUNDS_S, TICK_S, LoopLag
from vmsvc_grpc.metrics import Metric, Metrics


async def test_a_standstill_is_seen_with_its_length() -> None:
    ticked = asyncio.Event()
    lag = LoopLag(ticked.set)
    measuring = asyncio.create_task(lag.run())
    await asyncio.sleep(0)
    time.sleep(0.15)  # noqa: ASYNC251 - the standstill
    await ticked.wait()
    measuring.cancel()
    at_most = dict(lag.histogram.buckets())
    assert at_most["0.1"] == 0
    assert lag.histogram.sum_s >= 0.15 - TICK_S - 0.002


def test_the_page_shows_a_histogram() -> None:
    metrics = Metrics()
    histogram = Histogram(BOUNDS_S)
    metrics.bind_histogram(Metric.LOOP_LAG, histogram)
    histogram.observe(0.03)
    page = b"".join(metrics.page(False)).decode()
    assert "# TYPE vmsvc_loop_lag_seconds histogram" in page
    assert 'vmsvc_loop_lag_seconds_bucket{le="0.02"} 0.0' in page
    assert 'vmsvc_loop_lag_seconds_bucket{le="0.05"} 1.0' in page
    assert "vmsvc_loop_lag_seconds_count 1.0" in page
    assert "vmsvc_loop_lag_seconds_sum 0.03" in page


async def test_what_fails_at_a_tick_ends_the_measuring() -> None:
    def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await LoopLag(fail).run()


async def test_each_tick_calls_once() -> None:
    ticks = 0
    third = asyncio.Event()

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 3:
            third.set()

    lag = LoopLag(tick)
    measuring = asyncio.create_task(lag.run())
    await third.wait()
    measuring.cancel()
    assert lag.histogram.buckets()[-1] == ("+Inf", 3)
