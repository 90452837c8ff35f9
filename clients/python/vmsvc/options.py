"""The command line of `vmsvc`: arguments and environment in, Options out. Pure.

Imports neither gRPC nor rich, so that `--help` and a mistyped flag are answered at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vmsvc import __version__
from vmsvc.arguments import (
    Parser,
    UsageError,
    add_server,
    count,
    flag,
    full_name,
    names,
    seconds,
    server,
)
from vmsvc.channel import DEFAULT_SERVER
from vmsvc.feed import options as feed_options
from vmsvc.feed.options import FeedOptions
from vmsvc.model import Readiness

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_NO_ANSWER = 3
EXIT_LATE = 4

OUTPUTS = ("table", "wide", "json", "yaml", "name")
_OUTPUTS_WITHOUT_NAMES = ("table", "wide", "json", "yaml")
_WITHOUT_NAMES = ("watch", "version")

SHELLS = ("bash", "zsh", "fish")

# These ask about one namespace; a variable may name several, for watch.
_OF_ONE_NAMESPACE = ("list", "resolve", "explain")

_DESCRIPTION = "Ask a vmsvc-grpc server which VMs stand behind a VirtualMachineService."

_EPILOG = """\
examples:
  vmsvc list                          every service, of all namespaces
  vmsvc list shop                     those of one namespace
  vmsvc resolve shop/web              who serves it, ready endpoints only
  vmsvc resolve web -n shop --all     the same service, endpoints not ready too
  vmsvc resolve shop/web data/db -o yaml      several, for a program
  vmsvc watch                         all services, a live table
  vmsvc watch shop/web | jq .         one service, a JSON object a line
  vmsvc explain shop/web              which VMs are in it, and which nearly are
  vmsvc explain shop/web web-7        why is my VM not in the service?
  vmsvc version                       of vmsvc, and of the server

environment:
  Each flag has a variable, which the flag overrides: VMSVC_SERVER, VMSVC_TIMEOUT_S,
  VMSVC_OUTPUT, VMSVC_NAMESPACE (for watch: a list with commas), VMSVC_TLS, VMSVC_CACERT,
  VMSVC_CERT, VMSVC_KEY, VMSVC_TOKEN_FILE, VMSVC_AUTHORITY, VMSVC_ALL_NAMESPACES and
  VMSVC_ALL (true or false, as VMSVC_TLS).

exit codes:
  0    done
  1    no such service, or it is refused, or you may not ask for it
  2    the command line or a name in it is wrong
  3    no answer: the server cannot be reached, is not ready, or failed; or the answer
       cannot be written
  4    what --until-ready or --for waits for has not come within --timeout-s
  130  interrupted (Ctrl-C); 141 the reader of a pipe is gone; 143 terminated
"""

_WATCH_EPILOG = """\
In a terminal, a live table. In a pipe, JSON: an object a line, with `time` and `event`:

  state         a service, at first and after each change (see below)
  synced        everything is told, and true from here on
  disconnected  it may be out of date until the next `synced`: `code`, `error`,
                `retry_in_s`; again for each try that fails

A state has:

  service     "namespace/name"
  present     whether it exists and is served
  absence     null, or an object with `reason` (NOT_FOUND, REFUSED) and `message`
  ports       objects with `name`, `port`, `target_port`, `protocol`
  endpoints   objects with `address`, `ready`, `vm_name`, `vm_uid`, `zone`
  version     rises with each change on one server
  revision    a digest of ports and endpoints

If there is no server, or it goes away, watch waits for it; stderr says so.

examples:
  vmsvc watch shop/web shop/db        two services
  vmsvc watch -n shop                 all of a namespace, those created later too
  vmsvc watch -n shop web             shop/web
  vmsvc watch --all -o json > log     all services, endpoints that are not ready too
  vmsvc watch shop/web --for=absent   until it is deleted
  vmsvc watch shop/web --until-ready 3 --timeout-s 60
"""

_NAMESPACE = "the namespace of services that are named without one"
_TIMEOUT = "how long to wait for an answer (default: 10)"

_WATCH = "services' endpoints, and each change"

_VERSION = "the version of vmsvc, and the server's"

_VERSION_EPILOG = """\
As JSON or YAML: `client` with `version` and `python_version`; `server` with these, and
with `packages`, `transport` and `started_at`. It is null if the server was not asked, or
has not told; then stderr says why, and the exit code is 1 or 3. One of 0.1.0 cannot tell.

Client and server may be one minor version apart. If it is more, stderr says so.
"""

_COMPLETION_EPILOG = """\
Commands, flags, namespaces, and, as the server tells them, services and VMs.

