"""The command line: arguments and environment become a Config; nothing else reads them."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from vmsvc_grpc import __version__
from vmsvc_grpc.config import Config, ConfigError, address, ip_families
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.server.limits import Limits

EXIT_REFUSED = 1
EXIT_USAGE = 2

_SERVE_EPILOG = """\
Every flag has an environment variable: VMSVC_ and its name, as in VMSVC_DRAIN_S for --drain-s;
lists are separated by commas, flags without a value take true or false. The flag wins.

exit status:
  0  ended by SIGTERM or SIGINT, after draining
  1  cannot start or go on: an address in use, a directory that cannot be read or written
  2  a wrong flag or setting
"""

_RENDER_EPILOG = """\
exit status:
  0  everything could be rendered
  1  an object is refused or cannot be read; the others are rendered
  2  a wrong flag or setting
"""


class _Flag(NamedTuple):
    """One setting of the command line."""

    name: str
    convert: Callable[[str], Any]
    help: str
    default: str | None = None
    metavar: str = ""

    @property
    def dest(self) -> str:
        return self.name.removeprefix("--").replace("-", "_")

    @property
    def variable(self) -> str:
        return f"VMSVC_{self.dest.upper()}"


def _boolean(text: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    try:
        return known[text.strip().lower()]
    except KeyError:
        raise ConfigError(f"{text!r} is neither true nor false") from None


def _at_least(minimum: float, convert: Callable[[str], Any]) -> Callable[[str], Any]:
    def bounded(text: str) -> Any:
        try:
            number = convert(text)
        except ValueError:
            raise ConfigError(f"{text!r} is not a number") from None
        if not minimum <= number < float("inf"):
            raise ConfigError(f"{text} is less than {minimum:g}, or not finite")
        return number

    return bounded


_LIMITS = {
    "streams_max": "open streams, at most",
    "streams_per_client_max": "open streams of one client address, at most",
    "services_per_stream_max": "services that one stream may watch, at most",
    "message_bytes_max": "bytes of one request, at most",
    "pending_calls_max": "calls that wait to be accepted, at most",
    "calls_per_connection_max": "calls on one connection, at most; more wait in the client",
    "keepalive_s": "seconds without traffic after which a client is pinged",
    "keepalive_timeout_s": "seconds after which a client that does not answer is gone",
    "client_ping_interval_min_s": "seconds between pings of a client, at least",
    "connection_age_s": "seconds after which a connection ends, so that clients spread anew",
    "connection_age_grace_s": "seconds that its calls are then given to end by themselves",
    "retry_delay_s": "seconds to wait, as told to clients that come before the cache is filled",
    "stop_grace_s": "seconds that the last answers are given to reach clients at the end",
}


def _limit_flags() -> list[_Flag]:
    return [
        _Flag(
            f"--{name.replace('_', '-')}",
            _at_least(1 if isinstance(default, int) else 0.001, type(default)),
            _LIMITS[name],
            str(default),
            "SECONDS" if name.endswith("_s") else "N",
        )
        for name, default in asdict(Limits()).items()
    ]


RULES = [
    _Flag(
        "--ip-families",
        ip_families,
        "address families of the cluster's Services, the default one first",
        "IPv4",
        "FAMILY[,FAMILY]",
    ),
    _Flag(
        "--allow-loopback",
        _boolean,
        "take 127.0.0.0/8 and ::1 for addresses of VMs, for trials on one machine",
    ),
    _Flag(
        "--load-balancer-provider",
        str,
        "mark Services for this load balancer: nsx-t-lb",
        "",
        "NAME",
    ),
]

SERVE = [
    _Flag(
        "--manifests",
        Path,
        "directory of YAML and JSON manifests to serve; followed as it changes",
        None,
        "DIR",
    ),
    _Flag(
        "--output",
        Path,
        "directory in which to hold the Service and Endpoints of each VirtualMachineService",
        None,
        "DIR",
    ),
    _Flag("--listen", address, "where gRPC listens", "127.0.0.1:50051", "HOST:PORT"),
    _Flag(
        "--http-listen",
        address,
        "where /livez, /readyz and /metrics listen",
        "127.0.0.1:8080",
        "HOST:PORT",
    ),
    _Flag(
        "--insecure",
        _boolean,
        "allow --listen on an address that other machines can reach, without TLS",
    ),
    *RULES,
    _Flag(
        "--drain-s",
        _at_least(0, float),
        "seconds over which streams are ended at SIGTERM",
        "10",
        "SECONDS",
    ),
    _Flag(
        "--settle-s",
        _at_least(0, float),
        "seconds without a change after which a file written in place is read",
        "0.2",
        "SECONDS",
    ),
    _Flag(
        "--writes-per-s", _at_least(0.1, float), "writes of objects a second, at most", "50", "N"
    ),
    _Flag(
        "--workers", _at_least(1, int), "services whose objects are written side by side", "4", "N"
    ),
    *_limit_flags(),
    _Flag(
        "--log-level",
        str.upper,
        "the least severe lines to log: debug, info, warning, error",
        "info",
        "LEVEL",
    ),
]


def _add(parser: argparse.ArgumentParser, flags: Sequence[_Flag]) -> None:
    for flag in flags:
        default = f" (default: {flag.default})" if flag.default else ""
        text = f"{flag.help}{default}"
        if flag.convert is _boolean:
            parser.add_argument(flag.name, action="store_const", const="true", help=text)
        else:
            parser.add_argument(flag.name, metavar=flag.metavar, help=text)


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line. It leaves flags as texts, unset ones as None."""
    whole = argparse.ArgumentParser(
        prog="vmsvc-grpc",
        description="Serves the endpoints of VM Operator's VirtualMachineServices over gRPC.",
    )
    whole.add_argument("--version", action="version", version=f"vmsvc-grpc {__version__}")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve endpoints, and hold the objects that go with them",
        description="Serve endpoints over gRPC, and hold the objects that go with them.",
        epilog=_SERVE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add(serve, SERVE)
    render = commands.add_parser(
        "render",
        help="print the Service and Endpoints that would be held, and end",
        description="Print, as YAML, the Service and Endpoints that would be held for each "
        "VirtualMachineService; problems go to standard error. Asks no server.",
        epilog=_RENDER_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    render.add_argument(
        "path", metavar="FILE|DIR|-", help="manifests: a file, a directory, or - for standard input"
    )
    _add(render, RULES)
    return whole


def settings(
    flags: Sequence[_Flag], arguments: argparse.Namespace, environment: Mapping[str, str]
) -> dict[str, Any]:
    """The value of each flag that is set: by argument, environment or default, in this order.

    Raises ConfigError, which names the flag or variable.
    """
    values = {}
    for flag in flags:
        text, origin = getattr(arguments, flag.dest), flag.name
        if text is None and (text := environment.get(flag.variable)) is not None:
            origin = flag.variable
        if text is None:
            text = flag.default
        if text is None:
            continue
        try:
            values[flag.dest] = flag.convert(text)
        except ConfigError as error:
            raise ConfigError(f"{origin}: {error}") from None
    return values


def _rules(settings: Mapping[str, Any]) -> AddressRules:
    return AddressRules(
        cluster_families=settings["ip_families"],
        allow_loopback=settings.get("allow_loopback", False),
    )


def config(settings: Mapping[str, Any]) -> Config:
    """The Config of `serve` for its settings. Raises ConfigError."""
    if "manifests" not in settings:
        raise ConfigError("name what to serve: --manifests DIR (or VMSVC_MANIFESTS)")
    limits = {name: settings[name] for name in _LIMITS}
    taken = {*limits, "ip_families", "allow_loopback", "log_level"}
    rest = {name: value for name, value in settings.items() if name not in taken}
    return Config(**rest, rules=_rules(settings), limits=Limits(**limits))


def _serve(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    given = settings(SERVE, arguments, environment)
    level = logging.getLevelNamesMapping().get(given["log_level"])
    if level is None:
        raise ConfigError(f"--log-level: {given['log_level'].lower()!r} is not known")
    checked = config(given)
    logging.basicConfig(
        level=level,
        stream=sys.stderr,
        format="%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    # It tells of each batch of hints, of which most are our own writes.
    logging.getLogger("watchfiles").setLevel(max(level, logging.WARNING))
    # Only serving needs the event loop and gRPC; --help and render answer without them.
    from vmsvc_grpc import app  # noqa: PLC0415

    return app.main(checked)


def _render(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    given = settings(RULES, arguments, environment)
    from vmsvc_grpc import render  # noqa: PLC0415

    return render.render(
        arguments.path,
        rules=_rules(given),
        provider=given["load_balancer_provider"],
        out=sys.stdout,
        err=sys.stderr,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status. Usage errors end with 2 and one line."""
    arguments = parser().parse_args(argv)
    command = _serve if arguments.command == "serve" else _render
    try:
        return command(arguments, os.environ)
    except ConfigError as error:
        print(f"vmsvc-grpc {arguments.command}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:
        # Whoever read our output has gone. What is still buffered must not fail at exit, too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_REFUSED


if __name__ == "__main__":
    sys.exit(main())
