"""The Events of Kubernetes that we record about a VMService. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from vmsvc_grpc.model.objects import Kind, StoredEndpoints, VirtualMachineService
from vmsvc_grpc.reconciler.held import Failure
from vmsvc_grpc.reconciler.plan import Change, Verb

# How many addresses of a subset Kubernetes' endpointslicemirroring-controller takes by default.
_MIRRORED_MAX = 1000


class Notice(NamedTuple):
    """An Event to record. `action` is what was done or tried, `note` a sentence."""

    warning: bool
    action: str
    reason: str
    note: str


OnNotice = Callable[[VirtualMachineService, Notice], None]
"""Called once for each notice. Must not wait."""


def of_change(change: Change) -> Notice | None:
    """The notice of a change that was made: only that of a Service, in VM Operator's words."""
    if change.kind is not Kind.SERVICE:
        return None
    word = _VERB_WORDS[change.verb]
    return Notice(False, f"{word}Service", f"{word}K8sServiceSuccess", f"{word}K8sService success")


_VERB_WORDS = {Verb.CREATE: "Create", Verb.UPDATE: "Update", Verb.DELETE: "Delete"}


def of_failure(failure: Failure) -> Notice:
    """The notice of a refusal, or of something that cannot be done."""
    return Notice(True, "Reconcile", failure.reason, failure.message)


def of_size(endpoints: StoredEndpoints | None) -> Notice | None:
    """The notice that Endpoints hold more addresses than Kubernetes mirrors to slices."""
    subsets = endpoints.subsets if endpoints else ()
    most = max((len(s.addresses) + len(s.not_ready_addresses) for s in subsets), default=0)
    if most <= _MIRRORED_MAX:
        return None
    note = (
        f"Endpoints hold more than {_MIRRORED_MAX} addresses, of which Kubernetes mirrors "
        f"{_MIRRORED_MAX} to EndpointSlices; --endpoint-slices=direct writes slices that hold all"
    )
    return Notice(True, "MirrorEndpoints", "TooManyAddressesToMirror", note)
