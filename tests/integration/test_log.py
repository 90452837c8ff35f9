"""The log of the whole program: one stream, and in JSON nothing but events."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

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
REFUSED = SERVICE.replace("name: web", "name: old").replace("spec: {", "spec: {type: NodePort, ")

# What writes to standard error past our log calls, each in its own way; then the program fails.
FAULTY = """\
import asyncio, logging, os, sys, threading, warnings
from vmsvc_grpc.logs import stream

stream.begin(sys.argv[1], "INFO")

class Stubborn:
    def __del__(self):
        raise ValueError("nobody\\ncatches this")

async def never_asked():
    async def fail():
        raise ValueError("in a task")
    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    del task

def fail():
    raise ValueError("in a thread")

print("printed", file=sys.stderr)
os.write(2, b"written by C\\nand more \\x1b[2J\\xff")
sys.stderr.flush()
warnings.warn("a warning")
Stubborn()
asyncio.run(never_asked())
thread = threading.Thread(target=fail)
thread.start()
thread.join()
logging.getLogger("of.a.library").warning("%d apples", "five")
raise RuntimeError("at the end\\n2026-11-27T10:00:00.000Z INFO vmsvc_grpc: forged")
"""


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    directory = tmp_path / "manifests"
    directory.mkdir()
    (directory / "all.yaml").write_text(f"{SERVICE}---\n{VM}---\n{REFUSED}")
    return directory


def events(text: str) -> list[dict[str, Any]]:
    """The events of a log. Each line of it is one."""
    found = [json.loads(line) for line in text.splitlines()]
    for event in found:
        assert list(event)[:4] == ["time", "level", "logger", "message"]
        assert event["level"] in ("debug", "info", "warning", "error")
    return found


def having(found: Sequence[Mapping[str, Any]], reason: str) -> list[Mapping[str, Any]]:
    return [event for event in found if event.get("reason") == reason]


def ended(
    *arguments: str | Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What `vmsvc-grpc serve` says that ends by itself."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("VMSVC_")}
    return subprocess.run(
        [sys.executable, "-m", "vmsvc_grpc", "serve", *arguments],
        env={**mine, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def resolve(program: Program) -> None:
    with grpc.insecure_channel(program.grpc) as channel:
        stub = pb_grpc.EndpointServiceStub(channel)
        stub.ResolveEndpoints(pb.ResolveEndpointsRequest(service="shop/web"))


def test_in_json_every_line_is_an_event(
    manifests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    arguments: list[str | Path] = ["--log-format", "json", "--manifests", manifests]
    with serving(arguments, log) as program:
        resolve(program)
        (manifests / "broken.yaml").write_text("a: [")
        assert awaited(lambda: "broken.yaml" in program.said())
    found = events(log.read_text())
    [listening] = having(found, "Listening")
    assert (listening["grpc"], listening["http"]) == ([program.grpc], program.http)
    [serves] = having(found, "Serving")
    assert (serves["services"], serves["refused"], serves["virtual_machines"]) == (1, 1, 1)
    [refused] = having(found, "Refused")
    assert refused["level"] == "warning"
    assert refused["object"] == {
        "kind": "VirtualMachineService",
        "namespace": "shop",
        "name": "old",
    }
    assert refused["error"].startswith("spec.type: ")
    [problem] = having(found, "FileProblem")
    assert problem["file"] == str(manifests / "broken.yaml")
    assert having(found, "Draining")
    assert not having(found, "Published")
    assert not [event for event in found if "open files" in event["message"]]


def test_standard_output_stays_empty(manifests: Path, tmp_path: Path) -> None:
    """All is one stream, so that its order is that of what happened."""
    command = [sys.executable, "-m", "vmsvc_grpc", "serve", "--manifests", str(manifests)]
    command += ["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
    out, log = tmp_path / "out", tmp_path / "log"
    with out.open("wb") as output, log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors)
    try:
        assert awaited(lambda: "\nserving 1 services" in log.read_text())
    finally:
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    assert out.read_text() == ""
    first, *_ = log.read_text().splitlines()
    assert first.startswith("vmsvc-grpc ")


@pytest.mark.parametrize("form", ["json", "text"])
def test_debug_adds_each_publication_and_each_write(
    form: str, manifests: Path, tmp_path: Path
) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    flags = ["--log-level", "debug", "--log-format", form]
    with serving([*flags, "--manifests", manifests, "--output", out], log) as program:
        resolve(program)
        assert awaited(lambda: "wrote: create Endpoints shop/web" in program.said())
    said = log.read_text()
    assert "published shop/web (READY_ONLY), version " in said
    if form == "json":
        found = events(said)
        assert {event["level"] for event in having(found, "Wrote")} == {"debug"}
        written = having(found, "Wrote")
        assert [event["object"]["kind"] for event in written] == ["Service", "Endpoints"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        pytest.param(["--context=none"], 2, "kubeconfig", id="no API server"),
        pytest.param(["--manifests=/none"], 2, "is not a directory", id="a wrong setting"),
        pytest.param(["--listen=192.0.2.1:1", "--insecure"], 1, "cannot listen", id="an address"),
    ],
)
def test_in_a_pod_what_hinders_its_start_is_an_event(
    arguments: list[str], code: int, says: str, manifests: Path
) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": "192.0.2.1", "KUBERNETES_SERVICE_PORT": "443"}
    if code == 1:
        arguments = ["--manifests", str(manifests), "--http-listen=127.0.0.1:0", *arguments]
    done = ended(*arguments, environment=environment)
    assert (done.returncode, done.stdout) == (code, "")
    *_, last = events(done.stderr)
    assert last["level"] == "error"
    assert says in last["message"]


def test_a_variable_of_the_client_is_an_event_too(manifests: Path) -> None:
    done = ended(
        "--listen=192.0.2.1:1",
        environment={"VMSVC_GRPC_LOG_FORMAT": "json", "VMSVC_MANIFESTS": str(manifests)},
    )
    assert done.returncode == 2
    assert any("VMSVC_MANIFESTS is not read here" in e["message"] for e in events(done.stderr))


def test_lines_of_grpcs_core_are_events(
    manifests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is C++, and knows nothing of Python's streams."""
    monkeypatch.setenv("GRPC_VERBOSITY", "DEBUG")
    monkeypatch.setenv("GRPC_TRACE", "http")
    log = tmp_path / "log"
    arguments: list[str | Path] = ["--log-format=json", "--transport=grpcio"]
    with serving([*arguments, "--manifests", manifests], log) as program:
        resolve(program)
    found = events(log.read_text())
    assert any(event["logger"] == "stderr" for event in found)


