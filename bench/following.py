"""What following costs a client: each client's library, beside a bare stream of the same gRPC."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench import dataset
from bench.dataset import DataSet
from bench.process import BenchError, Process, python, running
from bench.servers import OURS, Load, serving, tool
from bench.trial import Changes, Measured

_SERVICE = f"{dataset.NAMESPACE}/{dataset.service_name(0)}"
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Follower:
    """A client; `name` is what reports call it. `how` is for the program of its language."""

    name: str
    how: str
    go: bool = False


PYTHON_ASYNC = Follower("Python, async", "async")
PYTHON_SYNC = Follower("Python, sync: a thread a stream", "sync")
PYTHON_BARE = Follower("grpc.aio alone", "bare")
GO = Follower("Go", "library", go=True)
GO_BARE = Follower("grpc-go alone", "bare", go=True)

FOLLOWERS = (PYTHON_ASYNC, PYTHON_SYNC, PYTHON_BARE, GO, GO_BARE)


def followed(follower: Follower, load: Load, changes: Changes) -> Measured:
    """Have a client follow a service of 100 endpoints, and see what changes cost the client."""
    data = DataSet(1, 100)
    with serving(OURS, data) as (server, address), _following(follower, address, load) as client:
        _expect(client.answer(), "ready")
        idle_bytes = client.rss_bytes()
        _expect(client.ask("open"), "opened")
        _change(server, client, data, Changes(1, 1.0), made=0)
        opened_bytes = client.rss_bytes()
        before, cpu_s = _change(server, client, data, Changes(1, 1.0), made=1), client.cpu_s()
        after = _change(server, client, data, changes, made=2)
        cpu_s = client.cpu_s() - cpu_s
    received = after["received"] - before["received"]
    if not received:
        raise BenchError(f"{follower.name} has been told nothing")
    return {
        "client_cpu_us_a_state": cpu_s / received * 1e6,
        "client_rss_kib_a_stream": (opened_bytes - idle_bytes) / load.streams / 1024,
        "client_rss_mib": opened_bytes / 2**20,
        "received": received,
        "skipped": load.streams * changes.count - received,
        "behind": after["behind"],
    }


def _change(
    server: Process, client: Process, data: DataSet, changes: Changes, made: int
) -> dict[str, Any]:
    """Make changes, after as many, and wait until the client knows the last one."""
    server.ask("change", count=changes.count, rate=changes.per_s)
    [newest] = data.newest(made + changes.count)
    deadline = time.time() + _PATIENCE_S
    return client.ask("until", address=dataset.address(newest), deadline=deadline)


def _expect(answer: dict[str, Any], event: str) -> None:
    if answer.get("event") != event:
        raise BenchError(f"the client has said {answer}, and not {event}")


@contextmanager
def _following(follower: Follower, address: str, load: Load) -> Iterator[Process]:
    flags = [
        *(f"--how={follower.how}", f"--server={address}", f"--service={_SERVICE}"),
        *(f"--streams={load.streams}", f"--connections={load.connections}"),
    ]
    if not follower.go:
        with python("bench.follower", *flags) as process:
            yield process
        return
    with running(follower.name, [tool("vmsvc-follower"), *flags]) as process:
        yield process
