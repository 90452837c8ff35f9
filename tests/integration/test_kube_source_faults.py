"""The source while its API server stops, forgets, changes, and refuses: one fault after another.

A cluster of this file's own, as these faults are everybody's who uses it.
"""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.following import (
    BOUNDS,
    KINDS,
    VM,
    VMSERVICE,
    Admin,
    allow_reading,
    bind_reader,
    deletions,
    following,
    lists,
    through,
    vm_object,
    vmservice_object,
)
from tests.kube.apiserver import Cluster
from tests.kube.plugin import FLAVOURS
from tests.kube.proxy import Network, Proxy
from vmsvc_grpc.model.objects import GROUP, Key

CRDS = FLAVOURS["single-stack"].crds
CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MERGE_PATCH = "application/merge-patch+json"


@pytest.fixture(scope="module")
def cluster(
    find_binary: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("kube-source")
    # It then ends watches when it stops, instead of waiting a minute for them to end.
    flags = ["--shutdown-watch-termination-grace-period=2s"]
    with Cluster(folder, flags=flags, find=find_binary) as kube:
        kube.install_crds(*CRDS)
        yield kube


@pytest.fixture
def namespace(cluster: Cluster) -> str:
    return cluster.create_namespace()


@pytest.fixture
def admin(cluster: Cluster) -> Admin:
    return Admin(cluster)


@pytest.fixture
def kubeconfig(cluster: Cluster, tmp_path: Path) -> Path:
    return cluster.kubeconfig(tmp_path / "kubeconfig")


@pytest.fixture
async def proxy(cluster: Cluster) -> AsyncIterator[Proxy]:
    """A network on the way to the API server."""
    async with Proxy(int(cluster.server.url.rpartition(":")[2])) as network:
        yield network


# -- A server that stops. --


async def test_a_server_that_is_not_there_yet_and_goes_again(
    admin: Admin, cluster: Cluster, kubeconfig: Path, namespace: str
) -> None:
    """It is asked before it has started, restarted, and killed on the same data."""
    await admin.create_vm("vm", namespace)
    server = cluster.server
    await asyncio.to_thread(server.kill)
    async with following(kubeconfig, [namespace]) as followed:
        await followed.until(lambda: followed.source.troubles, "in trouble")
        assert not followed.cache.synced
        await asyncio.to_thread(server.start)
        await followed.watching()
        await followed.well()
        # That nobody is there is one thing to say, and not one for each kind.
        said = [str(report) for report in followed.reports]
        assert sum(text.startswith("cannot connect") for text in said) == 1
        assert said[-1].startswith("in order again: ")
        for name, stop in (("stopped", server.stop), ("killed", server.kill)):
            await asyncio.to_thread(stop)
            await asyncio.to_thread(server.start)
            await admin.create_vm(name, namespace)
            await followed.knows("vm", name)
        assert deletions(followed.events) == []


async def test_what_was_deleted_and_forgotten_meanwhile_is_gone_after_a_list(
    admin: Admin, cluster: Cluster, kubeconfig: Path, namespace: str, proxy: Proxy
) -> None:
    """LESSONS: 410; a relist sees fewer objects. etcd is compacted while nobody watches."""
    for number in range(5):
        await admin.create_vm(f"vm-{number}", namespace)
    async with following(through(kubeconfig, proxy.port), [namespace]) as followed:
        await followed.watching()
        start = len(followed.events)
        await proxy.break_off(Network.DOWN)
        await admin.delete_vm("vm-1", namespace)
        await admin.delete_vm("vm-4", namespace)
        await admin.create_vm("vm-5", namespace)
        await asyncio.to_thread(cluster.etcd.compact)
        # Only a new API server does not have it in its own memory any more.
        await asyncio.to_thread(cluster.server.kill)
        await asyncio.to_thread(cluster.server.start)
        assert followed.since(start) == []
        await proxy.mend()
        there = {"vm-0", "vm-2", "vm-3", "vm-5"}
        await followed.until(lambda: followed.vms == there, "as it is there")
        assert followed.loop(VM).counts.failures[410] == 1
        assert lists(followed.since(start), VM) == 1
        # Nobody said that they were deleted; the list lacks them.
        assert deletions(followed.events) == []


async def test_a_server_that_was_set_back_to_a_backup(
    admin: Admin, cluster: Cluster, kubeconfig: Path, namespace: str
) -> None:
    """To it we come from the future, and it has nothing to say to us for a while."""
    await admin.create_vm("old", namespace)
    await asyncio.to_thread(cluster.etcd.back_up)
    bounds = replace(BOUNDS, silence_s=1.0)
    async with following(kubeconfig, [namespace], kinds=(VM,), bounds=bounds) as followed:
        await followed.watching()
        for number in range(20):
            await admin.create_vm(f"new-{number}", namespace)
        await followed.knows("new-19")
        await asyncio.to_thread(cluster.set_back)
        await followed.until(lambda: followed.vms == {"old"}, "set back, too")


# -- Rights and credentials. --


async def test_rights_that_are_taken_away_and_given_back(
    admin: Admin, cluster: Cluster, tmp_path: Path, namespace: str, proxy: Proxy
) -> None:
    """LESSONS: a list that is refused is taken for an empty one."""
    account = cluster.service_account(namespace, "reader")
    allow_reading(cluster, namespace, f"{namespace}:reader")
    await admin.create_vm("vm", namespace)
    kubeconfig = through(cluster.kubeconfig(tmp_path / "reader", user=account), proxy.port)
    async with following(kubeconfig, [namespace]) as followed:
        await followed.watching()
        binding = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings/reader"
        await admin.request("DELETE", binding)
        await admin.create_vm("unseen", namespace)
        loop = followed.loop(VM)

        def refused() -> bool:
            return len(followed.source.troubles) == len(KINDS)

        # A watch that is open goes on without rights, for as long as it lasts.
        await cut_until(proxy, refused)
        assert "403" in loop.trouble
        contact, start = loop.contact, len(followed.events)
        await followed.until(lambda: loop.counts.failures[403] > 3, "refused several times")
        assert loop.contact == contact
        assert followed.since(start) == []
        assert "vm" in followed.vms
        assert followed.cache.synced
        await asyncio.to_thread(bind_reader, cluster, namespace, f"{namespace}:reader")
        await followed.well()
        await admin.create_vm("seen", namespace)
        await followed.knows("vm", "unseen", "seen")
        assert deletions(followed.events) == []


async def cut_until(proxy: Proxy, condition: Callable[[], bool]) -> None:
    """Cuts connections until it holds: what the API server knows of rights lags a little."""
    async with asyncio.timeout(30):
        while not condition():
            await proxy.cut()
            await asyncio.sleep(0.2)


async def test_a_token_and_a_ca_that_are_rotated(
    admin: Admin, cluster: Cluster, tmp_path: Path, namespace: str
) -> None:
    token_file = tmp_path / "token"
    first = cluster.service_account(namespace, "reader")
    allow_reading(cluster, namespace, f"{namespace}:reader")
    token_file.write_text(first.token + "\n")
    await admin.create_vm("vm", namespace)
    kubeconfig = cluster.kubeconfig(tmp_path / "reader", token_file=token_file)
    async with following(kubeconfig, [namespace]) as followed:
        await followed.watching()
        # Its tokens go with a ServiceAccount, also if another of the same name comes.
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/reader"
        await admin.request("DELETE", path)
        second = cluster.service_account(namespace, "reader")
        await asyncio.to_thread(cluster.server.kill)
        await asyncio.to_thread(cluster.server.restart, new_ca=True)
        await followed.until(lambda: "401" in followed.loop(VM).trouble, "refused")
        assert followed.vms == {"vm"}
        token_file.write_text(second.token + "\n")
        await followed.well()
        await admin.create_vm("new", namespace)
        await followed.knows("vm", "new")
        assert deletions(followed.events) == []


# -- Definitions that come, change and go. --


def crds() -> list[Any]:
    return [yaml.load(file.read_text(), yaml.CSafeLoader) for file in CRDS]


async def test_crds_that_go_and_come_again(
    admin: Admin, cluster: Cluster, kubeconfig: Path, namespace: str
) -> None:
    """LESSONS: the CRD is deleted and created again. And: one that is not installed yet."""
    await admin.create_vm("vm", namespace)
    await admin.create(vmservice_object("web", namespace))
    async with following(kubeconfig, [namespace]) as followed:
        await followed.watching()
        for crd in crds():
            await admin.request("DELETE", f"{CRD_PATH}/{crd['metadata']['name']}")
        await followed.until(lambda: not followed.vms and not followed.cache.services, "empty")
        await followed.until(lambda: len(followed.source.troubles) == 2, "waiting")
        assert followed.loop(VM).trouble == (
            f"VirtualMachine in namespace {namespace}: 404 CustomResourceDefinition "
            f"virtualmachines.{GROUP} is not installed, or serves none of v1alpha1 to v1alpha6; "
            "install VM Operator's CustomResourceDefinitions"
        )
        # Kubernetes deletes the objects first, and says so.
        assert sorted(deletions(followed.events)) == [Key(namespace, "vm"), Key(namespace, "web")]
        async with following(kubeconfig, [namespace]) as later:
            await later.until(lambda: len(later.source.troubles) == 2, "waiting")
            await later.until(lambda: later.cache.unlisted == {VM, VMSERVICE}, "all but those")
            await asyncio.to_thread(cluster.install_crds, *CRDS)
            await admin.create_vm("vm", namespace, metadata=labelled("vm", namespace, "again"))
            await later.synced()
            for each in (followed, later):
                await each.knows("vm")
                await each.well()
                assert each.labels(namespace, "vm")["is"] == "again"


def labelled(name: str, namespace: str, value: str) -> dict[str, Any]:
    metadata: dict[str, Any] = copy.deepcopy(vm_object(name, namespace)["metadata"])
    metadata["labels"]["is"] = value
    return metadata


def says(tell: Callable[[], str], text: str) -> bool:
    return tell() == text


async def test_the_newest_version_that_is_served_is_read(
    admin: Admin, kubeconfig: Path, namespace: str
) -> None:
    """One stops being served, and is served again; both times the objects are read anew."""
    await admin.create(vmservice_object("web", namespace))
    crd = next(crd for crd in crds() if "services" in crd["metadata"]["name"])
    path = f"{CRD_PATH}/{crd['metadata']['name']}"
    versions = crd["spec"]["versions"]
    older = copy.deepcopy(versions)
    next(v for v in older if v["name"] == "v1alpha6")["served"] = False
    # What the API server serves and what it says that it serves change one after the other: who
    # asks between hears of the older version, and of the newer one at the end of the next watch.
    bounds = replace(BOUNDS, watch_s=2.0)
    async with following(kubeconfig, [namespace], bounds=bounds) as followed:
        await followed.watching()
        start = len(followed.events)

        def read() -> str:
            return followed.cache.services[Key(namespace, "web")].object.api_version

        for served, newest in ((older, "v1alpha5"), (versions, "v1alpha6")):
            patch = {"spec": {"versions": served}}
            await admin.request("PATCH", path, patch, content_type=MERGE_PATCH)
            await followed.until(partial(says, read, f"{GROUP}/{newest}"), f"reading {newest}")
        # Kinds are looked for each by itself.
        assert lists(followed.since(start), VMSERVICE) in (2, 3)
        assert lists(followed.since(start), VM) == 0
        assert deletions(followed.events) == []


# -- Many. --


async def test_5000_vms_and_500_services(
    admin: Admin, cluster: Cluster, kubeconfig: Path, namespace: str
) -> None:
    """All come over a watch, in a burst, and then again as a list; nobody else waits long."""
    objects = {
        f"/registry/{GROUP}/{plural(one)}/{namespace}/{one['metadata']['name']}": one
        for one in [
            *(stored(vm_object(f"vm-{n}", namespace), f"svc-{n % 500}") for n in range(5_000)),
            *(stored(vmservice_object(f"svc-{n}", namespace), "any") for n in range(500)),
        ]
    }
    bounds = replace(BOUNDS, page_objects=500)
    async with following(kubeconfig, kinds=(VM, VMSERVICE), bounds=bounds) as watched:
        await watched.watching()
        start = len(watched.events)
        await asyncio.to_thread(cluster.etcd.put_all, objects)
        await watched.until(
            lambda: len(watched.cache.vms) >= 5_000 and len(watched.cache.services) >= 500, "all"
        )
        assert lists(watched.since(start), VM) == 0
        async with following(kubeconfig, kinds=(VM, VMSERVICE), bounds=bounds) as listed:
            await listed.synced()
            assert listed.vms == watched.vms
            assert set(listed.cache.services) == set(watched.cache.services)
            assert listed.loop(VM).counts.watches <= 1


def plural(object_: dict[str, Any]) -> str:
    return f"{object_['kind'].lower()}s"


def stored(object_: dict[str, Any], app: str) -> dict[str, Any]:
    """The object as the API server would store it, as far as it matters."""
    name = object_["metadata"]["name"]
    made = {
        "uid": str(uuid.uuid5(uuid.NAMESPACE_DNS, name)),
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"app": app},
    }
    return object_ | {"metadata": object_["metadata"] | made}
