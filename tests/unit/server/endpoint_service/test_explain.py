"""Why a VM is in a service or is not, in sentences."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import structs

from tests.unit.counting import counted_calls
from tests.unit.objects import WEB, service, spec, vm
from tests.unit.server.endpoint_service.watching import synced_cache
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply, Malformed
from vmsvc_grpc.model.objects import (
    ACCEPTED,
    Condition,
    IPFamily,
    Key,
    Kind,
    Object,
    Probe,
    Readiness,
    ReadyWords,
    VirtualMachine,
    VirtualMachineService,
)
from vmsvc_grpc.model.problem import Problem
from vmsvc_grpc.server.endpoint_service.explain import Explainer, Remarks, no_remarks
from vmsvc_grpc.server.endpoint_service.requests import explain
from vmsvc_grpc.server.limits import Limits

_Of = pb.VirtualMachineExplanation
TWO = spec({"app": "web", "tier": "front"})
FRONT = {"app": "web", "tier": "front"}
BAD_YAML = Problem("status.network", "expected 'object', got 'str'")


NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


def explanation(
    cache: Cache, service: Key = WEB, remarks: Remarks = no_remarks, **fields: Any
) -> pb.ExplainEndpointsResponse | None:
    asked = pb.ExplainEndpointsRequest(service=str(service), **fields)
    explainer = Explainer(cache, Limits().page_bytes_max, remarks)
    return explainer.page(explain(asked.SerializeToString()), NOW)


def explained(*objects: Object) -> pb.ExplainEndpointsResponse:
    found = explanation(synced_cache(*objects), WEB)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("machine", "verdict", "reasons"),
    [
        pytest.param(
            vm("a", "10.0.0.1"),
            _Of.VERDICT_READY,
            ["it has no readiness probe, so it counts as ready"],
            id="no probe",
        ),
        pytest.param(
            vm("a", "10.0.0.1", ready=Readiness.FALSE),
            _Of.VERDICT_READY,
            ["it has no readiness probe, so it counts as ready; condition Ready is False"],
            id="no probe, whatever the condition says",
        ),
        pytest.param(
            vm("a", "10.0.0.1", probe=Probe.GUEST_INFO, ready=Readiness.TRUE),
            _Of.VERDICT_READY,
            ["readiness probe guestInfo: condition Ready is True"],
            id="probe and True",
        ),
        pytest.param(
            vm("a", "10.0.0.1", probe=Probe.TCP_SOCKET, ready=Readiness.UNKNOWN),
            _Of.VERDICT_NOT_READY,
            ["readiness probe tcpSocket: condition Ready is Unknown"],
            id="probe and Unknown",
        ),
        pytest.param(
            vm("a", "10.0.0.1", probe=Probe.GUEST_HEARTBEAT),
            _Of.VERDICT_NOT_READY,
            [
                (
                    "readiness probe guestHeartbeat has no result yet (no condition Ready), "
                    "so it is not ready"
                )
            ],
            id="probe and no condition",
        ),
        pytest.param(
            vm("a"),
            _Of.VERDICT_NO_ADDRESS,
            ["the VM reports no primary address (yet)"],
            id="no address",
        ),
        pytest.param(
            vm("a", "169.254.0.1"),
            _Of.VERDICT_NO_ADDRESS,
            [
                (
                    "an address cannot be used: status.network.primaryIP4: '169.254.0.1' is a "
                    "link-local address, which Endpoints may not hold"
                )
            ],
            id="an address that cannot be used",
        ),
        pytest.param(
            vm("a", "fd00::1"),
            _Of.VERDICT_NO_ADDRESS,
            ["address fd00::1 is IPv6, and the service asks for IPv4 only"],
            id="a family that is not asked for",
        ),
        pytest.param(
            vm("a", "10.0.0.1", "fd00::1"),
            _Of.VERDICT_READY,
            [
                "it has no readiness probe, so it counts as ready",
                "address fd00::1 is IPv6, and the service asks for IPv4 only",
            ],
            id="one of two addresses",
        ),
        pytest.param(
            vm("a", "10.0.0.1", deleting=True),
            _Of.VERDICT_DELETING,
            ["the VM is being deleted"],
            id="being deleted",
        ),
        pytest.param(
            vm("a", "10.0.0.1", labels={"app": "db"}),
            _Of.VERDICT_LABELS_DIFFER,
            ["label app is 'db'; the service selects app=web"],
            id="a label that differs",
        ),
    ],
)
def test_a_vm_is_explained(
    machine: VirtualMachine, verdict: _Of.Verdict, reasons: list[str]
) -> None:
    (told,) = explained(service(), machine).virtual_machines
    assert (told.vm_name, told.vm_uid) == ("a", "uid-a")
    assert (told.verdict, list(told.reasons)) == (verdict, reasons)
    in_it = verdict in (_Of.VERDICT_READY, _Of.VERDICT_NOT_READY)
    assert [e.address for e in told.endpoints] == (["10.0.0.1"] if in_it else [])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(ReadyWords("", "", ""), "", id="no words"),
        pytest.param(ReadyWords("", "", "2026-11-27T11:58:01Z"), " for 119s", id="seconds"),
        pytest.param(ReadyWords("", "", "2026-11-27T10:00:01+00:00"), " for 119m", id="minutes"),
        pytest.param(ReadyWords("", "", "2026-11-26T12:00:00+01:00"), " for 25h", id="hours"),
        pytest.param(ReadyWords("", "", "2024-11-27T12:00:00.123456789Z"), " for 729d", id="days"),
        pytest.param(ReadyWords("", "", "2026-11-27T13:00:00Z"), " for 0s", id="a clock ahead"),
        pytest.param(ReadyWords("", "", "2026-11-27T11:00:00"), "", id="a time of no zone"),
        pytest.param(ReadyWords("", "", "yesterday"), "", id="no time"),
        pytest.param(ReadyWords("", "", "0001-01-01T00:00:00+14:00"), "", id="a time before all"),
        pytest.param(ReadyWords("NotReady", "", ""), " (NotReady)", id="a reason"),
        pytest.param(
            ReadyWords("NotReady", "connection refused", "2026-11-27T11:55:00Z"),
            " for 5m (NotReady: connection refused)",
            id="all of them",
        ),
    ],
)
def test_a_condition_is_told_with_reason_message_and_age(words: ReadyWords, said: str) -> None:
    machine = vm("a", "10.0.0.1", probe=Probe.TCP_SOCKET, ready=Readiness.FALSE)
    (told,) = explained(service(), structs.replace(machine, ready_words=words)).virtual_machines
    assert list(told.reasons) == [f"readiness probe tcpSocket: condition Ready is False{said}"]
    condition = told.ready_condition
    assert condition.status == "False"
    assert (condition.reason, condition.message) == (words.reason, words.message)
    assert condition.HasField("last_transition_time") == ("for " in said)


def test_the_time_of_a_condition_is_the_one_it_says() -> None:
    words = ReadyWords("", "", "2026-11-27T11:55:00+02:00")
    machine = structs.replace(vm("a", ready=Readiness.TRUE), ready_words=words)
    (told,) = explained(service(), machine).virtual_machines
    told_time = told.ready_condition.last_transition_time.ToDatetime(UTC)
    assert told_time == datetime(2026, 11, 27, 9, 55, tzinfo=UTC)
    (told,) = explained(service(), vm("a")).virtual_machines
    assert not told.HasField("ready_condition")


def test_every_label_that_is_missing_or_differs_is_named() -> None:
    found = explained(
        service(given=TWO),
        vm("a", labels={"app": "web"}),
        vm("b", labels={"app": "db", "tier": "back"}),
        vm("c", labels={"unrelated": "x"}),
    )
    assert {of.vm_name: list(of.reasons) for of in found.virtual_machines} == {
        "a": ["label tier is missing; the service selects tier=front"],
        "b": [
            "label app is 'db'; the service selects app=web",
            "label tier is 'back'; the service selects tier=front",
        ],
    }
    assert {of.verdict for of in found.virtual_machines} == {_Of.VERDICT_LABELS_DIFFER}


def test_a_vm_that_was_ready_before_it_had_a_probe_is_said_to_stay_so() -> None:
    cache = synced_cache(service(), vm("a", "10.0.0.1"))
    cache.apply(Apply(vm("a", "10.0.0.1", probe=Probe.TCP_SOCKET)))
    (told,) = _response(cache).virtual_machines
    assert told.verdict == _Of.VERDICT_READY
    assert list(told.reasons) == [
        (
            "readiness probe tcpSocket has no result yet (no condition Ready); "
            "it was ready before and stays so"
        )
    ]


def _response(cache: Cache, key: Key = WEB) -> pb.ExplainEndpointsResponse:
    found = explanation(cache, key)
    assert found is not None
    return found


def test_a_malformed_vm_is_told_whether_it_was_ever_valid_or_not() -> None:
    cache = synced_cache(service(), vm("a", "10.0.0.1"))
    for name in ("a", "z"):
        cache.apply(Malformed(Kind.VIRTUAL_MACHINE, Key("shop", name), BAD_YAML))
    cache.apply(Malformed(Kind.VIRTUAL_MACHINE, Key("office", "x"), BAD_YAML))
    was, never = _response(cache).virtual_machines
    assert (was.vm_name, was.verdict) == ("a", _Of.VERDICT_READY)
    assert was.reasons[-1] == (
        f"its manifest is not valid now, so its last good state counts: {BAD_YAML}"
    )
    assert (never.vm_name, never.verdict) == ("z", _Of.VERDICT_INVALID)
    assert list(never.reasons) == [f"its manifest is not valid: {BAD_YAML}"]


def test_the_service_itself_is_explained() -> None:
    given = spec(FRONT, ip_families=(IPFamily.IPV6, IPFamily.IPV4))
    found = explained(service(given=given), vm("b", labels=FRONT), vm("a", labels=FRONT))
    assert dict(found.selector) == FRONT
    assert list(found.ip_families) == ["IPv6", "IPv4"]
    assert (list(found.problems), found.serving_last_valid) == ([], False)
    assert [of.vm_name for of in found.virtual_machines] == ["a", "b"]


def test_a_refused_service_is_explained_by_its_problems() -> None:
    problems = (Problem("spec.type", "is wrong"), Problem("spec.ports[0].port", "is 0"))
    refused = service(problems=problems, declared_selector={"app": "web"})
    found = explained(refused, vm("a", "10.0.0.1"), vm("b", labels={"app": "db"}), vm("c"))
    assert [(p.field, p.message) for p in found.problems] == [tuple(p) for p in problems]
    assert not found.serving_last_valid
    assert (dict(found.selector), found.matching, found.ready) == ({"app": "web"}, 2, 0)
    assert [(of.vm_name, of.verdict, len(of.endpoints)) for of in found.virtual_machines] == [
        ("a", _Of.VERDICT_SERVICE_REFUSED, 0),
        ("c", _Of.VERDICT_SERVICE_REFUSED, 0),
        ("b", _Of.VERDICT_LABELS_DIFFER, 0),
    ]
    (said, *_) = found.virtual_machines[0].reasons
    assert said == "the service is refused and has never been valid, so nothing is served of it"


def test_a_refused_service_whose_selector_is_no_selector_has_no_vms() -> None:
    found = explained(service(problems=(Problem("spec.selector", "is wrong"),)), vm("a"))
    assert (len(found.selector), len(found.virtual_machines)) == (0, 0)


def test_one_that_became_refused_says_that_its_last_valid_state_is_served() -> None:
    cache = synced_cache(service(), vm("a", "10.0.0.1"))
    cache.apply(Apply(service(problems=(Problem("spec.type", "is wrong"),))))
    found = _response(cache)
    assert found.serving_last_valid
    assert (len(found.problems), len(found.virtual_machines)) == (1, 1)


def test_one_that_is_being_deleted_says_so() -> None:
    (problem,) = explained(service(deleting=True)).problems
    assert problem.field == "metadata.deletionTimestamp"


def test_one_that_cannot_be_read_is_told_with_its_problem() -> None:
    cache = synced_cache()
    problem = Problem("spec", "cannot be read")
    cache.apply(Malformed(Kind.VIRTUAL_MACHINE_SERVICE, WEB, problem))
    for found in (_response(cache), explanation(cache, vm_name="a")):
        assert found is not None
        (told,) = found.problems
        assert (told.field, told.message) == tuple(problem)


def test_one_with_an_empty_selector_selects_no_vm() -> None:
    found = explained(service(given=spec({})), vm("a", "10.0.0.1"))
    assert [len(found.selector), len(found.virtual_machines), len(found.problems)] == [0, 0, 0]


def test_there_is_nothing_to_explain_of_a_service_that_does_not_exist() -> None:
    assert explanation(synced_cache(), WEB) is None


def test_that_the_objects_of_a_service_cannot_be_held_is_told_in_the_words_of_who_tried() -> None:
    """Whichever replica that was: it says so in the VMService."""
    said = Condition(type=ACCEPTED, status="False", reason="ServiceNotOurs", message="it stays")
    told = explained(service(conditions=(said,)), vm("a", "10.0.0.1"))
    (problem,) = told.problems
    assert problem == pb.Problem(field=f"status.conditions[{ACCEPTED}]", message="it stays")
    assert not told.serving_last_valid
    assert [v.vm_name for v in told.virtual_machines] == ["a"]


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(
            service(conditions=(Condition(type=ACCEPTED, status="True", message="once"),)),
            id="it was mended",
        ),
        pytest.param(
            service(conditions=(Condition(type="Other", status="False", message="no"),)),
            id="another condition",
        ),
        pytest.param(
            service(
                problems=(Problem("spec.type", "no"),),
                conditions=(Condition(type=ACCEPTED, status="False", message="spec.type: no"),),
            ),
            id="what the object itself says is not said twice",
        ),
    ],
)
def test_a_condition_that_tells_nothing_more(made: VirtualMachineService) -> None:
    fields = [problem.field for problem in explained(made).problems]
    assert fields == [problem.field for problem in made.problems]


def test_says_where_else_an_object_is_defined() -> None:
    def remarks(kind: Kind, key: Key) -> list[str]:
        return [f"copy.yaml: {kind.value} {key} is defined already"]

    found = explanation(
        synced_cache(service(given=TWO), vm("a", "10.0.0.1", labels=FRONT)), WEB, remarks
    )
    assert found is not None
    assert [(problem.field, problem.message) for problem in found.problems] == [
        ("(file)", f"copy.yaml: VirtualMachineService {WEB} is defined already")
    ]
    assert list(found.virtual_machines[0].reasons) == [
        "it has no readiness probe, so it counts as ready",
        "copy.yaml: VirtualMachine shop/a is defined already",
    ]


def _calls(cache: Cache) -> int:
    with counted_calls() as counted:
        found = explanation(cache, WEB)
    assert found is not None
    assert len(found.virtual_machines) == 3
    return counted[0]


def test_what_is_not_told_costs_nothing() -> None:
    """Every VM of the namespace was looked at, and every problem of all namespaces."""
    told = (vm("a", "10.0.0.1"), vm("b", "10.0.0.2", labels={"app": "db"}))

    def world(others: int) -> Cache:
        unrelated = (vm(f"v{n}", "10.0.0.1", labels={"role": f"{n}"}) for n in range(others))
        flawed = (vm(f"f{n}", "127.0.0.1", labels={"role": "x"}) for n in range(others))
        cache = synced_cache(service(), *told, *unrelated, *flawed)
        for n in range(others):
            cache.apply(Malformed(Kind.VIRTUAL_MACHINE, Key("office", f"m{n}"), BAD_YAML))
            cache.apply(Malformed(Kind.VIRTUAL_MACHINE_SERVICE, Key("shop", f"m{n}"), BAD_YAML))
        cache.apply(Malformed(Kind.VIRTUAL_MACHINE, Key("shop", "z"), BAD_YAML))
        return cache

    _calls(world(1))  # Addresses that were judged once are known.
    assert _calls(world(1)) == _calls(world(500))


@pytest.mark.parametrize(
    ("elsewhere", "named"),
    [
        pytest.param(0, None, id="none"),
        pytest.param(1, "lab/vm-0", id="one"),
        pytest.param(5, "lab/vm-0, lab/vm-1, lab/vm-2, lab/vm-3, lab/vm-4", id="some"),
        pytest.param(
            9, "lab/vm-0, lab/vm-1, lab/vm-2, lab/vm-3, lab/vm-4 and more", id="more than are named"
        ),
    ],
)
def test_a_service_without_vms_hears_of_matching_ones_elsewhere(
    elsewhere: int, named: str | None
) -> None:
    others = [vm(f"vm-{n}", "10.0.0.1", namespace="lab", labels=FRONT) for n in range(elsewhere)]
    half = vm("half", namespace="lab", labels={"app": "web"})
    found = explained(service(given=TWO), half, vm("near", labels={"app": "web"}), *others)
    said = "matches no VM of namespace shop, but of others, where a service selects none: "
    assert [(problem.field, problem.message) for problem in found.problems] == (
        [("spec.selector", said + named)] if named else []
    )
    found = explained(service(given=TWO), vm("a", labels=FRONT), *others)
    assert list(found.problems) == [], "it has a VM"
    found = explained(service(given=spec({})), *others)
    assert list(found.problems) == [], "it selects nothing"
