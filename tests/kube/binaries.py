"""Finds kube-apiserver, etcd, kubectl, kube-controller-manager and helm, building what is missing.

A binary comes from the folder that KUBEBUILDER_ASSETS names, if it is there; kubectl next from the
PATH; else from a cache folder outside the tree, into which it is built once from the Go modules
beside this file. Their versions stand in the go.mod files only. The programs of our own,
vmoperator, reader and those of bench/kube, are built again when their source has changed.

    python -m tests.kube.binaries            build what the fixtures need, print where each is
    python -m tests.kube.binaries kubectl    the same for the named ones
"""

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRESS_EVERY_S = 15
# Some ten times what the largest takes on 2 cores.
BUILD_TIMEOUT_S = 45 * 60

_HERE = Path(__file__).parent
_BENCH = _HERE.parent.parent / "bench" / "kube"

Report = Callable[[str], None]


class BuildError(Exception):
    """A binary can be neither found nor built; the message says why in one line, then details."""


@dataclass(frozen=True)
class _Source:
    """Where a binary's main package is: the folder of our go.mod, the module, and the package.

    A package of our own is a path that begins with `./`, and has the version of the module that it
    is built on.
    """

    folder: Path
    module: str
    package: str
    version_variables: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """The module's version in our go.mod, for example v1.34.4."""
        go_mod = (self.folder / "go.mod").read_text()
        found = re.search(rf"^(?:require)?\s+{re.escape(self.module)} (v\S+)", go_mod, re.MULTILINE)
        assert found is not None, f"{self.folder / 'go.mod'} does not require {self.module}"
        return found[1]

    def file_name(self, name: str) -> str:
        """What the binary is called in the cache, whose folder is named after two versions.

        Any other has its own in its name; one of our own, a digest of its source.
        """
        if self.module in (_KUBERNETES, _ETCD) and not self.package.startswith("./"):
            return name
        if not self.package.startswith("./"):
            return f"{name}-{self.version}"
        digest = hashlib.sha256((self.folder / "go.mod").read_bytes())
        for file in sorted(self.folder.rglob("*.go")):
            digest.update(file.read_bytes())
        return f"{name}-{digest.hexdigest()[:12]}"


def _kubernetes(command: str) -> _Source:
    # The packages that Kubernetes' own build stamps (hack/lib/version.sh); unstamped, the server
    # would report v0.0.0-master.
    stamped = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return _Source(_HERE, _KUBERNETES, f"{_KUBERNETES}/cmd/{command}", stamped)


_KUBERNETES = "k8s.io/kubernetes"
_ETCD = "go.etcd.io/etcd/server/v3"
_HELM = "helm.sh/helm/v4"
_SOURCES = {
    "etcd": _Source(_HERE / "etcd", _ETCD, _ETCD),
    "kube-apiserver": _kubernetes("kube-apiserver"),
    "kubectl": _kubernetes("kubectl"),
    "kube-controller-manager": _kubernetes("kube-controller-manager"),
    "helm": _Source(_HERE / "helm", _HELM, f"{_HELM}/cmd/helm"),
    "vmoperator": _Source(_HERE, _KUBERNETES, "./vmoperator"),
    "reader": _Source(_HERE, _KUBERNETES, "./reader"),
    "informer": _Source(_BENCH, "k8s.io/client-go", "./informer"),
    "addresswatch": _Source(_BENCH, "k8s.io/client-go", "./addresswatch"),
}

# What every fixture needs; the others are built when a test first asks for one.
NEEDED = ("etcd", "kube-apiserver", "kubectl")


def cache_folder() -> Path:
    """Where built binaries are kept, under names that KUBEBUILDER_ASSETS would expect."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    versions = f"{_SOURCES['kube-apiserver'].version}-etcd-{_SOURCES['etcd'].version}"
    return Path(base) / "vmsvc-grpc" / f"kube-{versions}"


def binary(name: str, report: Report = print) -> Path:
    """The path of an executable; builds it first where it is neither given nor cached.

    A build takes minutes, tells `report` a line every 15 s, and happens once even if several
    processes ask. Raises BuildError.
    """
    assert name in _SOURCES, name
    cached = cache_folder() / _SOURCES[name].file_name(name)
    found = _given(name) or (cached if cached.exists() else None)
    if found is not None:
        return found
    cached.parent.mkdir(parents=True, exist_ok=True)
    with _lock(cached.parent / ".lock", name, report):
        if not cached.exists():
            _build(name, cached, report)
    return cached


def _given(name: str) -> Path | None:
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and (Path(assets) / name).exists():
        return Path(assets) / name
    on_path = shutil.which(name) if name == "kubectl" else None
    return Path(on_path) if on_path else None


def _build(name: str, target: Path, report: Report) -> None:
    source = _SOURCES[name]
    what = f"{name} {source.version}"
    go = shutil.which("go")
    if go is None:
        raise BuildError(
            f"{what} has to be built, and Go is not on the PATH:"
            " install Go, or set KUBEBUILDER_ASSETS to a folder that has the binary"
        )
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as scratch:
        made = Path(scratch) / name
        command = [go, "build", "-mod=readonly", "-trimpath", "-buildvcs=false"]
        command += ["-ldflags", _ldflags(source), "-o", str(made), source.package]
        # Static binaries; and no go.work of the tree around us may change the modules' versions.
        environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}
        _run(command, source.folder, environment, f"building {what} from its Go module", report)
        made.replace(target)


def _ldflags(source: _Source) -> str:
    major, minor = source.version.removeprefix("v").split(".")[:2]
    values = {
        "gitVersion": source.version,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
    }
    stamps = [f"-X {p}.{key}={v}" for p in source.version_variables for key, v in values.items()]
    return " ".join(["-s -w", *stamps])


def _run(
    command: list[str], folder: Path, environment: dict[str, str], what: str, report: Report
) -> None:
    """Runs a command to its end, telling of it at the start and every 15 s; raises BuildError."""
    started = time.monotonic()
    report(f"{what} (once; some minutes)")
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            code = None
            while code is None:
                elapsed_s = time.monotonic() - started
                if elapsed_s > BUILD_TIMEOUT_S:
                    raise BuildError(f"{what}: not done after {BUILD_TIMEOUT_S} s")
                try:
                    code = process.wait(PROGRESS_EVERY_S)
                except subprocess.TimeoutExpired:
                    report(f"{what}: {time.monotonic() - started:.0f} s")
        finally:
            process.kill()
        if code != 0:
            output.seek(0)
            tail = output.read().decode(errors="replace")[-4000:]
            raise BuildError(f"{what}: go build ended with {code}\n{tail}")
    report(f"{what}: done in {time.monotonic() - started:.0f} s")


@contextmanager
def _lock(path: Path, name: str, report: Report) -> Iterator[None]:
    """Held by one process at a time, and let go by the kernel when its holder dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"waiting for another process that builds {name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Prints the path of each named binary (all that the fixtures need, if none is named)."""
    parser = argparse.ArgumentParser(
        description="Find or build the binaries of the tests' cluster."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(_SOURCES))
    names = parser.parse_args().names or NEEDED
    unknown = [name for name in names if name not in _SOURCES]
    if unknown:
        parser.error(f"no such binary: {unknown[0]} (known: {', '.join(_SOURCES)})")
    try:
        for name in names:
            print(binary(name, lambda line: print(line, file=sys.stderr, flush=True)), flush=True)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
