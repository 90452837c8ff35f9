"""Who listens on a port of this machine, as far as Linux lets us know."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_LISTENING = "0A"  # TCP_LISTEN of include/net/tcp_states.h

# Columns of proc_net_tcp.rst.
_LOCAL, _STATE, _INODE = 1, 3, 9


class Listener(NamedTuple):
    """A process that listens. `command` is its command line."""

    pid: int
    command: str

    @property
    def is_ours(self) -> bool:
        """Whether it is a `vmsvc-grpc serve`."""
        words = self.command.split(" ")
        names = {Path(word).name for word in words}
        return "serve" in words and bool(names & {"vmsvc-grpc", "vmsvc_grpc"})


def listener(port: int) -> Listener | None:
    """A process that listens on a TCP port; None if there is none, or it is not ours to know."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(port)}
    if not sockets:
        return None
    for process in _PROC.iterdir():
        if process.name.isdecimal():
            # It may have ended meanwhile, or be somebody else's.
            with contextlib.suppress(OSError):
                if any(str(each.readlink()) in sockets for each in (process / "fd").iterdir()):
                    raw = (process / "cmdline").read_bytes()
                    words = raw.decode(errors="replace").split("\0")
                    return Listener(int(process.name), " ".join(words).strip())
    return None


def _inodes(port: int) -> set[str]:
    found = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (_PROC / "net" / name).read_text().splitlines()[1:]:
                fields = line.split()
                local = int(fields[_LOCAL].rpartition(":")[2], 16)
                if local == port and fields[_STATE] == _LISTENING:
                    found.add(fields[_INODE])
    return found
