"""Why each VM is in a service or is not: sentences for a person, a page of VMs at a time.

The rules are the model's; here they only become sentences. A page costs its VMs, and a bounded
search for VMs that are nearly in the service.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import nsmallest
from itertools import islice

from google.protobuf.timestamp_pb2 import Timestamp

from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.membership import CachedService
from vmsvc_grpc.model.endpoints import Endpoint
from vmsvc_grpc.model.objects import ACCEPTED, IPFamily, Key, Kind, Readiness, VirtualMachine
from vmsvc_grpc.model.problem import Problem, escaped, quoted
from vmsvc_grpc.model.resolve import JudgedAddress, addresses
from vmsvc_grpc.model.selector import matches
from vmsvc_grpc.server.endpoint_service.encode import endpoint_message
from vmsvc_grpc.server.endpoint_service.requests import (
    ExplainedPart,
    ExplainedPlace,
    ExplainQuery,
    explained_token,
)

_Verdict = pb.VirtualMachineExplanation

# How many VMs of other namespaces are named: enough to see the mistake.
_ELSEWHERE_MAX = 5
# How many namespaces, and VMs in them, are looked at to find these: some ms.
_ELSEWHERE_LOOKS_MAX = 2_000

# The contract in the proto names these three.
_NEAR_MAX = 100
_UNREADABLE_MAX = 100
_SELECTOR_BYTES_MAX = 64 * 1024

# How many VMs are looked at to find those nearest to a service, and how many labels are compared:
# some milliseconds of work, however large the namespace and the selector are.
_VMS_LOOKED_AT_MAX = 2_000
_COMPARISONS_MAX = 20_000

# How many of a VM's wrong labels, and remarks about its files, are shown: enough to begin with.
_REASONS_MAX = 10

Remarks = Callable[[Kind, Key], Iterable[str]]
"""Sentences about an object beyond what the cache holds: where else it is defined."""


def no_remarks(_kind: Kind, _key: Key) -> Iterable[str]:
    """No sentences about any object."""
    return ()


@dataclass(frozen=True, slots=True)
class Explainer:
    """Explains services of a cache. `page_bytes_max` bounds the VMs of a page."""

    cache: Cache
    page_bytes_max: int
    remarks: Remarks = no_remarks

    def page(
        self, query: ExplainQuery, now: datetime, *, elsewhere: bool = True
    ) -> pb.ExplainEndpointsResponse | None:
        """A page of the explanation of a service; None if the service or the VM does not exist.

        A service or VM that cannot be read, or is being deleted, is explained too. `now` is in UTC.
        `elsewhere`: VMs of other namespaces may be named.
        """
        key = query.service
        service = self.cache.services.get(key)
        problems = tuple(self.cache.problems.get((Kind.VIRTUAL_MACHINE_SERVICE, key), ()))
        if service is None or not service.evaluated:
            return _response(key, problems) if problems else None
        response = _response(key, problems)
        self._describe(response, service, refused=bool(problems), elsewhere=elsewhere)
        explaining = _Explaining(self, service, now)
        if query.vm_name:
            explained = explaining.named(query.vm_name)
            if explained is None:
                return None
            response.virtual_machines.append(explained)
        else:
            self._fill(response, query, explaining)
        return response

    def _fill(
        self, response: pb.ExplainEndpointsResponse, query: ExplainQuery, explaining: _Explaining
    ) -> None:
        """Put the VMs of a page into the response, and the token for the next."""
        size = 0
        last: ExplainedPlace | None = None
        for place, explained in explaining.vms(query.after):
            size += explained.ByteSize()
            full = len(response.virtual_machines) == query.size or size > self.page_bytes_max
            if full and last is not None:
                response.next_page_token = explained_token(query, last)
                return
            response.virtual_machines.append(explained)
            last = place

    def _describe(
        self,
        response: pb.ExplainEndpointsResponse,
        service: CachedService,
        *,
        refused: bool,
        elsewhere: bool,
    ) -> None:
        """Put the facts about the service itself into the response."""
        cache, key, selector = self.cache, service.object.key, service.selector
        notable: list[Problem] = []
        if service.object.meta.deleting:
            text = "the service is being deleted; clients are told that it is absent"
            notable.append(Problem("metadata.deletionTimestamp", text))
        elif not refused:
            notable += _unheld(service)
        notable += (Problem("(file)", text) for text in self.remarks(service.object.kind, key))
        if elsewhere and not service.members:
            notable += _matching_elsewhere(cache, key, selector)
        shown = dict(_fitting(selector))
        if len(shown) < len(selector):
            text = f"has {len(selector)} pairs, of which {len(shown)} are shown"
            notable.append(Problem("spec.selector", text))
        response.problems.extend(map(_problem_message, notable))
        response.selector.update(shown)
        response.ip_families.extend(family.value for family in service.families)
        response.serving_last_valid = refused and service.spec is not None
        response.matching = len(service.members)
        response.ready, response.not_ready = service.ready, service.not_ready
        having, complete = cache.vms.having_any(key.namespace, selector.keys(), _COMPARISONS_MAX)
        response.near_misses = max(0, having - len(service.members))
        response.near_misses_incomplete = not complete
        response.unreadable = len(cache.unreadable_vms(key.namespace))


@dataclass(frozen=True, slots=True)
class _Explaining:
    """The VMs of one service, explained at one moment."""

    by: Explainer
    service: CachedService
    now: datetime

    def named(self, name: str) -> pb.VirtualMachineExplanation | None:
        """The VM of that name; None if there is none."""
        key = Key(self.service.object.key.namespace, name)
        vm = self.by.cache.vms.get(key)
        if vm is not None:
            return self._explained(vm)
        return self._unreadable(key) if key in self.by.cache.unreadable_vms(key.namespace) else None

    def vms(
        self, after: ExplainedPlace | None
    ) -> Iterator[tuple[ExplainedPlace, pb.VirtualMachineExplanation]]:
        """The VMs after a place, each with its own. A part is looked up when it is reached."""
        part = after.part if after else ExplainedPart.MEMBERS
        if part is ExplainedPart.MEMBERS:
            yield from self._members(after)
            after = None
        if part is not ExplainedPart.UNREADABLE:
            yield from self._near(after)
            after = None
        yield from self._never_read(after)

    def _members(
        self, after: ExplainedPlace | None
    ) -> Iterator[tuple[ExplainedPlace, pb.VirtualMachineExplanation]]:
        vms, members = self.by.cache.vms, self.service.members
        namespace = self.service.object.key.namespace
        start = bisect_right(members, Key(namespace, after.name)) if after else 0
        for index in range(start, len(members)):
            vm = vms.get(members[index])
            # A VM that has gone is a member until the service has been evaluated anew.
            if vm is not None:
                yield ExplainedPlace(ExplainedPart.MEMBERS, 0, vm.key.name, 0), self._explained(vm)

    def _near(
        self, after: ExplainedPlace | None
    ) -> Iterator[tuple[ExplainedPlace, pb.VirtualMachineExplanation]]:
        """The VMs nearest to the service, but not in it, among those that are soon found."""
        selector, namespace = self.service.selector, self.service.object.key.namespace
        looks_max = min(_VMS_LOOKED_AT_MAX, _COMPARISONS_MAX // max(1, len(selector)))
        begin, shown = ((after.distance, after.name), after.shown) if after else ((0, ""), 0)
        found = {
            place: vm
            for vm in self.by.cache.vms.nearly_matching(
                namespace, selector, self.service.contributions, looks_max
            )
            if (place := (_distance(selector, vm), vm.key.name)) > begin
        }
        for place in nsmallest(max(0, _NEAR_MAX - shown), found):
            shown += 1
            yield ExplainedPlace(ExplainedPart.NEAR, *place, shown), self._explained(found[place])

    def _never_read(
        self, after: ExplainedPlace | None
    ) -> Iterator[tuple[ExplainedPlace, pb.VirtualMachineExplanation]]:
        """VMs that have never been valid, so that it is not known which service selects them."""
        cache, namespace = self.by.cache, self.service.object.key.namespace
        begin, shown = (after.name, after.shown) if after else ("", 0)
        keys = islice(cache.unreadable_vms(namespace), _VMS_LOOKED_AT_MAX)
        names = (key.name for key in keys if key.name > begin and cache.vms.get(key) is None)
        for name in nsmallest(max(0, _UNREADABLE_MAX - shown), names):
            shown += 1
            place = ExplainedPlace(ExplainedPart.UNREADABLE, 0, name, shown)
            yield place, self._unreadable(Key(namespace, name))

    def _unreadable(self, key: Key) -> pb.VirtualMachineExplanation:
        problems = self.by.cache.problems[Kind.VIRTUAL_MACHINE, key]
        return pb.VirtualMachineExplanation(
            vm_name=key.name,
            verdict=_Verdict.VERDICT_INVALID,
            reasons=(f"its manifest is not valid: {problem}" for problem in problems),
        )

    def _explained(self, vm: VirtualMachine) -> pb.VirtualMachineExplanation:
        cache, service = self.by.cache, self.service
        judged = addresses(vm, cache.rules)
        endpoints = service.contributions.get(vm.key)
        if endpoints is not None:
            verdict, reasons = self._of_member(vm, judged, endpoints)
        elif matches(service.selector, vm.labels):
            verdict, reasons = _Verdict.VERDICT_DELETING, ["the VM is being deleted"]
        else:
            verdict = _Verdict.VERDICT_LABELS_DIFFER
            reasons = _label_reasons(service.selector, vm)
        flaws = {address.problem for address in judged}
        for problem in cache.problems.get((vm.kind, vm.key), ()):
            if problem not in flaws:
                reasons.append(
                    f"its manifest is not valid now, so its last good state counts: {problem}"
                )
        reasons += (escaped(text) for text in self.by.remarks(vm.kind, vm.key))
        return pb.VirtualMachineExplanation(
            vm_name=vm.key.name,
            vm_uid=vm.uid,
            verdict=verdict,
            reasons=reasons,
            endpoints=map(endpoint_message, endpoints or ()),
            ready_condition=_condition(vm),
        )

    def _of_member(
        self, vm: VirtualMachine, judged: Iterable[JudgedAddress], endpoints: tuple[Endpoint, ...]
    ) -> tuple[pb.VirtualMachineExplanation.Verdict, list[str]]:
        """The verdict on a VM that the service selects, and the reasons."""
        service = self.service
        if service.spec is None:
            text = "the service is refused and has never been valid, so nothing is served of it"
            return _Verdict.VERDICT_SERVICE_REFUSED, [text, *_flaws(judged)]
        reasons = [*_flaws(judged), *_of_other_families(service, judged)]
        if not endpoints:
            if not judged:
                reasons.append("the VM reports no primary address (yet)")
            return _Verdict.VERDICT_NO_ADDRESS, reasons
        ready = endpoints[0].ready
        verdict = _Verdict.VERDICT_READY if ready else _Verdict.VERDICT_NOT_READY
        return verdict, [_readiness_reason(vm, ready=ready, now=self.now), *reasons]


# -- The service --


def _response(key: Key, problems: Iterable[Problem]) -> pb.ExplainEndpointsResponse:
    return pb.ExplainEndpointsResponse(service=str(key), problems=map(_problem_message, problems))


def _problem_message(problem: Problem) -> pb.Problem:
    return pb.Problem(field=problem.field, message=problem.message)


def _unheld(service: CachedService) -> Iterator[Problem]:
    """Why the service's objects are not as they should be, as the writing replica says it."""
    for condition in service.object.conditions:
        if condition.type == ACCEPTED and condition.status == "False":
            yield Problem(f"status.conditions[{ACCEPTED}]", condition.message)


