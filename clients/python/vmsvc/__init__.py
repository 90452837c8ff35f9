"""A client of vmsvc-grpc, async and sync: which VMs serve a VirtualMachineService.

Each name is imported when it is first used: the server needs only the messages under
`vmsvc.v1`, and the command line has to set gRPC up before it is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from vmsvc.access import TokenFile
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
        Condition,
        Endpoint,
        Explanation,
        Port,
        Problem,
        Readiness,
        ServerVersion,
        ServiceState,
        ServiceSummary,
        Verdict,
        VirtualMachineExplanation,
    )
    from vmsvc.retry import RetryPolicy
    from vmsvc.state import Disconnected, Event, Synced
    from vmsvc.sync import Client, Watch

_MODULES = (
    "vmsvc.model",
    "vmsvc.errors",
    "vmsvc.retry",
    "vmsvc.state",
    "vmsvc.sync",
    "vmsvc.aio",
    "vmsvc.access",
)

__all__ = [
    "Absence",
    "AbsenceReason",
    "AsyncClient",
    "AsyncWatch",
    "Client",
    "Condition",
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
    "ServerVersion",
    "ServiceState",
    "ServiceSummary",
    "Synced",
    "TokenFile",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "Verdict",
    "VirtualMachineExplanation",
    "VmsvcError",
    "Watch",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        for module in map(import_module, _MODULES):
            if name in vars(module):
                return vars(module)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
