"""The Go client: formatted, vetted, its own tests, and its README's examples as they stand."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.go_client import MODULE, ROOT, build, go, unformatted
from tests.program import Program, serving

README = (MODULE / "README.md").read_text()
DEFAULT = "127.0.0.1:50051"

PROGRAMS = re.findall(r"```go\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)


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
    assert len(PROGRAMS) == README.count("```go\n") > 0


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
