"""A source that follows a real API server into a cache, and what a test asks of both."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.kube.apiserver import Cluster, Response
from vmsvc_grpc.backoff import Backoff
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.kube.client import ApiServer
from vmsvc_grpc.kube.credentials import Credentials, Kubeconfig
from vmsvc_grpc.model.events import Delete, Event, InitDone
from vmsvc_grpc.model.objects import GROUP, Key, Kind
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.source.kube import KubeSource, KubeSourceBounds, Trouble
from vmsvc_grpc.source.listwatch import ListWatch

DEADLINE_S = 60
KINDS = (Kind.VIRTUAL_MACHINE, Kind.VIRTUAL_MACHINE_SERVICE, Kind.SERVICE, Kind.ENDPOINTS)
# Small pages, so that every list has several; and nobody waits for a failure to be over.
BOUNDS = KubeSourceBounds(page_objects=3, backoff=Backoff(first_s=0.05, max_s=0.2))

VM, VMSERVICE = Kind.VIRTUAL_MACHINE, Kind.VIRTUAL_MACHINE_SERVICE


@dataclass
class Following:
    """A source that runs, and what has come of it."""

    source: KubeSource
    cache: Cache
    events: list[Event] = field(default_factory=list)
    reports: list[Trouble] = field(default_factory=list)

    def take(self, event: Event) -> None:
        self.events.append(event)
        self.cache.apply(event)

    def loop(self, kind: Kind) -> ListWatch:
        """What follows a kind, where there is one namespace, or all at once."""
        (loop,) = (loop for loop in self.source.loops if loop.kind is kind)
        return loop

    @property
    def vms(self) -> set[str]:
        """The names of all VMs."""
        return {key.name for key in self.cache.vms.keys()}  # noqa: SIM118 - not a dict

    def labels(self, namespace: str, name: str) -> dict[str, str]:
        vm = self.cache.vms.get(Key(namespace, name))
        return dict(vm.labels) if vm else {}

    def since(self, start: int) -> list[Event]:
        return self.events[start:]

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Returns once the condition holds; says `what` was waited for if it does not in time."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not condition():  # noqa: ASYNC110 - not everything here is an event
                    await asyncio.sleep(0.01)
        except TimeoutError:
            counts = [(loop.scope, loop.counts) for loop in self.source.loops]
            raise AssertionError(f"not {what}: {self.source.troubles} {counts}") from None

    async def knows(self, *names: str) -> None:
        """Returns once there are VMs of these names."""
        await self.until(lambda: self.vms >= {*names}, f"told of {names}")

    async def well(self) -> None:
        """Returns once there is no trouble."""
        await self.until(lambda: not self.source.troubles, "out of trouble")

    async def synced(self) -> None:
        await self.until(lambda: self.cache.synced, "synced")

    async def watching(self) -> None:
        """Every kind is being watched: what happens now comes over a watch."""
        await self.until(lambda: all(loop.counts.watches for loop in self.source.loops), "watching")


@contextlib.asynccontextmanager
async def following(
    credentials: Credentials | Path,
    namespaces: Sequence[str] = (),
    *,
    kinds: Sequence[Kind] = KINDS,
    bounds: KubeSourceBounds = BOUNDS,
) -> AsyncIterator[Following]:
    """A source that runs within the block, and that never ends by itself."""
    if isinstance(credentials, Path):
        credentials = Kubeconfig(str(credentials))
    cache = Cache(AddressRules(), kinds=kinds, namespaces=namespaces)
    reports: list[Trouble] = []
    async with ApiServer(credentials) as api:
        source = KubeSource(
            api, kinds=kinds, namespaces=namespaces, bounds=bounds, report=reports.append
        )
        follower = Following(source, cache, reports=reports)
        task = asyncio.create_task(source.run(follower.take))
        try:
            yield follower
        finally:
            ended = task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert not ended, f"the source has ended: {task}"


def deletions(events: Sequence[Event]) -> list[Key]:
    return [event.key for event in events if isinstance(event, Delete)]


def lists(events: Sequence[Event], kind: Kind) -> int:
    """How many lists of a kind were complete."""
    return sum(isinstance(event, InitDone) and event.kind is kind for event in events)


# -- What a test does to the API server, from its event loop. --


def vm_object(name: str, namespace: str, **parts: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/v1alpha6",
        "kind": "VirtualMachine",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "web"}},
        "spec": {"className": "small", "imageName": "vmi-0a0044d7c690bcbea"},
        **parts,
    }


def vmservice_object(name: str, namespace: str) -> dict[str, Any]:
    ports = [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}]
    return {
        "apiVersion": f"{GROUP}/v1alpha6",
        "kind": "VirtualMachineService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"type": "ClusterIP", "selector": {"app": "web"}, "ports": ports},
    }


@dataclass(frozen=True)
class Admin:
    """Requests of the cluster's administrator, past any proxy; each must succeed."""

    kube: Cluster

    async def request(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        call = partial(self.kube.request, method, path, body, **options)
        response: Response = await asyncio.to_thread(call)
        assert response.status in (200, 201, 202), response
        return response.body

    async def create(self, object_: dict[str, Any]) -> None:
        plural = object_["kind"].lower() + "s"
        namespace = object_["metadata"]["namespace"]
        path = f"/apis/{object_['apiVersion']}/namespaces/{namespace}/{plural}"
        await self.request("POST", path, object_)

    async def create_vm(self, name: str, namespace: str, **parts: Any) -> None:
        await self.create(vm_object(name, namespace, **parts))

    async def patch_vm(self, name: str, namespace: str, patch: Any, subresource: str = "") -> None:
        await self.request(
            "PATCH",
            vm_path(name, namespace) + subresource,
            patch,
            content_type="application/merge-patch+json",
        )

    async def label_vm(self, name: str, namespace: str, value: str) -> None:
        await self.patch_vm(name, namespace, {"metadata": {"labels": {"is": value}}})

    async def delete_vm(self, name: str, namespace: str) -> None:
        await self.request("DELETE", vm_path(name, namespace))


def vm_path(name: str, namespace: str) -> str:
    return f"/apis/{GROUP}/v1alpha6/namespaces/{namespace}/virtualmachines/{name}"


def allow_reading(kube: Cluster, namespace: str, account: str) -> None:
    """Gives a ServiceAccount (`NAMESPACE:NAME`) the right to read all four kinds in a namespace."""
    verbs = [f"--verb={verb}" for verb in ("list", "watch")]
    custom = [f"virtualmachines.{GROUP}", f"virtualmachineservices.{GROUP}"]
    resources = [f"--resource={name}" for name in (*custom, "services", "endpoints")]
    kube.kubectl("create", "role", "reader", "-n", namespace, *verbs, *resources)
    bind_reader(kube, namespace, account)


def bind_reader(kube: Cluster, namespace: str, account: str) -> None:
    """Binds a ServiceAccount to the Role that `allow_reading` made."""
    whom = ["--role=reader", f"--serviceaccount={account}"]
    kube.kubectl("create", "rolebinding", "reader", "-n", namespace, *whom)


def through(kubeconfig: Path, port: int) -> Path:
    """The same kubeconfig, by way of a proxy on another port."""
    config = json.loads(kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
    kubeconfig.write_text(json.dumps(config))
    return kubeconfig
