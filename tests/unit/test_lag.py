"""The event loop's lag is measured, and a standstill is seen for what it is."""

from __future__ import annotations

import asyncio
import time

from vmsvc_grpc.lag import BOUNDS_S, TICK_S, LoopLag
from vmsvc_grpc.metrics import Histogram, Metric, Metrics


async def test_a_standstill_is_seen_with_its_length() -> None:
    lag = LoopLag()
    measuring = asyncio.create_task(lag.run())
    await asyncio.sleep(0)
    time.sleep(0.15)  # noqa: ASYNC251 - the standstill
    await asyncio.sleep(TICK_S)  # Its own call is due before this one.
    measuring.cancel()
    at_most = dict(lag.histogram.buckets())
    assert at_most["0.1"] == 0
    assert lag.histogram.sum_s >= 0.15 - TICK_S - 0.002


def test_buckets_count_what_is_at_or_below_their_bounds() -> None:
    histogram = Histogram((0.01, 0.1))
    for seconds in (0.0, 0.01, 0.011, 0.1, 5.0):
        histogram.observe(seconds)
    assert histogram.buckets() == [("0.01", 2), ("0.1", 4), ("+Inf", 5)]


def test_the_page_shows_a_histogram() -> None:
    metrics = Metrics()
    histogram = Histogram(BOUNDS_S)
    metrics.bind_histogram(Metric.LOOP_LAG, histogram)
    histogram.observe(0.03)
    page = metrics.page(False).decode()
    assert "# TYPE vmsvc_grpc_loop_lag_seconds histogram" in page
    assert 'vmsvc_grpc_loop_lag_seconds_bucket{le="0.02"} 0.0' in page
    assert 'vmsvc_grpc_loop_lag_seconds_bucket{le="0.05"} 1.0' in page
    assert "vmsvc_grpc_loop_lag_seconds_count 1.0" in page
    assert "vmsvc_grpc_loop_lag_seconds_sum 0.03" in page
