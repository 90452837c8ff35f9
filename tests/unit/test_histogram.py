"""Durations are counted in the bucket that they belong to."""

from __future__ import annotations

from vmsvc_grpc.histogram import Histogram


def test_buckets_count_what_is_at_or_below_their_bounds() -> None:
    histogram = Histogram((0.01, 0.1))
    for seconds in (0.0, 0.01, 0.011, 0.1, 5.0):
        histogram.observe(seconds)
    assert histogram.buckets() == [("0.01", 2), ("0.1", 4), ("+Inf", 5)]
