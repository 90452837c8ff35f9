"""How `make test` runs tests beside each other."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN_S = 120

ENDS = "import os\n\ndef test_before(): pass\n\ndef test_that_ends_its_worker(): os._exit(0)\n"
PASSES = "def test_that_passes(): pass\n"


def shown(*variables: str) -> list[str]:
    """How `make test` runs pytest."""
    printed = subprocess.run(
        ["make", "--just-print", "--no-print-directory", "test", *variables],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=RUN_S,
    ).stdout
    return shlex.split(printed.splitlines()[-1])


def test_one_that_ends_its_worker_fails_the_run_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "test_ends.py").write_text(ENDS)
    (tmp_path / "test_passes.py").write_text(PASSES)
    program, *options = shown("ARGS=")
    assert program == ".venv/bin/pytest"
    config: list[str | Path] = [
        "-c",
        ROOT / "pyproject.toml",
        "--rootdir",
        tmp_path,
        "-p",
        "no:cacheprovider",
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *config, tmp_path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_S,
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "FAILED test_ends.py::test_that_ends_its_worker - worker " in ended.stdout
    assert " 1 failed, 2 passed in " in ended.stdout.rstrip().rpartition("\n")[2]


def test_a_file_that_is_named_is_tested_without_workers() -> None:
    named = "tests/unit/test_lag.py"
    assert shown(f"ARGS={named}") == [".venv/bin/pytest", named]
