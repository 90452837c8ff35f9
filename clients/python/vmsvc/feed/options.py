"""The command line of `vmsvc feed`: flags and environment in, FeedOptions out. Pure."""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmsvc.arguments import Parser, UsageError, add_server, flag, full_name, names, seconds
from vmsvc.feed import arguments
from vmsvc.feed.kind import Kind
from vmsvc.feed.kinds import KINDS
from vmsvc.feed.policies import Policies, Policy
from vmsvc.feed.target import Target, TargetError

_EPILOG = """\
A feed follows services, and keeps what is named after it right: it writes what differs at
each change, and looks at it now and then, as others may have changed it. If the server is
away, what was last known stays. It goes on until it is stopped.

SIGHUP: look at once. Under systemd (Type=notify) it tells when it is ready, what it does,
and that it lives (WatchdogSec=).

environment:
  Each flag has a variable, which the flag overrides: VMSVC_FEED_STATE_FILE, ...; those of
  the server are the same as of other commands (VMSVC_SERVER, VMSVC_TLS, ...).

exit codes:
  0    stopped by SIGTERM
  1    the server does not let us watch, and nothing was known before
  2    the command line, or a file that it names, is wrong
  3    what answers serves no endpoints, and nothing was known before
  130  interrupted (Ctrl-C)
"""

_PORT_MAX = 65535

# Of the environment of other commands, a feed has what is about its server, and where it looks.
_SHARED = (
    *("server", "tls", "cacert", "cert", "key", "token_file", "authority"),
    "namespace",
)


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """What to feed, and how. `given` are the values that the output is made of."""

    output: str
    """One of KINDS."""
    given: Mapping[str, Any]
    policies: Policies
    state_file: Path | None
    check_interval_s: float
    http_listen: tuple[str, int] | None


class FeedParser(Parser):
    """A parser of one output's arguments, each of which may come from the environment instead."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.defaults: dict[str, Any] = {}
        """Of the flags that have one, by the names under which they are parsed."""
        self.required: list[argparse.Action] = []
        """The flags that have to be given somewhere."""
        self.flags: list[argparse.Action] = []

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        """As argparse's; `default` and `required` count once the environment has been read."""
        if not names[0].startswith("-") or settings.get("action") == "help":
            return super().add_argument(*names, **settings)
        default, required = settings.pop("default", None), settings.pop("required", False)
        action = super().add_argument(*names, **settings)
        if default is not None:
            self.defaults[action.dest] = default
        if required:
            self.required.append(action)
            action.help = f"{action.help} (required)"
        self.flags.append(action)
        return action


def add(commands: Any) -> None:
    """Add the command `feed` to others."""
    what = "keep a load balancer, a file or a command right, from one stream"
    parser = commands.add_parser("feed", help=what, description=what, epilog=_EPILOG)
    outputs = parser.add_subparsers(
        dest="feed", required=True, metavar="OUTPUT", parser_class=FeedParser
    )
    for name, kind in KINDS.items():
        described = f"{kind.what[0].upper()}{kind.what[1:]}."
        output = outputs.add_parser(name, help=kind.what, description=described, epilog=kind.epilog)
        _add_output(output, kind)
        add_server(output)


def _add_output(parser: argparse.ArgumentParser, kind: Kind) -> None:
    kind.add(parser)
    _add_common(parser, kind.policies)


def _add_common(parser: argparse.ArgumentParser, policies: Policies) -> None:
    parser.add_argument(
        "--on-absent",
        type=_policy,
        metavar="POLICY",
        help="of a service that does not exist, or is refused: `empty` feeds that it has no "
        f"endpoints, `keep` its last good state (default: {policies.absent.value})",
    )
    parser.add_argument(
        "--on-no-endpoints",
        type=_policy,
        metavar="POLICY",
        help=f"the same for a service without a ready endpoint (default: "
        f"{policies.no_endpoints.value})",
    )
    parser.add_argument(
        "--state-file",
        type=arguments.path,
        metavar="FILE",
        help="keep the states in it, and begin with them when started anew",
    )
    parser.add_argument(
        "--check-interval-s",
        type=seconds,
        default=10.0,
        metavar="SECONDS",
        help="how often to look whether all is still as it should be (default: 10)",
    )
    parser.add_argument(
        "--http-listen",
        type=_loopback,
        metavar="HOST:PORT",
        help="a loopback address for /livez, /readyz and /metrics (default: none)",
    )


def _policy(text: str) -> Policy:
    try:
        return Policy(text)
    except ValueError:
        known = " or ".join(policy.value for policy in Policy)
        raise argparse.ArgumentTypeError(f"{text!r} is not {known}") from None


def _loopback(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]").replace("localhost", "127.0.0.1")
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    number = port.isascii() and port.isdigit() and len(port) <= len(str(_PORT_MAX))
    if not (local and number and int(port) <= _PORT_MAX):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no loopback address with a port, as 127.0.0.1:9401"
        )
    return host, int(port)


def settled(
    flags: Mapping[str, Any], shared: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[FeedOptions, dict[str, Any]]:
    """The options, and what of them is as for other commands: services, namespaces, the server.

    `shared` is what the environment says for all commands. Raises UsageError.
    """
    name = flags["feed"]
    kind = KINDS[name]
    given = {k: v for k, v in shared.items() if k in _SHARED} | _given(
        name, kind, flags, environment
    )
    targets = given["targets"] = given.get("targets") or _targets(given)
    given["services"] = [target.service for target in targets]
    options = FeedOptions(
        name,
        given,
        Policies(
            given.get("on_absent", kind.policies.absent),
            given.get("on_no_endpoints", kind.policies.no_endpoints),
        ),
        given.get("state_file"),
        given["check_interval_s"],
        given.get("http_listen"),
    )
    given.setdefault("all", kind.unready)
    return options, given


def _given(
    name: str, kind: Kind, flags: Mapping[str, Any], environment: Mapping[str, str]
) -> dict[str, Any]:
    """The values of an output's flags: as given, by the environment, or by default."""
    parser = FeedParser(prog=f"vmsvc feed {name}")
    _add_output(parser, kind)
    found = {}
    for action in parser.flags:
        if text := environment.get(variable := _variable(action)):
            try:
                found[action.dest] = _converted(action, text)
            except (argparse.ArgumentTypeError, ValueError) as error:
                raise UsageError(f"{variable}: {error}") from None
    given = {**parser.defaults, **found, **flags}
    for action in parser.required:
        if action.dest not in given:
            raise UsageError(f"feed {name}: {_flag(action)} ({_variable(action)}) is required")
    return given


def _flag(action: argparse.Action) -> str:
    return next(text for text in action.option_strings if text.startswith("--"))


def _variable(action: argparse.Action) -> str:
    return f"VMSVC_FEED_{_flag(action)[2:].upper().replace('-', '_')}"


def _targets(given: Mapping[str, Any]) -> list[Target]:
    """The services of the command line, with their ports."""
    namespaces = given.get("namespace", ())
    found = []
    for name in given.get("services", ()):
        try:
            found.append(Target.unnamed(full_name(name, namespaces)))
        except TargetError as error:
            raise UsageError(str(error)) from None
    return found


def _converted(action: argparse.Action, text: str) -> Any:
    if action.nargs == 0:
        return flag(text)
    read = action.type if callable(action.type) else str
    if isinstance(action, argparse._AppendAction):  # noqa: SLF001 - it has no other name
        return [read(each) for each in names(text)]
    return read(text)
