"""The rights on an API server that `serve` needs for its settings. Pure.

They are those of the roles in `deploy/base`, which a test compares with these.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vmsvc_grpc.config import Config
from vmsvc_grpc.model.objects import GROUP, Key

_Rules = tuple[tuple[str, str, tuple[str, ...]], ...]

_READ: _Rules = (
    (GROUP, "virtualmachines", ("list", "watch")),
    (GROUP, "virtualmachineservices", ("list", "watch")),
    ("", "services", ("list", "watch")),
    ("", "endpoints", ("list", "watch")),
)

_WRITE: _Rules = (
    (GROUP, "virtualmachineservices", ("get", "patch")),
    (GROUP, "virtualmachineservices/status", ("patch",)),
    (GROUP, "virtualmachineservices/finalizers", ("update",)),
    ("", "services", ("get", "create", "patch", "delete")),
    ("", "endpoints", ("get", "create", "patch", "delete")),
    (
        "discovery.k8s.io",
        "endpointslices",
        ("get", "list", "watch", "create", "patch", "delete"),
    ),
    ("events.k8s.io", "events", ("create",)),
)

_REVIEW: _Rules = (
    ("authentication.k8s.io", "tokenreviews", ("create",)),
    ("authorization.k8s.io", "subjectaccessreviews", ("create",)),
)

_LEASES = "coordination.k8s.io"

# Without these it does all but what is said here.
_DISPENSABLE = {
    "virtualmachineservices/finalizers": "needed only where the admission plugin "
    "OwnerReferencesPermissionEnforcement is on: there, no object can be created without it",
    "events": "without it nothing is reported by events",
}


class Right(NamedTuple):
    """A verb on a resource. `resource` may have a subresource after a slash.

    `namespace` "" means all of them, or a resource without one; `name` "" means any object.
    `purpose` says what it is for, and `role` is the file of `deploy/base` that grants it.
    """

    verb: str
    group: str
    resource: str
    namespace: str
    name: str
    purpose: str
    role: str

    @property
    def full_resource(self) -> str:
        """The resource with its group, as kubectl writes it."""
        resource, slash, part = self.resource.partition("/")
        return f"{resource}.{self.group}".rstrip(".") + f"{slash}{part}"

    @property
    def where(self) -> str:
        """In which namespace, in words."""
        if self.group in ("authentication.k8s.io", "authorization.k8s.io"):
            return ""
        return f" in namespace {self.namespace}" if self.namespace else " in all namespaces"

    @property
    def remark(self) -> str:
        """What else works without it; "" if it is needed for what the program is there for."""
        return _DISPENSABLE.get(self.resource, "")


def rights(config: Config, lease: Key) -> Iterator[Right]:
    """The rights that these settings need, each once, in the order in which they are used."""
    scopes = config.namespaces or ("",)
    for namespace in scopes:
        yield from _granted(_READ, namespace, "read", "reader")
    if config.reconcile:
        for namespace in scopes:
            yield from _granted(_WRITE, namespace, "write", "writer")
        for verb, name in (("create", ""), ("get", lease.name), ("update", lease.name)):
            yield Right(verb, _LEASES, "leases", lease.namespace, name, "lead", "leader")
    if config.auth == "kubernetes":
        yield from _granted(_REVIEW, "", "ask who callers are", "reviewer")


def _granted(rules: _Rules, namespace: str, purpose: str, role: str) -> Iterator[Right]:
    for group, resource, verbs in rules:
        for verb in verbs:
            yield Right(verb, group, resource, namespace, "", purpose, role)
