"""The real program as a process of its own, on free ports, for tests to talk to."""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests import confidential

PATIENCE_S = 30.0
"""How long a test waits for what must come. A machine under load is slow, not wrong."""

_POLL_S = 0.01
_GRPC = re.compile(r"\bgRPC\s+on (\S+:\d+)")
_HTTP = re.compile(r"\bHTTP\s+on (\S+:\d+)")
# A line of its own, or the message of an event.
_SERVES = re.compile(r'^(.*"message": ")?serving ', re.MULTILINE)

Answer = TypeVar("Answer")


class ProgramError(Exception):
    """The program did not start, or did not end well. Holds what it said."""


def awaited(
    ask: Callable[[], Answer], within_s: float = PATIENCE_S, poll_s: float = _POLL_S
) -> Answer:
    """The first answer that is true, or the last one if none is within the time."""
    deadline = time.monotonic() + within_s
    while True:
        if (answer := ask()) or time.monotonic() > deadline:
            return answer
        time.sleep(poll_s)


@dataclass(frozen=True, slots=True)
class Program:
    """A running `vmsvc-grpc serve`: where it listens, and what it has said so far."""

    process: subprocess.Popen[bytes]
    grpc: str
    http: str
    log: Path

    def said(self) -> str:
        """Everything it has printed, on standard output and error, in one text."""
        return self.log.read_text()

    def pages(self) -> str:
        """What its HTTP port says: its metrics, and what is wrong. Nothing if it is ending."""
        tls = bool(re.search(rf"HTTP\s+on {re.escape(self.http)} \(TLS\)", self.said()))
        context = ssl._create_unverified_context() if tls else None
        found = ""
        for page in ("metrics", "readyz"):
            url = f"http{'s' * tls}://{self.http}/{page}"
            try:
                with urllib.request.urlopen(url, timeout=PATIENCE_S, context=context) as answer:
                    found += answer.read().decode()
            except urllib.error.HTTPError as error:
                found += error.read().decode()
            except OSError:
                pass
        return found

    def metric(self, name: str) -> float:
        """The value of a metric, by its name as on the page, labels included. Raises KeyError."""
        return self.metrics()[name]

    def metrics(self) -> dict[str, float]:
        """All values of metrics now, by their names with labels, as on the page."""
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=PATIENCE_S) as page:
            lines = page.read().decode().splitlines()
        values = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in values}


@contextmanager
def serving(
    arguments: Sequence[str | Path], log: Path, *, within: Sequence[str] = ()
) -> Iterator[Program]:
    """`vmsvc-grpc serve` with these arguments, until the block ends; ended by SIGTERM then.

    With manifests it has read them when the block begins. `log` is the file that its
    output goes to; `within` is a command that runs the one that it is given. Raises
    ProgramError where it does not start, or where it ends with
    another code than 0.
    """
    process = _start(arguments, log, within)
    try:
        found = awaited(lambda: _listening(log) or process.poll() is not None)
        if not isinstance(found, tuple):
            raise ProgramError(f"it does not listen. It said:\n{log.read_text()}")
        if "--manifests" in arguments:
            awaited(lambda: _SERVES.search(log.read_text()) or process.poll() is not None)
        program = Program(process, *found, log)
        yield program
        if process.poll() is None and confidential.leaked(program.pages()):
            raise ProgramError("its metrics, or what it says of itself, have a secret")
        process.send_signal(signal.SIGTERM)
        code = process.wait(PATIENCE_S)
        if code != 0 or "Traceback" in log.read_text():
            raise ProgramError(f"it ended with {code}. It said:\n{log.read_text()}")
        if confidential.leaked(log.read_text()):
            raise ProgramError("it has said a token or a private key")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _start(
    arguments: Sequence[str | Path], log: Path, within: Sequence[str]
) -> subprocess.Popen[bytes]:
    # Settings of the caller's own shell would change what a test sees.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("VMSVC_")}
    command = [*within, sys.executable, "-m", "vmsvc_grpc", "serve"]
    command += [] if "--listen" in arguments else ["--listen", "127.0.0.1:0"]
    with log.open("wb") as output:
        return subprocess.Popen(
            [*command, "--http-listen", "127.0.0.1:0", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment, "PYTHONUNBUFFERED": "1"},
        )


def _listening(log: Path) -> tuple[str, str] | None:
    text = log.read_text()
    grpc, http = _GRPC.search(text), _HTTP.search(text)
    return (grpc[1], http[1]) if grpc and http else None
