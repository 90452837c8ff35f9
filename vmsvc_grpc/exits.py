"""The exit statuses of all commands; docs/configuration.md has the table."""

from __future__ import annotations

EXIT_FAILED = 1
"""The request could not be carried out, or was refused."""

EXIT_USAGE = 2
"""The command line or a setting is wrong."""

EXIT_INTERRUPTED = 130
"""A person interrupted it: 128 plus the number of SIGINT, as in shells."""
