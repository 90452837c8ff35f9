"""deploy/chart on a real API server: installed, changed, rolled back, taken over and taken away.

No kubelet runs here, so no Pod does. What is looked at are the objects, and the program with the
rights that the chart gives its account.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.charts import (
    CHART,
    MONITORING,
    NAMESPACE,
    RELEASE,
    VALUES,
    VARIANTS,
    Id,
    Object,
    by_id,
)
from tests.integration.cluster import World, churn, eventually, opened
from tests.kube.apiserver import Cluster
from tests.kube.charts import Helm
from vmsvc_grpc.reconciler.vmservice import FINALIZER

CRDS = CHART.parents[1] / "tests" / "crds"
SHOP = "shop"


@pytest.fixture(scope="module")
def world(
    find_binary: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """A cluster on which nothing is installed yet but the definitions that are needed."""

    def prepare(cluster: Cluster) -> None:
        for owner in ("cert-manager", "prometheus-operator"):
            cluster.install_crds(CRDS / f"{owner}.yaml")
        for name in (NAMESPACE, SHOP):
            cluster.kubectl("create", "namespace", name)

    with opened(tmp_path_factory.mktemp("world"), find_binary, prepare) as entered:
        yield entered


class Release:
    """The chart's release on the cluster."""

    def __init__(self, world: World, helm: Helm, kinds: str) -> None:
        """`kinds` are those of all that the chart can make."""
        self._world = world
        self._helm = helm
        self._kinds = kinds

    def upgrade(self, *flags: str, chart: Path = CHART, reuse: bool = False, **values: Any) -> None:
        """Installs it, or changes it; to these values alone, unless those before are to stay."""
        command = ("upgrade", "--install", RELEASE, chart, "--namespace", NAMESPACE)
        reset = "--reset-then-reuse-values" if reuse else "--reset-values"
        self._helm.run(*command, reset, *flags, values=values)

    def do(self, *arguments: str) -> str:
        """What a command answers that takes the release's name last."""
        return self._helm.run(*arguments, "--namespace", NAMESPACE, RELEASE)

    def roll_back(self, revision: int) -> None:
        self._helm.run("rollback", "--namespace", NAMESPACE, RELEASE, str(revision))

    def manifests(self) -> dict[Id, Object]:
        """What Helm says that it has installed."""
        return by_id(yaml.safe_load_all(self.do("get", "manifest")))

    def held(self) -> dict[Id, Object]:
        """What of it, or left over from it, is on the cluster, by what it is."""
        label = f"app.kubernetes.io/name={RELEASE}"
        text = self._world.cluster.kubectl(
            "get", self._kinds, "--all-namespaces", "--selector", label, "--output", "json"
        )
        return by_id(json.loads(text)["items"])

    def args(self) -> list[str]:
        found: list[str] = self._container()["args"]
        return found

    def environment(self) -> dict[str, str]:
        return {entry["name"]: entry["value"] for entry in self._container().get("env", ())}

    def _container(self) -> Object:
        path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{RELEASE}"
        deployment = self._world.hands.ask("GET", path).body
        (only,) = deployment["spec"]["template"]["spec"]["containers"]
        found: Object = only
        return found


