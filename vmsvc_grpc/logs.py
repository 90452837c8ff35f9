"""The form of log lines: one event, one line, whatever is in it.

A `Problem` is safe to print already. This is the last guard, for all else that reaches the log:
errors of libraries, names from the network, tracebacks. And an origin of a hundred thousand bad
objects, or a client that causes a thousand lines a second, gets no more lines than any other.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType

from vmsvc_grpc.model.problem import escaped, quoted

LINE_CHARACTERS_MAX = 4000
"""The longest line: room for an object with its ten problems. The rest is cut."""

TRACEBACK_LINES_MAX = 100
"""How many lines of a traceback are shown, from its end, where the error is named."""

ORIGIN_LINES_MAX = 10
"""How many lines may be logged for one origin in a window."""

ORIGIN_WINDOW_S = 60.0
"""The length of such a window, from its first line on."""

_ORIGINS_SHOWN_MAX = 10

_QUIET_S = 5.0  # After so long without a further line, the ones left out are counted in a line.
_LOOK_S = 1.0  # How often we check for that.

_ExceptionInfo = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)


class LineFormatter(logging.Formatter):
    """Formats a record as `TIME LEVEL LOGGER: MESSAGE`, cut and escaped, on one line.

    The lines of a traceback follow it, each cut, escaped and set in, so that none of them can
    look like a record.
    """

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s",
            datefmt="%Y-%m-%dT%H:%M:%S",
        )

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """The line of a record, without its traceback."""
        record.message = escaped(record.message, LINE_CHARACTERS_MAX)
        return super().formatMessage(record)

    def formatException(self, ei: _ExceptionInfo) -> str:  # noqa: N802 - logging's own name
        """The traceback that goes with a record."""
        return _set_in(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's own name
        """The stack that goes with a record."""
        return _set_in(stack_info)


def _set_in(text: str) -> str:
    lines = text.split("\n")
    left_out = len(lines) - TRACEBACK_LINES_MAX
    shown = [escaped(line, LINE_CHARACTERS_MAX) for line in lines[-TRACEBACK_LINES_MAX:]]
    if left_out > 0:
        shown.insert(0, f"({left_out} lines before these)")
    return "\n".join(f"    {line}" for line in shown)


@dataclass(slots=True)
class _Window:
    """The lines of one origin since `began`: how many were logged, and how many left out."""

    began: float
    logged: int = 0
    left_out: int = 0
    left_out_at: float = 0.0
    summed_up: bool = False


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
        self._lines_max = lines_max
        self._advice = advice
        self._on_left_out = on_left_out
        self._clock = clock
        self._windows: dict[str, _Window] = {}

    def log(self, origin: str, level: int, text: str) -> bool:
        """Log a line of an origin, unless it had too many lately; whether it was logged."""
        now = self._clock()
        window = self._windows.get(origin)
        if window is None or now - window.began >= ORIGIN_WINDOW_S:
            self._end([origin])
            window = self._windows[origin] = _Window(now)
        if window.logged < self._lines_max:
            window.logged += 1
            self._logger.log(level, "%s", text)
            return True
        window.left_out += 1
        window.left_out_at = now
        self._on_left_out()
        return False

    def sum_up(self) -> None:
        """Log how many lines were left out, for origins that are quiet now. O(origins)."""
        now = self._clock()
        over, quiet = [], []
        for origin, window in self._windows.items():
            if now - window.began >= ORIGIN_WINDOW_S:
                over.append(origin)
            elif not window.summed_up and now - window.left_out_at >= _QUIET_S:
                quiet.append(origin)
        self._log_left_out((*over, *quiet))
        self._end(over)

    async def run(self) -> None:
        """Sum up from time to time until cancelled, and once more at the end."""
        try:
            while True:
                await asyncio.sleep(_LOOK_S)
                self.sum_up()
        finally:
            self._end(tuple(self._windows))

    def _end(self, origins: Iterable[str]) -> None:
        """End the windows of these origins."""
        self._log_left_out(origins)
        for origin in origins:
            self._windows.pop(origin, None)

    def _log_left_out(self, origins: Iterable[str]) -> None:
        """Log how many lines of these were left out, if any, and count anew."""
        left_out: Counter[str] = Counter()
        for origin in origins:
            window = self._windows.get(origin)
            if window is not None and window.left_out:
                left_out[origin] = window.left_out
                window.left_out, window.summed_up = 0, True
        if not left_out:
            return
        shown = ", ".join(
            f"{count} about {quoted(origin)}"
            for origin, count in left_out.most_common(_ORIGINS_SHOWN_MAX)
        )
        others = len(left_out) - _ORIGINS_SHOWN_MAX
        more = f", and those about {others} more" if others > 0 else ""
        self._logger.warning("lines left out: %s%s; %s", shown, more, self._advice)
