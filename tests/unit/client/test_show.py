"""Values as text and as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import grpc
import pytest
import yaml

from vmsvc import (
    Absence,
    AbsenceReason,
    Condition,
    Endpoint,
    Explanation,
    Port,
    Problem,
    ServiceState,
    ServiceSummary,
    Verdict,
    VirtualMachineExplanation,
)
from vmsvc.errors import UnavailableError
from vmsvc.show import (
    endpoints_table,
    event_json,
    event_yaml,
    explained_names,
    explanation_text,
    json_text,
    lines,
    printable,
    services_table,
    vm_names,
    yaml_text,
)
from vmsvc.state import Disconnected, Event, Synced

HTTP = Port("http", 80, 8080, "TCP")
DNS = Port("", 53, 53, "UDP")
ONE = Endpoint("10.0.0.1", True, "web-1", "uid-1", "zone-a")
TWO = Endpoint("fd00::2", False, "web-2", "uid-2", "")


def summary(service: str, **different: object) -> ServiceSummary:
    values: dict[str, object] = {
        "type": "ClusterIP",
        "matching": 2,
        "ready": 1,
        "not_ready": 1,
        "cluster_ips": (),
        "load_balancer_ingress": (),
        "ports": (HTTP, DNS),
        "refused": False,
        "refused_reason": "",
    }
    return ServiceSummary(service, **(values | different))  # type: ignore[arg-type] # the test's


def test_services() -> None:
    services = [
        summary("shop/web", cluster_ips=("10.96.0.1", "fd00::1")),
        summary("shop/lb", type="LoadBalancer", load_balancer_ingress=("203.0.113.1",)),
        summary(
            "shop/old", type="NodePort", ports=(), refused=True, refused_reason="spec.type: no"
        ),
    ]
    assert services_table(services) == (
        "SERVICE    TYPE           CLUSTER-IP          EXTERNAL-IP   PORT(S)         VMS   READY   "
        "STATUS\n"
        "shop/web   ClusterIP      10.96.0.1,fd00::1   <none>        80/TCP,53/UDP   2     1/2     "
        "OK\n"
        "shop/lb    LoadBalancer   <none>              203.0.113.1   80/TCP,53/UDP   2     1/2     "
        "OK\n"
        "shop/old   NodePort       <none>              <none>        <none>          2     1/2     "
        "Refused: spec.type: no\n"
    )


UNREACHED = UnavailableError("it is away", code=grpc.StatusCode.UNAVAILABLE)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Synced(), {"event": "synced"}),
        (
            Disconnected(UNREACHED, 1.23456),
            {
                "event": "disconnected",
                "code": "UNAVAILABLE",
                "error": "it is away",
                "retry_in_s": 1.235,
            },
        ),
        (
            ServiceState("shop/web", version=7, revision="r"),
            {
                "event": "state",
                "service": "shop/web",
                "present": True,
                "absence": None,
                "ports": [],
                "endpoints": [],
                "version": 7,
                "revision": "r",
            },
        ),
    ],
)
def test_an_event_of_a_watch(event: Event, expected: dict[str, Any]) -> None:
    at = datetime(2026, 1, 2, 4, 4, 5, 6789, timezone(timedelta(hours=1)))
    text = event_json(event, at)
    assert text.index("\n") == len(text) - 1
    assert json.loads(text) == {"time": "2026-01-02T03:04:05.006+00:00", **expected}
    document = event_yaml(event, at)
    assert document.startswith("---\n")
    assert yaml.safe_load(document) == json.loads(text)


def test_yaml_is_quoted_where_some_reader_takes_text_for_something_else() -> None:
    """PyYAML takes 12e34 for text, and YAML 1.2 does not; for the words it is the other way."""
    for text in ("12e34", "0o17", "yes", "NO", "off", "n", "~", "null", ".5", "1_000", "=", ""):
        assert yaml_text(text).strip("\n") in (f'"{text}"', f"'{text}'")
    assert yaml_text({"a": "web-1", "b": [{"c": 1, "d": None}]}) == (
        "a: web-1\nb:\n- c: 1\n  d: null\n"
    )


def test_names() -> None:
    states = [
        ServiceState("shop/web", (HTTP,), (ONE, TWO)),
        ServiceState("data/db", (), (ONE, ONE)),
    ]
    assert vm_names(states) == ["shop/web-1", "shop/web-2", "data/web-1"]
    explanation = Explanation("shop/web", {}, (), (), (*MACHINES, UNREAD), False)
    assert explained_names(explanation) == ["shop/web-1", "shop/web-2"]
    assert lines(["shop/a", "shop/b\x1b"]) == "shop/a\nshop/b?\n"


def test_wide_tables() -> None:
    assert services_table([summary("shop/web", matching=4)], wide=True) == (
        "SERVICE    TYPE        CLUSTER-IP   EXTERNAL-IP   PORT(S)                       VMS   "
        "READY   NOT-READY   NO-ADDRESS   STATUS\n"
        "shop/web   ClusterIP   <none>       <none>        80:8080/TCP(http),53:53/UDP   4     "
        "1/4     1           2            OK\n"
    )
    states = [ServiceState("shop/web", (HTTP,), (ONE,)), ServiceState("data/db", (DNS,), (TWO,))]
    assert endpoints_table(states, several=True, wide=True) == (
        "SERVICE    ADDRESS    PORT(S)          READY   VM      ZONE     UID\n"
        "shop/web   10.0.0.1   8080/TCP(http)   yes     web-1   zone-a   uid-1\n"
        "data/db    fd00::2    53/UDP           no      web-2   <none>   uid-2\n"
    )


def test_endpoints() -> None:
    assert endpoints_table([ServiceState("shop/web", (HTTP, DNS), (ONE, TWO))]) == (
        "ADDRESS    PORT(S)                 READY   VM      ZONE\n"
        "10.0.0.1   8080/TCP(http),53/UDP   yes     web-1   zone-a\n"
        "fd00::2    8080/TCP(http),53/UDP   no      web-2   <none>\n"
    )


MACHINES = (
    VirtualMachineExplanation("web-1", "uid-1", Verdict.READY, ("probe: Ready is True",), (ONE,)),
    VirtualMachineExplanation("web-2", "uid-2", Verdict.NOT_READY, ("probe: no",), (TWO, ONE)),
    VirtualMachineExplanation("web-3", "uid-3", Verdict.LABELS_DIFFER, ("app", "track"), ()),
    VirtualMachineExplanation("web-4", "uid-4", Verdict.DELETING, (), ()),
)
UNREAD = VirtualMachineExplanation("web-5", "uid-5", Verdict.INVALID, (), ())


def test_a_wide_explanation_has_each_vm_s_condition() -> None:
    since = datetime(2026, 11, 27, 11, 55, tzinfo=UTC)
    condition = Condition("False", "Refused", "connection refused", since)
    vm = VirtualMachineExplanation("w", "u", Verdict.NOT_READY, ("a", "b"), (ONE,), condition)
    text = explanation_text(Explanation("shop/web", {"a": "b"}, (), (), (vm,), False), wide=True)
    assert text.endswith(
        "VM   VERDICT    ADDRESS    CONDITION         SINCE                       UID   WHY\n"
        "w    NotReady   10.0.0.1   False (Refused)   2026-11-27T11:55:00+00:00   u     a\n"
        "                                                                               b\n"
    )


def test_explanation_has_the_service_s_problems_first() -> None:
    explanation = Explanation(
        "shop/web",
        {"app": "web", "track": "stable"},
        ("IPv4", "IPv6"),
        (Problem("spec.ports[0].port", "0 is no port"),),
        MACHINES,
        serving_last_valid=True,
        matching=2,
        ready=1,
        not_ready=1,
        near_misses=2,
    )
    assert explanation_text(explanation) == (
        "Service:   shop/web\n"
        "Problem:   spec.ports[0].port: 0 is no port\n"
        "Serving:   its last valid specification, not the one that stands now\n"
        "Selector:  app=web,track=stable\n"
        "Families:  IPv4,IPv6\n"
        "VMs:       2 selected (1 ready, 1 not ready), 2 nearly\n"
        "\n"
        "VM      VERDICT        ADDRESS    WHY\n"
        "web-1   Ready          10.0.0.1   probe: Ready is True\n"
        "web-2   NotReady       fd00::2    probe: no\n"
        "                       10.0.0.1\n"
        "web-3   LabelsDiffer              app\n"
        "                                  track\n"
        "web-4   Deleting\n"
    )


def test_explanation_of_a_service_that_selects_nothing() -> None:
    assert explanation_text(Explanation("shop/web", {}, (), (), (), False)) == (
        "Service:   shop/web\n"
        "Selector:  <none>, so it selects no VM\n"
        "Families:  <none>\n"
        "VMs:       0 selected\n"
        "\n"
        "No VM of the namespace has any of the selector's labels.\n"
    )


def test_of_a_service_that_was_never_valid_only_the_reason_is_told() -> None:
    problem = Problem("spec.type", "NodePort is not supported")
    text = explanation_text(Explanation("shop/web", {}, (), (problem,), (), False))
    assert text == "Service:   shop/web\nProblem:   spec.type: NodePort is not supported\n"


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        pytest.param({"near_misses": 2}, "0 selected, 2 nearly", id="all are shown"),
        pytest.param(
            {"near_misses": 20_000}, "0 selected, 20000 nearly (2 of them below)", id="some are"
        ),
        pytest.param(
            {"near_misses": 7_000, "near_misses_incomplete": True},
            "0 selected, at least 7000 nearly (2 of them below)",
            id="not all were counted",
        ),
        pytest.param(
            {"matching": 3, "ready": 1, "not_ready": 1, "unreadable": 9},
            "3 selected (1 ready, 1 not ready), 9 unreadable (0 of them below)",
            id="some cannot be read",
        ),
    ],
)
def test_an_explanation_says_how_many_there_are(counts: dict[str, Any], said: str) -> None:
    text = explanation_text(
        Explanation("shop/web", {"app": "x"}, (), (), MACHINES, False, **counts)
    )
    assert f"VMs:       {said}\n" in text


def test_a_condition_is_json_with_its_time() -> None:
    time = datetime(2026, 11, 27, 11, 55, tzinfo=UTC)
    said = Condition("False", "NotReady", "refused", time)
    vm = VirtualMachineExplanation("vm", "uid", Verdict.NOT_READY, (), (), said)
    assert json.loads(json_text(vm))["ready_condition"] == {
        "status": "False",
        "reason": "NotReady",
        "message": "refused",
        "last_transition_time": "2026-11-27T11:55:00+00:00",
    }


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_has_its_word(verdict: Verdict) -> None:
    vm = VirtualMachineExplanation("vm", "uid", verdict, (), ())
    text = explanation_text(Explanation("shop/web", {}, (), (), (vm,), False))
    assert verdict.name.replace("_", "") in text.upper()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("Grüße, 世界", "Grüße, 世界", id="letters of any script stay"),
        pytest.param("a\nb\tc\r", "a b c ", id="one line"),
        pytest.param("\x1b[31mred\x07\u202e", "?[31mred??", id="nothing that a terminal obeys"),
    ],
)
def test_printable(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_a_state_as_json() -> None:
    state = ServiceState("shop/web", (HTTP,), (ONE,), version=7, revision="r7")
    assert json.loads(json_text(state)) == {
        "service": "shop/web",
        "present": True,
        "absence": None,
        "ports": [{"name": "http", "port": 80, "target_port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {
                "address": "10.0.0.1",
                "ready": True,
                "vm_name": "web-1",
                "vm_uid": "uid-1",
                "zone": "zone-a",
            }
        ],
        "version": 7,
        "revision": "r7",
    }


def test_an_absence_as_json() -> None:
    absence = Absence(AbsenceReason.REFUSED, "spec.type:\nno")
    text = json_text(ServiceState("shop/web", absence=absence))
    assert json.loads(text)["present"] is False
    assert json.loads(text)["absence"] == {"reason": "REFUSED", "message": "spec.type:\nno"}


def test_an_explanation_as_json() -> None:
    explanation = Explanation("shop/web", {"app": "web"}, ("IPv4",), (), MACHINES[:1], False)
    plain = json.loads(json_text(explanation))
    assert plain["selector"] == {"app": "web"}
    assert plain["virtual_machines"][0]["verdict"] == "READY"
