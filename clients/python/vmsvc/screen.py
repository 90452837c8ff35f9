"""A table in a terminal, kept up to date until what fills it has ended.

It is drawn anew where the old one cannot be drawn over: a terminal that is resized breaks lines
elsewhere, and one that others have used meanwhile, after Ctrl-Z and `fg`, has their text below.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console, RenderableType
from rich.live import Live

# Ages are in seconds, and changes are to be seen at once.
_TICK_S = 0.25


async def show(
    render: Callable[[float, int, int], RenderableType],
    reading: asyncio.Task[None],
    console: Console,
) -> None:
    """Show what `render` makes of time, columns and lines, to the state in which `reading` ends."""
    signals = _Signals()
    with signals.heard():
        while not reading.done():
            size = console.size
            with Live(console=console, auto_refresh=False) as live:
                while True:
                    frame = render(time.monotonic(), console.width, console.height)
                    live.update(frame, refresh=True)
                    if reading.done() or signals.to_stop or console.size != size:
                        break
                    await signals.wait(reading)
            if signals.to_stop:
                signals.stop()
            elif console.size != size:
                console.clear()


class _Signals:
    """What a terminal's user does to the program: resizing, and Ctrl-Z."""

    def __init__(self) -> None:
        self.to_stop = False
        self._came = asyncio.Event()

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Hear of them within the block."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGWINCH, self._came.set)
        loop.add_signal_handler(signal.SIGTSTP, self._ask_to_stop)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGWINCH)
            loop.remove_signal_handler(signal.SIGTSTP)

    async def wait(self, reading: asyncio.Task[None]) -> None:
        """Until one comes or the reading ends; no longer than a tick."""
        coming = asyncio.ensure_future(self._came.wait())
        await asyncio.wait({reading, coming}, timeout=_TICK_S, return_when=asyncio.FIRST_COMPLETED)
        coming.cancel()
        with suppress(asyncio.CancelledError):
            await coming
        self._came.clear()

    def stop(self) -> None:
        """Stop, as Ctrl-Z asks for; returns once the program is to go on."""
        self.to_stop = False
        os.kill(os.getpid(), signal.SIGSTOP)

    def _ask_to_stop(self) -> None:
        self.to_stop = True
        self._came.set()
