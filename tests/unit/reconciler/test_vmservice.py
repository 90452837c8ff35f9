"""What is written on a VMService: its finalizer, marks and status."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.objects import WEB, service, spec
from vmsvc_grpc.model.objects import (
    ACCEPTED,
    Condition,
    Ingress,
    ObjectMeta,
    ServiceSpec,
    ServiceType,
    StoredService,
    VirtualMachineService,
)
from vmsvc_grpc.reconciler.held import Failure
from vmsvc_grpc.reconciler.rules import NSX_T_LB, Rules
from vmsvc_grpc.reconciler.service import EXTERNAL_TRAFFIC_POLICY, HEALTH_CHECK_NODE_PORT
from vmsvc_grpc.reconciler.vmservice import (
    FINALIZER,
    FORMER_FINALIZER,
    SERVICE_READY,
    claimed,
    released,
    reported,
)

THEN, NOW = "2026-01-01T00:00:00Z", "2026-08-21T12:00:00Z"
BALANCED = spec(type=ServiceType.LOAD_BALANCER)
REFUSED = Failure("Invalid", "spec.type: NodePort is not supported")
IN_THE_WAY = Failure("ServiceNotOurs", "Service shop/web is another's")
OTHER = Condition(type="Other", status="True", reason="Any", last_transition_time=THEN)


def having(*finalizers: str, **meta: Any) -> VirtualMachineService:
    given = ObjectMeta(key=WEB, uid="uid-web", finalizers=finalizers, **meta)
    return replace(service(), meta=given)


# -- The finalizer and the marks of a provider --


@pytest.mark.parametrize(
    ("held", "wanted", "let_go"),
    [
        pytest.param((), (FINALIZER,), (), id="none yet"),
        pytest.param((FINALIZER,), (FINALIZER,), (), id="ours, or VM Operator's"),
        pytest.param((FORMER_FINALIZER,), (FINALIZER,), (), id="the former name"),
        pytest.param((FORMER_FINALIZER, FINALIZER), (FINALIZER,), (), id="both names"),
        pytest.param(("a/b", FORMER_FINALIZER), ("a/b", FINALIZER), ("a/b",), id="others' stay"),
        pytest.param((FINALIZER, "a/b"), (FINALIZER, "a/b"), ("a/b",), id="in their order"),
    ],
)
def test_finalizers(
    held: tuple[str, ...], wanted: tuple[str, ...], let_go: tuple[str, ...]
) -> None:
    vmservice = having(*held)
    assert claimed(vmservice, spec(), Rules()) == having(*wanted)
    assert released(claimed(vmservice, spec(), Rules())) == having(*let_go)


LOCAL = {EXTERNAL_TRAFFIC_POLICY: "Local"}
CHECKED = {HEALTH_CHECK_NODE_PORT: "30012"}
PROXY = {"service.kubernetes.io/service-proxy-name": "nsx-t"}
NCP = {"ncp/healthCheckNodePort": "30012"}


@pytest.mark.parametrize(
    ("given", "provider", "asked", "labels", "echoed"),
    [
        pytest.param(BALANCED, NSX_T_LB, LOCAL, PROXY, {}, id="a local load balancer"),
        pytest.param(BALANCED, NSX_T_LB, CHECKED, {}, NCP, id="a health check's port"),
        pytest.param(BALANCED, NSX_T_LB, {**LOCAL, **CHECKED}, PROXY, NCP, id="both"),
        pytest.param(BALANCED, NSX_T_LB, {"a": "b"}, {}, {}, id="neither"),
        pytest.param(BALANCED, "", {**LOCAL, **CHECKED}, {}, {}, id="another provider"),
        pytest.param(spec(), NSX_T_LB, {**LOCAL, **CHECKED}, {}, {}, id="no load balancer"),
    ],
)
def test_marks_of_a_provider(
    given: ServiceSpec,
    provider: str,
    asked: dict[str, str],
    labels: dict[str, str],
    echoed: dict[str, str],
) -> None:
    vmservice = having(FINALIZER, labels={"mine": "yes"}, annotations=asked)
    assert claimed(vmservice, given, Rules(load_balancer_provider=provider)) == having(
        FINALIZER, labels={"mine": "yes", **labels}, annotations={**asked, **echoed}
    )


# -- The status --


def held(
    *conditions: Condition, ingress: tuple[Ingress, ...] = (), version: str = "v1alpha6"
) -> VirtualMachineService:
    meta = ObjectMeta(key=WEB, uid="uid-web", generation=3)
    return replace(
        service(),
        meta=meta,
        api_version=f"vmoperator.vmware.com/{version}",
        conditions=conditions,
        ingress=ingress,
    )


def stored(**fields: Any) -> StoredService:
    return StoredService(meta=ObjectMeta(key=WEB, uid="uid-service"), **fields)


def ready(status: str, reason: str = "", message: str = "") -> Condition:
    return Condition(type="Ready", status=status, reason=reason, message=message)


ADDRESS, NAME = Ingress("192.0.2.1", ""), Ingress("", "lb.example.com")


@pytest.mark.parametrize(
    ("before", "given", "given_by", "after"),
    [
        pytest.param((), BALANCED, stored(ingress=(NAME, ADDRESS)), (NAME, ADDRESS), id="copied"),
        pytest.param((ADDRESS,), BALANCED, stored(), (), id="taken back"),
        pytest.param((ADDRESS,), spec(), stored(), (), id="no load balancer any more"),
        pytest.param((ADDRESS,), spec(), None, (), id="nor a Service"),
        pytest.param((), spec(), stored(ingress=(ADDRESS,)), (), id="never one"),
        pytest.param((ADDRESS,), BALANCED, None, (ADDRESS,), id="no Service of its own"),
        pytest.param((ADDRESS,), None, stored(), (ADDRESS,), id="no valid spec known"),
    ],
)
def test_ingress(
    before: tuple[Ingress, ...],
    given: ServiceSpec | None,
    given_by: StoredService | None,
    after: tuple[Ingress, ...],
) -> None:
    old = held(ingress=before, version="v1alpha5")
    assert reported(old, given, given_by, (), NOW) == replace(old, ingress=after)


ABSENT = ("Unknown", "ServiceReadyNotPresent", "Underlying Service does not have Ready condition")


@pytest.mark.parametrize(
    ("of_service", "mirrored"),
    [
        pytest.param(None, ABSENT, id="none"),
        pytest.param(ready("True", "Up", "healthy"), ("True", "True", ""), id="true"),
        pytest.param(
            ready("False", "LoadBalancerError", "no pool"),
            ("False", "LoadBalancerError", "no pool"),
            id="false",
        ),
        pytest.param(
            ready("Unknown", "Pending", "in progress"),
            ("Unknown", "Pending", "in progress"),
            id="unknown",
        ),
        pytest.param(
            ready("False"),
            ("False", "ServiceNotReady", "Underlying Service is not ready"),
            id="false without a reason",
        ),
        pytest.param(
            ready("Unknown"),
            ("Unknown", "ServiceReadinessUnknown", "Underlying Service readiness is unknown"),
            id="unknown without a reason",
        ),
    ],
)
def test_readiness_of_the_service(
    of_service: Condition | None, mirrored: tuple[str, str, str]
) -> None:
    (condition,) = reported(held(), spec(), stored(ready=of_service), (), NOW).conditions
    assert (condition.type, condition.last_transition_time) == (SERVICE_READY, NOW)
    assert (condition.status, condition.reason, condition.message) == mirrored
    again = held(condition)
    assert reported(again, spec(), stored(ready=of_service), (), "later") == again


def accepted(status: str, time: str, generation: int = 3, **fields: str) -> Condition:
    given = {"reason": "Accepted", **fields}
    return Condition(
        type=ACCEPTED,
        status=status,
        last_transition_time=time,
        observed_generation=generation,
        **given,
    )


REFUSAL = accepted("False", THEN, reason=REFUSED.reason, message=REFUSED.message)


@pytest.mark.parametrize(
    ("before", "failures", "after"),
    [
        pytest.param((), (), (), id="nothing to tell"),
        pytest.param(
            (),
            (REFUSED,),
            (replace(REFUSAL, last_transition_time=NOW),),
            id="refused",
        ),
        pytest.param((REFUSAL,), (REFUSED,), (REFUSAL,), id="refused still"),
        pytest.param(
            (replace(REFUSAL, observed_generation=2),),
            (REFUSED,),
            (REFUSAL,),
            id="refused still, after an edit",
        ),
        pytest.param(
            (REFUSAL,),
            (REFUSED, IN_THE_WAY),
            (replace(REFUSAL, message=f"{REFUSED.message}; {IN_THE_WAY.message}"),),
            id="refused for more: the status is as old as it was",
        ),
        pytest.param((REFUSAL,), (), (accepted("True", NOW),), id="accepted again"),
        pytest.param((accepted("True", THEN),), (), (accepted("True", THEN),), id="still"),
        pytest.param(
            (OTHER, REFUSAL),
            (),
            (OTHER, accepted("True", NOW)),
            id="what others say stays",
        ),
    ],
)
def test_acceptance(
    before: tuple[Condition, ...], failures: tuple[Failure, ...], after: tuple[Condition, ...]
) -> None:
    """It is told without a Service of its own, as one in the way is not mirrored."""
    assert reported(held(*before), spec(), None, failures, NOW) == held(*after)


def test_conditions_are_in_vm_operators_order_which_sorts_them_whenever_it_writes() -> None:
    old = held(OTHER, ready("True"), replace(OTHER, type="Z"))
    new = reported(old, spec(), stored(), (REFUSED,), NOW)
    assert [c.type for c in new.conditions] == ["Ready", "Other", ACCEPTED, SERVICE_READY, "Z"]


def test_older_versions_have_no_place_for_conditions() -> None:
    old = held(version="v1alpha5")
    assert reported(old, spec(), stored(), (REFUSED,), NOW) == old


def test_a_message_is_no_longer_than_the_schema_admits() -> None:
    long = Failure("Invalid", "x" * 40_000)
    (condition,) = reported(held(), None, None, (long,), NOW).conditions
    assert len(condition.message) == 32_768
