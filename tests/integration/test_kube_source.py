"""The source against a real API server: what is there, what changes, and faults on the way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.integration.following import (
    BOUNDS,
    VM,
    Admin,
    allow_reading,
    deletions,
    following,
    lists,
    through,
    vm_object,
    vm_path,
    vmservice_object,
)
from tests.kube.apiserver import Cluster
from tests.kube.proxy import Network, Proxy
from vmsvc_grpc.kube.client import ApiServer
from vmsvc_grpc.kube.credentials import Kubeconfig
from vmsvc_grpc.model.objects import GROUP, Key, Kind

MERGE_PATCH = "application/merge-patch+json"


@pytest.fixture
def namespace(kube: Cluster) -> str:
    return kube.create_namespace()


@pytest.fixture
def admin(kube: Cluster) -> Admin:
    return Admin(kube)


@pytest.fixture
def kubeconfig(kube: Cluster, tmp_path: Path) -> Path:
    return kube.kubeconfig(tmp_path / "kubeconfig")


@pytest.fixture
async def proxy(kube: Cluster, kubeconfig: Path) -> AsyncIterator[Proxy]:
    """A network on the way to the API server; the kubeconfig leads through it."""
    async with Proxy(int(kube.server.url.rpartition(":")[2])) as network:
        through(kubeconfig, network.port)
        yield network


# -- What is there, and what changes. --


async def test_what_is_there_and_what_changes(
    admin: Admin, kubeconfig: Path, namespace: str
) -> None:
    for number in range(7):
        await admin.create_vm(f"vm-{number}", namespace)
    await admin.create(vmservice_object("web", namespace))
    services = f"/api/v1/namespaces/{namespace}/services"
    await admin.request(
        "POST", services, {"metadata": {"name": "a"}, "spec": {"ports": [{"port": 1}]}}
    )
    async with following(kubeconfig, [namespace]) as followed:
        await followed.watching()
        assert followed.vms == {f"vm-{number}" for number in range(7)}
        web = followed.cache.services[Key(namespace, "web")]
        assert web.object.api_version == f"{GROUP}/v1alpha6"
        assert followed.cache.stored_services[Key(namespace, "a")].cluster_ip
        assert followed.loop(Kind.ENDPOINTS).counts.lists

        status = {"status": {"network": {"primaryIP4": "10.20.0.1"}}}
        await admin.patch_vm("vm-3", namespace, status, "/status")
        await followed.until(lambda: len(web.endpoints) == 1, "an address")
        await admin.delete_vm("vm-3", namespace)
        await followed.until(lambda: not web.endpoints, "no address")
        assert deletions(followed.events) == [Key(namespace, "vm-3")]
        assert followed.source.troubles == ()
        assert followed.reports == []


async def test_namespaces_by_name_need_a_role_there_and_nothing_else(
    admin: Admin, kube: Cluster, tmp_path: Path
) -> None:
    one, two, other = (kube.create_namespace() for _ in range(3))
    account = kube.service_account(one, "reader")
    for namespace in (one, two):
        allow_reading(kube, namespace, f"{one}:reader")
    for namespace in (one, two, other):
        await admin.create_vm(f"in-{namespace}", namespace)
    kubeconfig = kube.kubeconfig(tmp_path / "reader", user=account)
    async with following(kubeconfig, [one, two]) as followed:
        await followed.watching()
        assert followed.vms == {f"in-{one}", f"in-{two}"}
        await admin.create_vm("more", two)
        await followed.until(lambda: "more" in followed.vms, "told of one more")
        assert followed.reports == []
    async with following(kubeconfig) as followed:
        await followed.until(lambda: len(followed.source.troubles) == 4, "refused")
        assert not followed.cache.synced
        said = followed.loop(VM).trouble
        assert said.startswith("VirtualMachine in all namespaces: 403 virtualmachines.vmoperator")
        assert "cannot list resource" in said


async def test_of_others_services_and_endpoints_little_is_kept(
    admin: Admin, kubeconfig: Path, namespace: str
) -> None:
    await admin.create(vmservice_object("web", namespace))
    path = f"/apis/{GROUP}/v1alpha6/namespaces/{namespace}/virtualmachineservices/web"
    uid = (await admin.request("GET", path))["metadata"]["uid"]
    owner = {
        "apiVersion": f"{GROUP}/v1alpha6",
        "kind": "VirtualMachineService",
        "name": "web",
        "uid": uid,
        "controller": True,
    }
    subsets = [{"addresses": [{"ip": "10.20.0.1"}], "ports": [{"port": 80}]}]
    for name, owners in (("web", [owner]), ("pods", [])):
        meta = {"name": name, "ownerReferences": owners}
        endpoints = {"metadata": meta, "subsets": subsets}
        await admin.request("POST", f"/api/v1/namespaces/{namespace}/endpoints", endpoints)
    async with following(kubeconfig, [namespace]) as followed:
        await followed.synced()
        held = followed.cache.stored_endpoints
        assert len(held[Key(namespace, "web")].subsets) == 1
        assert held[Key(namespace, "pods")].subsets == ()
        # Given to the VMService, it is told again, and whole.
        pods = f"/api/v1/namespaces/{namespace}/endpoints/pods"
        patch = {"metadata": {"ownerReferences": [owner]}}
        await admin.request("PATCH", pods, patch, content_type=MERGE_PATCH)
        await followed.until(lambda: held[Key(namespace, "pods")].subsets, "all of it")


async def test_a_vm_of_1_mib_through_list_and_watch(
    admin: Admin, kubeconfig: Path, namespace: str
) -> None:
    """In kubernetes.aio's own watch: "Chunk too big"."""
    now = "2026-01-01T00:00:00Z"
    conditions = [
        {"type": f"C{number}", "status": "True", "reason": "R", "lastTransitionTime": now}
        | {"message": "x" * 32_000}
        for number in range(33)
    ]
    status = {"status": {"conditions": conditions}}
    for name in ("first", "second"):
        await admin.create_vm(name, namespace)
    await admin.patch_vm("first", namespace, status, "/status")
    async with following(kubeconfig, [namespace], kinds=(VM,)) as followed:
        await followed.watching()
        assert followed.vms == {"first", "second"}
        await admin.patch_vm("second", namespace, status, "/status")
        await admin.label_vm("second", namespace, "large")
        await followed.until(
            lambda: followed.labels(namespace, "second").get("is") == "large", "told of a large one"
        )
        assert lists(followed.events, VM) == 1
        assert not followed.loop(VM).counts.failures


