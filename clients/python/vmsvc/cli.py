"""The command `vmsvc`: arguments, environment and signals in, an exit code out."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import FrameType
from typing import TypeAlias

from vmsvc.arguments import UsageError
from vmsvc.options import EXIT_NO_ANSWER, EXIT_USAGE, Options, parse

# Shells report a process that a signal ended by this plus the signal.
_EXIT_BY_SIGNAL = 128


Reaching: TypeAlias = Callable[[Options], AbstractContextManager[Options]]
"""Opens the way to the server for as long as a command runs; the options to run it with."""


def main() -> int:
    """Run the command line of this process; its exit code. Only --help and --version raise."""
    return run(sys.argv[1:], os.environ, contextlib.nullcontext)


def run(arguments: Sequence[str], environment: Mapping[str, str], reaching: Reaching) -> int:
    """Run a command line; its exit code. Raises as `main` does, and what `reaching` raises.

    That is not called for a command line that is wrong.
    """
    terminated = False

    def terminate(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's
        # The default would leave the terminal without its cursor.
        nonlocal terminated
        terminated = True
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))
        signal.raise_signal(signal.SIGINT)

    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts a background process with SIGINT ignored. It should stay ignored, but
        # SIGTERM needs its handler, as asyncio shuts down in good order only at SIGINT.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, terminate)
    try:
        return _run(arguments, environment, reaching)
    except UsageError as error:
        print(f"vmsvc: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return _EXIT_BY_SIGNAL + (signal.SIGTERM if terminated else signal.SIGINT)
    except BrokenPipeError:
        # Nobody reads what is still buffered; at exit, Python would complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_BY_SIGNAL + signal.SIGPIPE
    except OSError as error:
        with contextlib.suppress(OSError):
            print(f"vmsvc: cannot write the answer: {error.strerror}", file=sys.stderr)
        return EXIT_NO_ANSWER


def _run(arguments: Sequence[str], environment: Mapping[str, str], reaching: Reaching) -> int:
    if sys.__stdout__ is None:
        raise OSError(errno.EBADF, "stdout is closed")
    terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    try:
        if "_ARGCOMPLETE" in os.environ:
            from vmsvc.completion import complete  # noqa: PLC0415 - no other command needs it

            complete(os.environ)
        options = parse(arguments, environment, terminal=terminal)
        # gRPC reads this when it is imported. It would log each lost connection into the table.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        # Of an answer that it cannot read it would write a traceback; we say so in one line.
        logging.getLogger("grpc").setLevel(logging.CRITICAL)
        with reaching(options) as reached:
            from vmsvc import commands  # noqa: PLC0415 - after what it depends on

            return commands.run(reached)
    finally:
        sys.stdout.flush()
