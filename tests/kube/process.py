"""One server process of a test: its start, its signals, its log, and that nothing outlives us.

Owns processes and ports, and knows nothing of Kubernetes. A process is started in a session of its
own, so that a Ctrl-C in the terminal reaches the tests alone, which then stop it in order. Should
the tests die without doing so, the kernel kills it (PR_SET_PDEATHSIG, Linux).
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# How long one look takes before the next while something is awaited.
_POLL_S = 0.05

# The kernel counts the death of the thread that started a process as its parent's, and tests
# start processes from threads that end (asyncio.to_thread). This one lives until exit.
_SPAWNER = ThreadPoolExecutor(1, thread_name_prefix="spawn")

# Becomes the command, keeping the pid: asks for SIGKILL (9) at the parent's death by
# PR_SET_PDEATHSIG (1), unless the parent has died already. A preexec_fn could do the same, but is
# not safe beside threads.
_TIE_TO_PARENT = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("parent has died")
os.execv(sys.argv[2], sys.argv[2:])
"""


class ProcessError(Exception):
    """A process ended, or did not do in time what it should; the message ends with its log."""


class Port:
    """A free TCP port of 127.0.0.1, kept ours until closed.

    The port stays bound here (never listening) with SO_REUSEPORT, and the process listens on it
    with the same option: so no one else can get it, not even while the process restarts.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]

    def close(self) -> None:
        """Gives the port back."""
        self._socket.close()


class Process:
    """A command that may be started, stopped and started again; its output is added to `log`.

    Methods wait, and may be called from any thread, one at a time.
    """

    def __init__(self, name: str, command: list[str], log: Path) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id; the process must run."""
        assert self._child is not None, f"{self.name} does not run"
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended since."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Starts the command; it is not ready when this returns."""
        assert not self.running, f"{self.name} already runs"
        self._child = _SPAWNER.submit(self._spawn).result()

    def _spawn(self) -> subprocess.Popen[bytes]:
        parent = str(os.getpid())
        tie = [sys.executable, "-I", "-S", "-c", _TIE_TO_PARENT, parent, *self._command]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                tie,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until(self, ready: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Returns once `ready()`; raises ProcessError when the process ends or time is up first.

        A look that gets no answer (OSError) counts as not yet.
        """
        deadline = time.monotonic() + timeout_s
        while not _true(ready):
            if self._ended_within(_POLL_S):
                raise ProcessError(f"{self.name} ended before {what}\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ProcessError(f"{self.name}: not {what} in {timeout_s} s\n{self.log_tail()}")

    def stop(self, grace_s: float = 20) -> None:
        """Asks it to end (SIGTERM), kills it after `grace_s`; resumes it if paused.

        Does nothing if it does not run.
        """
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        if not self._ended_within(grace_s):
            self.kill()

    def kill(self) -> None:
        """Kills it (SIGKILL) and waits for its end; does nothing if it does not run."""
        self._signal(signal.SIGKILL)
        if self._child is not None:
            self._child.wait()

    def pause(self) -> None:
        """Stops its clock (SIGSTOP): connections stay open, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on after `pause`."""
        self._signal(signal.SIGCONT)

    def memory_bytes(self) -> int:
        """Its resident memory (Linux); the process must run."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return 1024 * int(status.split("VmRSS:")[1].split()[0])

    def log_tail(self, characters: int = 3000) -> str:
        """The end of its output, after a line that says where the whole is."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return f"--- {self.log}\n{text[-characters:]}"

    def _signal(self, number: signal.Signals) -> None:
        # Popen sends nothing to a child that has been waited for, so no other process is hit.
        if self._child is not None:
            self._child.send_signal(number)

    def _ended_within(self, seconds: float) -> bool:
        if self._child is None:
            return True
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


def _true(ready: Callable[[], bool]) -> bool:
    try:
        return ready()
    except OSError:
        return False