def _matching_elsewhere(cache: Cache, key: Key, selector: Mapping[str, str]) -> Iterator[Problem]:
    """A problem for a service without VMs whose selector matches VMs of other namespaces."""
    vms = cache.vms.matching_elsewhere(key.namespace, selector, _ELSEWHERE_LOOKS_MAX)
    found = [str(vm.key) for vm in islice(vms, _ELSEWHERE_MAX + 1)]
    if not found:
        return
    more = " and more" if len(found) > _ELSEWHERE_MAX else ""
    yield Problem(
        "spec.selector",
        f"matches no VM of namespace {key.namespace}, but of others, where a service selects "
        f"none: {', '.join(found[:_ELSEWHERE_MAX])}{more}",
    )


def _fitting(selector: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The first pairs of a selector, as many as an answer shows."""
    size = 0
    for key, value in selector.items():
        size += len(key) + len(value)  # Both are ASCII.
        if size > _SELECTOR_BYTES_MAX:
            return
        yield key, value


# -- A VM --


def _distance(selector: Mapping[str, str], vm: VirtualMachine) -> int:
    """How many pairs of the selector a VM's labels lack."""
    return len(selector.items() - vm.labels.items())


def _label_reasons(selector: Mapping[str, str], vm: VirtualMachine) -> list[str]:
    reasons = [
        f"label {label} is {quoted(vm.labels[label])}; the service selects {label}={wanted}"
        if label in vm.labels
        else f"label {label} is missing; the service selects {label}={wanted}"
        for label, wanted in islice(_lacking(selector, vm), _REASONS_MAX)
    ]
    if (more := _distance(selector, vm) - len(reasons)) > 0:
        reasons.append(f"{more} more of the labels that the service selects are missing or differ")
    return reasons


def _lacking(selector: Mapping[str, str], vm: VirtualMachine) -> Iterator[tuple[str, str]]:
    return (pair for pair in selector.items() if vm.labels.get(pair[0]) != pair[1])


def _flaws(judged: Iterable[JudgedAddress]) -> Iterator[str]:
    for address in judged:
        if address.problem is not None:
            yield f"an address cannot be used: {address.problem}"


def _of_other_families(service: CachedService, judged: Iterable[JudgedAddress]) -> Iterator[str]:
    for address in judged:
        if address.family is not None and address.family not in service.families:
            yield (
                f"address {address.text} is {address.family.value}, and the service asks for "
                f"{_names(service.families)} only"
            )


def _names(families: Iterable[IPFamily]) -> str:
    return " and ".join(family.value for family in families)


def _readiness_reason(vm: VirtualMachine, *, ready: bool, now: datetime) -> str:
    condition = _condition_text(vm, now)
    if vm.probe is None:
        text = "it has no readiness probe, so it counts as ready"
        return f"{text}; {condition}" if condition else text
    probe = f"readiness probe {vm.probe.value}"
    if condition:
        return f"{probe}: {condition}"
    if ready:
        return f"{probe} has no result yet (no condition Ready); it was ready before and stays so"
    return f"{probe} has no result yet (no condition Ready), so it is not ready"


def _condition_text(vm: VirtualMachine, now: datetime) -> str:
    """The condition Ready in words; "" without one."""
    if vm.ready is None:
        return ""
    text = f"condition Ready is {vm.ready.value}"
    if (since := _since(vm)) is not None:
        text += f" for {_age_text((now - since).total_seconds())}"
    if vm.ready_words is not None and vm.ready is not Readiness.TRUE:
        said = ": ".join(filter(None, (vm.ready_words.reason, vm.ready_words.message)))
        text += f" ({said})" if said else ""
    return text


def _condition(vm: VirtualMachine) -> pb.Condition | None:
    if vm.ready is None:
        return None
    condition = pb.Condition(status=vm.ready.value)
    if vm.ready_words is not None:
        condition.reason = vm.ready_words.reason
        condition.message = vm.ready_words.message
    if (since := _since(vm)) is not None:
        condition.last_transition_time.CopyFrom(_timestamp(since))
    return condition


def _since(vm: VirtualMachine) -> datetime | None:
    """When the condition Ready last changed; None if it has no usable time."""
    if vm.ready_words is None:
        return None
    try:
        time = datetime.fromisoformat(vm.ready_words.since)
        return None if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _timestamp(time: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp


# The largest unit of which there are two: to a person, 125 minutes are 2 hours.
_UNITS_S = (("d", 86_400), ("h", 3_600), ("m", 60))


def _age_text(age_s: float) -> str:
    """An age in one unit, at least two of it: 119s, 2m, 47h, 2d; 0s if clocks differ."""
    whole_s = max(0, int(age_s))
    for unit, seconds in _UNITS_S:
        if whole_s >= 2 * seconds:
            return f"{whole_s // seconds}{unit}"
    return f"{whole_s}s"
