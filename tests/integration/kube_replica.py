"""A replica that reads and writes, in process, on a real API server; and a person there."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.kube.apiserver import Cluster, User
from tests.reconciling import attempts
from vmsvc_grpc.backoff import Backoff
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.kube.client import MERGE_PATCH, ApiServer
from vmsvc_grpc.kube.credentials import Credentials, Kubeconfig
from vmsvc_grpc.model.events import Event
from vmsvc_grpc.model.objects import IPFamily, Key, Kind
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.reconciler.bounds import ReconcilerBounds
from vmsvc_grpc.reconciler.counts import Attempt
from vmsvc_grpc.reconciler.events import EventRecorder
from vmsvc_grpc.reconciler.held import Failure, Held
from vmsvc_grpc.reconciler.kube import KubeStore
from vmsvc_grpc.reconciler.loop import Reconciler
from vmsvc_grpc.reconciler.rules import Rules
from vmsvc_grpc.source.kube import KubeSource, KubeSourceBounds

DEADLINE_S = 60.0
GROUP = "vmoperator.vmware.com"
SELECTOR = {"app": "web"}
HTTP = {"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}
PROBE = {"tcpSocket": {"port": 22}}

Object = dict[str, Any]


async def until(true: Callable[[], object]) -> None:
    """Return once it is true; it may be a plain function or one to await."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = true()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return
            await asyncio.sleep(0.01)


