"""`vmsvc feed` as a process of its own, for tests to change things under."""

from __future__ import annotations

import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests import confidential
from tests.integration.test_client_cli import VMSVC
from tests.integration.vmsvc_command import ENVIRONMENT
from tests.program import PATIENCE_S, awaited


@dataclass(frozen=True, slots=True)
class Feed:
    """A running feed."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        """Everything it has said, on standard output and error."""
        return self.log.read_text()

    def has_said(self, text: str) -> bool:
        """Whether it says so before long."""
        return awaited(lambda: text in self.said())

    def http(self, path: str) -> tuple[int, str]:
        """Status and text of its HTTP port; it has been given `--http-listen 127.0.0.1:0`."""
        assert self.has_said("probes and metrics at ")
        base = self.said().partition("probes and metrics at ")[2].split()[0]
        try:
            with urllib.request.urlopen(base + path, timeout=PATIENCE_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self) -> dict[str, float]:
        """All values of metrics now, by their names with labels."""
        lines = self.http("/metrics")[1].splitlines()
        values = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in values}

    def hang_up(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def end(self, signum: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code after a signal."""
        self.process.send_signal(signum)
        return self.process.wait(PATIENCE_S)


@contextmanager
def feeding(
    server: str,
    arguments: Sequence[object],
    log: Path,
    into: IO[bytes] | None = None,
    /,
    **environment: str,
) -> Iterator[Feed]:
    """`vmsvc feed` with these arguments, until the block ends; ended by SIGTERM then, well.

    It says what it says to `log`, or else `into` this.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*VMSVC, "feed", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=into or subprocess.STDOUT,
            env={**ENVIRONMENT, "VMSVC_SERVER": server, **environment},
        )
    feed = Feed(process, log)
    try:
        yield feed
        if process.poll() is None:
            assert feed.end() == 0, feed.said()
        assert "Traceback" not in feed.said(), feed.said()
        assert not confidential.leaked(feed.said())
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
