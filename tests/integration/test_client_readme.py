"""The client's README: each example is run as it stands, and prints what stands below it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vmsvc
from tests.program import Program, serving

ROOT = Path(__file__).parents[2]
README = (ROOT / "clients" / "python" / "README.md").read_text()
DEFAULT = "127.0.0.1:50051"

PROGRAMS = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"```console\n\$ vmsvc (.*?)\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    arguments: list[str | Path] = ["--manifests", ROOT / "examples", "--drain-s", "0.2"]
    with serving(arguments, tmp_path_factory.mktemp("log") / "log") as program:
        yield program


def test_every_example_has_its_output() -> None:
    assert len(PROGRAMS) == README.count("```python")
    assert len(COMMANDS) == README.count("```console")


@pytest.mark.parametrize(("source", "expected"), PROGRAMS)
def test_program(server: Program, source: str, expected: str) -> None:
    assert DEFAULT in source
    with subprocess.Popen(
        [sys.executable, "-u", "-c", source.replace(DEFAULT, server.grpc)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        # A watch does not end by itself.
        lines = [process.stdout.readline() for _ in expected.splitlines()]
        process.terminate()
    assert "".join(lines) == expected


@pytest.mark.parametrize(("arguments", "expected"), COMMANDS)
def test_command(server: Program, arguments: str, expected: str) -> None:
    command = [str(Path(sys.executable).with_name("vmsvc")), *arguments.split()]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("VMSVC_")}
    ran = subprocess.run(
        command,
        env={**environment, "VMSVC_SERVER": server.grpc},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert ran.stdout == expected


def test_every_name_in_it_is_exported() -> None:
    named = set(re.findall(r"`(\w+Error|RetryPolicy|Readiness|Synced|Disconnected)\b", README))
    assert named <= set(vmsvc.__all__)
