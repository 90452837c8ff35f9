"""From a service and its VMs to endpoints: the heart, pure.

Rules: which VMs and addresses, and who is ready, are those of VM Operator's
`virtualmachineservice_controller.go`; which address families a Service is given are
those of kube-apiserver (`pkg/registry/core/service/storage/alloc.go`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import IPv4Address

import msgspec

from vmsvc_grpc.model.address import CHARACTERS_MAX, canonical, is_link_local_multicast, read
from vmsvc_grpc.model.endpoints import Endpoint, assembled
from vmsvc_grpc.model.objects import (
    IPFamily,
    IPFamilyPolicy,
    Readiness,
    ReportedAddress,
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


def as_held(spec: ServiceSpec, cluster_ip: str, policy: str) -> ServiceSpec:
    """The specification that families follow from, given cluster IP and policy of a held Service.

    A cluster IP is chosen only at creation, and a policy stays that is not asked for any more.
    """
    held = IPFamilyPolicy(policy) if policy in _POLICIES else None
    return replace(spec, cluster_ip=cluster_ip, ip_family_policy=spec.ip_family_policy or held)


_POLICIES = frozenset(policy.value for policy in IPFamilyPolicy)


def _family_of_cluster_ip(spec: ServiceSpec) -> tuple[IPFamily, ...]:
    if not spec.cluster_ip or spec.headless:
        return ()
    # To an API server, an IPv4 address that is written as IPv6 is an IPv4 one.
    return (IPFamily.IPV6 if ":" in canonical(spec.cluster_ip) else IPFamily.IPV4,)


class JudgedAddress(msgspec.Struct, frozen=True, gc=False):
    """A reported address, judged: its family if it may be used, else its problem."""

    text: str
    family: IPFamily | None
    problem: Problem | None


def addresses(vm: VirtualMachine, rules: AddressRules) -> tuple[JudgedAddress, ...]:
    """The VM's reported addresses, each judged. In the order IPv4, IPv6."""
    return tuple([_judged(report, rules.allow_loopback) for report in vm.addresses])


def _judged(report: ReportedAddress, allow_loopback: bool) -> JudgedAddress:
    text = report.text
    if _ORDINARY_IPV4(text):
        return JudgedAddress(text, report.family or IPFamily.IPV4, None)
    if len(text) > CHARACTERS_MAX:
        return _judged_anew(report, allow_loopback)
    return _judged_before(report, allow_loopback)


def _judged_anew(report: ReportedAddress, allow_loopback: bool) -> JudgedAddress:
    text = report.text
    family, flaw = _flaw(text, report.family, allow_loopback)
    problem = Problem(report.field, f"{quoted(text)} {flaw}") if flaw else None
    return JudgedAddress(text, None if flaw else family, problem)


# Most events repeat an address. A text too long for one is not kept: it may be a megabyte.
_judged_before = lru_cache(maxsize=65_536)(_judged_anew)

# IPv4 addresses that nothing is wrong with, as most are: `ipaddress` takes ten times as long. To
# remember one takes longer than to match it again.
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_ORDINARY_IPV4 = re.compile(
    rf"(?!0\.|127\.|169\.254\.|2[2-9]\d\.){_OCTET}(?:\.{_OCTET}){{3}}", re.ASCII
).fullmatch


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


def is_selected(spec: ServiceSpec, vm: VirtualMachine) -> bool:
    """Whether a VM of the service's namespace is one of the service's."""
    return not vm.deleting and matches(spec.selector, vm.labels)


def contribution(
    vm: VirtualMachine,
    judged: Iterable[JudgedAddress],
    wanted: Sequence[IPFamily],
    remembers: Remembers,
) -> tuple[Endpoint, ...]:
    """The endpoints that one of its VMs gives to a service: at most one for each wanted family.

    `judged` are the VM's `addresses`. Each endpoint occurs once, though a VM may report one
    address in the fields of both families. Empty if it has none that may be used. Never raises.
    """
    usable: dict[str, IPFamily | None] = {}
    for address in judged:
        if address.family in wanted:
            usable.setdefault(address.text, address.family)
    if not usable:
        return ()
    uid, ready, name = vm.uid, is_ready(vm, remembers), vm.key.name
    return tuple(
        [
            Endpoint(text, uid, ready, name, vm.zone, vm.region, family is not wanted[0])
            for text, family in usable.items()
        ]
    )


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
    return assembled(
        contribution(vm, addresses(vm, rules), wanted, remembers)
        for vm in vms
        if is_selected(spec, vm)
    )
