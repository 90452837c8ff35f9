"""The command line of `vmsvc feed haproxy`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vmsvc.arguments import seconds
from vmsvc.feed import arguments
from vmsvc.feed.kind import Kind
from vmsvc.feed.policies import Policies, Policy

if TYPE_CHECKING:
    from vmsvc.feed.haproxy.runtime import Place
    from vmsvc.feed.output import Output

# What a line of HAProxy's Runtime API gives a meaning of its own, or ends it.
_MEANS_MORE = re.compile(r"[;\\<\x00-\x1f\x7f]")
_OPTIONS_CHARACTERS_MAX = 4000
_PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,100}")

_EPILOG = """\
TARGET names a backend and what it follows: NAME=NAMESPACE/SERVICE or
NAME=NAMESPACE/SERVICE:PORT. HAProxy is changed by its Runtime API, which needs level admin,
and never reloaded. What it holds is read back twice a second: a restarted HAProxy is filled
again, and what others change is put right.

A backend has servers of the feed by one of two ways:
  dynamic  servers named vmsvc_ADDRESS_PORT are added and deleted. For HAProxy 2.6 or newer, and
           a dynamic balancing (roundrobin, leastconn, random, first, or hash-type consistent).
           Other servers of the backend are never touched.
  slots    it has servers slot1, slot2, ... (server-template slot 1-20 0.0.0.0:0 disabled), and
           the feed gives them addresses. For any version, and any balancing.

An endpoint that is not ready, or leaves, gets no new requests (maint). One that leaves is
deleted when those under way have ended, which they have to after --drain-s.

haproxy.cfg:
  global
      stats socket /run/haproxy/admin.sock mode 660 level admin
  backend web
      balance roundrobin

examples:
  vmsvc feed haproxy web=shop/web:http --runtime /run/haproxy/admin.sock
  vmsvc feed haproxy web=shop/web api=shop/api:grpc --runtime 127.0.0.1:9999 \\
      --zone zone-a --server-options 'check inter 2s maxconn 200'

docs/feed-haproxy.md says more.
"""


def _place(text: str) -> Place:
    from vmsvc.feed.haproxy.runtime import Place, PlaceError  # noqa: PLC0415 - not for --help

    try:
        return Place.of(text)
    except PlaceError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _server_options(text: str) -> str:
    if len(text) > _OPTIONS_CHARACTERS_MAX:
        raise argparse.ArgumentTypeError(f"has over {_OPTIONS_CHARACTERS_MAX} characters")
    if found := _MEANS_MORE.search(text):
        raise argparse.ArgumentTypeError(f"{text[:100]!r} has {found[0]!r}, as no option has")
    return " ".join(text.split())


def _prefix(text: str) -> str:
    if not _PREFIX.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text[:100]!r} is not what names of servers begin with")
    return text


def _not_ready(text: str) -> str:
    if text not in ("maint", "drain"):
        raise argparse.ArgumentTypeError(f"{text[:100]!r} is not maint or drain")
    return text


def _add(parser: argparse.ArgumentParser) -> None:
    arguments.add_targets(parser, "a backend")
    parser.add_argument(
        "--runtime",
        type=_place,
        required=True,
        metavar="PLACE",
        help="HAProxy's Runtime API, of a worker or the master: /PATH of a socket, or HOST:PORT",
    )
    parser.add_argument(
        "--zone",
        default="",
        metavar="ZONE",
        help="have servers of other zones as backups, for when all of this zone are down",
    )
    parser.add_argument(
        "--server-options",
        type=_server_options,
        default="",
        metavar="TEXT",
        help="what each added server has beside, in HAProxy's words, as it takes nothing from "
        "default-server: check inter 2s maxconn 200",
    )
    _add_leaving(parser)
    _add_slots(parser)


def _add_leaving(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--not-ready",
        type=_not_ready,
        default="maint",
        metavar="STATE",
        help="what becomes of endpoints that are not ready: `maint`, or `drain`, which has "
        "sessions that persist on one (by cookie or stick table) go on to it (default: maint)",
    )
    parser.add_argument(
        "--drain-s",
        type=seconds,
        default=30.0,
        metavar="SECONDS",
        help="how long requests to a server that leaves may go on before they are ended "
        "(default: 30)",
    )
    parser.add_argument(
        "--runtime-timeout-s",
        type=seconds,
        default=5.0,
        metavar="SECONDS",
        help="how long HAProxy may take to answer (default: 5)",
    )


def _add_slots(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--slots",
        type=_prefix,
        default="slot",
        metavar="PREFIX",
        help="a backend with servers of this name and a number is kept by them (default: slot)",
    )
    parser.add_argument(
        "--haproxy-state-file",
        type=arguments.path,
        metavar="FILE",
        help="keep what the slots have in HAProxy's server-state-file, with which it starts; they "
        "need a name and a port: server-template slot 1-20 vm.invalid:80 init-addr last,0.0.0.0 "
        "disabled",
    )


def _made(given: Mapping[str, Any]) -> Output:
    from vmsvc.feed.haproxy.output import Backends, Settings  # noqa: PLC0415 - not for --help
    from vmsvc.feed.haproxy.runtime import Runtime  # noqa: PLC0415
    from vmsvc.feed.haproxy.wanted import State  # noqa: PLC0415

    arguments.check_once(given["targets"])
    return Backends(
        Runtime(given["runtime"], timeout_s=given["runtime_timeout_s"]),
        given["targets"],
        Settings(
            slots=given["slots"],
            server_options=given["server_options"],
            drain_s=given["drain_s"],
            not_ready=State(given["not_ready"]),
            zone=given["zone"],
            state_file=given.get("haproxy_state_file"),
        ),
    )


KIND = Kind(
    "keep the servers of a HAProxy's backends right, without a reload",
    _EPILOG,
    _add,
    _made,
    Policies(absent=Policy.EMPTY, no_endpoints=Policy.EMPTY),
    unready=True,
)
