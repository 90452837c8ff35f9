"""What clusters do to who reads and writes them: each with a stream open and changes going on.

Afterwards streams, look-ups and objects are what a fresh computation from the API server
says; and at no moment was a service that kept its VMs told to have none (LESSONS, linkerd2
#10370 and "Reading Kubernetes from Python").
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.conformance.told import Told
from tests.integration.cluster import (
    VARIANT,
    Replica,
    Site,
    World,
    churn,
    eventually,
    path,
    world,
)
from tests.kube.plugin import FLAVOURS
from tests.kube.proxy import Network
from tests.program import awaited

__all__ = ["world"]

OUTAGE_S = 30.0


@pytest.fixture(scope="module")
def site(world: World) -> Site:
    return world.site()


@pytest.fixture(scope="module")
def replica(world: World, site: Site) -> Iterator[Replica]:
    """One process that lives through all of it, and so does its stream."""
    with world.replica(steady=[site.steady]) as running:
        yield running


def more_messages(replica: Replica, than: int) -> bool:
    return replica.listener.messages > than


def lists(replica: Replica, kind: str) -> float:
    return replica.metric("vmsvc_source_lists_total", kind=kind, namespace="")


def test_changes_alone(world: World, site: Site, replica: Replica) -> None:
    with churn(site):
        eventually(lambda: replica.listener.messages > 100, "told of changes")
    world.agrees(replica)


def test_an_api_server_that_restarts(world: World, site: Site, replica: Replica) -> None:
    with churn(site):
        # In order, but it would wait for a minute for the watches to end.
        world.cluster.server.process.stop(grace_s=2)
        world.cluster.server.start()
    world.agrees(replica)


def test_another_api_server_that_takes_over(world: World, site: Site, replica: Replica) -> None:
    """It may lag behind the one that was asked before, and was asked by nobody until then."""
    another = world.cluster.add_server()
    first, second = (int(s.url.rpartition(":")[2]) for s in (world.cluster.server, another))
    with churn(site):
        for port in (second, first, second):
            replica.wire.do(replica.wire.proxy.lead_to(port))
            eventually(partial(more_messages, replica, replica.listener.messages + 20), "told")
    world.agrees(replica)
    replica.wire.do(replica.wire.proxy.lead_to(first))
    another.close()
    world.agrees(replica)


def test_an_api_server_that_dies_and_comes_back_without_its_history(
    world: World, site: Site, replica: Replica
) -> None:
    """Nobody knows who leads meanwhile, so nothing is written; and everything stays served,
    for 30 s.

    What was deleted before it died is told by no watch: the new list lacks it.
    """
    before = lists(replica, "VirtualMachine")
    with churn(site):
        replica.wire.do(replica.wire.proxy.break_off(Network.DOWN))
        for number in range(4):
            world.hands.ask("DELETE", path("virtualmachines", site.namespace, f"vm-{number}"))
        world.cluster.server.kill()
        world.cluster.etcd.compact()
        gone = awaited(lambda: not replica.listener.serves(site.steady), OUTAGE_S, 1.0)
        assert not gone
        assert not replica.leads
        world.cluster.server.start()
        replica.wire.do(replica.wire.proxy.mend())
        eventually(lambda: lists(replica, "VirtualMachine") > before, "listed anew")
        eventually(lambda: replica.leads, "leading again")
    world.agrees(replica)


def test_vms_that_are_deleted_while_the_watch_is_down(
    world: World, site: Site, replica: Replica
) -> None:
    before = lists(replica, "VirtualMachine")
    with churn(site):
        replica.wire.do(replica.wire.proxy.break_off(Network.DOWN))
        for number in range(4):
            world.hands.ask("DELETE", path("virtualmachines", site.namespace, f"vm-{number}"))
        replica.wire.do(replica.wire.proxy.mend())
    world.agrees(replica)
    assert lists(replica, "VirtualMachine") == before, "the watch goes on where it was"


def test_rights_that_are_taken_away_and_given_back(
    world: World, site: Site, replica: Replica
) -> None:
    """A refused list is no empty one (LESSONS)."""
    bindings = ("vmsvc-grpc-reader", "vmsvc-grpc-writer")
    with churn(site):
        for binding in bindings:
            world.cluster.kubectl("delete", "clusterrolebinding", binding)
        # An API server asks for rights only when a watch begins.
        replica.wire.do(replica.wire.proxy.cut())
        refused = {"kind": "VirtualMachine", "namespace": "", "status": "403"}
        eventually(lambda: replica.metric("vmsvc_source_failures_total", **refused) > 1, "refused")
        assert replica.listener.serves(site.steady)
        world.cluster.kubectl("apply", "--server-side", "--kustomize", str(VARIANT))
    world.agrees(replica)


def test_definitions_that_are_deleted_and_created_again(
    world: World, site: Site, replica: Replica
) -> None:
    """Their objects go first, which waits for our finalizer (LESSONS)."""
    replica.listener.may_lose(site.steady)
    with churn(site):
        for kind in ("virtualmachines", "virtualmachineservices"):
            definition = f"{kind}.vmoperator.vmware.com"
            world.cluster.kubectl("delete", "crd", definition, "--timeout=60s")
        eventually(
            lambda: not any(isinstance(s, Told) for s in replica.listener.told().values()),
            "told that nothing is there",
        )
        assert world.hands.listed("services", site.namespace) == []
        world.cluster.install_crds(*FLAVOURS["single-stack"].crds)
        site.populate()
    world.agrees(replica)
    replica.listener.loses_none(site.steady)


def test_a_connection_that_swallows_everything(world: World, site: Site) -> None:
    """LESSONS: a watch whose server vanished hangs for ever."""
    with world.replica("--watch-silence-s", "2", steady=[site.steady]) as replica:
        world.agrees(replica)
        with churn(site):
            replica.wire.do(replica.wire.proxy.break_off(Network.BLACK_HOLE))
            unanswered = {"kind": "VirtualMachine", "namespace": "", "status": "0"}
            eventually(
                lambda: replica.metric("vmsvc_source_failures_total", **unanswered), "noticed"
            )
            replica.wire.do(replica.wire.proxy.mend())
        world.agrees(replica)
