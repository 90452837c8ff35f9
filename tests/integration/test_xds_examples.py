"""Examples work: Envoy's, gRPC's, nginx's, and the sidecar's bootstrap."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grpc_health.v1 import health, health_pb2_grpc

from tests.integration.envoy import binary
from tests.integration.serving import serving
from tests.unit.objects import WEB, service, spec, vm
from tests.unit.server.endpoint_service.watching import listed
from tests.xds.clients import command
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.objects import ServicePort
from vmsvc_grpc.model.resolve import AddressRules

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SIDECAR = ROOT / "deploy" / "sidecar"
RUN_S = 120


# Those that the examples and `make serve` write out.
USUAL = ((1, 50051), (1, 8080), (1, 10000), (2, 9376), (3, 9376))


def tried(example: str, programs: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", EXAMPLES / example / "try.sh"],
        cwd=ROOT,
        env={**os.environ, "BIN": str(programs)},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )


@pytest.mark.parametrize("example", ["envoy", "grpc", "nginx"])
def test_an_example_balances_and_follows_whoever_has_the_usual_ports(example: str) -> None:
    with ExitStack() as held:
        for number, port in USUAL:
            with suppress(OSError):  # Somebody else has it: that will do.
                held.enter_context(socket.create_server((f"127.0.0.{number}", port)))
        done = tried(example, Path(sys.executable).parent)
    assert done.returncode == 0, done.stdout + done.stderr
    both = "answered by: vm-2 vm-3 "
    assert done.stdout.splitlines() == [
        both,
        "vm-3 is deleted",
        "answered by: vm-2 ",
        "vm-3 is created",
        both,
    ]


@pytest.mark.parametrize("example", ["envoy", "grpc", "nginx"])
def test_an_example_that_cannot_run_says_why(example: str, tmp_path: Path) -> None:
    programs = {
        "python": f'exec {sys.executable} "$@"',
        "envoy": f'exec {binary()} "$@"',
        "vmsvc": f'exec {Path(sys.executable).with_name("vmsvc")} "$@"',
        "vmsvc-grpc": "echo Address already in use; exit 1",
    }
    for name, does in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    done = tried(example, tmp_path)
    assert done.returncode == 1
    assert "a program has ended" in done.stderr
    assert "Address already in use" in done.stderr


def go_command(folder: Path) -> list[str]:
    built, module = folder / "client", Path(command("go")[0]).parent
    shutil.copytree(module, folder / "go", ignore=shutil.ignore_patterns("main.go", "client"))
    shutil.copy(EXAMPLES / "grpc" / "client.go", folder / "go")
    subprocess.run(["go", "build", "-o", built, "."], cwd=folder / "go", check=True, timeout=RUN_S)
    return [str(built)]


def java_command(folder: Path) -> list[str]:
    path = f"{Path(command('java')[-1]).parent / 'lib'}/*"
    source = EXAMPLES / "grpc" / "Client.java"
    subprocess.run(["javac", "-cp", path, "-d", folder, source], check=True, timeout=RUN_S)
    return ["java", "-cp", f"{path}:{folder}", "Client"]


def node_command(folder: Path) -> list[str]:
    (folder / "node_modules").symlink_to(Path(command("node")[-1]).parent / "node_modules")
    return ["node", str(shutil.copy(EXAMPLES / "grpc" / "client.js", folder))]


def python_command(_folder: Path) -> list[str]:
    return [sys.executable, str(EXAMPLES / "grpc" / "client.py")]


@pytest.mark.parametrize("made", [python_command, go_command, java_command, node_command])
async def test_the_grpc_example_asks_a_vm(made: Any, tmp_path: Path) -> None:
    machine = grpc.server(ThreadPoolExecutor(max_workers=1))
    servicer = health.HealthServicer()  # type: ignore[no-untyped-call] # has no types
    add_health(servicer, machine)
    port = machine.add_insecure_port("127.0.0.1:0")
    machine.start()
    cache = Cache(AddressRules(allow_loopback=True))
    ports = (ServicePort("grpc", "TCP", 80, port),)
    listed(cache, service(WEB, spec(ports=ports)), vm("a", "127.0.0.1"))
    async with serving(cache=cache) as running:
        written = (EXAMPLES / "grpc" / "bootstrap.conf").read_text()
        bootstrap = tmp_path / "bootstrap.conf"
        bootstrap.write_text(written.replace("127.0.0.1:50051", running.address))
        done = await asyncio.to_thread(
            subprocess.run,
            await asyncio.to_thread(made, tmp_path),
            env={**os.environ, "GRPC_XDS_BOOTSTRAP": str(bootstrap)},
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )
    machine.stop(None).wait()
    assert "SERVING" in done.stdout, done.stderr


def add_health(servicer: Any, server: grpc.Server) -> None:
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)  # type: ignore[no-untyped-call] # has no types


def test_the_sidecars_bootstrap_is_valid(tmp_path: Path) -> None:
    config_map = yaml.safe_load((SIDECAR / "config-map.yaml").read_text())
    pod = yaml.safe_load((SIDECAR / "pod.yaml").read_text())
    (path,) = (arg for arg in pod["spec"]["containers"][1]["args"] if arg.startswith("/etc"))
    written = config_map["data"][path.rpartition("/")[2]]
    for name, text in config_map["data"].items():
        (tmp_path / name).write_text(text.replace("/etc/vmsvc/", f"{tmp_path}/"))
    done = subprocess.run(
        [binary(), "--mode", "validate", "-c", tmp_path / "envoy.yaml", "--service-node", "n"],
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    headless = yaml.safe_load((ROOT / "deploy" / "base" / "headless.service.yaml").read_text())
    meta = headless["metadata"]
    assert f"{meta['name']}.{meta['namespace']}.svc" in written


def test_the_bootstrap_of_grpc_is_json() -> None:
    assert json.loads((EXAMPLES / "grpc" / "bootstrap.conf").read_text())["node"]["id"]
