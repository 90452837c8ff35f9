"""How many log lines somebody outside may cause: for each origin, so many in a minute.

An origin of a hundred thousand bad objects, or a client that causes a thousand lines a second, gets
no more lines than any other. The others are counted.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vmsvc_grpc.logs.about import ABOUT, BOUNDED
from vmsvc_grpc.model.problem import quoted

ORIGIN_LINES_MAX = 10
"""How many lines may be logged for one origin in a window."""

ORIGIN_WINDOW_S = 60.0
"""The length of such a window, from its first line on."""

_ORIGINS_SHOWN_MAX = 10

_QUIET_S = 5.0  # After so long without a further line, the ones left out are counted in a line.
_LOOK_S = 1.0  # How often we check for that.


@dataclass(slots=True)
class _Window:
    """The lines of one origin since `began`: how many were logged, and how many left out."""

    began: float
    logged: int = 0
    left_out: int = 0
    left_out_at: float = 0.0
    summed_up: bool = False


class Windows:
    """Which lines of which origin may be logged, and how many were not. Pure; `now` in seconds."""

    def __init__(self, lines_max: int) -> None:
        """An origin has `lines_max` lines in a window."""
        self._lines_max = lines_max
        self._windows: dict[str, _Window] = {}
        # Of windows that were over as the next one of their origin began.
        self._left_out: Counter[str] = Counter()

    def take(self, origin: str, now: float) -> bool:
        """Whether another line of an origin may be logged; if not, it is counted."""
        window = self._windows.get(origin)
        if window is None or now - window.began >= ORIGIN_WINDOW_S:
            if window is not None and window.left_out:
                self._left_out[origin] += window.left_out
            window = self._windows[origin] = _Window(now)
        if window.logged < self._lines_max:
            window.logged += 1
            return True
        window.left_out += 1
        window.left_out_at = now
        return False

    def left_out(self, now: float) -> Counter[str]:
        """How many lines were left out of origins that are quiet now, each line counted once.

        O(origins). Forgets origins without lines in the last window.
        """
        counted, self._left_out = self._left_out, Counter()
        over = []
        for origin, window in self._windows.items():
            is_over = now - window.began >= ORIGIN_WINDOW_S
            is_quiet = not window.summed_up and now - window.left_out_at >= _QUIET_S
            if window.left_out and (is_over or is_quiet):
                counted[origin] += window.left_out
                window.left_out, window.summed_up = 0, True
            if is_over:
                over.append(origin)
        for origin in over:
            del self._windows[origin]
        return counted


class LinesPerOrigin:
    """Log lines that somebody outside causes, bounded for each origin.

    An origin is a file, a namespace of an API server, or a client: its faults must not hide
    others'. Lines that are left out are counted, in one more line for all origins.
    """

    def __init__(
        self,
        logger: logging.Logger,
        *,
        lines_max: int = ORIGIN_LINES_MAX,
        advice: str = "/readyz and `vmsvc explain` say more",
        on_left_out: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """An origin has `lines_max` lines in a window.

        `on_left_out` is called for each line that is left out; `advice` ends the line that
        counts them.
        """
        self._logger = logger
        self._windows = Windows(lines_max)
        self._advice = advice
        self._on_left_out = on_left_out
        self._clock = clock

    def log(
        self, origin: str, level: int, text: str, extra: Mapping[str, Any] | None = None
    ) -> bool:
        """Log a line of an origin, unless it had too many lately; whether it was logged.

        `extra` says what the line is about, as `about` returns it.
        """
        if self._windows.take(origin, self._clock()):
            self._logger.log(level, "%s", text, extra={**(extra or {}), BOUNDED: True})
            return True
        self._on_left_out()
        return False

    def sum_up(self) -> None:
        """Log how many lines were left out, for origins that are quiet now. O(origins)."""
        self._log_left_out(self._clock())

    async def run(self) -> None:
        """Sum up from time to time until cancelled, and once more at the end."""
        await summing_up(self._log_left_out, self._clock)

    def _log_left_out(self, now: float) -> None:
        left_out = self._windows.left_out(now)
        if not left_out:
            return
        shown = ", ".join(
            f"{count} about {quoted(origin)}"
            for origin, count in left_out.most_common(_ORIGINS_SHOWN_MAX)
        )
        others = len(left_out) - _ORIGINS_SHOWN_MAX
        more = f", and those about {others} more" if others > 0 else ""
        self._logger.warning(
            "lines left out: %s%s; %s",
            shown,
            more,
            self._advice,
            extra={ABOUT: {"reason": "LinesLeftOut", "lines": left_out.total()}, BOUNDED: True},
        )


async def summing_up(log_left_out: Callable[[float], None], clock: Callable[[], float]) -> None:
    """Log what was left out, from time to time until cancelled, and all of it at the end.

    `log_left_out` is given a time of `clock`, and logs what is quiet then.
    """
    try:
        while True:
            await asyncio.sleep(_LOOK_S)
            log_left_out(clock())
    finally:
        log_left_out(math.inf)
