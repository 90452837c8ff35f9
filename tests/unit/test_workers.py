"""How `make test` runs tests beside each other, and how that ends."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN_S = 120

PASSES = "def test_that_passes(): pass\n"
ENDS = "import os\n\ndef test_before(): pass\n\ndef test_that_ends_its_worker(): os._exit(0)\n"
SAYS = "import logging\n\ndef test_that_logs(): logging.warning('\\udcff')\n"
BREAKS = (
    "import os\n\n"
    "def pytest_runtest_logreport(report):\n"
    "    assert 'PYTEST_XDIST_WORKER' not in os.environ\n"
)


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


def run(tests: Path, workers: int) -> tuple[int, str]:
    """How pytest ends that runs a folder's tests as `make test` does, and what it writes."""
    program, *options = shown("ARGS=", f"WORKERS={workers}")
    assert program == ".venv/bin/pytest"
    ours: list[str | Path] = ["-c", ROOT / "pyproject.toml", "-p", "tests.workers"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *ours, "--rootdir", tests, tests],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_S,
    )
    return ended.returncode, ended.stdout + ended.stderr


def test_one_that_ends_its_worker_fails_the_run_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "test_ends.py").write_text(ENDS)
    (tmp_path / "test_passes.py").write_text(PASSES)
    code, said = run(tmp_path, 2)
    assert code == pytest.ExitCode.TESTS_FAILED, said
    assert "crashed while running 'test_ends.py::test_that_ends_its_worker'" in said
    assert " 1 failed, 2 passed in " in said


def test_what_one_logs_need_not_be_utf_8(tmp_path: Path) -> None:
    (tmp_path / "test_says.py").write_text(SAYS)
    code, said = run(tmp_path, 1)
    assert code == pytest.ExitCode.OK, said
    assert " 1 passed in " in said


def test_an_error_of_a_plugin_in_a_worker_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(BREAKS)
    (tmp_path / "test_passes.py").write_text(PASSES)
    code, said = run(tmp_path, 1)
    assert code == pytest.ExitCode.INTERNAL_ERROR, said


def test_a_file_that_is_named_is_tested_without_workers() -> None:
    named = "tests/unit/test_lag.py"
    assert shown(f"ARGS={named}") == [".venv/bin/pytest", named]
