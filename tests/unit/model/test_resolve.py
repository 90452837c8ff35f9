"""Which endpoints follow from a service and its VMs, rule by rule (BEHAVIOUR.md)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example
from hypothesis import given as given_any
from hypothesis import strategies as st
from msgspec import structs

from tests.unit.objects import APP_WEB, spec, vm
from vmsvc_grpc.model.endpoints import Endpoint
from vmsvc_grpc.model.objects import (
    IPFamily,
    IPFamilyPolicy,
    Probe,
    Readiness,
    ServiceSpec,
    VirtualMachine,
)
from vmsvc_grpc.model.resolve import (
    AddressRules,
    _flaw,
    _judged_before,
    addresses,
    families,
    resolved,
)

V4, V6 = IPFamily.IPV4, IPFamily.IPV6
RULES = AddressRules()


def never(uid: str) -> bool:
    return False


def shown(
    vms: list[VirtualMachine],
    given: ServiceSpec | None = None,
    wanted: tuple[IPFamily, ...] = (V4,),
    remembered: frozenset[str] = frozenset(),
    rules: AddressRules = RULES,
) -> list[tuple[str, bool]]:
    endpoints = resolved(given or spec(), wanted, vms, remembered.__contains__, rules)
    return [(e.address, e.ready) for e in endpoints]


@pytest.mark.parametrize(
    ("labels", "selector", "selected"),
    [
        pytest.param({"app": "web"}, {"app": "web"}, True, id="carries the pair"),
        pytest.param({"app": "web", "x": "y"}, {"app": "web"}, True, id="more labels are fine"),
        pytest.param({"app": "web"}, {"app": "web", "t": "f"}, False, id="lacks a key"),
        pytest.param({"app": "db"}, {"app": "web"}, False, id="another value"),
        pytest.param({}, {"app": "web"}, False, id="no labels"),
        pytest.param({"app": "web"}, {}, False, id="an empty selector selects nothing"),
        pytest.param({}, {}, False, id="nor does it select what has no labels"),
    ],
)
def test_selection(labels: dict[str, str], selector: dict[str, str], selected: bool) -> None:
    assert bool(shown([vm("a", "10.0.0.1", labels=labels)], spec(selector))) is selected


@pytest.mark.parametrize(
    ("probe", "ready", "remembered", "expected"),
    [
        pytest.param(None, Readiness.FALSE, False, True, id="no probe: the condition is ignored"),
        pytest.param(None, None, False, True, id="no probe and no condition"),
        pytest.param(Probe.TCP_SOCKET, Readiness.TRUE, False, True, id="probe and True"),
        pytest.param(Probe.GUEST_INFO, Readiness.FALSE, True, False, id="probe and False"),
        pytest.param(Probe.GUEST_HEARTBEAT, Readiness.UNKNOWN, True, False, id="probe, Unknown"),
        pytest.param(Probe.TCP_SOCKET, None, False, False, id="no condition yet, not ready before"),
        pytest.param(Probe.TCP_SOCKET, None, True, True, id="no condition yet, ready before"),
    ],
)
def test_readiness(
    probe: Probe | None, ready: Readiness | None, remembered: bool, expected: bool
) -> None:
    memory = frozenset({"uid-a"}) if remembered else frozenset()
    vms = [vm("a", "10.0.0.1", probe=probe, ready=ready)]
    assert shown(vms, remembered=memory) == [("10.0.0.1", expected)]


def test_a_vm_that_is_being_deleted_is_left_out() -> None:
    assert shown([vm("a", "10.0.0.1", deleting=True), vm("b", "10.0.0.2")]) == [("10.0.0.2", True)]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param((V4,), ["10.0.0.1", "10.0.0.3"], id="IPv4 only"),
        pytest.param((V6,), ["2001:db8::2", "2001:db8::3"], id="IPv6 only"),
        pytest.param(
            (V4, V6), ["10.0.0.1", "10.0.0.3", "2001:db8::2", "2001:db8::3"], id="both families"
        ),
    ],
)
def test_each_vm_gives_its_address_in_each_wanted_family(
    wanted: tuple[IPFamily, ...], expected: list[str]
) -> None:
    vms = [vm("4", "10.0.0.1"), vm("6", "2001:db8::2"), vm("d", "10.0.0.3", "2001:db8::3")]
    assert [address for address, _ in shown(vms, wanted=wanted)] == expected


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "::1",
        "169.254.1.1",
        "fe80::1",
        "224.0.0.1",
        "224.000.00.251",
        "ff02::1",
        "ff12::1",
        "0.0.0.0",
        "::",
        "10.0.0.1/24",
        "fd00::1%eth0",
        "::ffff:127.0.0.1",
        "::ffff:169.254.0.1",
        "::ffff:0.0.0.0",
        "10.0.0.256",
        "0127.0.0.1",
        "0000010.0000.0000.0000.1",
        "web-1.example",
        " 10.0.0.1",
    ],
)
def test_an_address_that_endpoints_may_not_hold_is_left_out_and_said(text: str) -> None:
    bad = vm("bad", text)
    assert shown([bad, vm("good", "10.0.0.2")], wanted=(V4, V6)) == [("10.0.0.2", True)]
    (judged,) = addresses(bad, RULES)
    assert judged.problem is not None
    assert judged.problem.field.startswith("status.network.primaryIP")
    assert repr(text) in judged.problem.message


octets = st.integers(0, 299) | st.sampled_from([0, 10, 127, 169, 223, 224, 239, 254, 255])


@given_any(st.lists(octets, min_size=3, max_size=5), st.sampled_from(["", "\n", "0", "."]))
@example([127, 0, 0, 1], "")
@example([169, 254, 0, 1], "")
@example([0, 0, 0, 0], "")
@example([224, 0, 0, 1], "")
def test_an_ordinary_address_is_one_that_a_closer_look_finds_nothing_in(
    octets: list[int], more: str
) -> None:
    text = ".".join(map(str, octets)) + more
    (judged,) = addresses(vm("a", text), RULES)
    family, flaw = _flaw(text, V4, allow_loopback=False)
    assert (judged.family, judged.problem is None) == (None if flaw else family, not flaw)


def test_what_is_too_long_for_an_address_is_not_kept() -> None:
    kept = _judged_before.cache_info().currsize
    (judged,) = addresses(vm("a", "9" * 100_000), RULES)
    assert judged.problem is not None
    assert _judged_before.cache_info().currsize == kept


@pytest.mark.parametrize(
    "text", ["239.1.2.3", "ff0e::1", "ff05::2", "010.0.00.1", "::ffff:10.0.0.1", "00FD::0001"]
)
def test_an_address_that_the_api_server_takes_counts_as_it_is_written(text: str) -> None:
    """VM Operator writes it, so leaving it out would be a fight (issue 9, point 19)."""
    assert shown([vm("a", text)], wanted=(V4, V6)) == [(text, True)]


def test_the_field_decides_the_family_as_vm_operator_goes_by_it() -> None:
    report = structs.replace(vm("a", "10.0.0.1").addresses[0], text="2001:db8::1")
    one = VirtualMachine(key=vm("a").key, uid="u", labels=APP_WEB, addresses=(report,))
    assert shown([one], wanted=(V4,)) == [("2001:db8::1", True)]
    assert shown([one], wanted=(V6,)) == []


@pytest.mark.parametrize("text", ["127.0.0.9", "::1"])
def test_loopback_counts_where_it_is_allowed(text: str) -> None:
    rules = AddressRules(allow_loopback=True)
    assert shown([vm("a", text)], wanted=(V4, V6), rules=rules) == [(text, True)]


def test_two_vms_with_one_address_are_two_endpoints() -> None:
    endpoints = resolved(spec(), (V4,), [vm("a", "10.0.0.1"), vm("b", "10.0.0.1")], never, RULES)
    assert [(e.address, e.vm_uid) for e in endpoints] == [
        ("10.0.0.1", "uid-a"),
        ("10.0.0.1", "uid-b"),
    ]


def test_the_same_address_and_uid_twice_is_one_and_not_ready_wins() -> None:
    vms = [
        vm("a", "10.0.0.1", uid="u"),
        vm("b", "10.0.0.1", uid="u", probe=Probe.TCP_SOCKET, ready=Readiness.FALSE),
    ]
    assert shown(vms) == shown(vms[::-1]) == [("10.0.0.1", False)]


def test_endpoints_are_sorted_bytewise_and_carry_name_and_zone() -> None:
    vms = [vm("a", "10.0.0.9", zone="z1"), vm("b", "10.0.0.10", zone="z2")]
    assert resolved(spec(), (V4,), vms, never, RULES) == (
        Endpoint("10.0.0.10", "uid-b", True, "b", "z2"),
        Endpoint("10.0.0.9", "uid-a", True, "a", "z1"),
    )


@pytest.mark.parametrize(("wanted", "second"), [((V4, V6), "fd00::1"), ((V6, V4), "10.0.0.1")])
def test_an_address_of_the_services_second_family_is_secondary(
    wanted: tuple[IPFamily, ...], second: str
) -> None:
    both = structs.replace(vm("a", "10.0.0.1", "fd00::1"), region="r")
    given = resolved(spec(), wanted, [both], never, RULES)
    assert [e.address for e in given if e.secondary] == [second]
    assert {e.region for e in given} == {"r"}


SINGLE, PREFER, REQUIRE = IPFamilyPolicy


@pytest.mark.parametrize(
    ("fields", "stored", "cluster", "expected"),
    [
        pytest.param({}, (), (V4,), (V4,), id="the cluster's default"),
        pytest.param({}, (), (V6, V4), (V6,), id="the first family of a dual-stack cluster"),
        pytest.param({}, ("IPv6",), (V4,), (V6,), id="the stored Service decides"),
        pytest.param(
            {"ip_families": (V4,)}, ("IPv6", "IPv4"), (V4,), (V6, V4), id="even over what is asked"
        ),
        pytest.param({"ip_families": (V6,)}, (), (V4, V6), (V6,), id="as asked for"),
        pytest.param({"ip_family_policy": PREFER}, (), (V4, V6), (V4, V6), id="prefer dual, is"),
        pytest.param({"ip_family_policy": PREFER}, (), (V4,), (V4,), id="prefer dual, is single"),
        pytest.param({"ip_family_policy": REQUIRE}, (), (V6, V4), (V6, V4), id="require dual"),
        pytest.param({"ip_family_policy": SINGLE}, (), (V4, V6), (V4,), id="single stack"),
        pytest.param(
            {"ip_family_policy": PREFER, "ip_families": (V6,)},
            (),
            (V4, V6),
            (V6, V4),
            id="the other family is added after the one asked for",
        ),
        pytest.param({"cluster_ip": "None"}, (), (V4,), (V4, V6), id="headless is given both"),
        pytest.param({"cluster_ip": "None"}, (), (V6,), (V6, V4), id="headless, IPv6 first"),
        pytest.param(
            {"cluster_ip": "None", "ip_family_policy": SINGLE}, (), (V4, V6), (V4,), id="unless"
        ),
        pytest.param(
            {"cluster_ip": "None", "ip_families": (V6,)}, (), (V4,), (V6, V4), id="headless, asked"
        ),
        pytest.param({"cluster_ip": "2001:db8::1"}, (), (V4, V6), (V6,), id="by its cluster IP"),
        pytest.param(
            {"cluster_ip": "::ffff:10.96.0.9"},
            (),
            (V6, V4),
            (V4,),
            id="by its cluster IP, which is IPv4 to an API server",
        ),
    ],
)
def test_families(
    fields: dict[str, Any],
    stored: tuple[str, ...],
    cluster: tuple[IPFamily, ...],
    expected: tuple[IPFamily, ...],
) -> None:
    assert families(spec(**fields), stored, cluster) == expected
