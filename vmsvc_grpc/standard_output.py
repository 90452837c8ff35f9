"""Tells an error of writing to standard output from every other error of the system."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class OutputError(Exception):
    """Standard output cannot be written; the OSError is its cause."""


@contextmanager
def writing_output() -> Iterator[None]:
    """Within it, only standard output is written, and flushed. Raises OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(error.strerror or str(error)) from error
