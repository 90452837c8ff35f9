"""How log lines look: one event, one line, whatever is in it.

A `Problem` is safe to print already. This is the last guard, for all else that reaches the log:
errors of libraries, names from the network, tracebacks.
"""

from __future__ import annotations

import logging
from types import TracebackType

from vmsvc_grpc.model.problem import escaped

LINE_CHARACTERS_MAX = 4000
"""How long a line may be: room for an object with its ten problems; the rest is cut."""

TRACEBACK_LINES_MAX = 100
"""How many lines of a traceback are shown, from its end, where the error is named."""


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
