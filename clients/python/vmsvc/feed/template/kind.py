"""The command line of `vmsvc feed template`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from vmsvc.arguments import UsageError, count, seconds
from vmsvc.feed import arguments
from vmsvc.feed.kind import Kind
from vmsvc.feed.output import OutputError
from vmsvc.feed.policies import Policies, Policy

if TYPE_CHECKING:
    from vmsvc.feed.output import Output

_EPILOG = """\
The template is Jinja2's, in its sandbox: it reaches no other file, nor the environment. It
knows `vars`, of --var, and `services`: by their full names, and in their order,

  service, namespace, name    "shop/web", "shop", "web"
  present, absence            whether it exists and is served; null, or reason and message
  ports                       each with name, port, target_port, protocol
  endpoints                   each with address, ready, vm_name, vm_uid, zone

and beside Jinja2's own filters `SERVICE | port('http')`, one of its ports, and
`ENDPOINT | reached(PORT)`, address and port as in a URL. Lines of {% ... %} leave nothing.

  {% for name, service in services.items() %}
  {{ name }}:
    {% for endpoint in service.endpoints %}
    - {{ endpoint | reached(service | port('http')) }}
    {% endfor %}
  {% endfor %}

What cannot be rendered is told with file and line, and the file stays. The command is run once
the file is new, and again if it fails. SIGHUP: read the template again.

examples:
  vmsvc feed template shop/web --template web.j2 --file /etc/app/web.conf \\
      --command 'systemctl reload app'
  vmsvc feed template -n shop --template shop.j2 --file shop.json --var DATACENTRE=east

docs/feed-template.md says more.
"""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_MIB = 1024 * 1024


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (equals and _VARIABLE.fullmatch(name)):
        raise argparse.ArgumentTypeError(f"{text[:200]!r} is not NAME=VALUE")
    return name, value


def _add(parser: argparse.ArgumentParser) -> None:
    arguments.add_services(parser)
    parser.add_argument(
        "--template", type=arguments.path, required=True, metavar="FILE", help="the template"
    )
    parser.add_argument(
        "--file", type=arguments.path, required=True, metavar="FILE", help="the file to keep"
    )
    parser.add_argument(
        "--var",
        action="append",
        type=_variable,
        metavar="NAME=VALUE",
        help="what the template knows as vars.NAME (may be repeated)",
    )
    parser.add_argument("--all", action="store_true", help="give endpoints that are not ready, too")
    parser.add_argument(
        "--command",
        dest="run",
        type=arguments.command,
        metavar="COMMAND",
        help="what to run once the file is new, with its arguments quoted as for a shell; none "
        "is used (default: nothing)",
    )
    arguments.add_command_timeout(parser, seconds)
    parser.add_argument(
        "--render-timeout-s",
        type=seconds,
        default=5.0,
        metavar="SECONDS",
        help="how long the template may take (default: 5)",
    )
    parser.add_argument(
        "--render-interval-s",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="how long to wait from one rendering to the next, which has the newest state then "
        "(default: 1)",
    )
    parser.add_argument(
        "--output-mib-max",
        type=count("MiB"),
        default=16,
        metavar="MIB",
        help="how large the file may become (default: 16)",
    )


def _made(given: Mapping[str, Any]) -> Output:
    from vmsvc.feed.template.template import Bounds, Template, Told  # noqa: PLC0415 - not for --help

    if find_spec("jinja2") is None:
        raise UsageError("feed template needs Jinja2: pip install 'vmsvc-client[feed]'")
    for target in given["targets"]:
        if target.port:
            raise UsageError(
                f"feed template: {target.service}:{target.port}: the template says which port"
            )
    told = Told(given["run"], given["command_timeout_s"]) if "run" in given else None
    try:
        return Template(
            given["template"],
            given["file"],
            given["services"],
            dict(given.get("var", ())),
            told=told,
            bounds=Bounds(given["render_timeout_s"], given["output_mib_max"] * _MIB),
            interval_s=given["render_interval_s"],
        )
    except OutputError as error:
        raise UsageError(str(error)) from None


KIND = Kind(
    "keep a file right that a template makes, and tell a command of it",
    _EPILOG,
    _add,
    _made,
    Policies(absent=Policy.EMPTY, no_endpoints=Policy.EMPTY),
)
