"""The Go client: its module's folder, Go's own commands on it, and programs built of it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from tests.go_programs import cache as cache_folder

ROOT = Path(__file__).parents[1]
MODULE = ROOT / "clients" / "go"
_GO_TIMEOUT_S = 900

_SETTINGS = {
    # Go's tests start the server by this Python.
    "VMSVC_TEST_PYTHON": sys.executable,
    # What the detector of races is linked with.
    "CGO_ENABLED": "1",
    # Neither a go.work of the tree around us nor git's view of the tree is part of a build.
    "GOWORK": "off",
    "GOFLAGS": f"{os.environ.get('GOFLAGS', '')} -buildvcs=false".strip(),
}


def go(*arguments: str | Path) -> str:
    """What a command of Go says, run in the module. Raises RuntimeError where it fails."""
    return _run("go", *arguments)


def unformatted(*files: Path) -> str:
    """The files that gofmt would change, of these or of the whole module, a line each."""
    return _run("gofmt", "-l", *(files or ["."]))


def build(file: Path) -> Path:
    """The program of one file, which may be anywhere, with the module's packages; beside it."""
    built = file.with_suffix("")
    go("build", "-o", built, file)
    return built


@cache
def program(package: str) -> str:
    """Where the module's program of that package is, as in `./internal/cmd/watch`; built anew."""
    folder = cache_folder() / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    built = folder / f"client-go-{Path(package).name}"
    # Go itself knows what has changed; but another worker may run the program while it is written.
    with (folder / f".{built.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        go("build", "-o", built, package)
    return str(built)


def _run(*command: str | Path) -> str:
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(
            f"tests of the Go client run {command[0]}, which is not on the PATH: "
            "apt-get install golang-go"
        )
    done = subprocess.run(
        command,
        cwd=MODULE,
        env=os.environ | _SETTINGS,
        capture_output=True,
        text=True,
        timeout=_GO_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        shown = " ".join(map(str, command))
        raise RuntimeError(f"{shown} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
