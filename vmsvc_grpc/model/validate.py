"""What makes a VMService refused, and the sentence that says so.

The rules are those of VM Operator's validating webhook and of kube-apiserver for a
Service, as far as they bear on what we create; where no webhook runs, we are the only
ones who apply them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import lru_cache
from ipaddress import IPV4LENGTH, IPV6LENGTH

from vmsvc_grpc.model.address import read
from vmsvc_grpc.model.objects import IPFamily, IPFamilyPolicy, ServicePort, ServiceType
from vmsvc_grpc.model.problem import Problem, quoted

_DNS_1035_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_DNS_1123_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_DNS_1123_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
# RFC 3339 as Go reads it: an hour may have one digit, a fraction any number and a comma, and
# an offset be 24 hours and 60 minutes.
_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([01]?[0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.,][0-9]+)?"
    r"(Z|[+-]([01][0-9]|2[0-4]):([0-5][0-9]|60))"
)
LABEL_MAX = 63
"""How long a label of DNS may be (RFC 1035), and a label's value and its key after the slash."""
SUBDOMAIN_MAX = 253
"""How long the name of an object may be."""
_KEY_MAX = SUBDOMAIN_MAX + len("/") + LABEL_MAX  # Of a label or annotation.
_PORT_MAX = 65535
PORTS_MAX = 1000
"""How many ports a VMService may have: every stream and object that shows it carries them all."""
ANNOTATION_BYTES_MAX = 256 * 1024  # Kubernetes, for keys and values of an object together.
PROTOCOLS = ("TCP", "UDP", "SCTP")

_TYPE_SENTENCES = {
    "NodePort": (
        "NodePort is not supported, as node ports are not allocated for VMs; "
        "use ClusterIP or LoadBalancer"
    ),
    "ExternalName": (
        "ExternalName is not supported, as it names no VM; "
        "create a Service of type ExternalName instead"
    ),
}


def is_dns_1123_label(text: str) -> bool:
    """Whether `text` may name a namespace, a port, or a VM's label of DNS."""
    return len(text) <= LABEL_MAX and _DNS_1123_LABEL.fullmatch(text) is not None


def is_dns_1035_label(text: str) -> bool:
    """Whether `text` may name a Service."""
    return len(text) <= LABEL_MAX and _DNS_1035_LABEL.fullmatch(text) is not None


def is_dns_1123_subdomain(text: str) -> bool:
    """Whether `text` may name an object."""
    return len(text) <= SUBDOMAIN_MAX and _DNS_1123_SUBDOMAIN.fullmatch(text) is not None


def is_time(text: str) -> bool:
    """Whether an API server takes `text` for a time (metav1.Time)."""
    found = _TIME.fullmatch(text)
    if found is None:
        return False
    year, month, day = int(found[1]), int(found[2]), int(found[3])
    try:
        date(year or 4, month, day)  # Python has no year 0; that is a leap year, as 4 is.
    except ValueError:
        return False
    return True


def time_problems(field: str, text: str | None) -> Iterator[Problem]:
    """What is wrong with a time of an object's metadata."""
    if text is not None and (flaw := time_flaw(text)):
        yield Problem(field, flaw)


def time_flaw(text: str) -> str | None:
    """Why a text is not a time; None if it is one."""
    if is_time(text):
        return None
    return f"{quoted(text)} is not a time; write it as in 2026-01-31T09:30:00Z"


def name_problems(name: str) -> Iterator[Problem]:
    """What is wrong with a VMService's name: it becomes the Service's."""
    if not is_dns_1035_label(name):
        yield Problem(
            "metadata.name",
            f"{quoted(name)} cannot name a Service; use at most 63 lower-case letters, digits "
            "and '-', beginning with a letter and not ending with '-'",
        )