class Desk:
    """A namespace of the test's own, and what somebody does and sees there."""

    def __init__(self, kube: Cluster, *, version: str = "v1alpha6", user: User | None = None):
        self.kube = kube
        self.namespace = kube.create_namespace()
        self._version = version
        self._user = user

    def key(self, name: str = "web") -> Key:
        return Key(self.namespace, name)

    async def request(self, *arguments: Any, **options: Any) -> Any:
        return await asyncio.to_thread(self.kube.request, *arguments, user=self._user, **options)

    def path(self, resource: str, name: str = "") -> str:
        root = "/api/v1"
        if resource.startswith("virtual"):
            root = f"/apis/{GROUP}/{self._version}"
        elif resource == "endpointslices":
            root = "/apis/discovery.k8s.io/v1"
        elif resource == "events":
            root = "/apis/events.k8s.io/v1"
        return f"{root}/namespaces/{self.namespace}/{resource}" + (f"/{name}" if name else "")

    async def create(self, resource: str, body: Object) -> Object:
        response = await self.request("POST", self.path(resource), body)
        assert response.status == 201, response
        created: Object = response.body
        return created

    async def patch(self, resource: str, name: str, body: Object, part: str = "") -> Object:
        merge = "application/merge-patch+json"
        path = self.path(resource, name) + part
        response = await self.request("PATCH", path, body, content_type=merge)
        assert response.status == 200, response
        patched: Object = response.body
        return patched

    async def delete(self, resource: str, name: str = "web") -> None:
        response = await self.request("DELETE", self.path(resource, name))
        assert response.status in (200, 202), response

    async def get(self, resource: str, name: str = "web") -> Object | None:
        """The object, or None where there is none."""
        response = await self.request("GET", self.path(resource, name))
        assert response.status in (200, 404), response
        return response.body if response.status == 200 else None

    async def listed(self, resource: str) -> list[Object]:
        response = await self.request("GET", self.path(resource))
        assert response.status == 200, response
        items: list[Object] = response.body["items"]
        return items

    async def vm(self, name: str, ip: str, **options: Any) -> str:
        """Make a VM with a status; its uid."""
        conditions = options.pop("conditions", [])
        made = await self.create("virtualmachines", self.vm_body(name, **options))
        uid = made["metadata"]["uid"]
        field = "primaryIP6" if ":" in ip else "primaryIP4"
        status = {"network": {field: ip}, "conditions": conditions}
        await self.patch("virtualmachines", name, {"status": status}, "/status")
        return str(uid)

    def vm_body(self, name: str, **options: Any) -> Object:
        """A VM as one makes it."""
        labels = options.pop("labels", SELECTOR)
        return {
            "apiVersion": f"{GROUP}/{self._version}",
            "kind": "VirtualMachine",
            "metadata": {"name": name, "labels": labels},
            "spec": {"className": "small", "imageName": "vmi-0a0044d7c690bcbea", **options},
        }

    async def vmservice(self, name: str = "web", meta: Object | None = None, **spec: Any) -> Object:
        """Make a VMService; what is stored."""
        body = {
            "apiVersion": f"{GROUP}/{self._version}",
            "kind": "VirtualMachineService",
            "metadata": {"name": name, **(meta or {})},
            "spec": {"type": "ClusterIP", "selector": SELECTOR, "ports": [HTTP], **spec},
        }
        return await self.create("virtualmachineservices", body)

    async def addresses(self, name: str = "web") -> list[str] | None:
        """The ready addresses that the stored Endpoints hold; None where there are none."""
        stored = await self.get("endpoints", name)
        if stored is None:
            return None
        return [a["ip"] for s in stored.get("subsets", []) for a in s.get("addresses", [])]

    async def holds(self, *addresses: str, name: str = "web") -> None:
        """Return once the stored Endpoints hold these, ready."""
        wanted = sorted(addresses)

        async def held() -> bool:
            return await self.addresses(name) == wanted

        await until(held)

    async def made(self, resource: str, name: str = "web") -> None:
        """Wait for an object that another writer makes."""

        async def is_made() -> bool:
            return await self.get(resource, name) is not None

        await until(is_made)

    async def gone(self, resource: str, name: str = "web") -> None:
        """Return once there is no such object."""

        async def is_gone() -> bool:
            return await self.get(resource, name) is None

        await until(is_gone)

    async def told(self, name: str = "web") -> Counter[tuple[str, str, str]]:
        """The events about a VMService: type, reason and note, and how many of each."""
        events = await self.listed("events")
        # Kubernetes tells of the Service of that name, now and then.
        about = {"kind": "VirtualMachineService", "namespace": self.namespace, "name": name}
        return Counter(
            (event["type"], event["reason"], event["note"])
            for event in events
            if about.items() <= event["regarding"].items()
        )

    async def condition(self, type_: str, name: str = "web") -> Object | None:
        """A condition of the VMService; None where it has none of that type."""
        stored = await self.get("virtualmachineservices", name)
        assert stored is not None
        conditions = stored.get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == type_), None)

    async def versions(self, *resources: str) -> Mapping[tuple[str, str], str]:
        """The resource versions of everything there is of these resources."""
        kept = ("virtualmachineservices", "services", "endpoints")
        return {
            (resource, item["metadata"]["name"]): item["metadata"]["resourceVersion"]
            for resource in resources or kept
            for item in await self.listed(resource)
            if resource != "endpointslices" or _is_ours(item)
        }


def _is_ours(slice_: Object) -> bool:
    meta = slice_["metadata"]
    manager = meta["labels"]["endpointslice.kubernetes.io/managed-by"]
    return manager == "vmsvc-grpc" and "ownerReferences" in meta


FAST = ReconcilerBounds(cooldown_s=0.05, backoff=Backoff(0.02, 0.2), lead_poll_s=0.05)


SOURCE_BOUNDS = KubeSourceBounds()

RULES = Rules(vmservices_held=True)
DIRECT = replace(RULES, direct_slices=True)


