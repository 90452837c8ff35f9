"""How long to wait after failures in a row."""

from __future__ import annotations

import random

_INITIAL_S = 0.25
_MAX_S = 10.0


def after(failures: int) -> float:
    """Seconds until the next try, of one failure or more; at random, as others may wait, too."""
    return jittered(min(_INITIAL_S * 2.0 ** min(failures, 32), _MAX_S))


def jittered(delay_s: float) -> float:
    """A time between half of it and all of it."""
    return delay_s * (0.5 + random.random() / 2)  # noqa: S311 - jitter
