"""The page's files: in the distribution, and nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from importlib import resources
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
STATIC = resources.files("vmsvc_grpc.server.page").joinpath("static")
FILES = sorted(file.name for file in STATIC.iterdir())


def test_they_are_in_the_wheel(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.iterdir()
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    assert {f"vmsvc_grpc/server/page/static/{name}" for name in FILES} <= names
    assert {"index.html", "page.js", "page.css", "icon.svg"} < set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_nothing_comes_from_elsewhere(name: str) -> None:
    text = STATIC.joinpath(name).read_text()
    # The name of a language is no address.
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(|//cdn", text) == []


def test_text_of_others_has_no_way_to_become_markup() -> None:
    scripts = [STATIC.joinpath(name).read_text() for name in FILES if name.endswith(".js")]
    markup = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|new Function"
        r"|createContextualFragment|srcdoc|setHTML|javascript:"
    )
    assert [re.findall(markup, script) for script in scripts] == [[]] * len(scripts)
    document = STATIC.joinpath("index.html").read_text()
    assert re.findall(r"\bon[a-z]+=|style=|<style|<script>", document) == []
