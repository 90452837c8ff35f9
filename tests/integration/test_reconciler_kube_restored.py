"""A writer on an API server that is set back to a backup: resource versions go back, too."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.integration.kube_replica import DIRECT, FAST, Desk, replica, until
from tests.kube.apiserver import Cluster
from tests.kube.plugin import FLAVOURS, StartCluster
from vmsvc_grpc.backoff import Backoff
from vmsvc_grpc.source.kube import KubeSourceBounds


async def test_what_was_written_since_the_backup_is_written_again(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    """All that we know comes from the future then: objects, answers, deletions (point 20)."""
    cluster: Cluster = await asyncio.to_thread(start_cluster)
    await asyncio.to_thread(cluster.install_crds, *FLAVOURS["single-stack"].crds)

    async def serves_all() -> bool:
        """An API server that has just started refuses lists of a custom kind for a while."""
        kinds = ("virtualmachines", "virtualmachineservices", "services", "endpoints")
        asked = [await desk.request("GET", desk.path(kind)) for kind in kinds]
        return all(response.status == 200 for response in asked)

    desk = Desk(cluster)
    for name in ("moves", "goes"):
        await desk.vmservice(name, selector={"app": name})
    await desk.vm("a", "10.20.0.1", labels={"app": "moves"})
    await desk.vm("b", "10.20.0.2", labels={"app": "goes"})
    quick = KubeSourceBounds(silence_s=1.0, backoff=Backoff(0.1, 1.0))
    async with replica(desk, tmp_path, bounds=FAST, rules=DIRECT, source_bounds=quick) as one:
        await desk.holds("10.20.0.1", name="moves")
        await desk.holds("10.20.0.2", name="goes")
        await one.settled()
        await asyncio.to_thread(cluster.etcd.back_up)
        for turn in range(2, 12):
            await one.move("a", f"10.20.1.{turn}")
            await desk.holds(f"10.20.1.{turn}", name="moves")
        await desk.delete("virtualmachineservices", "goes")
        await desk.gone("services", "goes")
        await desk.vmservice("later", selector={"app": "later"})
        await desk.holds(name="later")
        await one.settled()
        await asyncio.to_thread(cluster.set_back)
        await until(serves_all)
        # As in the backup: the VM, and the service that was deleted; what came later is not there.
        await one.settled()
        await desk.holds("10.20.0.1", name="moves")
        await desk.holds("10.20.0.2", name="goes")
        assert await desk.get("services", "later") is None
        # And it goes on from there, with numbers that it has seen before.
        await one.move("a", "10.20.2.1")
        await desk.holds("10.20.2.1", name="moves")
        await desk.delete("endpoints", "goes")
        await desk.holds("10.20.0.2", name="goes")
        await desk.vmservice("later", selector={"app": "later"})
        await desk.vm("c", "10.20.0.3", labels={"app": "later"})
        await desk.holds("10.20.0.3", name="later")
        await one.settled()
        writes = one.writes
        one.reconciler.enqueue_all()
        await one.settled()
        assert one.writes == writes
