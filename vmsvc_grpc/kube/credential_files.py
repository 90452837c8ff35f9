"""Files that credentials are read from: others write them, perhaps at this moment.

Only regular files, as anything else may hold up its reader for ever, and only of a bounded size.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

FILE_BYTES_MAX = 4 * 1024 * 1024
"""A kubeconfig of a thousand clusters has as much; a token or a certificate some kilobytes."""


class FileFlawError(ValueError):
    """A file is not what credentials can be read from; the message names it."""


class BlankFileError(FileFlawError):
    """A file has no text yet, or no more: perhaps it is being written."""


def text_of(path: Path) -> str:
    """All text of a file, perhaps blank. Raises OSError and FileFlawError."""
    # Without O_NONBLOCK, to open a FIFO waits for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileFlawError(f"{path} is no regular file")
        with open(descriptor, "rb", closefd=False) as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    finally:
        os.close(descriptor)
    if len(raw) > FILE_BYTES_MAX:
        raise FileFlawError(f"{path} has more than {FILE_BYTES_MAX} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        # The error quotes bytes, which are a secret.
        raise FileFlawError(f"{path} is no text in UTF-8") from error


def filled_text_of(path: Path) -> str:
    """The same of a file that has to hold something. Raises BlankFileError, too."""
    text = text_of(path)
    if not text.strip():
        raise BlankFileError(f"{path} is empty")
    return text
