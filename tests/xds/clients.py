"""Finds each xDS client that tests run, building it once into a cache folder outside the tree.

    python -m tests.xds.clients         build all, print the command of each

Go, Java with Maven, and Node with npm must be on the PATH; their clients' versions stand in
`go/go.mod`, `java/pom.xml` and `node/package-lock.json`. What is built is built again when
its files have changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.go_programs import cache

_HERE = Path(__file__).parent
_BUILD_TIMEOUT_S = 900


def command(language: str) -> list[str]:
    """How the client of a language is run; its arguments, the targets, come after that."""
    if language == "python":
        return [sys.executable, str(_HERE / "python_client.py")]
    sources = _HERE / language
    folder = cache() / "xds" / f"{language}-{_digest(sources)}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{language}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "built").exists():
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(sources, folder, ignore=shutil.ignore_patterns("node_modules"))
            _BUILDS[language](folder)
            (folder / "built").touch()
    return _COMMANDS[language](folder)


def _digest(sources: Path) -> str:
    content = hashlib.sha256()
    for file in sorted(path for path in sources.rglob("*") if path.is_file()):
        content.update(f"{file.relative_to(sources)}\n".encode() + file.read_bytes())
    return content.hexdigest()[:16]


def _run(folder: Path, *arguments: str) -> None:
    if shutil.which(arguments[0]) is None:
        raise FileNotFoundError(
            f"tests run gRPC's own xDS clients, and build this one with {arguments[0]}, which is "
            "not on the PATH: apt-get install golang-go maven npm"
        )
    done = subprocess.run(
        arguments, cwd=folder, capture_output=True, text=True, timeout=_BUILD_TIMEOUT_S, check=False
    )
    if done.returncode:
        shown = " ".join(arguments)
        raise RuntimeError(f"{shown} failed in {folder}:\n{done.stdout}{done.stderr}")


_BUILDS: dict[str, Callable[[Path], None]] = {
    "go": lambda folder: _run(folder, "go", "build", "-o", "client", "."),
    "java": lambda folder: _run(folder, "mvn", "-q", "-B", "package", f"-Dout={folder / 'out'}"),
    "node": lambda folder: _run(folder, "npm", "ci", "--no-audit", "--no-fund"),
}

_COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "go": lambda folder: [str(folder / "client")],
    "java": lambda folder: ["java", "-jar", str(folder / "out" / "xds-test-client-1.jar")],
    "node": lambda folder: ["node", str(folder / "client.js")],
}

LANGUAGES = ("python", *_BUILDS)


if __name__ == "__main__":
    for each in LANGUAGES:
        print(each, *command(each))
