"""Log lines that clients cause: bounded for each client and minute, and the others counted."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from vmsvc_grpc.model.problem import quoted

_MINUTE_S = 60.0
_CLIENTS_SHOWN_MAX = 10

CallLater = Callable[[float, Callable[[], None]], object]
"""Calls a function after so many seconds."""


def on_the_loop(delay_s: float, call: Callable[[], None]) -> object:
    """Call `call` later on the running event loop."""
    return asyncio.get_running_loop().call_later(delay_s, call)


class ClientLines:
    """Logs warnings about clients. At the end of a minute one line counts those left out."""

    def __init__(
        self,
        log: logging.Logger,
        lines_per_minute_max: int,
        refusals: Counter[str],
        later: CallLater = on_the_loop,
    ) -> None:
        """Counts lines that are left out in `refusals`, under the setting."""
        self._log = log
        self._most = lines_per_minute_max
        self._refusals = refusals
        self._later = later
        self._shown: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def warn(self, client: str, text: str) -> None:
        """Log `text` about `client`, escaped, unless it had too many lines this minute."""
        if not self._shown:
            self._later(_MINUTE_S, self._end_minute)
        if self._shown[client] >= self._most:
            self._left_out[client] += 1
            self._refusals["client_lines_per_minute_max"] += 1
            return
        self._shown[client] += 1
        self._log.warning("%s", text)

    def _end_minute(self) -> None:
        left_out, self._left_out = self._left_out, Counter()
        self._shown.clear()
        if not left_out:
            return
        shown = ", ".join(
            f"{count} of {quoted(client)}"
            for client, count in left_out.most_common(_CLIENTS_SHOWN_MAX)
        )
        others = len(left_out) - _CLIENTS_SHOWN_MAX
        self._log.warning(
            "lines about clients left out in the last minute (client_lines_per_minute_max): %s%s",
            shown,
            f", and those of {others} more" if others > 0 else "",
        )