examples:
  source <(vmsvc completion bash)     in ~/.bashrc
  source <(vmsvc completion zsh)      in ~/.zshrc, after compinit
  vmsvc completion fish | source      in ~/.config/fish/config.fish
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What to do. `services` are full names; `namespaces` is empty for all of them."""

    command: str
    server: str
    timeout_s: float
    output: str
    """One of OUTPUTS."""
    services: tuple[str, ...]
    namespaces: tuple[str, ...]
    readiness: Readiness
    tls: bool = False
    cacert: str = ""
    cert: str = ""
    key: str = ""
    token_file: str = ""
    authority: str = ""
    shell: str = ""
    """For `completion`: one of SHELLS."""
    vm_name: str = ""
    """For `explain`: the only VM to explain, or "" for all."""
    until_ready: int | None = None
    """For `watch`: end once each service has so many ready VMs."""
    until_absent: bool = False
    """For `watch`: end once there is none of the services."""
    goal_timeout_s: float | None = None
    """How long `watch` waits for one of these; None: for ever."""
    client_only: bool = False
    """For `version`: ask no server."""
    feed: FeedOptions | None = None
    """For `feed`: what is fed, and how."""

    @property
    def asks_nobody(self) -> bool:
        """Whether it needs no server."""
        return self.command == "completion" or self.client_only

    @property
    def all_services(self) -> bool:
        """Whether neither services nor namespaces narrow it down."""
        return not (self.services or self.namespaces)


def parse(arguments: Sequence[str], environment: Mapping[str, str], *, terminal: bool) -> Options:
    """The options from arguments and environment; `terminal`: stdout is one.

    Raises UsageError, and SystemExit for --help and --version, which it prints.
    """
    return settled(vars(parser().parse_args(arguments)), environment, terminal=terminal)


def settled(flags: dict[str, Any], environment: Mapping[str, str], *, terminal: bool) -> Options:
    """The options from flags, by their names in the parser, and environment. Raises UsageError."""
    shared = _from_environment(environment)
    feed: FeedOptions | None = None
    given = shared | flags
    command: str = given["command"]
    if command == "feed":
        feed, given = feed_options.settled(flags, shared, environment)
    live = command == "watch"
    _check_output(command, given.get("output"), terminal)
    services, namespaces = _scope(command, given)
    goal = _goal(given, services)
    return Options(
        command=command,
        server=given.get("server", DEFAULT_SERVER),
        timeout_s=given.get("timeout_s", 10.0),
        output=given.get("output") or ("json" if live and not terminal else "table"),
        services=services,
        namespaces=namespaces,
        readiness=Readiness.ALL if given.get("all") else Readiness.READY_ONLY,
        shell=given.get("shell", ""),
        vm_name=given.get("vm_name") or "",
        client_only=given.get("client_only", False),
        goal_timeout_s=given.get("timeout_s") if goal else None,
        feed=feed,
        **goal,
        **_access(given),
    )


def outputs_of(command: str) -> tuple[str, ...]:
    """What -o of a command may be."""
    return _OUTPUTS_WITHOUT_NAMES if command in _WITHOUT_NAMES else OUTPUTS


def _check_output(command: str, output: str | None, terminal: bool) -> None:
    takes = outputs_of(command)
    if output not in (None, *takes):
        raise UsageError(f"{command}: -o takes {', '.join(takes)}, and not {output}")
    if command == "watch" and output in ("table", "wide") and not terminal:
        raise UsageError("watch: a live table needs a terminal; use -o json")


def _goal(given: Mapping[str, Any], services: Sequence[str]) -> dict[str, Any]:
    """The options about what `watch` waits for."""
    goal = {name: given[name] for name in ("until_ready", "until_absent") if name in given}
    if len(goal) > 1:
        raise UsageError("watch: --until-ready and --for=absent cannot both come true; give one")
    if goal and not services:
        asked = "--until-ready" if "until_ready" in goal else "--for=absent"
        raise UsageError(f"watch: {asked} needs the services by name: vmsvc watch SERVICE {asked}")
    return goal


def _access(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options about TLS and who asks."""
    found = {name: given.get(name) or "" for name in ("cacert", "cert", "key", "authority")}
    tls = given.get("tls")
    if tls is None:
        for name, value in found.items():
            if value:
                raise UsageError(f"--{name} (VMSVC_{name.upper()}) goes with --tls (VMSVC_TLS)")
    if tls and bool(found["cert"]) != bool(found["key"]):
        raise UsageError("--cert and --key go together: a certificate and its key")
    if not tls:
        found = dict.fromkeys(found, "")
    return {"tls": bool(tls), "token_file": given.get("token_file") or "", **found}


