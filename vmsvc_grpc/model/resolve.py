"""From a service and its VMs to endpoints: the heart, pure.

Rules: which VMs and addresses, and who is ready, are those of VM Operator's
`virtualmachineservice_controller.go`; which address families a Service is given are
those of kube-apiserver (`pkg/registry/core/service/storage/alloc.go`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address

from vmsvc_grpc.model.address import is_link_local_multicast, read
from vmsvc_grpc.model.endpoints import Endpoint, assembled
from vmsvc_grpc.model.objects import (
    IPFamily,
    IPFamilyPolicy,
    Readiness,
    ServiceSpec,
    VirtualMachine,
)
from vmsvc_grpc.model.problem import Problem, quoted
from vmsvc_grpc.model.selector import matches

Remembers = Callable[[str], bool]
"""Whether the VM of this uid is among the service's ready endpoints now."""


@dataclass(frozen=True, slots=True)
class AddressRules:
    """Settings that decide which addresses count.

    `cluster_families` are those of the cluster's Services, the default one first.
    `allow_loopback` keeps 127.0.0.0/8 and ::1, for trials on one machine.
    """

    cluster_families: tuple[IPFamily, ...] = (IPFamily.IPV4,)
    allow_loopback: bool = False


def families(
    spec: ServiceSpec, stored: Sequence[str], cluster: Sequence[IPFamily]
) -> tuple[IPFamily, ...]:
    """The address families of a service, the primary one first.

    `stored` are the stored Service's `spec.ipFamilies`, which decide where there are
    any. Without, they are what kube-apiserver would choose for a Service without
    selector: those asked for, else the family of the cluster address asked for, else
    the cluster's first; and the other one too, unless the policy is SingleStack, if
    the cluster has it or the service is headless.
    """
    known = tuple(IPFamily(family) for family in stored if family in ("IPv4", "IPv6"))
    if known:
        return known
    chosen = spec.ip_families or _family_of_cluster_ip(spec) or tuple(cluster[:1])
    policy = spec.ip_family_policy
    # Dual is kube-apiserver's default for a headless Service without selector.
    dual = spec.headless if policy is None else policy is not IPFamilyPolicy.SINGLE_STACK
    if dual and len(chosen) == 1:
        other = IPFamily.IPV6 if chosen[0] is IPFamily.IPV4 else IPFamily.IPV4
        if spec.headless or other in cluster:
            return (chosen[0], other)
    return chosen


def _family_of_cluster_ip(spec: ServiceSpec) -> tuple[IPFamily, ...]:
    if not spec.cluster_ip or spec.headless:
        return ()
    return (IPFamily.IPV6 if ":" in spec.cluster_ip else IPFamily.IPV4,)


@dataclass(frozen=True, slots=True)
class Address:
    """A reported address, judged: its family if it may be used, else its problem."""

    text: str
    family: IPFamily | None
    problem: Problem | None


def addresses(vm: VirtualMachine, rules: AddressRules) -> tuple[Address, ...]:
    """The VM's reported addresses, each judged. In the order IPv4, IPv6."""
    return tuple(
        _judged(report.field, report.text, report.family, rules) for report in vm.addresses
    )


def _judged(field: str, text: str, wanted: IPFamily | None, rules: AddressRules) -> Address:
    family, flaw = _flaw(text, wanted, rules.allow_loopback)
    if flaw:
        return Address(text, None, Problem(field, f"{quoted(text)} {flaw}"))
    return Address(text, family, None)


# Parsing costs more than all else about a VM's event, and most events repeat an address.
@lru_cache(maxsize=65_536)
def _flaw(text: str, wanted: IPFamily | None, allow_loopback: bool) -> tuple[IPFamily | None, str]:
    """The family of an address, and why Endpoints may not hold it ("" if they may).

    kube-apiserver's ValidateEndpointIP refuses exactly these. `wanted` is the family of the
    field in which the address stands: VM Operator goes by that, whatever is written there.
    """
    address = read(text)
    if address is None:
        return None, "is not an IP address; the VM must report a plain one"
    if address.is_unspecified:
        return None, "is the unspecified address, which Endpoints may not hold"
    if address.is_loopback and not allow_loopback:
        return None, "is a loopback address, which Endpoints may not hold"
    if address.is_link_local:
        return None, "is a link-local address, which Endpoints may not hold"
    if is_link_local_multicast(address):
        return None, "is a link-local multicast address, which Endpoints may not hold"
    own = IPFamily.IPV4 if isinstance(address, IPv4Address) else IPFamily.IPV6
    return wanted or own, ""


def is_ready(vm: VirtualMachine, remembers: Remembers) -> bool:
    """Whether a selected VM's endpoints are ready.

    Without a probe they are, whatever the condition says. With one, the `Ready`
    condition decides; while there is none yet, a VM stays ready that was ready, so
    that adding a probe does not empty a service.
    """
    if vm.probe is None:
        return True
    if vm.ready is None:
        return remembers(vm.uid)
    return vm.ready is Readiness.TRUE


def contribution(
    spec: ServiceSpec,
    wanted: Sequence[IPFamily],
    vm: VirtualMachine,
    remembers: Remembers,
    rules: AddressRules,
) -> tuple[Endpoint, ...] | None:
    """The endpoints that one VM gives to a service: at most one for each wanted family.

    Empty if it has no address that may be used; None if it is none of the service's VMs,
    as the selector does not match it, or it is being deleted. Never raises.
    """
    if vm.deleting or not matches(spec.selector, vm.labels):
        return None
    usable = [a for a in addresses(vm, rules) if a.family in wanted]
    if not usable:
        return ()
    ready = is_ready(vm, remembers)
    return tuple(Endpoint(a.text, vm.uid, ready, vm.key.name, vm.zone) for a in usable)


def resolved(
    spec: ServiceSpec,
    wanted: Sequence[IPFamily],
    vms: Iterable[VirtualMachine],
    remembers: Remembers,
    rules: AddressRules,
) -> tuple[Endpoint, ...]:
    """All endpoints of a service, ready or not, sorted and unique.

    `vms` are of the service's namespace; those that do not match give nothing. The
    cache does the same one VM at a time; this is what it must equal.
    """
    return assembled(contribution(spec, wanted, vm, remembers, rules) or () for vm in vms)
