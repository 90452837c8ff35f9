"""The releases of client and server, side by side, and whether they go together. Pure."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass

from vmsvc import __version__
from vmsvc.model import ServerVersion

_RELEASE = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})(?![0-9])")


@dataclass(frozen=True, slots=True)
class ClientVersion:
    """What this client is: its release, and the Python that it runs on."""

    version: str = __version__
    python_version: str = platform.python_version()


@dataclass(frozen=True, slots=True)
class Versions:
    """Client and server; None for a server that was not asked, or has not told."""

    client: ClientVersion
    server: ServerVersion | None


def too_far_apart(client: str, server: str) -> bool:
    """Whether releases are further apart than docs/api-stability.md promises to work.

    That is one minor version, in either direction. What is no release is not judged.
    """
    ours, theirs = _RELEASE.match(client), _RELEASE.match(server)
    if not (ours and theirs):
        return False
    return ours[1] != theirs[1] or abs(int(ours[2]) - int(theirs[2])) > 1
