"""The form of log lines: one event, one line, whatever is in it.

A `Problem` is safe to print already. This is the last guard, for all else that reaches the log:
errors of libraries, names from the network, tracebacks. And an owner of a hundred thousand bad
objects gets no more lines than any other.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from vmsvc_grpc.model.problem import escaped

LINE_CHARACTERS_MAX = 4000
"""The longest line: room for an object with its ten problems. The rest is cut."""

TRACEBACK_LINES_MAX = 100
"""How many lines of a traceback are shown, from its end, where the error is named."""

OWNER_LINES_MAX = 10
"""How many lines may be logged for one owner in a window."""

OWNER_WINDOW_S = 60.0
"""The length of such a window, from its first line on."""

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
    """The lines of one owner since `began`: how many were logged, and how many left out."""

    began: float
    logged: int = 0
    left_out: int = 0
    left_out_at: float = 0.0
    summed_up: bool = False


class LinesPerOwner:
    """The log lines about problems of objects, bounded for each owner.

    An owner is a file, or a namespace of an API server: its faults must not hide others'. Lines
    that are left out are counted in one more line.
    """

    def __init__(
        self, logger: logging.Logger, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger = logger
        self._clock = clock
        self._windows: dict[str, _Window] = {}

    def log(self, owner: str, level: int, text: str) -> None:
        """Log a line of an owner, unless it had too many lately."""
        now = self._clock()
        window = self._windows.get(owner)
        if window is None or now - window.began >= OWNER_WINDOW_S:
            self._end(owner)
            window = self._windows[owner] = _Window(now)
        if window.logged < OWNER_LINES_MAX:
            window.logged += 1
            self._logger.log(level, "%s", text)
        else:
            window.left_out += 1
            window.left_out_at = now

    def sum_up(self) -> None:
        """Log how many lines were left out, for owners that are quiet now. O(owners)."""
        now = self._clock()
        for owner, window in tuple(self._windows.items()):
            if now - window.began >= OWNER_WINDOW_S:
                self._end(owner)
            elif window.left_out and not window.summed_up and now - window.left_out_at >= _QUIET_S:
                self._log_left_out(owner, window)

    async def run(self) -> None:
        """Sum up from time to time until cancelled, and once more at the end."""
        try:
            while True:
                await asyncio.sleep(_LOOK_S)
                self.sum_up()
        finally:
            for owner in tuple(self._windows):
                self._end(owner)

    def _end(self, owner: str) -> None:
        window = self._windows.pop(owner, None)
        if window is not None and window.left_out:
            self._log_left_out(owner, window)

    def _log_left_out(self, owner: str, window: _Window) -> None:
        text = "%s: %d more lines about it are left out; /readyz and `vmsvc explain` say more"
        self._logger.warning(text, owner, window.left_out)
        window.left_out, window.summed_up = 0, True
