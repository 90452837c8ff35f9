"""Who serves a VirtualMachineService: a client of vmsvc-grpc, async and sync."""

from vmsvc.aio import AsyncClient, AsyncWatch
from vmsvc.errors import (
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    RefusedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    VmsvcError,
)
from vmsvc.model import (
    Absence,
    AbsenceReason,
    Endpoint,
    Explanation,
    Port,
    Problem,
    Readiness,
    ServiceState,
    ServiceSummary,
    Verdict,
    VirtualMachineExplanation,
)
from vmsvc.retry import RetryPolicy
from vmsvc.state import Disconnected, Event, Synced
from vmsvc.sync import Client, Watch

__all__ = [
    "Absence",
    "AbsenceReason",
    "AsyncClient",
    "AsyncWatch",
    "Client",
    "Disconnected",
    "Endpoint",
    "Event",
    "Explanation",
    "FieldViolation",
    "InvalidArgumentError",
    "NotFoundError",
    "PermissionDeniedError",
    "Port",
    "Problem",
    "ProtocolError",
    "Readiness",
    "RefusedError",
    "ResourceExhaustedError",
    "RetryPolicy",
    "ServiceState",
    "ServiceSummary",
    "Synced",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "Verdict",
    "VirtualMachineExplanation",
    "VmsvcError",
    "Watch",
]
