"""The benchmark's client and peers, in Go: what they tell is true, small as each run is here.

Nothing is asserted of time. Where every change must be told, the next is made only after it
was; where some must be skipped, more are made than a reader that stalls can be sent.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from bench import servers
from bench.dataset import DataSet, service_json, vm_json
from bench.process import Process, running
from bench.servers import Load, Server
from tests.program import PATIENCE_S, serving

pytestmark = pytest.mark.nightly

_ROOT = Path(__file__).parents[2]
_GO = _ROOT / "bench" / "go"
_BUILD_S = 900

# Streams divide evenly neither among services nor among connections.
_DATA = DataSet(services=3, endpoints=4)
_LOAD = Load(streams=10, connections=3)
_ROUNDS = 4

# A reader that stalls is sent the 16 MiB that grpc-go's client grows its window to, at most, and
# every message here has more than 150 bytes.
_MORE_THAN_IN_FLIGHT = 120_000

OURS = [
    Server("vmsvc-grpc", "vmsvc-grpc", "vmsvc"),
    Server("vmsvc-grpc", "vmsvc-grpc", "xds-delta"),
    Server("vmsvc-grpc", "vmsvc-grpc", "xds-sotw"),
]
PEERS = [servers.GRPC_GO, servers.CONTROL_PLANE_DELTA, servers.CONTROL_PLANE_SOTW]


def _id(server: Server) -> str:
    return f"{server.program} by {server.api}"


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    """What `make bench-tools` builds, where `bench` looks for it."""
    _run("make", "bench-tools", folder=_ROOT)


def _run(*command: str, folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=_BUILD_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("folder", [_GO, _ROOT / "bench" / "kube"], ids=lambda folder: folder.name)
def test_the_go_code_is_formatted_and_vetted(folder: Path) -> None:
    assert _run("gofmt", "-l", ".", folder=folder) == ""
    _run("go", "vet", "./...", folder=folder)


def test_the_go_code_passes_its_own_tests() -> None:
    _run("go", "test", "./...", folder=_GO)


class _Subject(Protocol):
    """A server with the data set, wherever it comes from."""

    address: str

    def change(self, count: int) -> list[int]:
        """Make the next changes; when each was made, in Unix nanoseconds."""


class _Peer:
    """A server that obeys commands, as `bench` starts it."""

    def __init__(self, process: Process, address: str) -> None:
        self.address = address
        self._process = process

    def change(self, count: int) -> list[int]:
        times: list[int] = self._process.ask("change", count=count, rate=0)["applied_ns"]
        return times


class _Program:
    """The real program, which follows a directory of manifests."""

    def __init__(self, address: str, data: DataSet, manifests: Path) -> None:
        self.address = address
        self._data = data
        self._manifests = manifests
        self._next = data.first_seq

    def change(self, count: int) -> list[int]:
        times = []
        for _ in range(count):
            times.append(time.time_ns())
            _write_vm(self._manifests, self._data, self._next)
            self._next += 1
        return times


@contextmanager
def _subject(server: Server, data: DataSet, folder: Path) -> Iterator[_Subject]:
    if server.program != "vmsvc-grpc":
        with servers.serving(server, data) as (process, address):
            yield _Peer(process, address)
        return
    manifests = folder / "manifests"
    manifests.mkdir()
    for service in range(data.services):
        (manifests / f"s{service}.json").write_bytes(service_json(service))
    for seq in data.initial():
        _write_vm(manifests, data, seq)
    with serving(["--manifests", str(manifests)], folder / "log") as program:
        yield _Program(program.grpc, data, manifests)


def _write_vm(manifests: Path, data: DataSet, seq: int) -> None:
    """Rename a VM's manifest into place, so that it is taken as it is."""
    service, endpoint = data.place(seq)
    written = manifests / ".written"
    written.write_bytes(vm_json(service, endpoint, seq))
    written.rename(manifests / f"s{service}-vm{endpoint}.json")


class _Client:
    """The load client, and what it should know by now."""

    def __init__(self, process: Process, data: DataSet) -> None:
        self.process = process
        self._data = data
        self._made: list[int] = []

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        return self.process.ask(do, **arguments)

    def told(self, made: list[int]) -> None:
        """Changes were made: wait until every stream that reads knows them."""
        self._made += made
        newest = self._data.newest(len(self._made))
        settled = self.ask("settle", last_seq=newest, timeout_s=PATIENCE_S)
        assert settled["behind"] == 0

    def report(self) -> dict[str, Any]:
        """What it says of all changes since the beginning, of which nothing is wrong."""
        report = self.ask("report", first_seq=self._data.first_seq, applied_ns=self._made)
        wrong = ("out_of_order", "lost", "wrong_state")
        assert [report[name] for name in wrong] == [0, 0, 0]
        assert report["ended"] == {}
        return report


@contextmanager
def _client(server: Server, address: str, data: DataSet, load: Load) -> Iterator[_Client]:
    with servers.loading(server, address, data, load) as process:
        yield _Client(process, data)


def _pairs(data: DataSet, load: Load, changes: int) -> int:
    """How many pairs there are of a stream and a change of its service."""
    rounds, more = divmod(changes, data.services)
    return sum(rounds + (n % data.services < more) for n in range(load.streams))


