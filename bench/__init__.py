"""Benchmarks: what the streams cost, beside what they cost with others' libraries."""
