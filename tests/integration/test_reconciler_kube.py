"""Source, cache and reconciler on a real API server: what is stored there in the end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.kube_replica import RULES, Desk, replica, until
from tests.kube.apiserver import Cluster
from tests.reconciling import attempts, turns
from vmsvc_grpc.model.objects import IPFamily, Kind
from vmsvc_grpc.reconciler.bounds import ReconcilerBounds
from vmsvc_grpc.reconciler.counts import Attempt, Turn
from vmsvc_grpc.reconciler.plan import Verb

NSX = replace(RULES, load_balancer_provider="nsx-t-lb")
FINALIZER = "vmoperator.vmware.com/virtualmachineservice"
SERVICE_READY = "VirtualMachineServiceServiceReady"
ACCEPTED = "VirtualMachineServiceAccepted"
THEN = "2026-01-01T00:00:00Z"
CREATED = ("Normal", "CreateK8sServiceSuccess", "CreateK8sService success")
UPDATED = ("Normal", "UpdateK8sServiceSuccess", "UpdateK8sService success")
DELETED = ("Normal", "DeleteK8sServiceSuccess", "DeleteK8sService success")
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "name": "someone",
    "uid": "11111111-1111-4111-8111-111111111111",
    "controller": True,
}


@pytest.fixture
def desk(kube: Cluster) -> Desk:
    return Desk(kube)


async def stored(desk: Desk, resource: str, name: str = "web") -> dict[str, Any]:
    found = await desk.get(resource, name)
    assert found is not None
    return found


# -- What is held --


async def test_objects_are_made_and_then_nothing_more(desk: Desk, tmp_path: Path) -> None:
    vm = await desk.vm("a", "10.20.0.11")
    owner = (await desk.vmservice(meta={"labels": {"team": "blue"}}))["metadata"]
    async with replica(desk, tmp_path) as one:
        await desk.holds("10.20.0.11")
        await one.settled()
        assert attempts(one.reconciler.counts, Attempt.WRITTEN) == {
            (Kind.VIRTUAL_MACHINE_SERVICE, Verb.UPDATE): 2,
            (Kind.SERVICE, Verb.CREATE): 1,
            (Kind.ENDPOINTS, Verb.CREATE): 1,
        }
        at_rest = await desk.versions()
        one.reconciler.enqueue_all()
        # What says nothing of the endpoints writes nothing.
        await desk.patch("virtualmachines", "a", {"metadata": {"annotations": {"seen": "often"}}})
        await one.settled()
    async with replica(desk, tmp_path) as another:
        await another.settled()
        assert another.writes == 0
    assert await desk.versions() == at_rest
    service, endpoints = await stored(desk, "services"), await stored(desk, "endpoints")
    for child in (service, endpoints):
        assert child["metadata"]["labels"] == {"team": "blue"}
        assert child["metadata"]["ownerReferences"] == [
            {
                "apiVersion": "vmoperator.vmware.com/v1alpha6",
                "kind": "VirtualMachineService",
                "name": "web",
                "uid": owner["uid"],
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
    assert "selector" not in service["spec"]
    assert endpoints["subsets"] == [
        {
            "addresses": [
                {
                    "ip": "10.20.0.11",
                    "targetRef": {
                        "apiVersion": "vmoperator.vmware.com/v1alpha6",
                        "kind": "VirtualMachine",
                        "namespace": desk.namespace,
                        "name": "a",
                        "uid": vm,
                    },
                }
            ],
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        }
    ]
    vmservice = await stored(desk, "virtualmachineservices")
    assert vmservice["metadata"]["finalizers"] == [FINALIZER]
    (condition,) = vmservice["status"]["conditions"]
    assert (condition["type"], condition["status"]) == (SERVICE_READY, "Unknown")
    assert await desk.told() == {CREATED: 1}


async def test_a_burst_of_changes_becomes_few_writes(desk: Desk, tmp_path: Path) -> None:
    """200 changes within a second or so, as one by one they would be 200 writes."""
    await asyncio.gather(*(desk.vm(f"vm-{n}", "10.20.1.1") for n in range(8)))
    await desk.vmservice()
    async with replica(desk, tmp_path, bounds=ReconcilerBounds()) as one:
        await one.settled()
        before, clock = one.writes, asyncio.get_running_loop().time
        began = clock()
        for turn in range(25):
            # Each VM changes its address each time.
            await asyncio.gather(*(one.move(f"vm-{n}", f"10.20.{turn}.{n + 1}") for n in range(8)))
        await desk.holds(*(f"10.20.24.{n + 1}" for n in range(8)))
        await one.settled()
        # At once, after each rest of 0.2 s, and in the end.
        assert one.writes - before <= 2 + (clock() - began) / 0.2


async def test_what_somebody_edits_or_deletes_is_put_right_and_the_rest_stays(
    desk: Desk, tmp_path: Path
) -> None:
    await desk.vm("a", "10.20.0.11")
    await desk.vmservice(type="LoadBalancer")
    async with replica(desk, tmp_path) as one:
        await desk.holds("10.20.0.11")
        await one.settled()
        theirs = {"sessionAffinity": "ClientIP", "internalTrafficPolicy": "Local"}
        edit = {"selector": {"app": "pods"}, "ports": [{"name": "x", "port": 1}], **theirs}
        marks = {"labels": {"theirs": "yes"}, "annotations": {"note": "theirs"}}
        await desk.patch("services", "web", {"spec": edit, "metadata": marks})
        await one.settled()
        service = await stored(desk, "services")
        assert "selector" not in service["spec"]
        assert [(p["name"], p["port"]) for p in service["spec"]["ports"]] == [("http", 80)]
        assert {field: service["spec"][field] for field in theirs} == theirs
        assert service["metadata"]["labels"] == {"theirs": "yes"}
        endpoints = await stored(desk, "endpoints")
        assert endpoints["metadata"]["labels"] == {"theirs": "yes"}

        await desk.patch("endpoints", "web", {"subsets": [], "metadata": {"labels": {"a": "b"}}})
        await one.settled()
        await desk.holds("10.20.0.11")
        assert (await stored(desk, "endpoints"))["metadata"]["labels"] == {"theirs": "yes"}

        for resource in ("endpoints", "services"):
            uid = (await stored(desk, resource))["metadata"]["uid"]
            await desk.delete(resource)

            async def is_new(resource: str = resource, uid: str = uid) -> bool:
                found = await desk.get(resource)
                return found is not None and found["metadata"]["uid"] != uid

            await until(is_new)
        await one.settled()
        await desk.holds("10.20.0.11")


async def test_families_are_those_of_the_cluster(kube_dual_stack: Cluster, tmp_path: Path) -> None:
    desk = Desk(kube_dual_stack)
    await desk.vm("a", "10.20.0.11")
    await desk.vm("b", "2001:db8::11")
    await desk.vmservice(ipFamilyPolicy="PreferDualStack")
    await desk.vmservice("one")
    families = (IPFamily.IPV4, IPFamily.IPV6)
    async with replica(desk, tmp_path, families=families) as one:
        await desk.holds("10.20.0.11", "2001:db8::11")
        await desk.holds("10.20.0.11", name="one")
        await one.settled()
        spec = {"ipFamilyPolicy": "SingleStack"}
        await desk.patch("virtualmachineservices", "web", {"spec": spec})
        await desk.holds("10.20.0.11")
        await one.settled()
        assert (await stored(desk, "services"))["spec"]["ipFamilies"] == ["IPv4"]
        assert one.failures == []


# -- Whose the Service is --


async def test_a_foreign_service_stays_and_is_told_of_until_it_goes(
    desk: Desk, tmp_path: Path
) -> None:
    await desk.vm("a", "10.20.0.11")
    body = {
        "metadata": {"name": "web", "ownerReferences": [DEPLOYMENT]},
        "spec": {"ports": [{"name": "theirs", "port": 8}]},
    }
    foreign = await desk.create("services", body)
    await desk.vmservice()
    async with replica(desk, tmp_path) as one:

        async def refused() -> bool:
            condition = await desk.condition(ACCEPTED)
            return condition is not None and condition["status"] == "False"

        await until(refused)
        await one.settled()
        assert await stored(desk, "services") == foreign
        assert await desk.get("endpoints") is None
        condition = await desk.condition(ACCEPTED)
        assert condition is not None
        assert condition["reason"] == "ServiceNotOurs"
        assert "Deployment someone" in condition["message"]
        assert await desk.told() == {("Warning", "ServiceNotOurs", condition["message"]): 1}
        await desk.delete("services")
        await desk.holds("10.20.0.11")
        await one.settled()
        condition = await desk.condition(ACCEPTED)
        assert condition is not None
        assert (condition["status"], condition["reason"]) == ("True", "Accepted")
        assert (await desk.told())[CREATED] == 1


async def test_a_service_that_selects_pods_is_not_taken_over(desk: Desk, tmp_path: Path) -> None:
    body = {
        "metadata": {"name": "web"},
        "spec": {"ports": [{"port": 8}], "selector": {"app": "pods"}},
    }
    pods = await desk.create("services", body)
    await desk.vmservice()
    async with replica(desk, tmp_path) as one:
        await until(lambda: one.failures)
        await one.settled()
        assert await stored(desk, "services") == pods
        # It is told when it may be taken over.
        await desk.patch("services", "web", {"spec": {"selector": None}})
        await desk.holds()
        await one.settled()
        assert (await stored(desk, "services"))["metadata"]["uid"] == pods["metadata"]["uid"]


async def test_a_service_of_nobody_is_adopted_and_keeps_its_address(
    desk: Desk, tmp_path: Path
) -> None:
    body = {
        "metadata": {"name": "web", "labels": {"theirs": "yes"}},
        "spec": {"ports": [{"name": "old", "port": 1}]},
    }
    found = await desk.create("services", body)
    await desk.vmservice(clusterIp="10.96.100.61")
    async with replica(desk, tmp_path) as one:
        await desk.holds()
        await one.settled()
        service = await stored(desk, "services")
        assert service["metadata"]["uid"] == found["metadata"]["uid"]
        assert service["metadata"]["labels"] == {"theirs": "yes"}
        assert service["spec"]["clusterIP"] == found["spec"]["clusterIP"]
        assert [port["name"] for port in service["spec"]["ports"]] == ["http"]
        assert await desk.told() == {UPDATED: 1}


# -- What a VMService says --


async def test_a_load_balancer_is_reported(desk: Desk, tmp_path: Path) -> None:
    await desk.vmservice(type="LoadBalancer")
    other = {"type": "Other", "status": "True", "reason": "Any", "message": ""}
    other["lastTransitionTime"] = THEN
    status = {"status": {"conditions": [other]}}
    await desk.patch("virtualmachineservices", "web", status, "/status")

    async def told() -> tuple[Any, Any]:
        status = (await stored(desk, "virtualmachineservices"))["status"]
        conditions = [(c["type"], c["status"], c["reason"]) for c in status["conditions"]]
        return status.get("loadBalancer"), conditions

    async with replica(desk, tmp_path) as one:
        await desk.holds()
        await one.settled()
        ready = {"type": "Ready", "status": "False", "reason": "NoPool", "message": "no pool"}
        ready["lastTransitionTime"] = THEN
        ingress = [{"ip": "192.0.2.7", "ipMode": "VIP"}, {"hostname": "lb.example.com"}]
        given = {"loadBalancer": {"ingress": ingress}, "conditions": [ready]}
        await desk.patch("services", "web", {"status": given}, "/status")
        await one.settled()
        assert await told() == (
            {"ingress": [{"ip": "192.0.2.7"}, {"hostname": "lb.example.com"}]},
            [("Other", "True", "Any"), (SERVICE_READY, "False", "NoPool")],
        )
        # Only the reason changes, so the time of the status stays.
        before = await desk.condition(SERVICE_READY)
        ready["reason"] = "NoMembers"
        await desk.patch("services", "web", {"status": {"conditions": [ready]}}, "/status")
        await one.settled()
        after = await desk.condition(SERVICE_READY)
        assert before is not None
        assert after == {**before, "reason": "NoMembers"}

        await desk.patch("virtualmachineservices", "web", {"spec": {"type": "ClusterIP"}})
        await one.settled()
        service = await stored(desk, "services")
        assert service["spec"]["type"] == "ClusterIP"
        assert not {"allocateLoadBalancerNodePorts", "externalTrafficPolicy"} & set(service["spec"])
        assert service["status"]["loadBalancer"] == {}
        assert (await told())[0] is None
        assert one.failures == []


async def test_marks_of_a_provider_are_on_both(desk: Desk, tmp_path: Path) -> None:
    prefix = "virtualmachineservice.vmoperator.vmware.com/service."
    asked = {f"{prefix}externalTrafficPolicy": "Local", f"{prefix}healthCheckNodePort": "30012"}
    await desk.vmservice(type="LoadBalancer", meta={"annotations": asked})
    async with replica(desk, tmp_path, rules=NSX) as one:
        await desk.holds()
        await one.settled()
        for resource in ("services", "virtualmachineservices"):
            meta = (await stored(desk, resource))["metadata"]
            assert meta["labels"] == {"service.kubernetes.io/service-proxy-name": "nsx-t"}
            assert meta["annotations"]["ncp/healthCheckNodePort"] == "30012"
        gone = dict.fromkeys(asked)
        await desk.patch("virtualmachineservices", "web", {"metadata": {"annotations": gone}})
        await one.settled()
        meta = (await stored(desk, "services"))["metadata"]
        assert "annotations" not in meta
        assert "labels" not in meta
        assert one.failures == []


async def test_a_refused_one_says_why_and_is_held_once_it_is_right(
    desk: Desk, tmp_path: Path
) -> None:
    await desk.vmservice(type="NodePort")
    async with replica(desk, tmp_path) as one:
        await until(one.cache.problems.__len__)
        await one.settled()
        condition = await desk.condition(ACCEPTED)
        assert condition is not None
        assert (condition["status"], condition["reason"]) == ("False", "Invalid")
        assert condition["message"].startswith("spec.type: NodePort is not supported")
        assert condition["observedGeneration"] == 1
        assert await desk.told() == {("Warning", "Invalid", condition["message"]): 1}
        assert await desk.get("services") is None
        assert await desk.get("endpoints") is None
        assert "finalizers" not in (await stored(desk, "virtualmachineservices"))["metadata"]
        await desk.patch("virtualmachineservices", "web", {"spec": {"type": "ClusterIP"}})
        await desk.holds()
        await one.settled()
        condition = await desk.condition(ACCEPTED)
        assert condition is not None
        assert (condition["status"], condition["observedGeneration"]) == ("True", 2)


async def test_what_the_api_server_refuses_is_told_in_its_words(desk: Desk, tmp_path: Path) -> None:
    await desk.vmservice(ipFamilyPolicy="RequireDualStack")
    async with replica(desk, tmp_path) as one:
        await until(lambda: turns(one.reconciler.counts, Turn.FAILED) > 2)
        condition = await desk.condition(ACCEPTED)
        assert condition is not None
        assert (condition["status"], condition["reason"]) == ("False", "CreateServiceFailed")
        assert "RequireDualStack" in condition["message"]
        await until(lambda: not one.recorder._waiting)
        assert await desk.told() == {("Warning", "CreateServiceFailed", condition["message"]): 1}
        await desk.patch("virtualmachineservices", "web", {"spec": {"ipFamilyPolicy": None}})
        await desk.holds()
        await one.settled()
        condition = await desk.condition(ACCEPTED)
        assert condition is not None
        assert condition["status"] == "True"
        assert one.failures[-1] == (desk.key(), None)


# -- Deletion --


async def test_deletion_takes_the_objects_and_lets_go(desk: Desk, tmp_path: Path) -> None:
    await desk.vm("a", "10.20.0.11")
    former = "virtualmachineservice.vmoperator.vmware.com"
    await desk.vmservice(meta={"finalizers": [former, "others.example.com/stays"]})
    async with replica(desk, tmp_path) as one:
        await desk.holds("10.20.0.11")
        await one.settled()
        meta = (await stored(desk, "virtualmachineservices"))["metadata"]
        assert meta["finalizers"] == ["others.example.com/stays", FINALIZER]
        await desk.delete("virtualmachineservices")

        async def let_go() -> bool:
            meta = (await stored(desk, "virtualmachineservices"))["metadata"]
            return bool(meta["finalizers"] == ["others.example.com/stays"])

        await until(let_go)
        assert await desk.get("services") is None
        assert await desk.get("endpoints") is None
        await one.settled()
        assert await desk.told() == {CREATED: 1, DELETED: 1}
        none = {"metadata": {"finalizers": None}}
        await desk.patch("virtualmachineservices", "web", none)
        await desk.gone("virtualmachineservices")
        await one.settled()
        assert one.cache.keys_with_work() == set()


async def test_what_happens_to_others_objects_is_no_work(desk: Desk, tmp_path: Path) -> None:
    """Neither where they are in the way of a VMService, nor where there is none."""
    for name in ("pods", "web"):
        port = {"ports": [{"port": 8}], "selector": {"app": "pods"}}
        await desk.create("services", {"metadata": {"name": name}, "spec": port})
        controlled = {"name": name, "ownerReferences": [DEPLOYMENT]}
        await desk.create("endpoints", {"metadata": controlled})
    await desk.vmservice()
    async with replica(desk, tmp_path) as one:
        await one.settled()
        begun, writes = turns(one.reconciler.counts), one.writes
        for at in range(10):
            mark = {"metadata": {"labels": {"at": f"{at}"}}}
            for resource in ("services", "endpoints"):
                await desk.patch(resource, "pods", mark)
                await desk.patch(resource, "web", mark)
        await one.settled()
        assert turns(one.reconciler.counts) == begun
        assert one.writes == writes
        assert one.cache.keys_with_work() == {desk.key()}


async def test_deletion_leaves_what_is_anothers(desk: Desk, tmp_path: Path) -> None:
    body = {
        "metadata": {"name": "web", "ownerReferences": [DEPLOYMENT]},
        "spec": {"ports": [{"port": 8}]},
    }
    foreign = await desk.create("services", body)
    await desk.vmservice()
    async with replica(desk, tmp_path) as one:
        await until(lambda: one.failures)
        await one.settled()
        await desk.delete("virtualmachineservices")
        await desk.gone("virtualmachineservices")
        await one.settled()
        assert await stored(desk, "services") == foreign
        assert DELETED not in await desk.told()


async def test_a_vmservice_made_anew_gets_objects_of_its_own(desk: Desk, tmp_path: Path) -> None:
    await desk.vmservice()
    async with replica(desk, tmp_path) as one:
        await desk.holds()
        await one.settled()
    before = {r: await stored(desk, r) for r in ("services", "endpoints")}
    # While nobody runs: it is let go by hand, and another takes its name.
    await desk.patch("virtualmachineservices", "web", {"metadata": {"finalizers": None}})
    await desk.delete("virtualmachineservices")
    owner = await desk.vmservice()
    async with replica(desk, tmp_path) as one:

        async def is_new() -> bool:
            found = [await desk.get(r) for r in before]
            owners = [f["metadata"]["ownerReferences"][0]["uid"] for f in found if f]
            return owners == [owner["metadata"]["uid"]] * 2

        await until(is_new)
        await one.settled()
        for resource, old in before.items():
            assert (await stored(desk, resource))["metadata"]["uid"] != old["metadata"]["uid"]
