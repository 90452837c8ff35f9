"""Finds the programs that judge our transport, building each once into a cache folder.

    python -m tests.interop.judges         build all, print where they are

Go must be on the PATH; which versions, stands in `go.mod`. Go itself knows what has changed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent
_BUILD_TIMEOUT_S = 900

H2SPEC = "github.com/summerwind/h2spec/cmd/h2spec"
"""The conformance tests of HTTP/2."""

GRPC_GO = "google.golang.org/grpc/interop/client"
"""The interoperability tests of gRPC, by the client in Go."""


@cache
def judge(package: str) -> str:
    """Where the program of that package is; it is built if it has to be."""
    if shutil.which("go") is None:
        raise FileNotFoundError(
            f"tests run {package}, and build it with Go, which is not on the PATH: "
            "apt-get install golang-go"
        )
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    program = base / "vmsvc-grpc" / "bin" / package.replace("/", "-")
    done = subprocess.run(
        ("go", "build", "-o", program, package),
        cwd=_HERE,
        capture_output=True,
        text=True,
        timeout=_BUILD_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"go build {package} failed:\n{done.stdout}{done.stderr}")
    return str(program)


if __name__ == "__main__":
    for each in (H2SPEC, GRPC_GO):
        print(judge(each))
