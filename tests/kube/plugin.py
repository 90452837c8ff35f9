"""pytest fixtures: one cluster per flavour, started when first asked for, shared by the session.

Load it with `pytest_plugins = ["tests.kube.plugin"]` in the conftest.py beside pyproject.toml.
Tests that share a cluster keep to namespaces of their own (`cluster.create_namespace()`). One that
stops servers, or needs flags or users, takes a cluster of its own from `start_cluster`.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.go_programs import BuildError
from tests.kube.apiserver import IPV4_RANGE, IPV6_RANGE, Cluster
from tests.kube.binaries import binary
from tests.kube.vm_operator import VMOperator

CRDS = Path(__file__).parent.parent / "crds"

_VMS = CRDS / "vmoperator.vmware.com_virtualmachines.yaml"
_SERVICES = CRDS / "vmoperator.vmware.com_virtualmachineservices.yaml"


@dataclass(frozen=True)
class Flavour:
    """What the servers of a cluster have in common for all who use it."""

    crds: tuple[Path, ...] = (_VMS, _SERVICES)
    service_ranges: tuple[str, ...] = (IPV4_RANGE,)


FLAVOURS = {
    "single-stack": Flavour(),
    "dual-stack": Flavour(service_ranges=(IPV4_RANGE, IPV6_RANGE)),
    "relaxed": Flavour(crds=(_VMS, CRDS / "variants" / "virtualmachineservices.relaxed.yaml")),
    "v1alpha1-storage": Flavour(
        crds=(CRDS / "variants" / "virtualmachines.v1alpha1-storage.yaml", _SERVICES)
    ),
}

Clusters = Callable[[Flavour], Cluster]
StartCluster = Callable[..., Cluster]
StartVMOperator = Callable[..., VMOperator]


@pytest.fixture(scope="session")
def find_binary(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """`binaries.binary`, whose progress is seen although pytest captures output."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def report(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n{line}", flush=True)

    def find(name: str) -> Path:
        try:
            return binary(name, report)
        except BuildError as error:
            pytest.fail(str(error), pytrace=False)

    return find


@pytest.fixture(scope="session")
def kube_clusters(
    find_binary: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Clusters]:
    """The session's cluster of a flavour, with its CRDs served."""
    with ExitStack() as stack:
        started: dict[Flavour, Cluster] = {}

        def cluster(flavour: Flavour) -> Cluster:
            if flavour not in started:
                folder = tmp_path_factory.mktemp("kube")
                ranges = flavour.service_ranges
                entered = stack.enter_context(
                    Cluster(folder, service_ranges=ranges, find=find_binary)
                )
                entered.install_crds(*flavour.crds)
                started[flavour] = entered
            return started[flavour]

        yield cluster


@pytest.fixture(scope="session")
def kube(kube_clusters: Clusters) -> Cluster:
    """The published CRDs, and one address family."""
    return kube_clusters(FLAVOURS["single-stack"])


@pytest.fixture(scope="session")
def kube_dual_stack(kube_clusters: Clusters) -> Cluster:
    """The published CRDs, and both address families, IPv4 first."""
    return kube_clusters(FLAVOURS["dual-stack"])


@pytest.fixture(scope="session")
def kube_relaxed(kube_clusters: Clusters) -> Cluster:
    """VMServices that may leave out what the page's examples do."""
    return kube_clusters(FLAVOURS["relaxed"])


@pytest.fixture(scope="session")
def kube_v1alpha1_storage(kube_clusters: Clusters) -> Cluster:
    """VMs in v1alpha1 only, so that `status.vmIp` is kept."""
    return kube_clusters(FLAVOURS["v1alpha1-storage"])


@pytest.fixture
def start_cluster(find_binary: Callable[[str], Path], tmp_path: Path) -> Iterator[StartCluster]:
    """Starts clusters for one test alone, with `Cluster`'s arguments (all but the folder)."""
    with ExitStack() as stack:
        folders = (tmp_path / f"kube-{number}" for number in count())

        def start(**options: Any) -> Cluster:
            folder = next(folders)
            folder.mkdir()
            return stack.enter_context(Cluster(folder, find=find_binary, **options))

        yield start


@pytest.fixture
def start_vm_operator(
    find_binary: Callable[[str], Path], tmp_path: Path
) -> Iterator[StartVMOperator]:
    """Starts doubles of VM Operator for one test, with `VMOperator`'s arguments (but the folder).

    On a cluster that others use too, name a `namespace`: it would write theirs as well.
    """
    with ExitStack() as stack:

        def start(cluster: Cluster, **options: Any) -> VMOperator:
            return stack.enter_context(VMOperator(cluster, tmp_path, find=find_binary, **options))

        yield start
