"""Finding a browser: what `make test` asks for is what tests run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def asked(path: Path) -> subprocess.CompletedProcess[str]:
    """What `make chromium` asks before it installs one, with nothing else on the PATH."""
    (recipe,) = [
        line for line in (ROOT / "Makefile").read_text().splitlines() if "-m tests.browser" in line
    ]
    assert recipe.startswith("\t@$(BIN)/python -m tests.browser >/dev/null 2>&1 || sh ")
    others = {name: text for name, text in os.environ.items() if name != "VMSVC_TEST_CHROMIUM"}
    return subprocess.run(
        [sys.executable, "-m", "tests.browser"],
        cwd=ROOT,
        env={**others, "PATH": str(path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", ["chromium", "chromium-browser", "google-chrome"])
def test_each_browser_that_tests_run_is_enough(name: str, tmp_path: Path) -> None:
    program = tmp_path / name
    program.write_text("")
    program.chmod(0o755)
    done = asked(tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{program}\n")


def test_without_one_it_says_what_to_do(tmp_path: Path) -> None:
    done = asked(tmp_path)
    assert done.returncode != 0
    assert "apt-get install chromium" in done.stderr
