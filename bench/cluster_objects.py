"""VMs and VMServices as they are in a cluster where VM Operator has been at work.

A VM is 5 KB of JSON, of which most is what nobody here reads: its specification, details of its
status, and who wrote which field of it when. Everything in it is in the CRD.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vmsvc_grpc.model.objects import GROUP

VERSION = f"{GROUP}/v1alpha6"
_TIME = "2026-06-01T08:00:00Z"

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Population:
    """VMs and services: so many, in these namespaces; each service has as many VMs.

    Addresses are counted from `first_address` on, so that no two populations share any.
    `bare` VMs have nothing that nobody reads: one's change costs the API server 2 ms of CPU
    instead of 12.
    """

    vms: int
    services: int
    namespaces: tuple[str, ...]
    first_address: int = 1
    bare: bool = False

    def vm_key(self, number: int) -> tuple[str, str]:
        """Namespace and name of a VM. Those of the first `services` numbers are of one each."""
        namespace, service = self.service_key(number % self.services)
        return namespace, f"{service}-{number // self.services:04d}"

    def service_key(self, number: int) -> tuple[str, str]:
        """Namespace and name of a service."""
        return self.namespaces[number % len(self.namespaces)], f"shop-{number:04d}"

    def address(self, number: int) -> str:
        """The first address of the VM of a number, or the next one where numbers go on."""
        bits = self.first_address + number
        return f"10.{bits >> 16 & 255}.{bits >> 8 & 255}.{bits & 255}"

    def vm_objects(self) -> Iterator[Object]:
        """All VMs, with their first addresses."""
        for number in range(self.vms):
            _, service = self.service_key(number % self.services)
            made = vm(*self.vm_key(number), service, self.address(number))
            yield bare(made) if self.bare else made

    def objects(self) -> Iterator[Object]:
        """All VMs and VMServices."""
        yield from self.vm_objects()
        for number in range(self.services):
            yield vm_service(*self.service_key(number))


def vm_service(namespace: str, name: str) -> Object:
    """A VMService with the VMs of its own name."""
    return {
        "apiVersion": VERSION,
        "kind": "VirtualMachineService",
        "metadata": _metadata("VirtualMachineService", namespace, name),
        "spec": {
            "type": "ClusterIP",
            "selector": {"app": name},
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
        },
    }


def vm(namespace: str, name: str, app: str, address: str) -> Object:
    """A VM that runs, is ready, and has an address."""
    zone = f"zone-{int(address.rpartition('.')[2]) % 3}"
    labels = {
        "app": app,
        "app.kubernetes.io/part-of": "shop",
        "topology.kubernetes.io/zone": zone,
    }
    annotations = {
        "vmoperator.vmware.com/created-at-build-version": "1.9.0+42",
        "vmoperator.vmware.com/created-at-schema-version": "v1alpha6",
        "vmoperator.vmware.com/first-boot-done": "true",
    }
    metadata = _metadata("VirtualMachine", namespace, name) | {
        "generation": 2,
        "labels": labels,
        "annotations": annotations,
        "finalizers": ["vmoperator.vmware.com/virtualmachine"],
    }
    spec, status = _spec(name), _status(name, address, zone)
    metadata["managedFields"] = [
        _managed("kubectl-client-side-apply", {"metadata": {"labels": labels}, "spec": spec}),
        _managed("manager", {"metadata": {"annotations": annotations}}),
        _managed("manager", {"status": status}) | {"subresource": "status"},
    ]
    return {
        "apiVersion": VERSION,
        "kind": "VirtualMachine",
        "metadata": metadata,
        "spec": spec,
        "status": status,
    }


def bare(whole: Object) -> Object:
    """A VM without what nobody reads of it."""
    kept = ("name", "namespace", "uid", "creationTimestamp", "labels")
    return whole | {
        "metadata": {key: whole["metadata"][key] for key in kept},
        "spec": {"readinessProbe": whole["spec"]["readinessProbe"]},
        "status": {
            "network": {"primaryIP4": whole["status"]["network"]["primaryIP4"]},
            "conditions": whole["status"]["conditions"][:1],
        },
    }


def _metadata(kind: str, namespace: str, name: str) -> Object:
    uid = uuid.uuid5(uuid.NAMESPACE_URL, f"{kind}/{namespace}/{name}")
    return {
        "name": name,
        "namespace": namespace,
        "uid": str(uid),
        "generation": 1,
        "creationTimestamp": _TIME,
    }


def _managed(manager: str, written: Object) -> Object:
    """An entry of `managedFields` for who wrote this."""
    return {
        "manager": manager,
        "operation": "Update",
        "apiVersion": VERSION,
        "time": _TIME,
        "fieldsType": "FieldsV1",
        "fieldsV1": _fields(written),
    }


def _fields(written: Any) -> Object:
    if not isinstance(written, dict):
        return {}
    return {f"f:{key}": _fields(value) for key, value in written.items()}


def _spec(name: str) -> Object:
    return {
        "className": "best-effort-medium",
        "image": {"kind": "VirtualMachineImage", "name": "vmi-0a0044d7c690bcbea"},
        "storageClass": "wcp-storage-policy",
        "powerState": "PoweredOn",
        "powerOffMode": "TrySoft",
        "bootstrap": {
            "cloudInit": {"rawCloudConfig": {"key": "user-data", "name": f"{name}-cloud-init"}}
        },
        "network": {
            "hostName": name,
            "interfaces": [
                {
                    "name": "eth0",
                    "network": {
                        "apiVersion": "crd.nsx.vmware.com/v1alpha1",
                        "kind": "SubnetSet",
                        "name": "vm-default",
                    },
                }
            ],
        },
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 10},
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": f"{name}-data"}},
        ],
    }


def _status(name: str, address: str, zone: str) -> Object:
    machine = str(uuid.uuid5(uuid.NAMESPACE_OID, name))
    resolver = {"hostName": name, "domainName": "example.com", "nameservers": ["10.255.0.2"]}
    return {
        "biosUUID": machine,
        "instanceUUID": machine,
        "uniqueID": f"vm-{machine[:6]}",
        "class": {
            "apiVersion": VERSION,
            "kind": "VirtualMachineClass",
            "name": "best-effort-medium",
        },
        "nodeName": f"esx-{machine[:1]}.example.com",
        "zone": zone,
        "powerState": "PoweredOn",
        "changeBlockTracking": False,
        "hardwareVersion": 21,
        "conditions": [_condition(type_) for type_ in _CONDITIONS],
        "hardware": {"cpu": {"total": 2}, "memory": {"total": "8Gi"}},
        "network": {
            "hostName": name,
            "primaryIP4": address,
            "config": {"dns": resolver, "interfaces": [{"name": "eth0", "dns": resolver}]},
            "interfaces": [
                {
                    "deviceKey": 4000,
                    "name": "eth0",
                    "ip": {
                        "addresses": [
                            {"address": f"{address}/8", "origin": "manual", "state": "preferred"},
                            {"address": "fe80::250:56ff:fe01:203/64", "state": "preferred"},
                        ],
                        "macAddr": "00:50:56:01:02:03",
                    },
                }
            ],
        },
        "storage": {"total": "40Gi", "requested": {"disks": "40Gi"}, "usage": {"disks": "11Gi"}},
        "volumes": [
            {"name": name, "type": "Classic", "attached": True, "diskUUID": machine},
            {"name": "data", "type": "Managed", "attached": True, "diskUUID": machine},
        ],
    }


_CONDITIONS = (
    "Ready",
    "VirtualMachineBootstrapReady",
    "VirtualMachineClassReady",
    "VirtualMachineCreated",
    "VirtualMachineImageReady",
    "VirtualMachineNetworkReady",
    "VirtualMachineStorageReady",
    "VirtualMachineTools",
)


def _condition(type_: str) -> Object:
    return {
        "type": type_,
        "status": "True",
        "reason": "True",
        "message": "",
        "lastTransitionTime": _TIME,
    }


def etcd_key(object_: Object) -> str:
    """Where the API server keeps an object."""
    metadata, plural = object_["metadata"], f"{object_['kind'].lower()}s"
    return f"/registry/{GROUP}/{plural}/{metadata['namespace']}/{metadata['name']}"
