"""The whole program as a process: how it starts, what it says, how it stops."""

from __future__ import annotations

import asyncio
import gzip
import os
import queue
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest
from envoy.service.endpoint.v3 import eds_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.integration.raw_http2 import PING, PREFACE, SETTINGS, RawClient, frame, message
from tests.program import PATIENCE_S, Program, awaited, serving
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc.v1 import endpoint_service_pb2_grpc as pb_grpc

SERVICE = """\
apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachineService
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""
VM = """\
apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachine
metadata: {name: web-1, namespace: shop, labels: {app: web}}
status: {network: {primaryIP4: 10.0.0.1}}
"""
STREAMS = 100
Watching = grpc.aio.UnaryStreamCall[pb.WatchEndpointsRequest, pb.WatchEndpointsResponse]
DRAIN_S = 1.0


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    directory = tmp_path / "manifests"
    directory.mkdir()
    (directory / "web.yaml").write_text(f"{SERVICE}---\n{VM}")
    return directory


@pytest.fixture
def program(manifests: Path, tmp_path: Path) -> Iterator[Program]:
    arguments: list[str | Path] = ["--manifests", manifests, "--drain-s", str(DRAIN_S)]
    with serving(arguments, tmp_path / "log") as running:
        yield running


def http(program: Program, path: str) -> tuple[int, str]:
    """Status and body of an answer of the HTTP port."""
    try:
        with urllib.request.urlopen(f"http://{program.http}{path}") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_it_says_what_it_serves_and_how_to_ask(program: Program) -> None:
    assert awaited(lambda: "vmsvc --server" in program.said())
    said = program.said()
    assert "serving 1 services and 1 virtual machines" in said
    assert 'grpcurl -plaintext -d \'{"service":"shop/web"}\'' in said
    assert http(program, "/readyz") == (200, "ok\n")
    page = http(program, "/metrics")[1]
    assert "vmsvc_synced 1.0" in page
    assert 'vmsvc_loop_lag_seconds_bucket{le="0.02"}' in page


def test_the_command_that_it_names_works_where_it_runs(program: Program) -> None:
    """`make serve` named a `vmsvc` that no shell found: it is in .venv."""
    assert awaited(lambda: "watch shop/web" in program.said())
    line = next(line for line in program.said().splitlines() if line.endswith(" watch shop/web"))
    ran = subprocess.run(
        ["/bin/sh", "-c", f"{line} --until-ready 1 -o json"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert '"service": "shop/web"' in ran.stdout


@pytest.mark.parametrize(("scope", "shown"), [("all", 2), ("namespace", 1)])
def test_xds_has_a_scope_and_is_counted(
    manifests: Path, tmp_path: Path, scope: str, shown: int
) -> None:
    (manifests / "lab.yaml").write_text(SERVICE.replace("shop", "lab"))
    arguments = ["--manifests", str(manifests), "--drain-s", "0", "--xds-scope", scope]
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with (
        serving(arguments, tmp_path / "log") as program,
        grpc.insecure_channel(program.grpc) as channel,
    ):
        call = eds_pb2_grpc.EndpointDiscoveryServiceStub(channel).StreamEndpoints(
            iter(requests.get, None)
        )
        requests.put(DiscoveryRequest(node={"id": "n", "metadata": {"namespace": "lab"}}))
        response = next(call)
        assert len(response.resources) == shown
        words = {"message": "no such zone"}
        requests.put(DiscoveryRequest(response_nonce=response.nonce, error_detail=words))
        kind = '{type="ClusterLoadAssignment"}'
        assert awaited(lambda: program.metric(f"vmsvc_xds_nacks_total{kind}")) == 1
        assert program.metric(f"vmsvc_xds_acks_total{kind}") == 0
        assert program.metric(f"vmsvc_xds_encodings_total{kind}") == shown
        assert program.metric(f"vmsvc_xds_resources_sent_total{kind}") == shown
        assert program.metric(f"vmsvc_xds_resources_skipped_total{kind}") == 0
        method = (
            'grpc_method="StreamEndpoints",'
            'grpc_service="envoy.service.endpoint.v3.EndpointDiscoveryService",'
            'grpc_type="bidi_stream"'
        )
        assert program.metric(f"vmsvc_streams_open{{{method}}}") == 1
        assert program.metric(f"grpc_server_started_total{{{method}}}") == 1
        # Of what it refuses, we keep the names.
        assert program.metric("vmsvc_names_followed") == shown
        assert "xDS: node 'n' refuses ClusterLoadAssignment" in program.said()
        assert "'no such zone'" in program.said()
        requests.put(None)
        call.cancel()


def test_probes_are_answered_while_clients_use_up_the_connections(
    manifests: Path, tmp_path: Path
) -> None:
    few = ("prlimit", "--nofile=128:128")
    with serving(["--manifests", manifests], tmp_path / "log", within=few) as running:
        host, _, port = running.grpc.rpartition(":")
        end = host, int(port)
        # Eight clients, as one may have a quarter.
        sources = [(f"127.0.0.{2 + number % 8}", 0) for number in range(300)]
        greedy = [socket.create_connection(end, source_address=source) for source in sources]
        try:
            assert sum(map(_answers, greedy)) == 64, "half of the files are left to others"
            assert http(running, "/livez") == (200, "ok\n")
            assert http(running, "/readyz") == (200, "ok\n")
        finally:
            for client in greedy:
                client.close()


def _answers(client: socket.socket) -> bool:
    """Whether a connection goes on, and its ping is answered."""
    content = b"whatever"
    ping = frame(PING, 0, 0, content)
    came = b""
    client.settimeout(PATIENCE_S)
    with suppress(ConnectionError):
        client.sendall(PREFACE + frame(SETTINGS, 0, 0) + ping)
        while content not in came and (part := client.recv(4_096)):
            came += part
    return content in came


async def _compressed(address: str) -> None:
    client = await RawClient.connect(address)
    await client.settle()
    for headers in ([("grpc-encoding", "gzip")], [("grpc-timeout", b"\xff")], [("x", b"\xff")]):
        stream = client.open("/grpc.health.v1.Health/Watch", headers)
        await client.send(stream, message(gzip.compress(b""), compressed=True))
        assert await client.status(stream) != 0
    await client.close()


def test_bad_calls_write_no_lines_into_the_log(program: Program) -> None:
    said = program.said()
    asyncio.run(_compressed(program.grpc))
    assert program.said() == said


async def _drained(program: Program) -> tuple[list[grpc.StatusCode], list[float], float]:
    """Open streams, send SIGTERM; how each ended, when, and when health went down."""
    async with grpc.aio.insecure_channel(program.grpc) as channel:
        stub = pb_grpc.EndpointServiceStub(channel)
        health = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call] # has no types
        request = pb.WatchEndpointsRequest(services=[pb.WatchedService(service="shop/web")])
        streams = [stub.WatchEndpoints(request) for _ in range(STREAMS)]
        for stream in streams:
            for expected in ("snapshot", "synced"):
                message = await stream.read()
                assert isinstance(message, pb.WatchEndpointsResponse)
                assert message.WhichOneof("event") == expected
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        began = time.monotonic()
        program.process.send_signal(signal.SIGTERM)

        async def ended(stream: Watching) -> tuple[grpc.StatusCode, float]:
            code = await stream.code()
            return code, time.monotonic() - began

        async def unhealthy() -> float:
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            return time.monotonic() - began

        down, *results = await asyncio.gather(unhealthy(), *map(ended, streams))
        assert isinstance(down, float)
        codes = [result[0] for result in results if isinstance(result, tuple)]
        times = [result[1] for result in results if isinstance(result, tuple)]
        return codes, times, down


def test_sigterm_takes_health_down_and_ends_streams_spread_over_the_drain_time(
    program: Program,
) -> None:
    codes, times, unhealthy_after = asyncio.run(_drained(program))
    assert codes == [grpc.StatusCode.UNAVAILABLE] * STREAMS
    assert program.process.wait(PATIENCE_S) == 0
    assert unhealthy_after <= min(times)
    # A slope and not a wall: no tenth of the time ends half of the streams.
    times.sort()
    assert times[STREAMS // 2] - times[0] > DRAIN_S / 10
    assert f"draining: {STREAMS + 1} streams" in program.said()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_it_drains_at_every_signal_that_ends_programs(
    program: Program, number: signal.Signals
) -> None:
    program.process.send_signal(number)
    assert program.process.wait(PATIENCE_S) == 0
    assert "draining: 0 streams" in program.said()
    assert "Traceback" not in program.said()


def test_under_nohup_a_hangup_ends_nothing(manifests: Path, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with serving(["--manifests", manifests], tmp_path / "log") as program:
            program.process.send_signal(signal.SIGHUP)
            assert http(program, "/livez")[0] == 200
            assert program.process.poll() is None
            assert "SIGHUP" not in program.said()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_ends_it_at_once(manifests: Path, tmp_path: Path) -> None:
    arguments: list[str | Path] = ["--manifests", manifests, "--drain-s", "600"]
    with (
        serving(arguments, tmp_path / "log") as program,
        grpc.insecure_channel(program.grpc) as channel,
    ):
        request = pb.WatchEndpointsRequest(all_services=True)
        stream = pb_grpc.EndpointServiceStub(channel).WatchEndpoints(request)
        next(stream)
        program.process.send_signal(signal.SIGTERM)
        assert awaited(lambda: "draining: 1 streams" in program.said())
        assert http(program, "/readyz") == (503, "draining\n")
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(PATIENCE_S) == 0
        stream.cancel()


def test_it_serves_on_where_nobody_reads_its_output(manifests: Path, tmp_path: Path) -> None:
    """As in `vmsvc-grpc serve 2>&1 | head -1`: it ended."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "vmsvc_grpc", "serve", "--manifests", str(manifests)]
    command += ["--listen", "127.0.0.1:0", "--http-listen", address]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=writer)
    os.close(writer)
    try:
        assert awaited(lambda: process.poll() is not None or _ready(address))
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        assert log.read_text() == ""
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("closed", ["<&- >&-", "<&- >&- 2>&-"])
def test_it_drains_where_its_output_is_closed(closed: str, manifests: Path, tmp_path: Path) -> None:
    """libuv ends a process that is to close descriptor 1, which a socket of ours had then."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["sh", "-c", f'exec "$0" "$@" {closed}', sys.executable, "-m", "vmsvc_grpc"]
    command += ["serve", "--manifests", str(manifests), "--listen", "127.0.0.1:0"]
    log = tmp_path / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen([*command, "--http-listen", address], stderr=errors)
    try:
        assert awaited(lambda: process.poll() is not None or _ready(address))
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        assert "Exception" not in log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        pytest.param("/dev/full", "No space left on device", id="a full disk"),
        pytest.param("&-", "Bad file descriptor", id="closed"),
    ],
)
def test_a_rendering_that_cannot_be_written_is_one_line(
    output: str, reason: str, manifests: Path
) -> None:
    command = ["sh", "-c", f'exec "$0" "$@" >{output}', sys.executable, "-m", "vmsvc_grpc"]
    ran = subprocess.run(
        [*command, "render", manifests],
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr == f"vmsvc-grpc render: standard output cannot be written: {reason}\n"


@pytest.mark.parametrize("files", [8, 10, 12, 14, 16, 18, 20, 22, 24])
def test_too_few_files_are_one_line(files: int, manifests: Path) -> None:
    """They were told as a fault of standard output, aborted, or left a traceback."""
    command = ["sh", "-c", f'ulimit -n {files}; exec "$0" "$@"', sys.executable, "-m", "vmsvc_grpc"]
    command += ["serve", "--manifests", str(manifests), "--log-level", "error"]
    ran = subprocess.run(
        [*command, "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    [line] = ran.stderr.splitlines()
    assert "files can be opened: Too many open files; raise the limit (ulimit -n)" in line


def _ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/readyz", timeout=PATIENCE_S) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vmsvc_grpc", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_an_address_in_use_is_one_line_and_exit_1(manifests: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        common = ("serve", "--manifests", manifests)
        grpc_taken = run(*common, "--listen", address, "--http-listen", "127.0.0.1:0")
        http_taken = run(*common, "--listen", "127.0.0.1:0", "--http-listen", address)
    for ended in (grpc_taken, http_taken):
        assert ended.returncode == 1
        assert f"cannot listen on {address}" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_an_output_that_cannot_be_made_is_one_line_and_exit_1(
    manifests: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    ended = run(
        *("serve", "--manifests", manifests, "--output", tmp_path / "file" / "out"),
        *("--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"),
    )
    assert ended.returncode == 1
    assert str(tmp_path / "file" / "out") in ended.stderr
    assert "Traceback" not in ended.stderr


def test_manifests_that_are_broken_at_the_start_are_said_and_the_rest_is_served(
    manifests: Path, tmp_path: Path
) -> None:
    """linkerd2 #14176: one invalid object broke all responses."""
    (manifests / "broken.yaml").write_text("kind: [")
    (manifests / "vm.yaml").write_text(VM.replace("web-1", "web-2").replace("10.0.0.1", "10"))
    with serving(["--manifests", manifests], tmp_path / "log") as program:
        with grpc.insecure_channel(program.grpc) as channel:
            stub = pb_grpc.EndpointServiceStub(channel)
            answer = stub.ResolveEndpoints(pb.ResolveEndpointsRequest(service="shop/web"))
        assert len(answer.endpoint_set.endpoints) == 1
        assert "broken.yaml" in program.said()
        assert "VirtualMachine shop/web-2: status.network.primaryIP4: must be text, not 10" in (
            program.said()
        )


def test_a_service_is_not_given_what_is_denied(manifests: Path, tmp_path: Path) -> None:
    marks = "{example.com/a: x, team: shop}"
    marked = SERVICE.replace("namespace: shop}", f"namespace: shop, labels: {marks}}}").replace(
        "labels:", f"annotations: {marks}, labels:"
    )
    (manifests / "web.yaml").write_text(marked)
    held = tmp_path / "out" / "shop" / "web.service.yaml"
    denied = ["--deny-labels=team", "--deny-labels", "x", "--deny-annotations", "example.com/*"]
    arguments: list[str | Path] = ["--manifests", manifests, "--output", tmp_path / "out", *denied]
    with serving(arguments, tmp_path / "log"):
        awaited(held.exists)
        metadata = yaml.safe_load(held.read_text())["metadata"]
    assert metadata["labels"] == {"example.com/a": "x"}
    assert {"team": "shop"}.items() <= metadata["annotations"].items()
    assert "example.com/a" not in metadata["annotations"]
