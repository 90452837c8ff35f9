"""With which status the process ends, whatever the command; the README has the table."""

from __future__ import annotations

EXIT_FAILED = 1
"""What was asked for could not be done, or was refused."""

EXIT_USAGE = 2
"""It cannot be asked for in this way."""

EXIT_INTERRUPTED = 130
"""A person broke it off: 128 and the number of SIGINT, as shells have it."""