def failing(form: str) -> str:
    command = [sys.executable, "-W", "always", "-c", FAULTY, form]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    return done.stderr.decode(errors="replace")


def test_in_json_faults_that_nobody_catches_are_events() -> None:
    found = events(failing("json"))
    raw = [event["message"] for event in found if event["logger"] == "stderr"]
    assert raw == ["printed", "written by C", r"and more \x1b[2J\xff"]
    assert any(event["logger"] == "py.warnings" for event in found)
    errors = [event["error"] for event in found if "error" in event]
    assert errors[:-1] == [
        r"ValueError: nobody\ncatches this",
        "ValueError: in a task",
        "ValueError: in a thread",
    ]
    assert errors[-1].startswith(r"RuntimeError: at the end\n2026-")
    assert any(event["message"] == "%d apples ('five',)" for event in found)
    last = next(event for event in found if "RuntimeError" in event.get("error", ""))
    assert (last["level"], last["message"]) == ("error", "a fault of ours ends the process")
    assert last["traceback"][0] == "Traceback (most recent call last):"


def test_in_text_no_line_of_a_fault_looks_like_a_record() -> None:
    lines = failing("text").splitlines()
    assert "    RuntimeError: at the end" in lines
    assert "    2026-11-27T10:00:00.000Z INFO vmsvc_grpc: forged" in lines