@pytest.fixture(scope="module")
def helm(
    world: World, find_binary: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Helm:
    return Helm(tmp_path_factory.mktemp("helm"), world.cluster, find_binary)


@pytest.fixture(scope="module")
def kinds(helm: Helm) -> str:
    """Of all that the chart can make, as kubectl takes them."""
    names = {"release": RELEASE, "namespace": NAMESPACE}
    made = (helm.rendered(CHART, values, **names) for values in (*VALUES.values(), MONITORING))
    return ",".join(sorted({where[1] for objects in made for where in by_id(objects)}))


@pytest.fixture
def release(world: World, helm: Helm, kinds: str) -> Iterator[Release]:
    """Nothing is installed before, nor after."""
    found = Release(world, helm, kinds)
    yield found
    found.do("uninstall", "--ignore-not-found", "--no-hooks")
    assert found.held() == {}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_api_server_takes_every_object(release: Release, variant: str) -> None:
    release.upgrade("--dry-run=server", **VALUES[variant])
    assert release.held() == {}


def test_the_program_needs_no_more_rights_than_the_chart_gives_and_uninstalls_in_order(
    world: World, release: Release
) -> None:
    release.upgrade()
    assert release.held().keys() == release.manifests().keys()
    site = world.site()
    with world.replica(steady=[site.steady]) as replica:
        with churn(site):
            eventually(lambda: replica.listener.messages > 100, "told")
        world.agrees(replica)
        assert "forbidden" not in replica.program.said()
    release.do("uninstall")
    # What docs/upgrading.md says stays: the Lease, and all that belongs to VirtualMachineServices.
    assert release.held() == {}
    assert world.cluster.kubectl("get", "lease", RELEASE, "--namespace", NAMESPACE)
    held = world.hands.listed("virtualmachineservices", site.namespace)
    assert held
    assert all(FINALIZER in one["metadata"]["finalizers"] for one in held)
    assert world.hands.listed("endpoints", site.namespace)
    admin = world.kubeconfig(world.cluster.admin)
    command = [sys.executable, "-m", "vmsvc_grpc", "release", "--yes", "--kubeconfig", str(admin)]
    subprocess.run(command, check=True)
    for one in world.hands.listed("virtualmachineservices", site.namespace):
        assert FINALIZER not in one["metadata"].get("finalizers", [])


def test_each_variant_can_become_another_and_be_rolled_back(release: Release) -> None:
    """Nothing that Kubernetes lets nobody change is changed, and nothing stays behind."""
    names = list(VARIANTS)
    for revision, variant in enumerate([*names, names[0]], 1):
        release.upgrade(**VALUES[variant])
        assert json.loads(release.do("status", "--output", "json"))["version"] == revision
        assert release.held().keys() == release.manifests().keys()
    for revision, variant in reversed(list(enumerate(names, 1))):
        release.roll_back(revision)
        assert release.held().keys() == release.manifests().keys()
        assert ("VMSVC_GRPC_RECONCILE" in release.environment()) is (variant == "serve-only")
        assert ("VMSVC_GRPC_NAMESPACE" in release.environment()) is (variant == "one-namespace")
        assert ("--insecure" in release.args()) is (variant == "insecure")


TOKEN = {"name": "scraper", "key": "token"}


def test_monitoring_comes_and_goes_with_the_values(world: World, release: Release) -> None:
    """And whom Prometheus shows itself to be may get the page of metrics."""
    release.upgrade()
    without = release.held().keys()
    release.upgrade(**MONITORING)
    assert release.held().keys() == release.manifests().keys()
    came = {where[1] for where in release.held().keys() - without}
    assert {"PodMonitor", "PrometheusRule", "ConfigMap", "Certificate"} < came
    who = f"{RELEASE}-metrics"
    assert world.cluster.kubectl("auth", "can-i", "get", "/metrics", "--as", who).strip() == "yes"
    assert "--client-ca=/etc/vmsvc-grpc/tls/ca.crt" in release.args()
    with_token = {"monitoring": {"podMonitor": {"enabled": True, "tokenSecret": TOKEN}}}
    for values in (VALUES["own-secret"] | with_token, VALUES["insecure"] | MONITORING):
        release.upgrade(**values)
        assert release.held().keys() == release.manifests().keys()
    release.roll_back(1)
    assert release.held().keys() == without


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """The chart as the one before a release could be: other versions, rights and arguments.

    None has been released yet. Once one has, its package belongs here.
    """
    folder = tmp_path / "chart"
    shutil.copytree(CHART, folder)
    for name, old, new in (
        ("Chart.yaml", "0.1.0", "0.0.9"),
        ("templates/reader.yaml", "services, endpoints", "services, endpoints, nodes"),
        (
            "templates/deployment.yaml",
            "            - serve\n",
            "            - serve\n            - --drain-s=9\n",
        ),
        ("templates/deployment.yaml", "periodSeconds: 2\n", "periodSeconds: 3\n"),
        ("templates/leader.yaml", "-leader", "-holder"),
    ):
        file = folder / name
        text = file.read_text()
        assert old in text, name
        file.write_text(text.replace(old, new))
    return folder


def test_an_upgrade_from_the_chart_before_and_back(release: Release, before: Path) -> None:
    """Values that were set stay, where the person who upgrades says so."""
    release.upgrade(chart=before, **VALUES["own-secret"], replicas=3)
    old = release.held()
    release.upgrade(reuse=True)
    new = release.held()
    assert new.keys() == release.manifests().keys()
    gone, come = old.keys() - new.keys(), new.keys() - old.keys()
    assert {where[3] for where in gone} == {"vmsvc-grpc-holder"}
    assert {where[3] for where in come} == {"vmsvc-grpc-leader"}
    assert "--drain-s=9" not in release.args()
    assert not [where for where in new if where[1] == "Certificate"]
    release.roll_back(1)
    assert release.held().keys() == old.keys()
    assert "--drain-s=9" in release.args()


@pytest.mark.parametrize(
    ("how", "variant"), [("--server-side", "serve-only"), ("--server-side=false", "one-namespace")]
)
def test_what_kustomize_installed_is_taken_over(
    world: World, release: Release, how: str, variant: str
) -> None:
    """As docs/upgrading.md says it; what Helm takes away later is gone, whoever put it there."""
    kubectl = partial(world.cluster.kubectl, "apply", how)
    kubectl("--kustomize", str(VARIANTS[variant]))
    before = release.held()
    release.upgrade("--take-ownership", "--server-side=false", **VALUES[variant])
    assert release.held().keys() == before.keys() == release.manifests().keys()
    uids = {where: one["metadata"]["uid"] for where, one in before.items()}
    assert {w: o["metadata"]["uid"] for w, o in release.held().items()} == uids
    release.upgrade()
    assert release.environment() == {}
    assert release.held().keys() == release.manifests().keys()
