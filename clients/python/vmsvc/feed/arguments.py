"""Arguments that several sorts of output take."""

from __future__ import annotations

import argparse
import shlex
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vmsvc.arguments import UsageError
from vmsvc.feed.target import Target, TargetError


def command(text: str) -> tuple[str, ...]:
    """A program and its arguments, quoted as for a shell; none is run."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
    if not words:
        raise argparse.ArgumentTypeError("names no command")
    return words


def target(text: str) -> Target:
    """NAME=NAMESPACE/SERVICE[:PORT]."""
    try:
        return Target.of(text)
    except TargetError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_targets(parser: argparse.ArgumentParser, what: str) -> None:
    """Targets, one at least; `what` they name, as in "a backend"."""
    parser.add_argument(
        "targets",
        nargs="+",
        type=target,
        metavar="TARGET",
        help=f"{what}'s name, and the service, with the name or number of a port if it has "
        "several: NAME=NAMESPACE/SERVICE[:PORT]",
    )


def check_once(targets: Iterable[Target]) -> None:
    """Raises UsageError if two targets have one name."""
    name, count = Counter(target.name for target in targets).most_common(1)[0]
    if count > 1:
        raise UsageError(f"target {name!r} is given {count} times")


def add_services(parser: argparse.ArgumentParser, metavar: str = "SERVICE") -> None:
    """Services by name, or all of namespaces, or all."""
    parser.add_argument(
        "services", nargs="*", metavar=metavar, help="NAMESPACE/NAME; none: all services"
    )
    parser.add_argument(
        "-n",
        "--namespace",
        action="append",
        metavar="NAMESPACE",
        help="the namespace of services named without one; if none is named, feed all of its "
        "services (may be repeated)",
    )


def add_command_timeout(parser: argparse.ArgumentParser, seconds: Any) -> None:
    """How long a command may take; `seconds` reads it."""
    parser.add_argument(
        "--command-timeout-s",
        type=seconds,
        default=30.0,
        metavar="SECONDS",
        help="how long a command may take; it is killed then, and tried again (default: 30)",
    )


def path(text: str) -> Path:
    """A file."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} names no file")
    return Path(text)
