"""The form of a log line: text or JSON; one event, one line, whatever is in it.

A `Problem` is safe to print already. This is the last guard, for all else that reaches the log:
errors of libraries, names from the network, tracebacks.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import TypeAlias

from vmsvc_grpc.logs.about import ABOUT, SHOWN, Value
from vmsvc_grpc.model.problem import escaped

FORMATS = ("text", "json")
"""The names of the forms."""

LINE_CHARACTERS_MAX = 4000
"""The longest line: room for an object with its ten problems. The rest is cut."""

TRACEBACK_LINES_MAX = 100
"""How many lines of a traceback are shown, from its end, where the error is named."""

TRACEBACK_CHARACTERS_MAX = 12_000
"""How much of them JSON shows, as container runtimes split lines that are longer than 16 KiB."""

_VALUES_MAX = 100  # Of a list in a field.

_ExceptionInfo: TypeAlias = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)


class TextFormatter(logging.Formatter):
    """Formats a record as `TIME LEVEL LOGGER: MESSAGE`, cut and escaped, on one line.

    The lines of a traceback follow it, each cut, escaped and set in, so that none of them can
    look like a record. A line for a person (`shown`) is shown as it is, but for escapes.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line or lines of a record."""
        text = getattr(record, SHOWN, None)
        if text is None:
            return super().format(record)
        return "\n".join(escaped(line, LINE_CHARACTERS_MAX) for line in text.split("\n"))

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802 - logging's own name
        """When the record was made."""
        return _time(record)

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


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: `time`, `level`, `logger`, `message`, then its fields.

    Texts are cut and escaped as in text, and then are ASCII: no reader, and no encoding of the
    stream, can change what they mean. Where there is an exception, `error` names it, and
    `traceback` has its lines.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": escaped(record.name),
            "message": escaped(record.getMessage(), LINE_CHARACTERS_MAX),
        }
        fields: Mapping[str, Value] = getattr(record, ABOUT, {})
        line |= {name: _safe(value) for name, value in fields.items() if name not in line}
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line.setdefault("error", escaped(f"{type(error).__qualname__}: {error}"))
            line["traceback"] = _within(self.formatException(record.exc_info))
        if record.stack_info:
            line["stack"] = _within(record.stack_info)
        return json.dumps(line)


def formatter(name: str) -> logging.Formatter:
    """The formatter of one of FORMATS."""
    return JsonFormatter() if name == "json" else TextFormatter()


def _time(record: logging.LogRecord) -> str:
    """RFC 3339, in UTC: lines of replicas on many machines sort by it."""
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _safe(value: Value) -> Value:
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, int):
        return value
    if isinstance(value, Mapping):
        return {name: escaped(text) for name, text in value.items()}
    return [escaped(text) for text in value[:_VALUES_MAX]]


def _set_in(text: str) -> str:
    return "\n".join(f"    {line}" for line in _last_lines(text))


def _last_lines(text: str) -> list[str]:
    lines = text.split("\n")
    left_out = len(lines) - TRACEBACK_LINES_MAX
    last = [escaped(line, LINE_CHARACTERS_MAX) for line in lines[-TRACEBACK_LINES_MAX:]]
    return [f"({left_out} lines before these)", *last] if left_out > 0 else last


def _within(text: str) -> list[str]:
    """The last lines of a text, as many as fit into a line of the log."""
    lines, left = _last_lines(text), TRACEBACK_CHARACTERS_MAX
    kept: list[str] = []
    while lines and (left := left - len(lines[-1])) >= 0:
        kept.append(lines.pop())
    return ["(lines before these are left out)"] * bool(lines) + kept[::-1]
