"""Finds the programs that judge our transport, building each once into a cache folder.

    python -m tests.interop.judges         build all, print where they are

Which versions, stands in `go.mod`.
"""

from __future__ import annotations

from pathlib import Path

from tests.go_programs import GoProgram, built, cache

_HERE = Path(__file__).parent
_H2SPEC = "github.com/summerwind/h2spec"
_GRPC = "google.golang.org/grpc"

H2SPEC = GoProgram("h2spec", _HERE, _H2SPEC, f"{_H2SPEC}/cmd/h2spec")
"""The conformance tests of HTTP/2."""

GRPC_GO = GoProgram("grpc-go-interop", _HERE, _GRPC, f"{_GRPC}/interop/client")
"""The interoperability tests of gRPC, by the client in Go."""


def judge(program: GoProgram) -> str:
    """Where the program is; it is built if it has to be."""
    return str(built(program, cache() / "bin" / program.versioned_name))


if __name__ == "__main__":
    for each in (H2SPEC, GRPC_GO):
        print(judge(each))
