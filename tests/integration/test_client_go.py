"""The Go client: formatted, vetted, its own tests, and its README's examples as they stand."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.go_client import MODULE, ROOT, build, go, unformatted
from tests.ports import reserved_port
from tests.program import PATIENCE_S, Program, serving

README = (MODULE / "README.md").read_text()
DEFAULT = "127.0.0.1:50051"

PROGRAMS = re.findall(r"```go\n(package main.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)
[BALANCE] = re.findall(r"```go\n(builder := .*?)```", README, re.DOTALL)
[BALANCING] = (
    block for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if "./examples" in block
)


def test_it_is_formatted_and_vetted() -> None:
    assert unformatted() == ""
    go("vet", "./...")


def test_its_module_asks_for_what_it_imports() -> None:
    go("mod", "tidy", "-diff")


def test_it_passes_its_own_tests() -> None:
    go("test", "-race", "-vet=off", "./...")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    arguments: list[str | Path] = ["--manifests", ROOT / "examples", "--drain-s", "0.2"]
    with serving(arguments, tmp_path_factory.mktemp("log") / "log") as program:
        yield program


def test_every_example_has_its_output() -> None:
    assert len(PROGRAMS) + 1 == README.count("```go\n")


@pytest.mark.parametrize(("source", "expected"), PROGRAMS)
def test_program(server: Program, tmp_path: Path, source: str, expected: str) -> None:
    assert DEFAULT in source
    file = tmp_path / "main.go"
    file.write_text(source.replace(DEFAULT, server.grpc))
    assert unformatted(file) == ""
    with subprocess.Popen([build(file)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        # A watch does not end by itself.
        lines = [process.stdout.readline() for _ in expected.splitlines()]
        process.terminate()
    assert "".join(lines) == expected


def test_what_is_shown_of_the_program_that_balances_is_of_it() -> None:
    shown = [line.strip() for line in BALANCE.splitlines()]
    program = (MODULE / "examples" / "balance" / "main.go").read_text().splitlines()
    first = [line.strip() for line in program].index(shown[0])
    assert [line.strip() for line in program[first : first + len(shown)]] == shown


def test_calls_follow_the_endpoints_as_the_readme_says(tmp_path: Path) -> None:
    port = str(reserved_port("127.0.0.1", "127.0.0.2", "127.0.0.3"))
    copy = tmp_path / "examples"
    shutil.copytree(MODULE / "examples", copy)
    manifests = copy / "manifests"
    _replace(manifests / "web.yaml", "18080", port)
    listening = re.search(r"/backend (.*) &\n", BALANCING)
    edit = re.search(r"^sed -i .*$", BALANCING, re.MULTILINE)
    assert listening
    assert edit
    arguments: list[str | Path] = ["--manifests", manifests, "--allow-loopback", "--drain-s", "0.2"]
    with serving(arguments, tmp_path / "log") as server:
        _replace(copy / "balance" / "main.go", DEFAULT, server.grpc)
        backend = [
            build(copy / "backend" / "main.go"),
            *listening[1].replace("18080", port).split(),
        ]
        with (
            subprocess.Popen(backend) as vms,
            _printing(build(copy / "balance" / "main.go")) as lines,
        ):
            _until_answered(lines, {f"127.0.0.1:{port}", f"127.0.0.2:{port}"})
            subprocess.run(["sh", "-c", edit[0]], cwd=tmp_path, check=True)
            _until_answered(lines, {f"127.0.0.{n}:{port}" for n in (1, 2, 3)})
            vms.terminate()


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@contextmanager
def _printing(program: Path) -> Iterator[Iterator[str]]:
    """The lines that a program prints, until the block ends."""
    with subprocess.Popen([program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield iter(process.stdout.readline, "")
        finally:
            process.terminate()


def _until_answered(lines: Iterator[str], addresses: set[str]) -> None:
    """Read on until as many calls in a row as there are addresses are answered one by each."""
    last: deque[str] = deque(maxlen=len(addresses))
    deadline = time.monotonic() + PATIENCE_S
    for line in lines:
        last.append(line.removeprefix("answered by ").strip())
        if set(last) == addresses:
            return
        assert time.monotonic() < deadline, last
