"""The command line of `vmsvc feed nginx`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from vmsvc.arguments import UsageError, seconds
from vmsvc.feed import arguments
from vmsvc.feed.kind import Kind
from vmsvc.feed.nginx.upstream import Form, ParameterError, parameters
from vmsvc.feed.output import OutputError
from vmsvc.feed.policies import Policies, Policy
from vmsvc.feed.target import Target

if TYPE_CHECKING:
    from vmsvc.feed.output import Output

_EPILOG = """\
For each TARGET, NAME=NAMESPACE/SERVICE or NAME=NAMESPACE/SERVICE:PORT, the directory gets a
file, NAME.upstream.conf, with an upstream of that name. With --servers-only it is NAME.servers,
with server lines for an upstream of your own, which has its balancing, keepalive and so on.
nginx is asked whether it takes the file before it is reloaded; what it refuses is put back.

A service without endpoints has one server that is down: nginx answers 502 then. A file that
was not written by a feed is never touched. Files of targets that are not named any more stay.

nginx.conf:
  http {
      include /etc/nginx/vmsvc/*.upstream.conf;
      server { location / { proxy_pass http://web; } }
  }
or:
  upstream web { least_conn; include /etc/nginx/vmsvc/web.servers; keepalive 32; }

examples:
  vmsvc feed nginx web=shop/web:http api=shop/api --directory /etc/nginx/vmsvc
  vmsvc feed nginx web=shop/web --directory /etc/nginx/vmsvc --zone zone-a \\
      --reload-command 'systemctl reload nginx'

docs/feed-nginx.md says more.
"""


def _parameters(text: str) -> str:
    try:
        return parameters(text)
    except ParameterError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _add(parser: argparse.ArgumentParser) -> None:
    arguments.add_targets(parser, "an upstream")
    parser.add_argument(
        "--directory",
        type=arguments.path,
        required=True,
        metavar="DIR",
        help="where nginx includes files from",
    )
    parser.add_argument(
        "--servers-only",
        action="store_true",
        help="write the lines of servers, without an upstream around them",
    )
    parser.add_argument(
        "--zone",
        default="",
        metavar="ZONE",
        help="have servers of other zones as backups, while there is a ready one in this zone",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="write servers that are not ready, too, marked as down (default: leave them out)",
    )
    parser.add_argument(
        "--server-parameters",
        type=_parameters,
        default="",
        metavar="TEXT",
        help="what each server has beside: max_fails=2 fail_timeout=5s max_conns=100",
    )
    _add_commands(parser)


def _add_commands(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--test-command",
        type=arguments.command,
        default=("nginx", "-t"),
        metavar="COMMAND",
        help="asks nginx whether it takes its configuration; quoted as for a shell, but none is "
        "used (default: nginx -t)",
    )
    parser.add_argument(
        "--reload-command",
        type=arguments.command,
        default=("nginx", "-s", "reload"),
        metavar="COMMAND",
        help="has nginx take it (default: nginx -s reload)",
    )
    arguments.add_command_timeout(parser, seconds)
    parser.add_argument(
        "--reload-interval-s",
        type=seconds,
        default=2.0,
        metavar="SECONDS",
        help="how long to wait from one reload to the next, which takes the newest state then; "
        "each leaves workers behind until their connections end (default: 2)",
    )


def _made(given: Mapping[str, Any]) -> Output:
    from vmsvc.feed.nginx.nginx import Commands, Nginx  # noqa: PLC0415 - not for --help

    _check(given["targets"])
    if not given["directory"].is_dir():
        raise UsageError(f"--directory: there is no directory {given['directory']}")
    nginx = Nginx(
        given["targets"],
        given["directory"],
        Form(
            servers_only=given.get("servers_only", False),
            zone=given["zone"],
            not_ready_down=given.get("all", False),
            parameters=given["server_parameters"],
        ),
        commands=Commands(
            given["test_command"], given["reload_command"], given["command_timeout_s"]
        ),
        reload_interval_s=given["reload_interval_s"],
    )
    # What cannot be written now may be later, and is told then.
    with suppress(OutputError):
        nginx.begin()
    return nginx


def _check(targets: Sequence[Target]) -> None:
    """Raises UsageError for names that cannot be those of files beside each other."""
    arguments.check_once(targets)
    for target in targets:
        if target.name.startswith("."):
            raise UsageError(
                f"target {target.name!r}: nginx includes no file that begins with a dot"
            )


KIND = Kind(
    "keep the upstreams of an nginx right",
    _EPILOG,
    _add,
    _made,
    Policies(absent=Policy.EMPTY, no_endpoints=Policy.EMPTY),
)
