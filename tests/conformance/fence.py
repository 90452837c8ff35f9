"""Objects of the runner's own, by which it learns that everything done before has been seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.conformance.case import VM, VM_SERVICE, ObjectId
from tests.conformance.server import Server
from tests.program import PATIENCE_S, awaited

# A look costs the API server about as much as a write, and the cases that run beside wait for it:
# every 20 ms, it was a quarter of what they cost. A fence takes some seconds, as services rest.
_POLL_S = 0.1


class Fence:
    """A VM and a VMService that selects it, in a namespace of their own; changed at each use.

    An API server tells of changes kind by kind, in order. So there is a change of each of
    the four kinds that has to come back from the program. And as the program lets a service
    rest after a write, two changes come one after the other: what had to rest when the
    first came has been worked on when the second is through.
    """

    def __init__(self, server: Server, family: str) -> None:
        """Make the objects. `family` is the first of the cluster's. Does not wait."""
        self._server = server
        self._address = "10.255.{}.{}" if family == "IPv4" else "2001:db8:ff::{}:{}"
        self._field = "primaryIP4" if family == "IPv4" else "primaryIP6"
        self._used = 0
        namespace = server.cluster.create_namespace("fence")
        self._vm, self._vm_service, self._service, self._endpoints = (
            ObjectId(kind, namespace, "fence") for kind in (VM, VM_SERVICE, "Service", "Endpoints")
        )
        metadata = {"name": "fence", "namespace": namespace, "labels": {"app": "fence"}}
        self._create(VM, {**metadata}, {"className": "small", "imageName": "vmi-fence"})
        ports = [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}]
        spec = {"type": "LoadBalancer", "selector": {"app": "fence"}, "ports": ports}
        self._create(VM_SERVICE, {**metadata}, spec)

    def _create(self, kind: str, metadata: dict[str, Any], spec: dict[str, Any]) -> None:
        version = self._server.newest[kind]
        manifest = {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}
        assert self._server.create(manifest) is not None, "its namespace is its own"

    def passed(self, within_s: float = PATIENCE_S) -> str | None:
        """Wait until everything done before has been seen, and worked on; what is missing else."""
        self._used += 1
        number = self._used
        address = self._address.format(number // 250 + 1, number % 250 + 1)
        self._server.patch(self._vm, {"status": self._vm_status(address)}, "status")
        self._server.patch(self._vm_service, {"metadata": {"labels": {"use": f"{number}"}}})

        def followed() -> bool:
            endpoints = self._server.get(self._endpoints) or {}
            labels = endpoints.get("metadata", {}).get("labels") or {}
            return labels.get("use") == f"{number}" and _addresses(endpoints) == [address]

        def returned() -> bool:
            vm_service = self._server.get(self._vm_service) or {}
            status = (vm_service.get("status") or {}).get("loadBalancer") or {}
            endpoints = self._server.get(self._endpoints) or {}
            reported = [entry.get("ip") for entry in status.get("ingress") or ()]
            return reported == [address] and _addresses(endpoints) == [address]

        if not _within(followed, within_s):
            return f"the Endpoints of a VMService of the runner's own do not follow: {self}"
        ingress = {"loadBalancer": {"ingress": [{"ip": address}]}}
        self._server.patch(self._service, {"status": ingress}, "status")
        self._server.patch(self._endpoints, {"subsets": None})
        if not _within(returned, within_s):
            return f"status and Endpoints of a VMService of the runner's own do not come: {self}"
        return None

    def _vm_status(self, address: str) -> dict[str, Any]:
        if self._server.newest[VM].endswith("/v1alpha1"):
            return {"vmIp": address}
        return {"network": {self._field: address}}

    def __str__(self) -> str:
        return str(self._vm_service)


def _addresses(endpoints: dict[str, Any]) -> list[str]:
    subsets = endpoints.get("subsets") or ()
    return [address["ip"] for subset in subsets for address in subset.get("addresses") or ()]


def _within(condition: Callable[[], bool], within_s: float) -> bool:
    return awaited(condition, within_s, _POLL_S)
