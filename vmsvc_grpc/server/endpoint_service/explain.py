"""Why each VM is in a service or is not: sentences for a person.

The rules are the model's; here they are only told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.membership import CachedService
from vmsvc_grpc.model.endpoints import Endpoint
from vmsvc_grpc.model.objects import ACCEPTED, IPFamily, Key, Kind, ServiceSpec, VirtualMachine
from vmsvc_grpc.model.problem import Problem, quoted
from vmsvc_grpc.model.resolve import JudgedAddress, addresses
from vmsvc_grpc.model.selector import matches
from vmsvc_grpc.server.endpoint_service.encode import endpoint_message

_Verdict = pb.VirtualMachineExplanation

# So many VMs of other namespaces are named: enough to see what was mistaken.
_ELSEWHERE_MAX = 5

Remarks = Callable[[Kind, Key], Iterable[str]]
"""What is known of an object beside what the cache holds: where else it is defined."""


def no_remarks(_kind: Kind, _key: Key) -> Iterable[str]:
    """Nothing more is known of any object."""
    return ()


def explanation(
    cache: Cache, key: Key, remarks: Remarks = no_remarks
) -> pb.ExplainEndpointsResponse | None:
    """What is to be said of a service; None if there is none of that name.

    One that cannot be read, or is being deleted, is explained too.
    """
    service = cache.services.get(key)
    problems = list(cache.problems.get((Kind.VIRTUAL_MACHINE_SERVICE, key), ()))
    if service is None:
        return _response(key, problems) if problems else None
    response = _response(key, problems)
    if service.object.meta.deleting:
        text = "the service is being deleted; clients are told that it is absent"
        response.problems.add(field="metadata.deletionTimestamp", message=text)
    elif not problems:
        response.problems.extend(_unheld(service))
    for remark in remarks(Kind.VIRTUAL_MACHINE_SERVICE, key):
        response.problems.add(field="(file)", message=remark)
    if service.spec is None:
        return response
    response.selector.update(service.spec.selector)
    response.ip_families.extend(family.value for family in service.families)
    response.serving_last_valid = bool(problems)
    if not service.contributions:
        response.problems.extend(_matching_elsewhere(cache, key, service.spec))
    vms = cache.vms.nearly_matching(key.namespace, service.spec.selector)
    explained = [_explained(cache, service, service.spec, vm) for vm in vms]
    for vm in explained:
        vm.reasons.extend(remarks(Kind.VIRTUAL_MACHINE, Key(key.namespace, vm.vm_name)))
    explained += _unreadable(cache, key.namespace)
    explained.sort(key=lambda vm: vm.vm_name)
    response.virtual_machines.extend(explained)
    return response


def _response(key: Key, problems: Iterable[Problem]) -> pb.ExplainEndpointsResponse:
    return pb.ExplainEndpointsResponse(
        service=str(key),
        problems=(pb.Problem(field=p.field, message=p.message) for p in problems),
    )


def _unheld(service: CachedService) -> Iterator[pb.Problem]:
    """Why the service's objects are not as it asks, in the words of the replica that writes."""
    for condition in service.object.conditions:
        if condition.type == ACCEPTED and condition.status == "False":
            yield pb.Problem(field=f"status.conditions[{ACCEPTED}]", message=condition.message)


def _matching_elsewhere(cache: Cache, key: Key, spec: ServiceSpec) -> Iterator[pb.Problem]:
    """That a service without VMs would have some, were they in its namespace."""
    vms = cache.vms.matching_elsewhere(key.namespace, spec.selector)
    found = [str(vm.key) for vm in islice(vms, _ELSEWHERE_MAX + 1)]
    if not found:
        return
    more = " and more" if len(found) > _ELSEWHERE_MAX else ""
    yield pb.Problem(
        field="spec.selector",
        message=f"matches no VM of namespace {key.namespace}, but of others, where a service "
        f"selects none: {', '.join(found[:_ELSEWHERE_MAX])}{more}",
    )


def _unreadable(cache: Cache, namespace: str) -> Iterator[pb.VirtualMachineExplanation]:
    """The namespace's VMs that have never been valid: nobody knows which service they are for."""
    for key in cache.unreadable_vms(namespace):
        if cache.vms.get(key) is None:
            problems = cache.problems[Kind.VIRTUAL_MACHINE, key]
            yield pb.VirtualMachineExplanation(
                vm_name=key.name,
                verdict=_Verdict.VERDICT_INVALID,
                reasons=(f"its manifest is not valid: {problem}" for problem in problems),
            )


def _explained(
    cache: Cache, service: CachedService, spec: ServiceSpec, vm: VirtualMachine
) -> pb.VirtualMachineExplanation:
    judged = addresses(vm, cache.rules)
    endpoints = service.contributions.get(vm.key, ())
    if not matches(spec.selector, vm.labels):
        verdict, reasons = _Verdict.VERDICT_LABELS_DIFFER, list(_label_reasons(spec, vm))
    elif vm.deleting:
        verdict, reasons = _Verdict.VERDICT_DELETING, ["the VM is being deleted"]
    elif not endpoints:
        verdict, reasons = _Verdict.VERDICT_NO_ADDRESS, _address_reasons(service, judged)
        if not judged:
            reasons.append("the VM reports no primary address (yet)")
    else:
        verdict = _Verdict.VERDICT_READY if endpoints[0].ready else _Verdict.VERDICT_NOT_READY
        reasons = [_readiness_reason(vm, endpoints), *_address_reasons(service, judged)]
    flaws = {address.problem for address in judged}
    for problem in cache.problems.get((Kind.VIRTUAL_MACHINE, vm.key), ()):
        if problem not in flaws:
            reasons.append(
                f"its manifest is not valid now, so its last good state counts: {problem}"
            )
    return pb.VirtualMachineExplanation(
        vm_name=vm.key.name,
        vm_uid=vm.uid,
        verdict=verdict,
        reasons=reasons,
        endpoints=map(endpoint_message, endpoints),
    )


def _label_reasons(spec: ServiceSpec, vm: VirtualMachine) -> Iterator[str]:
    for label, wanted in spec.selector.items():
        if label not in vm.labels:
            yield f"label {label} is missing; the service selects {label}={wanted}"
        elif vm.labels[label] != wanted:
            have = vm.labels[label]
            yield f"label {label} is {quoted(have)}; the service selects {label}={wanted}"


def _address_reasons(service: CachedService, judged: Iterable[JudgedAddress]) -> list[str]:
    reasons = []
    for address in judged:
        if address.problem is not None:
            reasons.append(f"an address cannot be used: {address.problem}")
        elif address.family is not None and address.family not in service.families:
            asked = _names(service.families)
            reasons.append(
                f"address {address.text} is {address.family.value}, and the service asks for "
                f"{asked} only"
            )
    return reasons


def _names(families: Iterable[IPFamily]) -> str:
    return " and ".join(family.value for family in families)


def _readiness_reason(vm: VirtualMachine, endpoints: tuple[Endpoint, ...]) -> str:
    if vm.probe is None:
        if vm.ready is None:
            return "it has no readiness probe, so it counts as ready"
        status = vm.ready.value
        return f"it has no readiness probe, so it counts as ready; condition Ready is {status}"
    probe = f"readiness probe {vm.probe.value}"
    if vm.ready is not None:
        return f"{probe}: condition Ready is {vm.ready.value}"
    if endpoints[0].ready:
        return f"{probe} has no result yet (no condition Ready); it was ready before and stays so"
    return f"{probe} has no result yet (no condition Ready), so it is not ready"
