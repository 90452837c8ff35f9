"""What is written of manifests, applied to a real cluster in which the garbage collector runs.

It deletes what refers only to owners that do not exist (issue 9, point 15).
"""

from __future__ import annotations

import subprocess
import sys
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.kube.apiserver import Cluster
from tests.kube.plugin import FLAVOURS, StartCluster
from tests.program import awaited, serving

MANIFESTS = """\
apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachineService
metadata: {name: web, namespace: NAMESPACE}
spec: {type: ClusterIP, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 9376}]}
---
apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachine
metadata: {name: web-1, namespace: NAMESPACE, labels: {app: web}}
status: {network: {primaryIP4: 10.20.0.11}}
"""


@pytest.fixture
def cluster(start_cluster: StartCluster) -> Cluster:
    """A cluster whose garbage collector is at work, and knows VMServices."""
    cluster = start_cluster()
    cluster.install_crds(*FLAVOURS["single-stack"].crds)
    cluster.start_controllers("garbage-collector-controller")
    return cluster


def exists(cluster: Cluster, namespace: str, path: str) -> bool:
    found = cluster.request("GET", f"/api/v1/namespaces/{namespace}/{path}")
    assert found.status in (HTTPStatus.OK, HTTPStatus.NOT_FOUND), found
    return found.status == HTTPStatus.OK


def collect(cluster: Cluster, namespace: str) -> None:
    """Return once the collector has looked at all that was there before: it took ours after."""
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "nobody", "uid": "uid-of-nobody"}
    for name in ("first", "second"):
        orphan = {"metadata": {"name": name, "ownerReferences": [owner]}}
        made = cluster.request("POST", f"/api/v1/namespaces/{namespace}/configmaps", orphan)
        assert made.status == HTTPStatus.CREATED, made
        await_absence(cluster, namespace, f"configmaps/{name}")


def await_absence(cluster: Cluster, namespace: str, path: str) -> None:
    assert awaited(lambda: not exists(cluster, namespace, path)), "the collector does nothing"


def test_the_garbage_collector_leaves_what_was_rendered(cluster: Cluster, tmp_path: Path) -> None:
    namespace = cluster.create_namespace()
    rendered = subprocess.run(
        [sys.executable, "-m", "vmsvc_grpc", "render", "-"],
        input=MANIFESTS.replace("NAMESPACE", namespace),
        capture_output=True,
        text=True,
        check=True,
    )
    cluster.kubectl("apply", "--validate=strict", "-f", "-", stdin=rendered.stdout)
    collect(cluster, namespace)
    assert exists(cluster, namespace, "services/web")
    assert exists(cluster, namespace, "endpoints/web")


def test_the_garbage_collector_leaves_what_was_held_in_a_directory(
    cluster: Cluster, tmp_path: Path
) -> None:
    namespace = cluster.create_namespace()
    manifests, out = tmp_path / "manifests", tmp_path / "out"
    manifests.mkdir()
    (manifests / "web.yaml").write_text(MANIFESTS.replace("NAMESPACE", namespace))
    endpoints = out / namespace / "web.endpoints.yaml"
    with serving(["--manifests", manifests, "--output", out], tmp_path / "log"):
        assert awaited(endpoints.exists)
    cluster.kubectl("apply", "--validate=strict", "--recursive", "-f", str(out))
    collect(cluster, namespace)
    assert exists(cluster, namespace, "services/web")
    assert exists(cluster, namespace, "endpoints/web")
