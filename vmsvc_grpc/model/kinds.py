"""Which of our kinds an object is of, or is likely meant to be of. Pure."""

from __future__ import annotations

from vmsvc_grpc.model.objects import GROUP, Kind
from vmsvc_grpc.model.problem import likely_meant


def kind_of(api_version: str, kind: str) -> Kind | None:
    """Which of our kinds this is; None if it is none of them.

    A VM Operator object of a version that we do not know is one of ours, and fails
    in `parse`.
    """
    group, _, version = api_version.rpartition("/")
    if group == GROUP and version and kind in ("VirtualMachine", "VirtualMachineService"):
        return Kind(kind)
    if api_version == "v1" and kind in ("Service", "Endpoints"):
        return Kind(kind)
    if api_version == "discovery.k8s.io/v1" and kind == "EndpointSlice":
        return Kind.ENDPOINT_SLICE
    return None


_CLOSE = 0.92  # As `VirtualMachineServices` is; `VirtualMachineImage`, a kind of its own, is not.
_KIND_CHARACTERS_MAX = 63


def likely_kind(api_version: str, kind: str) -> Kind | None:
    """The kind of VM Operator's that was likely meant, where `kind_of` knows none."""
    if api_version.partition("/")[0] != GROUP or len(kind) > _KIND_CHARACTERS_MAX:
        return None
    known = (Kind.VIRTUAL_MACHINE.value, Kind.VIRTUAL_MACHINE_SERVICE.value)
    meant = likely_meant(kind, known, _CLOSE)
    return Kind(meant) if meant is not None else None
