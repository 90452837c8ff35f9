"""What nginx reads of a target: an upstream, or the servers of one that somebody has written. Pure.

Syntax and meaning: nginx.org, ngx_http_upstream_module; ngx_stream_upstream_module has the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vmsvc.feed.target import Server, Target

# The first words of each file that is ours.
_MARK = "# Written by vmsvc feed nginx"

# nginx refuses an upstream without a server. One that is down is never connected to: a request is
# answered 502, and the log has "no live upstreams".
_NO_SERVER = "server unix:/nonexistent down;"

_PARAMETER = re.compile(r"(weight|max_conns|max_fails|fail_timeout)=[0-9]{1,9}[a-z]{0,2}")


class ParameterError(ValueError):
    """Parameters of a server are not written well; the text is one sentence."""


@dataclass(frozen=True, slots=True)
class Form:
    """How targets are written.

    `servers_only`: server lines, for an upstream of one's own, in the place of a whole upstream.
    `zone`: servers in another are backups, while there is a ready one in it; "" for none.
    `not_ready_down`: servers that are not ready are marked down, in the place of being left out.
    `parameters` is what each server has beside, as nginx writes it.
    """

    servers_only: bool = False
    zone: str = ""
    not_ready_down: bool = False
    parameters: str = ""


def parameters(text: str) -> str:
    """The parameters of a server, as in "max_fails=2 fail_timeout=5s". Raises ParameterError."""
    words = text.split()
    for word in words:
        if not _PARAMETER.fullmatch(word):
            raise ParameterError(
                f"{word[:100]!r} is none of weight=, max_conns=, max_fails= and fail_timeout= "
                "with a number"
            )
    return " ".join(words)


def file_name(target: Target, form: Form) -> str:
    """Where in the directory a target is written."""
    return f"{target.name}.{'servers' if form.servers_only else 'upstream.conf'}"


def is_ours(content: bytes) -> bool:
    """Whether the content of a file may be replaced."""
    return not content.strip() or content.startswith(_MARK.encode())


def is_of(target: Target, content: bytes) -> bool:
    """Whether what we wrote is of this target, whatever its form was."""
    return content.partition(b"\n")[0] == _header(target).encode()


def content(target: Target, servers: Iterable[Server], form: Form) -> bytes:
    """The file of a target, servers in the order that they are given in.

    Equal servers give equal bytes: nothing is in it that nginx does not need, as that would
    reload it for nothing.
    """
    lines = _lines(tuple(servers), form) or [_NO_SERVER]
    if form.servers_only:
        body = [*lines]
    else:
        body = [f"upstream {target.name} {{", *(f"    {line}" for line in lines), "}"]
    return "\n".join([_header(target), *body, ""]).encode()


def _header(target: Target) -> str:
    port = f":{target.port}" if target.port else ""
    return f"{_MARK}, which undoes edits: {target.name}={target.service}{port}"


def _lines(servers: Sequence[Server], form: Form) -> list[str]:
    near = [server.zone == form.zone for server in servers]
    # nginx refuses an upstream of nothing but backups.
    prefers = bool(form.zone) and any(
        server.ready and is_near for server, is_near in zip(servers, near, strict=True)
    )
    return [
        _line(server, backup=prefers and not is_near, form=form)
        for server, is_near in zip(servers, near, strict=True)
        if server.ready or form.not_ready_down
    ]


def _line(server: Server, *, backup: bool, form: Form) -> str:
    words = ["server", server.reached, form.parameters]
    words += ["backup"] * backup + ["down"] * (not server.ready)
    return " ".join(word for word in words if word) + ";"