def type_problems(text: str) -> Iterator[Problem]:
    """What is wrong with `spec.type`."""
    if text not in {known.value for known in ServiceType}:
        sentence = _TYPE_SENTENCES.get(
            text, f"{quoted(text)} is not supported; use ClusterIP or LoadBalancer"
        )
        yield Problem("spec.type", sentence)


def port_problems(ports: Sequence[ServicePort], *, headless: bool) -> Iterator[Problem]:
    """What is wrong with `spec.ports`, in their order; of too many ports, only that. O(ports)."""
    if not ports and not headless:
        yield Problem("spec.ports", "at least one port is required, unless clusterIP is None")
    if len(ports) > PORTS_MAX:
        yield Problem(
            "spec.ports",
            f"{len(ports)} ports are too many; use at most {PORTS_MAX}, or several "
            "VirtualMachineServices",
        )
        return
    names: dict[str, int] = {}
    numbers: dict[tuple[str, int], int] = {}
    for index, port in enumerate(ports):
        path = f"spec.ports[{index}]"
        yield from _port_name_problems(f"{path}.name", port.name, names, len(ports) > 1)
        yield from _number_problems(f"{path}.port", port.port)
        if port.target_port != port.port:  # An absent one equals the port, reported above.
            yield from _number_problems(f"{path}.targetPort", port.target_port)
        if port.protocol not in PROTOCOLS:
            yield Problem(
                f"{path}.protocol", f"{quoted(port.protocol)} is not known; use TCP, UDP or SCTP"
            )
        names.setdefault(port.name, index)
        if not _is_port(port.port):
            continue  # Reported above. Two numbers that are no ports are not the same port.
        first = numbers.setdefault((port.protocol, port.port), index)
        if first != index:
            yield Problem(
                path,
                f"port {quoted(port.port)} and protocol {quoted(port.protocol)} are those of "
                f"spec.ports[{first}]; such a pair may occur once",
            )


def _port_name_problems(
    path: str, name: str, names: Mapping[str, int], required: bool
) -> Iterator[Problem]:
    if not name:
        if required:
            yield Problem(path, "a name is required where there are several ports")
    elif not is_dns_1123_label(name):
        yield Problem(
            path,
            f"{quoted(name)} is not a DNS label; use at most 63 lower-case letters, digits and "
            "'-', not beginning or ending with '-'",
        )
    elif name in names:
        yield Problem(path, f"{quoted(name)} is also the name of spec.ports[{names[name]}]")


def _is_port(number: int) -> bool:
    return 1 <= number <= _PORT_MAX


def _number_problems(path: str, number: int) -> Iterator[Problem]:
    if not _is_port(number):
        yield Problem(path, f"{quoted(number)} is not a port; use 1 to {_PORT_MAX}")


def cluster_ip_problems(path: str, text: str, type_text: str) -> Iterator[Problem]:
    """What is wrong with `spec.clusterIp`; `path` is how the object spells it."""
    if text == "None":
        if type_text == ServiceType.LOAD_BALANCER.value:
            yield Problem(path, "None (headless) cannot be combined with LoadBalancer")
    elif text and read(text) is None:
        yield Problem(
            path,
            f"{quoted(text)} is not an IP address; use None, an address, or leave it out",
        )


def source_range_problems(ranges: Sequence[str], type_text: str) -> Iterator[Problem]:
    """What is wrong with `spec.loadBalancerSourceRanges` ; blanks around one do not count."""
    path = "spec.loadBalancerSourceRanges"
    if ranges and type_text != ServiceType.LOAD_BALANCER.value:
        yield Problem(path, "may be set only where type is LoadBalancer")
    for index, text in enumerate(ranges):
        if not _is_cidr(text.strip()):
            yield Problem(
                f"{path}[{index}]", f"{quoted(text)} is not a range; write it as in 192.0.2.0/24"
            )


def selector_problems(selector: Mapping[str, str]) -> Iterator[Problem]:
    """What is wrong with `spec.selector`: its pairs must be able to be labels."""
    yield from _label_problems("spec.selector", selector)


