"""The servers under test, and the load client: how each is started."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.certificate import certificate
from bench.dataset import DataSet
from bench.process import PATIENCE_S, BenchError, Process, python, running
from tests.go_programs import cache

_TOOLS = cache() / "bin"
_DESCRIPTOR = Path(__file__).parents[1] / "clients/python/vmsvc/v1/descriptor_set.binpb"

_START_S = 120.0


@dataclass(frozen=True, slots=True)
class Server:
    """A server and the API by which it is asked; `name` is what reports call it.

    `program` is a module of ours, or a binary that `make bench-tools` builds. With `tokens`, its
    callers send one each, and it has them reviewed by a program that says yes.
    """

    name: str
    program: str
    api: str = "vmsvc"
    tls: bool = False
    tokens: bool = False

    @property
    def ours(self) -> bool:
        """Whether it is a module of ours."""
        return self.program.startswith("bench.")


OURS = Server("vmsvc-grpc", "bench.subject")
OURS_GRPCIO = Server("vmsvc-grpc on grpcio", "bench.subject_grpcio")
OURS_TLS = Server("vmsvc-grpc, TLS", "bench.subject", tls=True)
OURS_TOKENS = Server("vmsvc-grpc, TLS and tokens", "bench.subject", tls=True, tokens=True)
BARE = Server("bare grpc.aio", "bench.bare")
GRPC_GO = Server("grpc-go", "vmsvc-broadcast")
GRPC_GO_TLS = Server("grpc-go, TLS", "vmsvc-broadcast", tls=True)
OURS_DELTA = Server("vmsvc-grpc, xDS delta", "bench.subject", "xds-delta")
OURS_SOTW = Server("vmsvc-grpc, xDS SotW", "bench.subject", "xds-sotw")
OURS_GRPCIO_DELTA = Server("vmsvc-grpc on grpcio, xDS delta", "bench.subject_grpcio", "xds-delta")
BARE_DELTA = Server("bare grpc.aio, xDS delta", "bench.bare_xds", "xds-delta")
CONTROL_PLANE_DELTA = Server("go-control-plane, delta", "vmsvc-controlplane", "xds-delta")
CONTROL_PLANE_SOTW = Server("go-control-plane, SotW", "vmsvc-controlplane", "xds-sotw")

# Shown for comparison: no target speaks of them, and they are the slowest.
BESIDE = (OURS_GRPCIO, BARE, OURS_GRPCIO_DELTA, BARE_DELTA)


@dataclass(frozen=True, slots=True)
class Load:
    """How many streams on how many connections; the first `stalled` of them stop reading.

    If `lean`, they are not those of grpc-go, which would need 20 KB each.
    """

    streams: int
    connections: int
    stalled: int = 0
    lean: bool = False


@contextmanager
def serving(server: Server, data: DataSet) -> Iterator[tuple[Process, str]]:
    """A server under test that serves `data`, and its address."""
    flags = [f"--services={data.services}", f"--endpoints={data.endpoints}"]
    flags.append("--listen=127.0.0.1:0")
    if server.tls:
        flags += [f"--certificate={certificate().file}", f"--key={certificate().key}"]
    with ExitStack() as stack:
        if server.tokens:
            reviews = stack.enter_context(running("vmsvc-reviews", [tool("vmsvc-reviews")]))
            flags.append(f"--reviews={reviews.answer(_START_S)['address']}")
        process = stack.enter_context(
            python(server.program, *flags)
            if server.ours
            else running(server.name, [tool(server.program), *flags])
        )
        yield process, process.answer(_START_S)["address"]


@contextmanager
def loading(
    server: Server, address: str, data: DataSet, load: Load, source: str = ""
) -> Iterator[Process]:
    """The load client, with its server and settings; it has not connected yet.

    It does so from the address `source` of this machine, if that is not empty.
    """
    flags: dict[str, object] = {
        "target": address,
        "api": server.api,
        "connections": load.connections,
        "streams": load.streams,
        "stalled": load.stalled,
        "services": data.services,
        "endpoints": data.endpoints,
        "descriptor": _DESCRIPTOR,
        "from": source,
    }
    if server.tls:
        flags["ca"] = certificate().file
    told = [f"--{name}={value}" for name, value in flags.items()]
    if server.tokens:
        told.append("--tokens")
    if load.lean:
        told += ["--lean", f"--open-timeout={PATIENCE_S - 10:g}s"]
    with running("vmsvc-load", [tool("vmsvc-load"), *told]) as process:
        yield process


def tool(name: str) -> Path:
    """A program that `make bench-tools` builds. Raises BenchError."""
    found = _TOOLS / name
    if not found.exists():
        raise BenchError(f"there is no {name}: build it with make bench-tools")
    return found
