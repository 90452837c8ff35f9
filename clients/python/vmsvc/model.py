"""The server's answers and messages as frozen values. Knows neither wire nor I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum


class Readiness(Enum):
    """Which endpoints an answer has."""

    READY_ONLY = "READY_ONLY"
    """Those that traffic may be sent to."""
    ALL = "ALL"
    """All, each with its `ready` flag."""


@dataclass(frozen=True, slots=True)
class Port:
    """One port of a service.

    `port` is that of the cluster address; `target_port` is that of an endpoint's
    address. `protocol` is "TCP", "UDP" or "SCTP".
    """

    name: str
    port: int
    target_port: int
    protocol: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of one VM. Unique within a service by `address` and `vm_uid`."""

    address: str
    ready: bool
    vm_name: str
    vm_uid: str
    zone: str


class AbsenceReason(Enum):
    """Why a service has no endpoints."""

    NOT_FOUND = "NOT_FOUND"
    """There is no such service, or it is being deleted."""
    REFUSED = "REFUSED"
    """It exists, but its specification is not valid."""
    UNKNOWN = "UNKNOWN"
    """A reason that a newer server knows and this client does not."""


@dataclass(frozen=True, slots=True)
class Absence:
    """Why a service is absent; `message` is for a person."""

    reason: AbsenceReason
    message: str


@dataclass(frozen=True, slots=True)
class ServiceState:
    """The whole state of one service at one moment.

    `endpoints` are sorted by address, then by VM uid; every endpoint serves every
    port. Both are empty if the service is absent. Two states are equal if their
    content is: `version`, which only the server process that sent it can compare, and
    `revision`, an opaque digest of the content, do not count.
    """

    service: str
    ports: tuple[Port, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    absence: Absence | None = None
    version: int = field(default=0, compare=False)
    revision: str = field(default="", compare=False)

    @property
    def present(self) -> bool:
        """Whether the service exists and is served."""
        return self.absence is None


@dataclass(frozen=True, slots=True)
class ServiceSummary:
    """A service in a list.

    `matching` counts the VMs that it selects; `ready` and `not_ready` count those with an address.
    `refused_reason` is empty unless the newest specification is refused.
    """

    service: str
    type: str
    matching: int
    ready: int
    not_ready: int
    cluster_ips: tuple[str, ...]
    load_balancer_ingress: tuple[str, ...]
    ports: tuple[Port, ...]
    refused: bool
    refused_reason: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with one field of the service, and what to do."""

    field: str
    message: str


class Verdict(Enum):
    """Whether a VM is in a service, and if not, why."""

    READY = "READY"
    NOT_READY = "NOT_READY"
    NO_ADDRESS = "NO_ADDRESS"
    LABELS_DIFFER = "LABELS_DIFFER"
    DELETING = "DELETING"
    INVALID = "INVALID"
    SERVICE_REFUSED = "SERVICE_REFUSED"
    """The service selects it, but is refused and has never been valid."""
    UNKNOWN = "UNKNOWN"
    """A verdict that a newer server knows and this client does not."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of a VM, set by its controller. `status` is "True", "False" or "Unknown".

    `reason` and `message` may be empty. `last_transition_time`, when the status last changed, is in
    UTC; None if it is not known.
    """

    status: str
    reason: str
    message: str
    last_transition_time: datetime | None


@dataclass(frozen=True, slots=True)
class VirtualMachineExplanation:
    """Why one VM is in a service or is not; each of `reasons` is a sentence.

    `ready_condition` is the VM's condition "Ready", None if it has none yet.
    """

    vm_name: str
    vm_uid: str
    verdict: Verdict
    reasons: tuple[str, ...]
    endpoints: tuple[Endpoint, ...]
    ready_condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why each VM is in a service or is not, and what is wrong with the service.

    `virtual_machines` are all VMs that the service selects, by name; then at most 100 that it
    nearly selects, the nearest first; then at most 100 that cannot be read, by name. `matching`,
    `near_misses` and `unreadable` count each of these; `near_misses_incomplete`: there may be more
    near misses. `ready` and `not_ready` count the selected VMs with an address.

    `serving_last_valid`: the endpoints follow an earlier specification, as the newest one is
    refused.
    """

    service: str
    selector: Mapping[str, str]
    ip_families: tuple[str, ...]
    problems: tuple[Problem, ...]
    virtual_machines: tuple[VirtualMachineExplanation, ...]
    serving_last_valid: bool
    matching: int = 0
    ready: int = 0
    not_ready: int = 0
    near_misses: int = 0
    near_misses_incomplete: bool = False
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class ServerVersion:
    """What a server says of itself.

    `version` is its release; `packages` are the protobuf packages that it serves, sorted, with
    "vmsvc.v1" among them. `transport` is what carries its calls: "http2" or "grpcio".
    `started_at` is when it began to listen, in UTC, by its own clock.
    """

    version: str
    packages: tuple[str, ...]
    python_version: str
    transport: str
    started_at: datetime