async def test_an_object_that_cannot_be_read(
    admin: Admin, kube: Cluster, kubeconfig: Path, namespace: str
) -> None:
    """Its last good state stays, and everything else goes on."""
    for name in ("good", "bad"):
        await admin.create_vm(name, namespace)
    bad = await admin.request("GET", vm_path("bad", namespace))
    # The schema would refuse it; so it is put where the API server takes it from.
    bad["spec"]["readinessProbe"] = "text"
    key = f"/registry/{GROUP}/virtualmachines/{namespace}/bad"
    async with following(kubeconfig, [namespace], kinds=(VM,)) as followed:
        await followed.watching()
        await asyncio.to_thread(kube.etcd.put, key, bad)
        known = (VM, Key(namespace, "bad"))
        await followed.until(lambda: known in followed.cache.problems, "told of the bad one")
        (problem,) = followed.cache.problems[known]
        assert problem.field == "spec.readinessProbe"
        assert followed.vms == {"good", "bad"}
        await admin.label_vm("good", namespace, "well")
        await followed.until(lambda: followed.labels(namespace, "good").get("is"), "going on")
        async with following(kubeconfig, [namespace], kinds=(VM,)) as another:
            await another.synced()
            assert another.vms == {"good"}
            assert known in another.cache.problems
        await admin.delete_vm("bad", namespace)
        await followed.until(lambda: followed.vms == {"good"}, "rid of the bad one")
        assert known not in followed.cache.problems


async def test_a_vm_nested_as_deep_as_the_api_server_takes_it(
    admin: Admin, kubeconfig: Path, namespace: str
) -> None:
    """Where the schema leaves a field open, anybody who may create a VM may do that."""

    async def create(api: ApiServer, name: str) -> None:
        flat = json.dumps(vm_object(name, namespace, spec=deep_spec("@")))
        body = flat.replace('"@"', "[" * 9_000 + "]" * 9_000).encode()
        await api.request("POST", vm_path("", namespace).rstrip("/"), body=msgspec.Raw(body))

    async with (
        ApiServer(Kubeconfig(str(kubeconfig))) as api,
        following(kubeconfig, [namespace]) as followed,
    ):
        await followed.watching()
        await create(api, "deep")
        await followed.knows("deep")
        async with following(kubeconfig, [namespace]) as another:
            await another.synced()
            assert another.vms == {"deep"}


def deep_spec(commands: str) -> dict[str, Any]:
    cloud_init = {"cloudConfig": {"runcmd": commands}}
    spec: dict[str, Any] = vm_object("", "")["spec"]
    return spec | {"bootstrap": {"cloudInit": cloud_init}}


# -- On the way. --


async def test_connections_that_are_cut_are_resumed(
    admin: Admin, kubeconfig: Path, namespace: str, proxy: Proxy
) -> None:
    async with following(kubeconfig, [namespace]) as followed:
        await followed.watching()
        for name in ("one", "two", "three"):
            await proxy.cut()
            await admin.create_vm(name, namespace)
            await followed.knows(name)
        assert lists(followed.events, VM) == 1
        assert followed.loop(VM).counts.watches >= 4


async def test_a_black_hole_is_noticed(
    admin: Admin, kubeconfig: Path, namespace: str, proxy: Proxy
) -> None:
    """LESSONS: a watch whose server vanished hangs for ever."""
    await admin.create_vm("vm", namespace)
    # An API server sends a bookmark every minute; nobody waits for one here.
    bounds = replace(BOUNDS, silence_s=1.0)
    async with following(kubeconfig, [namespace], kinds=(VM,), bounds=bounds) as followed:
        await followed.watching()
        await proxy.break_off(Network.BLACK_HOLE)
        start = len(followed.events)
        await admin.label_vm("vm", namespace, "unheard")
        await admin.create_vm("new", namespace)
        await followed.until(lambda: followed.loop(VM).counts.failures[0], "noticed")
        assert followed.since(start) == []
        await proxy.mend()
        await followed.until(lambda: followed.vms == {"vm", "new"}, "told of the new one")
        assert followed.labels(namespace, "vm")["is"] == "unheard"


async def test_a_request_that_is_broken_off_in_a_black_hole_leaves_no_connection(
    kubeconfig: Path, proxy: Proxy
) -> None:
    """To end TLS in order is to wait for the other end, and our event loop ends before that."""
    async with ApiServer(Kubeconfig(str(kubeconfig))) as api:
        await api.request("GET", "/version")
        await proxy.break_off(Network.BLACK_HOLE)
        task = asyncio.create_task(api.request("GET", "/version"))
        await asyncio.sleep(0.1)
        assert not task.done()
        assert connected_to(proxy.port) == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert connected_to(proxy.port) == 0


def connected_to(port: int) -> int:
    """How many connections of this machine to a port of it are open (proc(5), tcp)."""
    established = "01"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum((row[2][-4:], row[3]) == (f"{port:04X}", established) for row in rows)
