"""The stream that the log goes to: standard error, for all that the process has to say.

Where lines are JSON, nothing else may stand between them. So what is written past `logging` (by a
library in C, by Python itself) goes into a pipe then, and becomes lines of the log.
"""

from __future__ import annotations

import atexit
import faulthandler
import logging
import os
import sys
import threading
from types import TracebackType
from typing import TextIO

from vmsvc_grpc.logs.about import about
from vmsvc_grpc.logs.formats import LINE_CHARACTERS_MAX, formatter
from vmsvc_grpc.logs.repeats import Repeats

_STANDARD_ERROR = 2
_READ_BYTES = 1 << 16
_LAST_LINES_S = 1.0  # How long the last lines of the pipe may take.

_log = logging.getLogger("vmsvc_grpc")
_raw = logging.getLogger("stderr")


def begin(form: str, level: str) -> Repeats:
    """Log to standard error from now on, in one of `formats.FORMATS`; what bounds repeats.

    Once in a process, as JSON; as text, a second time replaces the first. `level` is that of our
    own lines; libraries' begin at `INFO`, as their details may hold what a client or an API server
    sent. Errors that nobody catches, and warnings of Python, are lines as others are.
    """
    repeats = Repeats()
    stream = _kept_stream() if form == "json" else sys.stderr
    handler = _Handler(stream)
    handler.setFormatter(formatter(form))
    handler.addFilter(repeats)
    root = logging.getLogger()
    for before in [*filter(_is_ours, root.handlers)]:
        root.removeHandler(before)
    root.addHandler(handler)
    root.setLevel(max(logging.getLevelNamesMapping()[level], logging.INFO))
    _log.setLevel(level)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    sys.unraisablehook = _log_unraisable
    threading.excepthook = _log_in_thread
    return repeats


def begun() -> bool:
    """Whether the log has begun."""
    return any(map(_is_ours, logging.getLogger().handlers))


def _is_ours(handler: logging.Handler) -> bool:
    return isinstance(handler, _Handler)


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Nobody reads the log, or the disk is full: serving does not depend on it.

        Or the arguments of a log call do not fit its text; then they stand beside it.
        """
        try:
            record.getMessage()
        except Exception:  # noqa: BLE001 - whatever an argument raises
            self.emit(logging.makeLogRecord({**vars(record), "msg": _unfit(record), "args": ()}))


def _unfit(record: logging.LogRecord) -> str:
    try:
        return f"{record.msg} {record.args!r}"
    except Exception:  # noqa: BLE001 - whatever an argument raises
        return str(record.msg)


def _kept_stream() -> TextIO:
    """The stream that standard error is now, which from now on is a pipe to the log."""
    kept = os.dup(_STANDARD_ERROR)
    reads, writes = os.pipe()
    os.dup2(writes, _STANDARD_ERROR)
    os.close(writes)
    # What the process says as it crashes would be lost with the pipe.
    faulthandler.enable(kept)
    reader = threading.Thread(target=_log_lines, args=(reads,), name="stderr", daemon=True)
    reader.start()
    atexit.register(_end, kept, reader)
    return os.fdopen(kept, "w", encoding="ascii", buffering=1, closefd=False)


def _end(kept: int, reader: threading.Thread) -> None:
    """Have standard error be what it was, and log what is in the pipe."""
    if sys.stderr is not None:
        sys.stderr.flush()
    os.dup2(kept, _STANDARD_ERROR)
    reader.join(_LAST_LINES_S)


def _log_lines(reads: int) -> None:
    """Log each line that is written into the pipe, until its other end is closed."""
    line = b""
    while data := os.read(reads, _READ_BYTES):
        *whole, rest = data.split(b"\n")
        for part in whole:
            _log_raw(line + part)
            line = b""
        line = (line + rest)[:LINE_CHARACTERS_MAX]
    _log_raw(line)
    os.close(reads)


def _log_raw(line: bytes) -> None:
    if line.strip():
        _raw.warning("%s", line.decode(errors="backslashreplace"))


def _log_uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    _log.error(
        "a fault of ours ends the process",
        exc_info=(kind, error, traceback),
        extra=about(reason="Fault"),
    )


def _log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    error = unraisable.exc_value
    _log.error(
        "%s in %r",
        unraisable.err_msg or "an error that nobody can catch",
        unraisable.object,
        exc_info=(type(error), error, unraisable.exc_traceback) if error else None,
        extra=about(reason="Fault"),
    )


def _log_in_thread(failed: threading.ExceptHookArgs) -> None:
    error = failed.exc_value
    _log.error(
        "a fault of ours ends the thread %s",
        failed.thread.name if failed.thread else "?",
        exc_info=(failed.exc_type, error, failed.exc_traceback) if error else None,
        extra=about(reason="Fault"),
    )