def metadata_problems(
    labels: Mapping[str, str], annotations: Mapping[str, str], finalizers: Iterable[str]
) -> Iterator[Problem]:
    """The parts of an object's metadata that no API server accepts (its `ValidateObjectMeta`)."""
    yield from _label_problems("metadata.labels", labels)
    for key in annotations:
        # Capital letters are allowed before the slash, too.
        if flaw := _key_flaw(key.lower()):
            yield Problem("metadata.annotations", f"key {quoted(key)} {flaw}")
    annotation_bytes = sum(len(text.encode()) for pair in annotations.items() for text in pair)
    if annotation_bytes > ANNOTATION_BYTES_MAX:
        yield Problem(
            "metadata.annotations",
            f"{annotation_bytes} bytes are too many; keys and values together may take "
            f"{ANNOTATION_BYTES_MAX}",
        )
    for index, finalizer in enumerate(finalizers):
        # A null, which kubectl accepts, is read as an empty one. It delays no deletion.
        if finalizer and (flaw := _key_flaw(finalizer)):
            yield Problem(f"metadata.finalizers[{index}]", f"{quoted(finalizer)} {flaw}")


def _label_problems(field: str, labels: Mapping[str, str]) -> Iterator[Problem]:
    for key, value in labels.items():
        if flaw := _key_flaw(key):
            yield Problem(field, f"key {quoted(key)} {flaw}")
        if value and not _is_qualified_name(value):
            yield Problem(
                field, f"value {quoted(value)} of {quoted(key)} is not a label's value; use {_NAME}"
            )


_NAME = "at most 63 letters, digits, '-', '_' and '.', with a letter or digit first and last"


def _is_qualified_name(text: str) -> bool:
    return len(text) <= LABEL_MAX and _QUALIFIED_NAME.fullmatch(text) is not None


def _key_flaw(key: str) -> str | None:
    """Why a text cannot be the key of a label; None if it can."""
    return _known_key_flaw(key) if len(key) <= _KEY_MAX else _new_key_flaw(key)


def _new_key_flaw(key: str) -> str | None:
    prefix, slash, name = key.rpartition("/")
    if slash and not is_dns_1123_subdomain(prefix):
        return "has no DNS name before its '/'"
    if not _is_qualified_name(name):
        return f"is not a key; use {_NAME}, after a DNS name and '/' if need be"
    return None


# Thousands of objects have the same few keys.
_known_key_flaw = lru_cache(maxsize=1_000)(_new_key_flaw)


def family_problems(texts: Sequence[str], policy: str) -> Iterator[Problem]:
    """What is wrong with `spec.ipFamilies` and `spec.ipFamilyPolicy`."""
    known = {family.value for family in IPFamily}
    seen: set[str] = set()
    for index, text in enumerate(texts):
        path = f"spec.ipFamilies[{index}]"
        if text not in known:
            yield Problem(path, f"{quoted(text)} is not known; use IPv4 or IPv6")
        elif text in seen:
            yield Problem(path, f"{quoted(text)} occurs twice")
        seen.add(text)
    if policy and policy not in {known_policy.value for known_policy in IPFamilyPolicy}:
        yield Problem(
            "spec.ipFamilyPolicy",
            f"{quoted(policy)} is not known; use SingleStack, PreferDualStack or RequireDualStack",
        )


# Leading zeros of the length do not count, as those of the address do not.
_RANGE_LENGTH = re.compile(r"0*([0-9]{1,3})", re.ASCII)


def _is_cidr(text: str) -> bool:
    """Whether an API server takes `text` for a range (`ParseCIDRSloppy` in k8s.io/utils).

    Bits after the length may be set, and the length is required.
    """
    address, _, given = text.partition("/")
    length = _RANGE_LENGTH.fullmatch(given)
    if read(address) is None or length is None:
        return False
    bits = IPV6LENGTH if ":" in address else IPV4LENGTH
    return int(length[1]) <= bits
