"""All faults of an object at once, as `kubectl apply --validate=strict` reports them.

Serving is lenient where VM Operator and kubectl are, and stops at the first fault that makes an
object useless. An author of manifests needs to know every fault, and fields without a meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import Any, NamedTuple

from vmsvc_grpc.model.from_wire import ParseError
from vmsvc_grpc.model.misfit import FieldPath
from vmsvc_grpc.model.objects import Kind, VirtualMachineService
from vmsvc_grpc.model.parse import parse, unfit_metadata, unfit_status
from vmsvc_grpc.model.problem import Problem, quoted
from vmsvc_grpc.model.schema import Fault, faults
from vmsvc_grpc.model.validate import is_dns_1123_subdomain

FAULTS_MAX = 100
"""How many faults of an object are reported: nobody writes more by hand."""

_STEPS = re.compile(r"\[(\d+)\]|\.?([^.\[\]]+)")

# Problems of these fields depend on the type; if that is wrong, they would only confuse.
_BY_TYPE = frozenset({"spec.ports", "spec.loadBalancerSourceRanges"})

# Texts of a VMService's spec and its ports that have defaults.
_WITH_DEFAULTS = frozenset({"type", "protocol"})
_UNKNOWN = "(unknown)"

# What is generated goes on where this ends with a hyphen; apimachinery looks at it so.
_TRAILING_HYPHEN = re.compile(r".-\Z", re.DOTALL)


class Located(NamedTuple):
    """A problem, and the path of its field."""

    path: FieldPath
    problem: Problem


def field_path(field: str) -> FieldPath:
    """The path of a field that is written as Kubernetes writes it, and has no dots in its keys."""
    if field.startswith("("):
        return ()  # Not a field, as "(object)".
    return tuple(int(index) if index else key for index, key in _STEPS.findall(field))


def problems(kind: Kind, untyped: Mapping[str, Any]) -> list[Located]:
    """The problems of a VM or VMService; none if an API server would accept it.

    If both the schema and a rule of ours find a fault in a field, the rule is reported, as it says
    what to do. At most FAULTS_MAX. O(object).
    """
    found = list(islice(chain(_unfit_meta(untyped), faults(kind, untyped)), FAULTS_MAX + 1))
    if len(found) > FAULTS_MAX:
        more = Problem("(object)", f"more than {FAULTS_MAX} problems; mend these first")
        found.pop()
        return [*(Located(f.path, Problem(f.field, f.message)) for f in found), Located((), more)]
    mistyped = tuple(fault.field for fault in found if fault.instead is not None)
    # No rule is of the status, and the schema has no wrong types there.
    typed = {**_with_types(untyped, found), "status": None}
    by_rules = [
        problem
        for problem in _rule_problems(kind, typed)
        if not any(_is_within(problem.field, field) for field in mistyped)
    ]
    by_rules += islice(unfit_status(kind, untyped.get("status")), FAULTS_MAX)
    ruled = {problem.field for problem in by_rules}
    return [
        *(Located(f.path, Problem(f.field, f.message)) for f in found if f.field not in ruled),
        *(Located(field_path(problem.field), problem) for problem in by_rules),
    ]


def _unfit_meta(untyped: Mapping[str, Any]) -> Iterator[Fault]:
    """Faults of the metadata that no API server accepts, but that serving does not read."""
    metadata = untyped.get("metadata")
    if not isinstance(metadata, dict):
        return
    match metadata.get("generateName"):
        case str(name) if name and not is_dns_1123_subdomain(_TRAILING_HYPHEN.sub("a", name)):
            flaw = f"{quoted(name)} is not the beginning of a name that Kubernetes takes"
            yield Fault(("metadata", "generateName"), flaw)
    match metadata.get("finalizers"):
        case list(finalizers):
            yield from _unfit_finalizers(finalizers)
    match metadata.get("ownerReferences"):
        case list(owners):
            yield from _unfit_owners(owners)


def _unfit_finalizers(finalizers: list[Any]) -> Iterator[Fault]:
    # As kubectl takes a null for an empty one, serving does.
    for index, finalizer in enumerate(finalizers):
        if finalizer == "":
            yield Fault(("metadata", "finalizers", index), "is empty; a finalizer has a name")
    if "orphan" in finalizers and "foregroundDeletion" in finalizers:
        flaw = "has orphan and foregroundDeletion; only one of them can be done"
        yield Fault(("metadata", "finalizers"), flaw)


def _unfit_owners(owners: list[Any]) -> Iterator[Fault]:
    controller: int | None = None
    for index, owner in enumerate(owners):
        if not isinstance(owner, dict):
            continue
        path: FieldPath = ("metadata", "ownerReferences", index)
        version = owner.get("apiVersion")
        if isinstance(version, str) and version and not _has_version(version):
            flaw = f"{quoted(version)} is not a version; write it as in apps/v1 or v1"
            yield Fault((*path, "apiVersion"), flaw)
        if (version, owner.get("kind")) == ("v1", "Event"):
            yield Fault(path, "is an Event, which may own nothing")
        if owner.get("controller") is True:
            if controller is not None:
                flaw = f"is true in metadata.ownerReferences[{controller}], too; only one controls"
                yield Fault((*path, "controller"), flaw)
            controller = index if controller is None else controller


def _has_version(api_version: str) -> bool:
    group, slash, version = api_version.partition("/")
    return bool(version) and "/" not in version if slash else bool(group)


def _is_within(field: str, outer: str) -> bool:
    return field == outer or field.startswith((f"{outer}.", f"{outer}["))


def _with_types(untyped: Mapping[str, Any], found: list[Fault]) -> dict[str, Any]:
    """The object, with a value of the right type in place of each of a wrong type.

    So the rules for all other fields can be applied.
    """
    right: Any = dict(untyped)
    for fault in found:
        if fault.instead is not None:
            # An empty text would mean the default, by which other fields would be judged.
            defaulted = fault.path[:1] == ("spec",) and fault.path[-1] in _WITH_DEFAULTS
            right = _replaced(right, fault.path, _UNKNOWN if defaulted else fault.instead)
    mended: dict[str, Any] = right
    return mended


def _replaced(value: Any, path: FieldPath, instead: Any) -> Any:
    """A copy with another value at the path; it shares everything off that path."""
    if not path:
        return instead
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _replaced(value[path[0]], path[1:], instead)
    return copy


def _rule_problems(kind: Kind, untyped: dict[str, Any]) -> Iterator[Problem]:
    """The problems that our rules find, for each field to which they can be applied."""
    try:
        object_ = parse(kind, untyped)
    except ParseError as error:
        unfit = unfit_metadata(untyped)
        yield from unfit if error.problem in unfit else (*unfit, error.problem)
        if error.key is None and kind is Kind.VIRTUAL_MACHINE_SERVICE:
            named = {**untyped, "metadata": {"name": "any"}}
            yield from (
                p for p in _rule_problems(kind, named) if not _is_within(p.field, "metadata")
            )
        return
    if not isinstance(object_, VirtualMachineService):
        return
    yield from object_.problems
    if any(problem.field == "spec.type" for problem in object_.problems):
        spec = {key: value for key, value in untyped["spec"].items() if key != "type"}
        reported = {problem.field for problem in object_.problems} | _BY_TYPE
        again = _rule_problems(kind, {**untyped, "spec": spec})
        yield from (problem for problem in again if problem.field not in reported)
