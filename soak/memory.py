"""Whether a process grew: decided from samples of its memory. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import NamedTuple

# Growth that says nothing: a process of 70 MiB was seen to take 2 MiB a minute while it warms up,
# which is what the second half of a run of three minutes still has of it.
_FREE_BYTES = 6 * 2**20
_FREE_SHARE = 0.04
# Slopes between all pairs are many; this many samples are as good as all.
_SAMPLES_MAX = 400


class Sample(NamedTuple):
    """How much memory a process had at a time."""

    at_s: float
    bytes: int


@dataclass(frozen=True, slots=True)
class Growth:
    """What became of a process's memory over the second half of a run, its warm-up being over."""

    level_bytes: int
    grown_bytes: int
    allowed_bytes: int

    @property
    def flat(self) -> bool:
        """Whether it grew by no more than is allowed."""
        return self.grown_bytes <= self.allowed_bytes


def growth(samples: Sequence[Sample]) -> Growth:
    """How much a process grew in the second half of the time of its samples, which rise.

    The slope is the median of those between all pairs of samples (Theil-Sen), so that no single
    peak decides; times the length of that half it is the growth. What is allowed is a share of
    the level, or a few MiB: neither depends on how fast the machine is.
    """
    begin_s = (samples[0].at_s + samples[-1].at_s) / 2
    half = [sample for sample in samples if sample.at_s >= begin_s]
    half = half[:: 1 + len(half) // _SAMPLES_MAX]
    level = median(sample.bytes for sample in half)
    slopes = [(b.bytes - a.bytes) / (b.at_s - a.at_s) for a, b in combinations(half, 2)]
    grown = median(slopes) * (half[-1].at_s - half[0].at_s)
    return Growth(int(level), int(grown), max(_FREE_BYTES, int(level * _FREE_SHARE)))
