"""A process under measure: what it is sent, what it answers, and what it costs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

# Linux: the kind of a process' CPU clock that counts nanoseconds.
_CPUCLOCK_SCHED = 2

# How long the slowest answer may take: 10,000 streams that connect on two busy cores.
PATIENCE_S = 180.0


class BenchError(Exception):
    """A process under measure failed, or said something else than expected."""


class Process:
    """A process that obeys a JSON object a line, and answers with one."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes]) -> None:
        """`popen` has pipes for standard input and output."""
        self.name = name
        self._popen = popen
        self._buffer = b""

    @property
    def pid(self) -> int:
        """Its number."""
        return self._popen.pid

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer to one command. Raises BenchError."""
        self.send(do, **arguments)
        return self.answer()

    def send(self, do: str, **arguments: Any) -> None:
        """Send it a command; `answer` returns when that is done."""
        stdin = _pipe(self._popen.stdin)
        stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        stdin.flush()

    def answer(self, within_s: float = PATIENCE_S) -> dict[str, Any]:
        """The next thing it says. Raises BenchError where it ends, or says nothing in time."""
        stdout = _pipe(self._popen.stdout)
        deadline = time.monotonic() + within_s
        while b"\n" not in self._buffer:
            left_s = max(0.0, deadline - time.monotonic())
            if not select.select([stdout], [], [], left_s)[0]:
                raise BenchError(f"{self.name} has said nothing for {within_s:g} s")
            data = os.read(stdout.fileno(), 1 << 20)
            if not data:
                raise BenchError(f"{self.name} ended with {self._popen.wait()}")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def cpu_s(self) -> float:
        """Seconds of CPU that it has used, all threads, user and system."""
        # As clock_getcpuclockid(3) makes it. /proc has only ticks of 10 ms, and a whole run of some
        # scenarios is ten of them.
        return time.clock_gettime(~self.pid << 3 | _CPUCLOCK_SCHED)

    def rss_bytes(self) -> int:
        """The memory that it holds now."""
        return int(_proc(self.pid, "statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def peak_bytes(self) -> int:
        """The most memory that it has held since its beginning, or since `forget_peak`."""
        found = re.search(r"VmHWM:\s+(\d+) kB", _proc(self.pid, "status"))
        assert found is not None, "every process has one"
        return int(found[1]) * 1024

    def forget_peak(self) -> None:
        """Have `peak_bytes` begin anew, at what it holds now."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # As proc(5) has it.


@contextmanager
def running(name: str, command: Sequence[str | Path]) -> Iterator[Process]:
    """A process until the block ends; its errors go where ours go. Nothing of it is left."""
    popen = subprocess.Popen(
        [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    process = Process(name, popen)
    try:
        yield process
    finally:
        with contextlib.suppress(BrokenPipeError):  # It has ended by itself.
            _pipe(popen.stdin).close()
        try:
            popen.wait(10.0)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()
        _pipe(popen.stdout).close()


@contextmanager
def python(module: str, *arguments: str) -> Iterator[Process]:
    """A module of ours as a process of its own."""
    with running(module, [sys.executable, "-m", module, *arguments]) as process:
        yield process


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "made with pipes"
    return pipe


def _proc(pid: int, file: str) -> str:
    return Path(f"/proc/{pid}/{file}").read_text()
