"""What can be checked of the image where no engine runs: the words of its Dockerfile."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from vmsvc_grpc.config import Config

ROOT = Path(__file__).parents[2]


class Instruction(NamedTuple):
    """One instruction of a Dockerfile: its word, and all that follows it."""

    word: str
    rest: str

    def arguments(self) -> list[str]:
        """What follows but for flags, as a shell splits it, or as its JSON form has it."""
        words = json.loads(self.rest) if self.rest.startswith("[") else shlex.split(self.rest)
        return [word for word in words if not word.startswith("--")]


def stages() -> list[list[Instruction]]:
    """The instructions of each stage, FROM included; those before the first FROM left out."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    found: list[list[Instruction]] = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append([])
        if found:
            found[-1].append(Instruction(word, rest.strip()))
    return found


def instructions(stage: list[Instruction], word: str) -> list[Instruction]:
    return [instruction for instruction in stage if instruction.word == word]


def commands(stage: list[Instruction]) -> list[list[str]]:
    """Each command that the stage runs, as words."""
    runs = instructions(stage, "RUN")
    return [shlex.split(command) for run in runs for command in run.rest.split("&&")]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out of the build: its last line that matches decides."""
    decision = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip().rstrip("/")
        if not pattern or pattern.startswith("#"):
            continue
        bare = pattern.removeprefix("!")
        parents = [path, *map(str, Path(path).parents)][:-1]
        if bare.startswith("**/"):
            bare, parents = bare.removeprefix("**/"), [Path(parent).name for parent in parents]
        if any(fnmatch(parent, bare) for parent in parents if parent.count("/") == bare.count("/")):
            decision = not pattern.startswith("!")
    return decision


def environment(stage: list[Instruction]) -> dict[str, str]:
    pairs = [pair for env in instructions(stage, "ENV") for pair in shlex.split(env.rest)]
    return dict(pair.split("=", 1) for pair in pairs)


def test_what_builds_stays_behind() -> None:
    *build, image = stages()
    assert build, "there is no stage before the image"
    copies = instructions(image, "COPY")
    assert copies
    assert all("--from=" in copy.rest for copy in copies)
    assert not instructions(image, "RUN")


def test_every_path_that_is_copied_exists_and_is_not_ignored() -> None:
    for stage in stages():
        for copy in instructions(stage, "COPY"):
            if "--from=" in copy.rest:
                continue
            *sources, _ = copy.arguments()
            for source in sources:
                assert (ROOT / source).exists(), f"COPY {source}: there is no such path"
                assert not ignored(source), f"COPY {source}: .dockerignore keeps it out"


def test_the_context_is_only_what_is_copied() -> None:
    for path in (".git", ".venv", "tests", "out", "examples", "vmsvc_grpc/cache/__pycache__"):
        assert ignored(path), f".dockerignore lets {path} in"


def test_what_is_copied_is_all_that_the_packages_are_made_of() -> None:
    build, *_ = stages()
    copied = {source for copy in instructions(build, "COPY") for source in copy.arguments()[:-1]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = ["pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]]
    named += project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    for path in map(Path, named):
        assert copied & {str(path), *map(str, path.parents)}, f"{path} is not copied"


def test_every_package_is_installed_by_the_hash_of_a_lock_file() -> None:
    build, *_ = stages()
    installs = [words for words in commands(build) if "install" in words or "wheel" in words]
    locks = [words[words.index("-r") + 1] for words in installs if "-r" in words]
    assert "requirements.lock" in locks
    for words in installs:
        if "-r" in words:
            assert "--require-hashes" in words
        else:
            assert "--no-deps" in words, f"may fetch what no lock file names: {' '.join(words)}"
            assert {"--no-index", "--no-build-isolation"} & set(words)
    for lock in locks:
        pinned = re.findall(r"(?m)^[a-z][^\s;]*==\S+(?:.*\\\n.*)*", (ROOT / lock).read_text())
        assert pinned
        assert [entry for entry in pinned if "--hash=sha256:" not in entry] == []


def test_it_does_not_run_as_root() -> None:
    *_, image = stages()
    user = instructions(image, "USER")[-1].rest
    # Kubernetes checks runAsNonRoot against a number only.
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


def test_it_needs_no_writable_file_system() -> None:
    build, image = stages()[0], stages()[-1]
    assert environment(image)["PYTHONDONTWRITEBYTECODE"] == "1"
    # Modules are compiled when they are installed, unless that is turned off.
    assert not any("--no-compile" in words for words in commands(build))
    assert "PYTHONDONTWRITEBYTECODE" not in environment(build)
    assert not instructions(image, "VOLUME")


def test_it_runs_the_program_without_a_shell() -> None:
    *_, image = stages()
    entry = instructions(image, "ENTRYPOINT")[-1].rest
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    # A shell in between would take SIGTERM, and nothing would drain.
    assert entry.startswith("[")
    assert json.loads(entry)[0] in scripts
    assert environment(image)["PATH"].startswith("/opt/vmsvc/bin:")


def test_it_exposes_the_ports_that_the_program_listens_on() -> None:
    *_, image = stages()
    config = Config(manifests=ROOT / "examples")
    exposed = {int(port) for expose in instructions(image, "EXPOSE") for port in expose.arguments()}
    assert exposed == {*(address.port for address in config.listen), config.http_listen.port}
