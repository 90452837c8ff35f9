"""What we write to a VMService: finalizer, a provider's labels and annotations, status. Pure.

The rules are those of VM Operator's `virtualmachineservice_controller.go`, so that its
controller and ours write the same. The condition `VirtualMachineServiceAccepted` is ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from vmsvc_grpc.model.objects import (
    ACCEPTED,
    NEWEST_API_VERSION,
    Condition,
    ServiceSpec,
    ServiceType,
    StoredService,
    VirtualMachineService,
)
from vmsvc_grpc.model.problem import escaped
from vmsvc_grpc.reconciler.held import Failure
from vmsvc_grpc.reconciler.rules import Rules
from vmsvc_grpc.reconciler.service import provider_marks

FINALIZER = "vmoperator.vmware.com/virtualmachineservice"
"""VM Operator's own, so that either of us can delete what the other has made."""

FORMER_FINALIZER = "virtualmachineservice.vmoperator.vmware.com"
"""VM Operator's former name for it; we replace it wherever we find it."""

SERVICE_READY = "VirtualMachineServiceServiceReady"
"""The condition that mirrors the Service's `Ready`."""

# The schema's bound on a condition's message.
_MESSAGE_MAX = 32_768


def claimed(
    vmservice: VirtualMachineService, spec: ServiceSpec, rules: Rules
) -> VirtualMachineService:
    """The VMService as it should be before the first of its objects is written."""
    labels, annotations = provider_marks(vmservice, spec, rules)
    meta = vmservice.meta
    return replace(
        vmservice,
        meta=replace(
            meta,
            finalizers=_with_ours(meta.finalizers),
            labels={**meta.labels, **labels},
            annotations={**meta.annotations, **annotations},
        ),
    )


def released(vmservice: VirtualMachineService) -> VirtualMachineService:
    """The VMService without our finalizer, by either name, once no child is left to delete."""
    meta = vmservice.meta
    return replace(vmservice, meta=replace(meta, finalizers=without_ours(meta.finalizers)))


def _with_ours(finalizers: tuple[str, ...]) -> tuple[str, ...]:
    if FINALIZER in finalizers and FORMER_FINALIZER not in finalizers:
        return finalizers
    return (*without_ours(finalizers), FINALIZER)


def without_ours(finalizers: tuple[str, ...]) -> tuple[str, ...]:
    """The finalizers of others, in their order."""
    return tuple(f for f in finalizers if f not in (FINALIZER, FORMER_FINALIZER))


def reported(
    vmservice: VirtualMachineService,
    spec: ServiceSpec | None,
    service: StoredService | None,
    failures: Iterable[Failure],
    now: str,
) -> VirtualMachineService:
    """The VMService with its status as it should be.

    `spec` is its last valid one; `service` is the stored Service, if it is its own;
    `failures` say why its objects are not as it asks; `now` is the RFC 3339 time for a condition
    that changes. Others' parts of its status stay.
    """
    ingress = vmservice.ingress
    if spec is not None and spec.type is not ServiceType.LOAD_BALANCER:
        ingress = ()
    elif spec is not None and service is not None:
        ingress = service.ingress
    conditions = vmservice.conditions
    if vmservice.api_version == NEWEST_API_VERSION:  # Other versions have no place for them.
        if spec is not None and service is not None:
            conditions = _with(conditions, _service_ready(service), now)
        if (accepted := _accepted(vmservice, tuple(failures))) is not None:
            conditions = _with(conditions, accepted, now)
    return replace(vmservice, ingress=ingress, conditions=conditions)


def _service_ready(service: StoredService) -> Condition:
    ready = service.ready
    if ready is None:
        reason, message = (
            "ServiceReadyNotPresent",
            "Underlying Service does not have Ready condition",
        )
        return Condition(type=SERVICE_READY, status="Unknown", reason=reason, message=message)
    if ready.status == "True":
        return Condition(type=SERVICE_READY, status="True", reason="True")
    if ready.status == "False":
        reason, message = "ServiceNotReady", "Underlying Service is not ready"
    else:
        reason, message = "ServiceReadinessUnknown", "Underlying Service readiness is unknown"
    return Condition(
        type=SERVICE_READY,
        status="False" if ready.status == "False" else "Unknown",
        reason=ready.reason or reason,
        message=ready.message or message,
    )


def _accepted(vmservice: VirtualMachineService, failures: tuple[Failure, ...]) -> Condition | None:
    """Our condition; None if there is no failure, and never was one."""
    generation = vmservice.meta.generation
    if failures:
        return Condition(
            type=ACCEPTED,
            status="False",
            reason=failures[0].reason,
            message=escaped("; ".join(f.message for f in failures), _MESSAGE_MAX),
            observed_generation=generation,
        )
    if any(condition.type == ACCEPTED for condition in vmservice.conditions):
        return Condition(
            type=ACCEPTED, status="True", reason="Accepted", observed_generation=generation
        )
    return None


def _with(conditions: tuple[Condition, ...], wanted: Condition, now: str) -> tuple[Condition, ...]:
    """The conditions with `wanted` among them, in VM Operator's order: by type.

    Unchanged if it is there already. Its time is when its status last changed.
    """
    held = next((c for c in conditions if c.type == wanted.type), None)
    same_status = held is not None and held.status == wanted.status and held.last_transition_time
    time = held.last_transition_time if held is not None and same_status else now
    wanted = replace(wanted, last_transition_time=time)
    if held == wanted:
        return conditions
    others = [c for c in conditions if c.type != wanted.type]
    return tuple(sorted((*others, wanted), key=lambda c: (c.type != "Ready", c.type)))
