"""How long to wait after failures in a row: the one rule, for whatever is tried again. Pure."""

from __future__ import annotations

from dataclasses import dataclass

# Beyond any bound that may be set, and far below the largest float.
_DOUBLINGS_MAX = 60


@dataclass(frozen=True, slots=True)
class Backoff:
    """A wait that begins with `first_s` and doubles at each failure in a row, up to `max_s`."""

    first_s: float = 0.5
    max_s: float = 30.0

    def longest_s(self, failures: int) -> float:
        """The longest wait after the n-th failure in a row, from 1."""
        return min(self.max_s, self.first_s * 2.0 ** min(failures - 1, _DOUBLINGS_MAX))

    def delay_s(self, failures: int, jitter: float) -> float:
        """The same with full jitter: `jitter` is a random number from 0 to 1."""
        return jitter * self.longest_s(failures)