def _scope(command: str, given: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Services by full name, or namespaces."""
    namespaces = tuple(dict.fromkeys(given.get("namespace", ())))
    if given.get("all_namespaces"):
        namespaces = ()
    if in_namespace := given.get("in_namespace"):
        namespaces = (in_namespace,)
    if command in _OF_ONE_NAMESPACE and len(namespaces) > 1:
        raise UsageError(f"{command}: takes one namespace, and not {', '.join(namespaces)}")
    named = (full_name(name, namespaces) for name in given.get("services", ()))
    services = tuple(dict.fromkeys(named))
    return services, () if services else namespaces


def _absent(text: str) -> bool:
    if text != "absent":
        raise argparse.ArgumentTypeError(f"{text!r} is not 'absent', the only thing to wait for")
    return True


def _output(text: str) -> str:
    if text not in OUTPUTS:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(OUTPUTS)}")
    return text


_VARIABLES: Mapping[str, Callable[[str], object]] = {
    "server": server,
    "timeout_s": seconds,
    "output": _output,
    "namespace": names,
    "all_namespaces": flag,
    "all": flag,
    "tls": flag,
    "cacert": str,
    "cert": str,
    "key": str,
    "token_file": str,
    "authority": str,
}


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    given = {}
    for name, convert in _VARIABLES.items():
        variable = f"VMSVC_{name.upper()}"
        if text := environment.get(variable):
            try:
                given[name] = convert(text)
            except argparse.ArgumentTypeError as error:
                raise UsageError(f"{variable}: {error}") from None
    return given


class _Version(argparse.Action):
    """Prints the version and exits. argparse's own says nothing where it cannot be written."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: object) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        sys.stdout.write(f"vmsvc {__version__}\n")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = Parser(prog="vmsvc", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action=_Version)
    _add_asking(parser, OUTPUTS, f"{_TIMEOUT}; watch: for what it waits for (default: for ever)")
    _add_namespace(parser, f"{_NAMESPACE}; if none is named, show only its services")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=Parser
    )
    listing = _command(commands, "list", "services with their type, addresses and counts")
    _add_namespace(listing, "the same: show only its services")
    listing.add_argument(
        "in_namespace", nargs="?", metavar="NAMESPACE", help="show only its services"
    )
    _add_all_namespaces(listing)

    resolve = _command(commands, "resolve", "the endpoints of services, now")
    _add_namespace(resolve, _NAMESPACE)
    resolve.add_argument(
        "services", nargs="+", metavar="SERVICE", help="NAMESPACE/NAME, or NAME with -n"
    )
    _add_all(resolve)

    watch = commands.add_parser(
        "watch", help=_WATCH, description=_capital(_WATCH), epilog=_WATCH_EPILOG
    )
    _add_asking(
        watch,
        outputs_of("watch"),
        "how long to wait for what --until-ready or --for names (default: for ever)",
        "table; in a pipe, json",
    )
    _add_namespace(
        watch, f"{_NAMESPACE}; if none is named, watch all of its services; may be repeated"
    )
    watch.add_argument(
        "services", nargs="*", metavar="SERVICE", help="NAMESPACE/NAME; none: all services"
    )
    _add_all_namespaces(watch)
    _add_all(watch)
    watch.add_argument(
        "--until-ready",
        type=count("VMs"),
        metavar="N",
        help="end once each of the services has N ready VMs, or with 4 after --timeout-s",
    )
    watch.add_argument(
        "--for",
        dest="until_absent",
        type=_absent,
        metavar="absent",
        help="end once none of the services exists, or with 4 after --timeout-s",
    )

    explain = _command(commands, "explain", "why each VM is in a service, or is not")
    _add_namespace(explain, _NAMESPACE)
    explain.add_argument(
        "services", nargs=1, metavar="SERVICE", help="NAMESPACE/NAME, or NAME with -n"
    )
    explain.add_argument(
        "vm_name", nargs="?", metavar="VM", help="explain only this VM of the service's namespace"
    )

    version: Parser = commands.add_parser(
        "version", help=_VERSION, description=_capital(_VERSION), epilog=_VERSION_EPILOG
    )
    _add_asking(version, outputs_of("version"), _TIMEOUT)
    version.add_argument(
        "--client",
        dest="client_only",
        action="store_true",
        help="ask no server: only the version of vmsvc",
    )
    feed_options.add(commands)

    completion = _command(
        commands, "completion", "what a shell needs to complete vmsvc's words", _COMPLETION_EPILOG
    )
    _add_namespace(completion, argparse.SUPPRESS)
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    return parser


def _command(commands: Any, name: str, what: str, epilog: str | None = None) -> Parser:
    parser: Parser = commands.add_parser(name, help=what, description=_capital(what), epilog=epilog)
    _add_asking(parser, outputs_of(name), _TIMEOUT)
    return parser


def _capital(what: str) -> str:
    return f"{what[:1].upper()}{what[1:]}."


def _add_namespace(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("-n", "--namespace", action="append", metavar="NAMESPACE", help=what)


def _add_asking(
    parser: argparse.ArgumentParser, outputs: Sequence[str], timeout: str, default: str = "table"
) -> None:
    add_server(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=_output,
        metavar="FORMAT",
        help=f"how to write the answer: {', '.join(outputs)} (default: {default})",
    )
    parser.add_argument(
        "--timeout-s",
        type=seconds,
        metavar="SECONDS",
        help=timeout,
    )


def _add_all_namespaces(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-A",
        "--all-namespaces",
        action="store_true",
        help="every namespace: the default, unless -n or VMSVC_NAMESPACE is given",
    )


def _add_all(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="show endpoints that are not ready, too")
