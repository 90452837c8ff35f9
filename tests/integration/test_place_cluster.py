"""A place in a cluster, begun before its credentials are there."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from tests.integration.kube_replica import Desk, until
from tests.kube.apiserver import Cluster
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.config import Config
from vmsvc_grpc.kube.credentials import InCluster
from vmsvc_grpc.logs.origins import LinesPerOrigin
from vmsvc_grpc.metrics import Metrics
from vmsvc_grpc.model.events import Event
from vmsvc_grpc.model.objects import Kind
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.place.cluster import ClusterPlace


async def test_a_pods_token_that_comes_late_is_waited_for(
    kube: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A blank one ended the process (issue 9, point 22). The Lease's namespace is the pod's."""
    desk = Desk(kube)
    await desk.vm("a", "10.20.0.1")
    await desk.vmservice()
    (tmp_path / "token").write_text("\n")
    (tmp_path / "ca.crt").write_text(kube.server.ca_file.read_text())
    (tmp_path / "namespace").write_text(desk.namespace)
    credentials = InCluster(kube.server.url.removeprefix("https://"), tmp_path)
    config = Config(credentials=credentials, reconcile=True, namespaces=(desk.namespace,))
    cache = Cache(AddressRules(), kinds=Kind, namespaces=config.namespaces)
    place = ClusterPlace(
        config, credentials, cache, Metrics(), LinesPerOrigin(logging.getLogger(__name__))
    )

    def emit(event: Event) -> None:
        place.changed(cache.apply(event))

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(place.run(emit))
        await until(lambda: "token is empty" in caplog.text)
        assert not cache.synced
        assert place.writing.startswith("nobody leads yet")
        (tmp_path / "token").write_text(kube.admin.token)
        await desk.holds("10.20.0.1")
        leases = f"/apis/coordination.k8s.io/v1/namespaces/{desk.namespace}/leases"
        (lease,) = (await desk.request("GET", leases)).body["items"]
        assert lease["metadata"]["name"] == f"vmsvc-grpc.{desk.namespace}"
        lease_name = f"{desk.namespace}/vmsvc-grpc.{desk.namespace}"
        assert place.writing.startswith(f"this replica leads: it holds Lease {lease_name} as ")
        # Slices are not waited for before something is held.
        await until(lambda: all(one.how == "listed, and watched" for one in place.sources))
        read = {one.what: one for one in place.sources}
        assert f"VirtualMachine in namespace {desk.namespace}" in read
        assert all(one.well and one.silence_s is not None for one in read.values())
        running.cancel()
