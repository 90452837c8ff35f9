"""What systemd is told of the process, where it is started as a unit of Type=notify.

The messages are those of sd_notify(3): one datagram to the socket that NOTIFY_SOCKET names.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from contextlib import suppress

_STATUS_CHARACTERS_MAX = 200


class Notifier:
    """Tells systemd; does nothing where there is none. Never raises, never waits."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        name = environment.get("NOTIFY_SOCKET", "")
        # Linux has sockets without a file; their name begins with a zero byte.
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        self._last = ""

    def ready(self, status: str) -> None:
        """The feed has made all as it should be, for the first time or after a reload."""
        self._last = status
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def status(self, status: str) -> None:
        """What it does, for `systemctl status`."""
        if status != self._last:
            self._last = status
            self._send(f"STATUS={_line(status)}")

    def reloading(self) -> None:
        """It has got SIGHUP; `ready` follows."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """It is about to end."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """A sign of life for the watchdog."""
        self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sent:
                sent.setblocking(False)
                # A file's name may have bytes that are no UTF-8.
                sent.sendto(text.encode(errors="backslashreplace"), self._address)


def _line(text: str) -> str:
    return " ".join(text.split())[:_STATUS_CHARACTERS_MAX]
