"""Finds kube-apiserver, etcd, kubectl, kube-controller-manager and helm, building what is missing.

A binary comes from the folder that KUBEBUILDER_ASSETS names, if it is there; kubectl next from the
PATH; else from a cache folder outside the tree, into which it is built once from the Go modules
beside this file. Their versions stand in the go.mod files only. The programs of our own,
vmoperator, reader and those of bench/kube, are built again when their source has changed.

    python -m tests.kube.binaries            build what the fixtures need, print where each is
    python -m tests.kube.binaries kubectl    the same for the named ones
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

from tests.go_programs import BuildError, GoProgram, Report, built, cache

_HERE = Path(__file__).parent
_BENCH = _HERE.parent.parent / "bench" / "kube"


def _kubernetes(command: str) -> GoProgram:
    # The packages that Kubernetes' own build stamps (hack/lib/version.sh); unstamped, the server
    # would report v0.0.0-master.
    stamped = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return GoProgram(command, _HERE, _KUBERNETES, f"{_KUBERNETES}/cmd/{command}", stamped)


_KUBERNETES = "k8s.io/kubernetes"
_ETCD = "go.etcd.io/etcd/server/v3"
_HELM = "helm.sh/helm/v4"
_PROGRAMS = {
    program.name: program
    for program in (
        GoProgram("etcd", _HERE / "etcd", _ETCD, _ETCD),
        _kubernetes("kube-apiserver"),
        _kubernetes("kubectl"),
        _kubernetes("kube-controller-manager"),
        GoProgram("helm", _HERE / "helm", _HELM, f"{_HELM}/cmd/helm"),
        GoProgram("vmoperator", _HERE, _KUBERNETES, "./vmoperator"),
        GoProgram("reader", _HERE, _KUBERNETES, "./reader"),
        GoProgram("informer", _BENCH, "k8s.io/client-go", "./informer"),
        GoProgram("addresswatch", _BENCH, "k8s.io/client-go", "./addresswatch"),
    )
}

# What every fixture needs; the others are built when a test first asks for one.
NEEDED = ("etcd", "kube-apiserver", "kubectl")


def cache_folder() -> Path:
    """Where built binaries are kept, under names that KUBEBUILDER_ASSETS would expect.

    It is named after the versions of Kubernetes and etcd; any other binary has its own in its name.
    """
    versions = f"{_PROGRAMS['kube-apiserver'].version}-etcd-{_PROGRAMS['etcd'].version}"
    return cache() / f"kube-{versions}"


def binary(name: str, report: Report = print) -> Path:
    """The path of an executable; builds it first where it is neither given nor cached.

    A build takes minutes, tells `report` a line every 15 s, and happens once even if several
    processes ask. Raises BuildError.
    """
    if found := _given(name):
        return found
    program = _PROGRAMS[name]
    unnumbered = program.module in (_KUBERNETES, _ETCD) and not program.ours
    target = cache_folder() / (name if unnumbered else program.versioned_name)
    advice = ", or set KUBEBUILDER_ASSETS to a folder that has the binary"
    return built(program, target, report, advice)


def _given(name: str) -> Path | None:
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and (Path(assets) / name).exists():
        return Path(assets) / name
    on_path = shutil.which(name) if name == "kubectl" else None
    return Path(on_path) if on_path else None


def main() -> int:
    """Prints the path of each named binary (all that the fixtures need, if none is named)."""
    parser = argparse.ArgumentParser(
        description="Find or build the binaries of the tests' cluster."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(_PROGRAMS))
    names = parser.parse_args().names or NEEDED
    unknown = [name for name in names if name not in _PROGRAMS]
    if unknown:
        parser.error(f"no such binary: {unknown[0]} (known: {', '.join(_PROGRAMS)})")
    try:
        for name in names:
            print(binary(name, lambda line: print(line, file=sys.stderr, flush=True)), flush=True)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
