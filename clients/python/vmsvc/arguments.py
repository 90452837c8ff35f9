"""How the words of a command line are read: what they may be, and what is said of others. Pure."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from itertools import takewhile
from typing import Any, NoReturn

from vmsvc.channel import DEFAULT_SERVER, target

# Eleven days. gRPC cannot wait for ever, and nobody waits longer.
_SECONDS_MAX = 1_000_000
_COUNT_MAX = 1_000_000
_NUMBER_CHARACTERS_MAX = 20
_WORD_CHARACTERS_MAX = 80
_DECIMAL = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")


class UsageError(Exception):
    """The command line or an environment variable is wrong; the text says which and how."""


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line, which we print, and without defaults.

    An error names the command that it is about, and, for an unknown flag, the likely one.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            **settings,
            argument_default=argparse.SUPPRESS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; what is unknown is an error."""
        given = sys.argv[1:] if args is None else list(args)
        ends = {"--", *self._commands()}
        for text in takewhile(lambda text: text not in ends, given):
            flag = text.partition("=")[0]
            if flag.startswith("--") and flag not in self._option_string_actions:
                self._error_of("flag", flag, self._option_string_actions)
        found, unknown = super().parse_known_args(given, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:  # noqa: SLF001 - no other way
            self._error_of(str(action.metavar).lower(), value, action.choices)
        super()._check_value(action, value)

    def _error_of(self, what: str, word: str, known: Iterable[str]) -> NoReturn:
        likely = get_close_matches(word, known, 1)
        meant = f" (did you mean {likely[0]}?)" if likely else ""
        self.error(f"there is no {what} {word[:_WORD_CHARACTERS_MAX]!r}{meant}")

    def _commands(self) -> Iterable[str]:
        """The words after which another parser's flags come."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - no other way
                yield from action.choices

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(f"{message}; see {self.prog} --help")


def server(text: str) -> str:
    """HOST:PORT, or a gRPC name. Raises ArgumentTypeError, as the others here."""
    try:
        return target(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def seconds(text: str) -> float:
    """A time in seconds above 0."""
    number = len(text) <= _NUMBER_CHARACTERS_MAX and _DECIMAL.fullmatch(text)
    if not (number and 0 < float(text) <= _SECONDS_MAX):
        shown = text[:_NUMBER_CHARACTERS_MAX]
        flaw = f"{shown!r} is not a number of seconds above 0, {_SECONDS_MAX:,} at most"
        raise argparse.ArgumentTypeError(flaw)
    return float(text)


def count(what: str) -> Callable[[str], int]:
    """A reader of a number of `what`, above 0."""

    def read(text: str) -> int:
        whole = len(text) <= _NUMBER_CHARACTERS_MAX and text.isascii() and text.isdigit()
        if not (whole and 0 < int(text) <= _COUNT_MAX):
            shown = text[:_NUMBER_CHARACTERS_MAX]
            flaw = f"{shown!r} is not a number of {what} above 0, {_COUNT_MAX:,} at most"
            raise argparse.ArgumentTypeError(flaw)
        return int(text)

    return read


def flag(text: str) -> bool:
    """The truth value of an environment variable."""
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def names(text: str) -> list[str]:
    """The names of a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def full_name(name: str, namespaces: Sequence[str]) -> str:
    """NAMESPACE/NAME of a service, which may be named without its namespace if one is given.

    Raises UsageError.
    """
    if "/" in name:
        return name
    if len(namespaces) != 1:
        raise UsageError(f"service {name!r} has no namespace: write NAMESPACE/{name}, or give -n")
    return f"{namespaces[0]}/{name}"


def add_server(parser: argparse.ArgumentParser) -> None:
    """The flags about which server is asked, and how it is reached."""
    group = parser.add_argument_group("the server")
    group.add_argument(
        "--server",
        type=server,
        metavar="HOST:PORT",
        help=f"the server to ask (default: {DEFAULT_SERVER})",
    )
    group.add_argument(
        "--tls",
        action=argparse.BooleanOptionalAction,
        help="use TLS, or do not, whatever VMSVC_TLS says (default: do not)",
    )
    group.add_argument(
        "--cacert", metavar="FILE", help="CAs of the server, in PEM (default: the system's)"
    )
    group.add_argument("--cert", metavar="FILE", help="certificate to show the server, in PEM")
    group.add_argument("--key", metavar="FILE", help="its key, in PEM")
    group.add_argument(
        "--token-file", metavar="FILE", help="file of a bearer token, read anew for each call"
    )
    group.add_argument(
        "--authority", metavar="NAME", help="name in the server's certificate, if not its address"
    )