class Replica:
    """Source, cache, reconciler and recorder of one process, for one namespace."""

    def __init__(
        self,
        desk: Desk,
        api: ApiServer,
        *,
        bounds: ReconcilerBounds = FAST,
        families: Sequence[IPFamily] = (IPFamily.IPV4,),
        may_write: Callable[[], bool] = lambda: True,
        rules: Rules = RULES,
        source_bounds: KubeSourceBounds = SOURCE_BOUNDS,
        **options: Any,
    ) -> None:
        self.task: asyncio.Task[None]
        self.desk = desk
        self.api = api
        self.failures: list[tuple[Key, Failure | None]] = []
        namespaces = (desk.namespace,)
        kinds = tuple(Kind)
        self.cache = Cache(
            AddressRules(cluster_families=tuple(families)), kinds=kinds, namespaces=namespaces
        )
        self.source = KubeSource(api, kinds=kinds, namespaces=namespaces, bounds=source_bounds)
        self.store = KubeStore(api, may_write=may_write)
        self.recorder = EventRecorder(api, instance="test", may_write=may_write)
        self.reconciler = Reconciler(
            self.cache,
            self.store,
            bounds=bounds,
            rules=rules,
            on_failure=lambda key, failure: self.failures.append((key, failure)),
            on_notice=self.recorder.record,
            may_write=may_write,
            mirrored=self.store.mirrored,
            witness=self.store,
            **options,
        )

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.source.run(self._emit))
            tasks.create_task(self.recorder.run())
            tasks.create_task(self.reconciler.run())

    def _emit(self, event: Event) -> None:
        self.reconciler.enqueue(self.cache.apply(event))

    @property
    def writes(self) -> int:
        """How many writes of objects were made."""
        return attempts(self.reconciler.counts, Attempt.WRITTEN).total()

    async def move(self, name: str, ip: str) -> None:
        """Give a VM another address, by a connection that is there already."""
        path = self.desk.path("virtualmachines", name) + "/status"
        status = {"status": {"network": {"primaryIP4": ip}}}
        await self.api.request("PATCH", path, body=status, content_type=MERGE_PATCH)

    async def rested_or_dead(self) -> None:
        """Return once it has died, or settled."""

        async def is_so() -> bool:
            return self.task.done() or await self._is_settled()

        await until(is_so)

    async def settled(self) -> None:
        """Return once everything that is stored is known, and nothing is left to do."""
        await until(self._is_settled)

    async def _is_settled(self) -> bool:
        stored = await self.desk.versions(*_RESOURCES.values())
        work = self.reconciler.queue_depth + self.reconciler.working + len(self.recorder._waiting)
        return self.cache.synced and self._known() == stored and not work

    def _known(self) -> Mapping[tuple[str, str], str]:
        cache = self.cache
        objects: tuple[Held, ...] = (
            *(service.object for service in cache.services.values()),
            *cache.stored_services.values(),
            *cache.stored_endpoints.values(),
            *cache.stored_slices._by_key.values(),
        )
        return {(_RESOURCES[o.kind], o.key.name): o.meta.resource_version for o in objects}


_RESOURCES = {
    Kind.VIRTUAL_MACHINE_SERVICE: "virtualmachineservices",
    Kind.SERVICE: "services",
    Kind.ENDPOINTS: "endpoints",
    Kind.ENDPOINT_SLICE: "endpointslices",
}

MakeApi = Callable[[Credentials], ApiServer]


@asynccontextmanager
async def access(
    desk: Desk, folder: Path, *, user: User | None = None, api: MakeApi = ApiServer
) -> AsyncIterator[ApiServer]:
    """A connection of the admin, or of `user`, to the API server."""
    path = folder / f"{desk.namespace}.kubeconfig"
    kubeconfig = await asyncio.to_thread(desk.kube.kubeconfig, path, user=user)
    async with api(Kubeconfig(str(kubeconfig))) as connected:
        yield connected


@asynccontextmanager
async def replica(
    desk: Desk, folder: Path, *, user: User | None = None, api: MakeApi = ApiServer, **options: Any
) -> AsyncIterator[Replica]:
    """A replica that runs until the block ends. If it dies before, so does the block."""
    async with access(desk, folder, user=user, api=api) as connected:
        made = Replica(desk, connected, **options)
        made.task = asyncio.create_task(made.run())
        try:
            yield made
        finally:
            died = made.task.done()
            made.task.cancel()
            await asyncio.gather(made.task, return_exceptions=True)
        if died:
            await made.task
