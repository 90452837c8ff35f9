"""Everything that is wrong with an object, at once, as `kubectl apply --validate=strict` has it.

Serving is lenient where VM Operator and kubectl are, and stops where an object cannot be
used; whoever writes manifests wants to hear of each flaw, and of fields that mean nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import Any, NamedTuple

from vmsvc_grpc.model.misfit import FieldPath
from vmsvc_grpc.model.objects import Kind, VirtualMachineService
from vmsvc_grpc.model.parse import ParseError, parse, unfit_metadata
from vmsvc_grpc.model.problem import Problem
from vmsvc_grpc.model.schema import Fault, faults

FAULTS_MAX = 100
"""How many faults of an object are reported: nobody wrote more than that by hand."""

_STEPS = re.compile(r"\[(\d+)\]|\.?([^.\[\]]+)")

# What these say depends on the type; where that is wrong, it would only confuse.
_BY_TYPE = frozenset({"spec.ports", "spec.loadBalancerSourceRanges"})

# Texts of a VMService's spec and its ports that mean something where they are left out.
_WITH_DEFAULTS = frozenset({"type", "protocol"})
_UNKNOWN = "(unknown)"


class Located(NamedTuple):
    """A problem, and the path of its field."""

    path: FieldPath
    problem: Problem


def field_path(field: str) -> FieldPath:
    """The path of a field that is written as Kubernetes writes it, and has no dots in its keys."""
    if field.startswith("("):
        return ()  # It stands for no field, as "(object)" does.
    return tuple(int(index) if index else key for index, key in _STEPS.findall(field))


def problems(kind: Kind, untyped: Mapping[str, Any]) -> list[Located]:
    """All that is wrong with a VM or VMService; nothing if an API server would take it.

    Where the schema and a rule of ours say something of one field, the rule is reported: it says
    what to do. Of more than FAULTS_MAX, that many. O(object).
    """
    found = list(islice(chain(_nameless(untyped), faults(kind, untyped)), FAULTS_MAX + 1))
    if len(found) > FAULTS_MAX:
        more = Problem("(object)", f"more than {FAULTS_MAX} problems; mend these first")
        found.pop()
        return [*(Located(f.path, Problem(f.field, f.message)) for f in found), Located((), more)]
    mistyped = tuple(fault.field for fault in found if fault.instead is not None)
    by_rules = [
        problem
        for problem in _rule_problems(kind, _with_types(untyped, found))
        if not any(_is_within(problem.field, field) for field in mistyped)
    ]
    ruled = {problem.field for problem in by_rules}
    return [
        *(Located(f.path, Problem(f.field, f.message)) for f in found if f.field not in ruled),
        *(Located(field_path(problem.field), problem) for problem in by_rules),
    ]


def _nameless(untyped: Mapping[str, Any]) -> Iterator[Fault]:
    """Finalizers without a name. Serving passes over them, as kubectl takes a null for one."""
    metadata = untyped.get("metadata")
    finalizers = metadata.get("finalizers") if isinstance(metadata, dict) else None
    for index, finalizer in enumerate(finalizers if isinstance(finalizers, list) else ()):
        if finalizer == "":
            yield Fault(("metadata", "finalizers", index), "is empty; a finalizer has a name")


def _is_within(field: str, outer: str) -> bool:
    return field == outer or field.startswith((f"{outer}.", f"{outer}["))


def _with_types(untyped: Mapping[str, Any], found: list[Fault]) -> dict[str, Any]:
    """The object, with something of the right type wherever there is something of a wrong one.

    So the rules for all other fields can be asked.
    """
    right: Any = dict(untyped)
    for fault in found:
        if fault.instead is not None:
            # An empty text would mean the default, and other fields be judged by that.
            defaulted = fault.path[:1] == ("spec",) and fault.path[-1] in _WITH_DEFAULTS
            right = _replaced(right, fault.path, _UNKNOWN if defaulted else fault.instead)
    mended: dict[str, Any] = right
    return mended


def _replaced(value: Any, path: FieldPath, instead: Any) -> Any:
    """A copy in which another value is at the path; it shares all that is not on the way."""
    if not path:
        return instead
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _replaced(value[path[0]], path[1:], instead)
    return copy


def _rule_problems(kind: Kind, untyped: dict[str, Any]) -> Iterator[Problem]:
    """What our rules say, of each field that they can be asked about."""
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
        told = {problem.field for problem in object_.problems} | _BY_TYPE
        again = _rule_problems(kind, {**untyped, "spec": spec})
        yield from (problem for problem in again if problem.field not in told)
