"""The wheel of a release installs by itself: beside nothing but what the lock names, it serves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from pathlib import Path

import pytest

import vmsvc
import vmsvc_grpc
from tests.program import PATIENCE_S, awaited

ROOT = Path(__file__).parents[2]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
INSTALL_S = 600


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    subprocess.run([*PIP, *build, ROOT], check=True, timeout=INSTALL_S)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of an environment that has the wheel, and else the lock."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    into = (*PIP, "--python", folder, "install", "--quiet", "--no-compile", "--no-deps")
    locked = ("--require-hashes", "-r", ROOT / "requirements.lock")
    for what in (locked, ("--no-index", wheel)):
        subprocess.run([*into, *what], check=True, timeout=INSTALL_S)
    # What the wheel asks for is all there, in versions that it takes.
    subprocess.run([*PIP, "--python", folder, "check"], check=True, timeout=INSTALL_S)
    return folder / "bin"


def said(command: Path, *arguments: str) -> str:
    """What a command prints, started outside the project."""
    done = subprocess.run(
        [command, *arguments],
        cwd=command.parent,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@contextmanager
def serving(command: Path, log: Path) -> Iterator[str]:
    """The gRPC address of a server of the examples."""
    free = ("--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")
    arguments = [
        "serve",
        "--manifests",
        str(ROOT / "examples"),
        *free,
        "--page-listen",
        "127.0.0.1:0",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [command, *arguments], cwd=log.parent, env={}, stdout=output, stderr=output
        )
    try:
        assert awaited(lambda: process.poll() is not None or "\nserving " in log.read_text())
        found = re.search(r"gRPC  on (\S+)", log.read_text())
        assert found, log.read_text()
        yield found[1]
    finally:
        process.terminate()
        assert process.wait(PATIENCE_S) == 0, log.read_text()


def test_it_serves_and_is_asked(installed: Path, tmp_path: Path) -> None:
    assert said(installed / "vmsvc-grpc", "--version") == f"vmsvc-grpc {vmsvc_grpc.__version__}\n"
    assert said(installed / "vmsvc", "--version") == f"vmsvc {vmsvc.__version__}\n"
    with serving(installed / "vmsvc-grpc", tmp_path / "log") as address:
        listed = said(installed / "vmsvc", "--server", address, "list")
    assert "shop/web" in listed


def test_its_metadata_is_complete(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (name,) = (each for each in names if each.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(name))
    assert {each.partition("/")[0] for each in names} == {
        "vmsvc",
        "vmsvc_grpc",
        name.partition("/")[0],
    }
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE", "NOTICE"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["Summary"]
    assert metadata["Keywords"]
    assert "Programming Language :: Python :: 3.11" in metadata.get_all("Classifier", [])
    assert "vmsvc-client" not in str(metadata.get_all("Requires-Dist"))


def test_all_versions_are_one() -> None:
    folders = (ROOT, ROOT / "clients" / "python")
    projects = [tomllib.loads((each / "pyproject.toml").read_text()) for each in folders]
    versions = {each["project"]["version"] for each in projects}
    assert versions == {vmsvc.__version__, vmsvc_grpc.__version__}


def test_the_server_asks_for_all_that_the_client_asks_for() -> None:
    """As its wheel holds the client."""
    folders = (ROOT, ROOT / "clients" / "python")
    server, client = (
        set(tomllib.loads((each / "pyproject.toml").read_text())["project"]["dependencies"])
        for each in folders
    )
    assert client <= server
