"""The servers under test, and the load client: how each is started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.dataset import DataSet
from bench.process import BenchError, Process, python, running

_TOOLS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vmsvc-grpc" / "bin"
_DESCRIPTOR = Path(__file__).parents[1] / "clients/python/vmsvc/v1/descriptor_set.binpb"

_START_S = 120.0


@dataclass(frozen=True, slots=True)
class Server:
    """A server and the API by which it is asked; `name` is what reports call it.

    `program` is a module of ours, or a binary that `make bench-tools` builds.
    """

    name: str
    program: str
    api: str = "vmsvc"


OURS = Server("vmsvc-grpc", "bench.subject")
OURS_HTTP2 = Server("vmsvc-grpc on libnghttp2", "bench.subject_http2")
BARE = Server("bare grpc.aio", "bench.bare")
GRPC_GO = Server("grpc-go", "vmsvc-broadcast")
OURS_DELTA = Server("vmsvc-grpc, xDS delta", "bench.subject", "xds-delta")
OURS_SOTW = Server("vmsvc-grpc, xDS SotW", "bench.subject", "xds-sotw")
OURS_HTTP2_DELTA = Server("vmsvc-grpc on libnghttp2, xDS delta", "bench.subject_http2", "xds-delta")
BARE_DELTA = Server("bare grpc.aio, xDS delta", "bench.bare_xds", "xds-delta")
CONTROL_PLANE_DELTA = Server("go-control-plane, delta", "vmsvc-controlplane", "xds-delta")
CONTROL_PLANE_SOTW = Server("go-control-plane, SotW", "vmsvc-controlplane", "xds-sotw")


@dataclass(frozen=True, slots=True)
class Load:
    """How many streams on how many connections; the first `stalled` of them stop reading."""

    streams: int
    connections: int
    stalled: int = 0


@contextmanager
def serving(server: Server, data: DataSet) -> Iterator[tuple[Process, str]]:
    """A server under test that serves `data`, and its address."""
    flags = [f"--services={data.services}", f"--endpoints={data.endpoints}"]
    flags.append("--listen=127.0.0.1:0")
    started = (
        python(server.program, *flags)
        if server.program.startswith("bench.")
        else running(server.name, [_tool(server.program), *flags])
    )
    with started as process:
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
    told = [f"--{name}={value}" for name, value in flags.items()]
    with running("vmsvc-load", [_tool("vmsvc-load"), *told]) as process:
        yield process


def _tool(name: str) -> Path:
    tool = _TOOLS / name
    if not tool.exists():
        raise BenchError(f"there is no {name}: build it with make bench-tools")
    return tool
