"""The data that every server under test serves, and how it changes.

S services of E endpoints each. An address ends in 24 bits that tell which change made it,
so that who reads it anywhere can tell how old it is. `bench/go/internal` knows the same.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import msgspec

NAMESPACE = "bench"
PORT, TARGET_PORT = 80, 8080
ZONE = "zone-a"

# Half of a real VM is what nobody here reads: its spec, and its history in `managedFields`.
_UNREAD_BYTES = 3500

_TIME = "2026-11-01T08:00:00Z"


@dataclass(frozen=True, slots=True)
class DataSet:
    """How many services, and how many endpoints in each."""

    services: int
    endpoints: int

    @property
    def first_seq(self) -> int:
        """The sequence number of the first change; all before it are the initial addresses."""
        return self.services * self.endpoints

    def place(self, seq: int) -> tuple[int, int]:
        """Which service's endpoint it is whose address says `seq`, as (service, endpoint)."""
        if seq < self.first_seq:
            return divmod(seq, self.endpoints)
        change = seq - self.first_seq
        return change % self.services, change // self.services % self.endpoints

    def newest(self, changes: int) -> list[int]:
        """For each service, the newest sequence number after that many changes in all."""
        newest = [(i + 1) * self.endpoints - 1 for i in range(self.services)]
        for change in range(max(0, changes - self.services), changes):
            newest[change % self.services] = self.first_seq + change
        return newest

    def initial(self) -> range:
        """The sequence numbers of the initial addresses, in the order of services."""
        return range(self.first_seq)


def address(seq: int) -> str:
    """The address that says `seq`, which has 24 bits."""
    return f"10.{seq >> 16 & 255}.{seq >> 8 & 255}.{seq & 255}"


def service_name(service: int) -> str:
    """The name of a service without its namespace."""
    return f"s{service}"


def vm_name(service: int, endpoint: int) -> str:
    """The name of a service's VM."""
    return f"s{service}-vm{endpoint}"


def vm_uid(service: int, endpoint: int) -> str:
    """The uid of a service's VM."""
    return f"00000000-0000-4000-8000-{service:06x}{endpoint:06x}"


def service_json(service: int) -> bytes:
    """A VMService as an API server writes it."""
    return msgspec.json.encode(
        {
            "apiVersion": "vmoperator.vmware.com/v1alpha6",
            "kind": "VirtualMachineService",
            "metadata": {
                "name": service_name(service),
                "namespace": NAMESPACE,
                "uid": str(uuid.UUID(int=service + 1)),
                "resourceVersion": "1",
            },
            "spec": {
                "type": "ClusterIP",
                "selector": {"app": service_name(service)},
                "ports": [
                    {"name": "http", "protocol": "TCP", "port": PORT, "targetPort": TARGET_PORT}
                ],
            },
        }
    )


def vm_json(service: int, endpoint: int, seq: int) -> bytes:
    """A VM of about 5 KB as an API server writes it, with the address that says `seq`."""
    filled = {
        b"NAME": vm_name(service, endpoint).encode(),
        b"UID": vm_uid(service, endpoint).encode(),
        b"VERSION": b"%d" % (seq + 1),
        b"APP": service_name(service).encode(),
        b"ADDRESS": address(seq).encode(),
    }
    return _VM % filled


def _template() -> bytes:
    untyped = {
        "apiVersion": "vmoperator.vmware.com/v1alpha6",
        "kind": "VirtualMachine",
        "metadata": {
            "name": "%(NAME)b",
            "namespace": NAMESPACE,
            "uid": "%(UID)b",
            "resourceVersion": "%(VERSION)b",
            "generation": 2,
            "creationTimestamp": _TIME,
            "labels": {"app": "%(APP)b", "topology.kubernetes.io/zone": ZONE, "tier": "web"},
            "annotations": {"example.com/unread": "x" * (_UNREAD_BYTES // 2)},
            "finalizers": ["vmoperator.vmware.com/virtualmachine"],
            "managedFields": [
                {
                    "manager": "vm-operator",
                    "operation": "Update",
                    "apiVersion": "vmoperator.vmware.com/v1alpha6",
                    "time": _TIME,
                    "fieldsType": "FieldsV1",
                    "fieldsV1": {
                        "f:status": {
                            f"f:field-{n}": {".": {}, "f:lastTransitionTime": {}}
                            for n in range(_UNREAD_BYTES // 2 // 50)
                        }
                    },
                }
            ],
        },
        "spec": {
            "className": "best-effort-small",
            "imageName": "vmi-0a0044d7c690bcbea",
            "storageClass": "wcp-storage-policy",
            "powerState": "PoweredOn",
            "readinessProbe": {"tcpSocket": {"port": TARGET_PORT}, "periodSeconds": 10},
        },
        "status": {
            "powerState": "PoweredOn",
            "zone": ZONE,
            "network": {"primaryIP4": "%(ADDRESS)b"},
            "conditions": [
                {
                    "type": type_,
                    "status": "True",
                    "reason": "True",
                    "message": "",
                    "lastTransitionTime": _TIME,
                }
                for type_ in (
                    "VirtualMachineConditionClassReady",
                    "VirtualMachineConditionImageReady",
                    "VirtualMachineConditionStorageReady",
                    "VirtualMachineConditionCreated",
                    "Ready",
                )
            ],
        },
    }
    return msgspec.json.encode(untyped)


# Filled in for each change, which must cost the server under test next to nothing.
_VM = _template()
