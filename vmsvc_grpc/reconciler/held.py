"""The objects held for one VMService, and why one of them is not as it should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vmsvc_grpc.model.objects import (
    StoredEndpoints,
    StoredEndpointSlice,
    StoredService,
    VirtualMachineService,
)

Child = StoredService | StoredEndpoints

Held = Child | StoredEndpointSlice | VirtualMachineService
"""An object that we write: a child of a VMService, or the VMService itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldObjects:
    """A VMService and the objects held for it; None is one that does not exist."""

    vmservice: VirtualMachineService | None = None
    service: StoredService | None = None
    endpoints: StoredEndpoints | None = None
    slices: tuple[StoredEndpointSlice, ...] = ()
    """Those that we write ourselves, sorted by name."""


class Failure(NamedTuple):
    """Why something is not as it should be: a word in camel case, and a sentence."""

    reason: str
    message: str


def joined(failures: Sequence[Failure]) -> Failure | None:
    """All failures as one, with the reason of the first; None if there are none."""
    if not failures:
        return None
    return Failure(failures[0].reason, "; ".join(failure.message for failure in failures))
