"""Builds programs in Go, each once, into a cache folder outside the tree.

Their versions stand in the go.mod files only. A program of our own is built again when its source
has changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRESS_EVERY_S = 15
# Some ten times what the largest takes on 2 cores.
BUILD_TIMEOUT_S = 45 * 60

Report = Callable[[str], None]


class BuildError(Exception):
    """A program can be neither found nor built; the message says why in one line, then details."""


def cache() -> Path:
    """The folder of all that tests build and download."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vmsvc-grpc"


@dataclass(frozen=True)
class GoProgram:
    """Where a program's main package is: the folder of our go.mod, the module, and the package.

    A package of our own is a path that begins with `./`, and has the version of the module that it
    is built on. `version_variables` are the packages that its own build stamps with the version.
    """

    name: str
    folder: Path
    module: str
    package: str
    version_variables: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def ours(self) -> bool:
        """Whether its source is in this tree."""
        return self.package.startswith("./")

    @property
    def version(self) -> str:
        """The module's version in our go.mod, for example v1.34.4."""
        go_mod = (self.folder / "go.mod").read_text()
        found = re.search(rf"^(?:require)?\s+{re.escape(self.module)} (v\S+)", go_mod, re.MULTILINE)
        assert found is not None, f"{self.folder / 'go.mod'} does not require {self.module}"
        return found[1]

    @property
    def versioned_name(self) -> str:
        """Its name with its version; of one of our own, with a digest of its source."""
        if not self.ours:
            return f"{self.name}-{self.version}"
        digest = hashlib.sha256((self.folder / "go.mod").read_bytes())
        for file in sorted(self.folder.rglob("*.go")):
            digest.update(file.read_bytes())
        return f"{self.name}-{digest.hexdigest()[:12]}"


def built(program: GoProgram, target: Path, report: Report = print, otherwise: str = "") -> Path:
    """`target`, where the program is built first if it is not there.

    A build takes minutes, tells `report` a line every 15 s, and happens once even if several
    processes ask. Raises BuildError; `otherwise` is what one without Go may do instead.
    """
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target.parent / ".lock", program.name, report):
            if not target.exists():
                _build(program, target, report, otherwise)
    return target


def _build(program: GoProgram, target: Path, report: Report, otherwise: str) -> None:
    what = f"{program.name} {program.version}"
    go = shutil.which("go")
    if go is None:
        advice = f"apt-get install golang-go{otherwise}"
        raise BuildError(f"{what} has to be built, and Go is not on the PATH: {advice}")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{program.name}-") as scratch:
        made = Path(scratch) / program.name
        command = [go, "build", "-mod=readonly", "-trimpath", "-buildvcs=false", *program.flags]
        command += ["-ldflags", _ldflags(program), "-o", str(made), program.package]
        # Static binaries; and no go.work of the tree around us may change the modules' versions.
        environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}
        _run(command, program.folder, environment, f"building {what} from its Go module", report)
        made.replace(target)


def _ldflags(program: GoProgram) -> str:
    major, minor = program.version.removeprefix("v").split(".")[:2]
    values = {
        "gitVersion": program.version,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
    }
    stamps = [f"-X {p}.{key}={v}" for p in program.version_variables for key, v in values.items()]
    return " ".join(["-s -w", *stamps])


def _run(
    command: list[str], folder: Path, environment: dict[str, str], what: str, report: Report
) -> None:
    """Runs a command to its end, telling of it at the start and every 15 s; raises BuildError."""
    started = time.monotonic()
    report(f"{what} (once; some minutes)")
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            code = None
            while code is None:
                elapsed_s = time.monotonic() - started
                if elapsed_s > BUILD_TIMEOUT_S:
                    raise BuildError(f"{what}: not done after {BUILD_TIMEOUT_S} s")
                try:
                    code = process.wait(PROGRESS_EVERY_S)
                except subprocess.TimeoutExpired:
                    report(f"{what}: {time.monotonic() - started:.0f} s")
        finally:
            process.kill()
        if code != 0:
            output.seek(0)
            tail = output.read().decode(errors="replace")[-4000:]
            raise BuildError(f"{what}: go build ended with {code}\n{tail}")
    report(f"{what}: done in {time.monotonic() - started:.0f} s")


@contextmanager
def _lock(path: Path, name: str, report: Report) -> Iterator[None]:
    """Held by one process at a time, and let go by the kernel when its holder dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"waiting for another process that builds {name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
