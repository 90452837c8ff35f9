"""Bounds how often the log says the same: the rest is counted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from vmsvc_grpc.logs.about import ABOUT, BOUNDED, SHOWN
from vmsvc_grpc.logs.origins import ORIGIN_LINES_MAX, Windows, summing_up
from vmsvc_grpc.model.problem import quoted

_log = logging.getLogger(__name__)

_KIND_CHARACTERS_MAX = 100  # Some libraries put values into what should be a template.


class Repeats(logging.Filter):
    """Lets ten lines of a kind pass in a minute, and counts the others in one more line.

    A kind is a logger and the text of the call, before values are put into it. Lines whose number
    is bounded where they are logged pass; so do those of `debug`, which somebody has asked for.
    May be asked by several threads.
    """

    def __init__(
        self,
        lines_max: int = ORIGIN_LINES_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing has been logged yet."""
        super().__init__()
        self._windows = Windows(lines_max)
        self._clock = clock
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be logged; if not, it is counted."""
        if record.levelno <= logging.DEBUG or hasattr(record, BOUNDED) or hasattr(record, SHOWN):
            return True
        text = str(record.msg).partition("\n")[0][:_KIND_CHARACTERS_MAX]
        with self._lock:
            return self._windows.take(f"{record.name}: {text}", self._clock())

    def sum_up(self) -> None:
        """Log how many lines of each kind were left out, of those that are quiet now."""
        self._log_left_out(self._clock())

    async def run(self) -> None:
        """Sum up from time to time until cancelled, and once more at the end."""
        await summing_up(self._log_left_out, self._clock)

    def _log_left_out(self, now: float) -> None:
        with self._lock:
            left_out = self._windows.left_out(now)
        for kind, count in left_out.items():
            _log.warning(
                "%d more lines within a minute like %s",
                count,
                quoted(kind),
                extra={ABOUT: {"reason": "LinesLeftOut", "lines": count}, BOUNDED: True},
            )