@pytest.mark.parametrize("server", [*OURS, *PEERS], ids=_id)
def test_every_stream_is_told_each_change(server: Server, tmp_path: Path) -> None:
    changes = _ROUNDS * _DATA.services
    with (
        _subject(server, _DATA, tmp_path) as subject,
        _client(server, subject.address, _DATA, _LOAD) as client,
    ):
        opened = client.ask("open")
        assert (opened["failures"], opened["retries"], opened["errors"]) == (0, 0, {})
        assert opened["messages"] >= _LOAD.streams
        client.ask("mark")
        for _ in range(changes):
            client.told(subject.change(1))
        report = client.report()
    assert report["deliveries"] == _pairs(_DATA, _LOAD, changes)
    assert report["skipped"] == 0
    assert report["messages"] == report["deliveries"]
    assert report["delivery_ms"] == report["lag_ms"]
    assert report["last_stream_ms"]["max"] == report["delivery_ms"]["max"] > 0


@pytest.mark.parametrize("server", [*OURS, *PEERS], ids=_id)
def test_a_reader_that_stalled_ends_on_the_newest_state(server: Server, tmp_path: Path) -> None:
    changes = _ROUNDS * _DATA.services
    load = Load(streams=10, connections=3, stalled=4)
    with (
        _subject(server, _DATA, tmp_path) as subject,
        _client(server, subject.address, _DATA, load) as client,
    ):
        client.ask("open")
        client.ask("mark")
        for _ in range(changes):
            client.told(subject.change(1))
        reading = client.report()
        client.ask("resume")
        client.told([])
        report = client.report()
    pairs = _pairs(_DATA, load, changes)
    assert reading["deliveries"] == pairs - _pairs(_DATA, Load(load.stalled, 1), changes)
    assert reading["skipped"] == 0
    assert report["deliveries"] + report["skipped"] == pairs


@pytest.mark.parametrize("server", PEERS, ids=_id)
def test_changes_that_outrun_a_reader_are_counted_as_skipped(
    server: Server, tmp_path: Path
) -> None:
    data, load = DataSet(services=1, endpoints=4), Load(streams=2, connections=2, stalled=1)
    with (
        _subject(server, data, tmp_path) as subject,
        _client(server, subject.address, data, load) as client,
    ):
        client.ask("open")
        client.ask("mark")
        client.told(subject.change(_MORE_THAN_IN_FLIGHT))
        client.ask("resume")
        client.told([])
        report = client.report()
    assert report["skipped"] > 0
    assert report["deliveries"] + report["skipped"] == 2 * _MORE_THAN_IN_FLIGHT
    assert report["lag_ms"]["max"] > report["delivery_ms"]["p50"]


@pytest.mark.parametrize("server", [OURS[0], PEERS[0]], ids=_id)
def test_who_holds_a_true_revision_is_told_next_to_nothing(server: Server, tmp_path: Path) -> None:
    data, load = DataSet(services=3, endpoints=50), Load(streams=10, connections=5, stalled=1)
    with (
        _subject(server, data, tmp_path) as subject,
        _client(server, subject.address, data, load) as client,
    ):
        client.ask("open")
        anew = client.ask("reopen", revision=False)
        held = client.ask("reopen", revision=True)
        # Now the stream that stalls holds what is not true any more.
        client.told(subject.change(data.services))
        stale = client.ask("reopen", revision=True)
        client.ask("resume")
        client.told(subject.change(data.services))
        client.report()
    for opened in (anew, held, stale):
        assert (opened["failures"], opened["retries"]) == (0, 0)
        assert opened["messages"] == 2 * load.streams
    one_snapshot = anew["bytes"] / load.streams
    assert held["bytes"] * 5 < anew["bytes"]
    assert one_snapshot < stale["bytes"] < 2 * one_snapshot


def test_streams_that_end_are_behind_and_say_why(tmp_path: Path) -> None:
    with ExitStack() as stack:
        with _subject(servers.GRPC_GO, _DATA, tmp_path) as subject:
            client = stack.enter_context(_client(servers.GRPC_GO, subject.address, _DATA, _LOAD))
            client.ask("open")
        never_made = _DATA.newest(_DATA.services)
        settled = client.ask("settle", last_seq=never_made, timeout_s=PATIENCE_S)
        report = client.ask("report", first_seq=_DATA.first_seq, applied_ns=[])
    assert settled["behind"] == _LOAD.streams
    assert sum(report["ended"].values()) == _LOAD.streams
    assert all(why.startswith("Unavailable: ") for why in report["ended"])


def test_streams_that_cannot_open_fail_and_say_why() -> None:
    with _nobody() as address:
        flags = ["--target", address, "--streams=10", "--connections=3", "--open-timeout=1s"]
        with running("vmsvc-load", [servers.tool("vmsvc-load"), *flags]) as client:
            opened = client.ask("open")
    assert opened["failures"] == 10
    assert opened["p50_ms"] is None
    assert opened["retries"] == sum(opened["errors"].values()) >= 10
    assert all(why.startswith("Unavailable: ") for why in opened["errors"])


@contextmanager
def _nobody() -> Iterator[str]:
    """An address at which nobody listens, kept free of others."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def test_a_command_that_is_not_known_ends_it_with_one_line() -> None:
    command: list[str | Path] = [servers.tool("vmsvc-load"), "--target=127.0.0.1:1"]
    done = subprocess.run(
        command, input='{"do": "dance"}\n', capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.endswith('command "dance": not known\n')
    assert done.stderr.count("\n") == 1
