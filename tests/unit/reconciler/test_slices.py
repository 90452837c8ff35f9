"""Endpoints in slices: none lost or doubled, none too many, and small changes stay small."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.objects import WEB
from vmsvc_grpc.model.endpoints import Endpoint
from vmsvc_grpc.model.objects import (
    NEWEST_API_VERSION,
    EndpointPort,
    Key,
    ObjectMeta,
    OwnerReference,
    SliceConditions,
    SliceEndpoint,
    StoredEndpointSlice,
    TargetRef,
)
from vmsvc_grpc.reconciler.slices import ENDPOINTS_MAX, slices

OURS = OwnerReference(NEWEST_API_VERSION, "VirtualMachineService", "web", "uid-web", True, True)
PORTS = (EndpointPort("http", 8080, "TCP"),)
LABELS = {
    "kubernetes.io/service-name": "web",
    "endpointslice.kubernetes.io/managed-by": "vmsvc-grpc",
}

Slices = tuple[StoredEndpointSlice, ...]


def at(number: int, *, ready: bool = True, family: int = 4) -> Endpoint:
    """The endpoint of VM `number`; they sort by their numbers."""
    address = f"10.0.{100 + number // 100}.{100 + number % 100}"
    if family == 6:
        address = f"2001:db8::{number + 1000}"
    return Endpoint(address, f"uid-{number}", ready, f"vm-{number}", "")


def wanted(endpoints: Iterable[Endpoint], observed: Slices = (), **options: Any) -> Slices:
    return slices(
        WEB,
        OURS,
        options.pop("ports", PORTS),
        tuple(sorted(endpoints)),
        observed,
        families=options.pop("families", ("IPv4",)),
        headless=options.pop("headless", False),
    )


def stored(held: Slices) -> Slices:
    """The slices as an API server gives them back."""
    return tuple(
        s if s.meta.uid else replace(s, meta=replace(s.meta, uid=f"uid-of-{s.key.name}"))
        for s in held
    )


def held_by(held: Slices) -> dict[str, list[str]]:
    """The addresses in each slice."""
    return {s.key.name: [e.addresses[0] for e in s.endpoints] for s in held}


def changes(before: Slices, after: Slices) -> int:
    """How many slices are created, changed or deleted."""
    old, new = ({s.key: s for s in some} for some in (before, after))
    return sum(old.get(key) != new.get(key) for key in old.keys() | new.keys())


def test_a_slice_says_everything_of_an_endpoint() -> None:
    one = Endpoint("10.0.0.1", "uid-a", False, "a", "zone-1")
    target = TargetRef(NEWEST_API_VERSION, "VirtualMachine", "shop", "a", "uid-a")
    assert wanted([one]) == (
        StoredEndpointSlice(
            meta=ObjectMeta(
                key=Key("shop", "web-ipv4-0"), uid="", labels=LABELS, owner_references=(OURS,)
            ),
            address_type="IPv4",
            endpoints=(
                SliceEndpoint(
                    ("10.0.0.1",),
                    SliceConditions(ready=False, serving=False, terminating=False),
                    "zone-1",
                    target_ref=target,
                ),
            ),
            ports=PORTS,
        ),
    )


@pytest.mark.parametrize(
    ("endpoints", "families", "held"),
    [
        pytest.param([], ["IPv4"], {"web-ipv4-0": 0}, id="none: one that says so"),
        pytest.param([], ["IPv4", "IPv6"], {"web-ipv4-0": 0, "web-ipv6-0": 0}, id="none of two"),
        pytest.param([at(1), at(1, family=6)], [], {"web-ipv4-0": 1, "web-ipv6-0": 1}, id="both"),
        pytest.param(map(at, range(100)), ["IPv4"], {"web-ipv4-0": 100}, id="a full one"),
        pytest.param(
            map(at, range(201)),
            ["IPv4"],
            {"web-ipv4-0": 100, "web-ipv4-1": 100, "web-ipv4-2": 1},
            id="more than two full ones",
        ),
    ],
)
def test_new_slices(
    endpoints: Iterable[Endpoint], families: list[str], held: dict[str, int]
) -> None:
    got = wanted(endpoints, families=families)
    assert {s.key.name: len(s.endpoints) for s in got} == held
    assert {s.address_type for s in got} == {"IPv4", "IPv6"} & {
        {"web-ipv4": "IPv4", "web-ipv6": "IPv6"}[name[:8]] for name in held
    }


THREE = stored(wanted(map(at, range(250))))


@pytest.mark.parametrize(
    ("endpoints", "changed"),
    [
        pytest.param(set(range(250)), 0, id="the same"),
        pytest.param(set(range(251)), 1, id="one more, into the one that has room"),
        pytest.param(set(range(300)), 1, id="as many as have room there"),
        pytest.param(set(range(301)), 1, id="more than have room anywhere: one new slice"),
        pytest.param(set(range(1, 250)), 1, id="one less"),
        pytest.param(set(range(1, 251)), 1, id="one less and one more: into the same"),
        pytest.param({*range(200), 249}, 1, id="all but one of a slice"),
        pytest.param(set(range(200)), 1, id="all of a slice: it goes"),
        pytest.param(set(range(100, 250)), 1, id="all of the first"),
        pytest.param(set(range(250, 251)), 3, id="all, and another: one stays"),
    ],
)
def test_how_many_slices_a_change_changes(endpoints: set[int], changed: int) -> None:
    after = wanted(map(at, endpoints), THREE)
    assert changes(THREE, after) == changed
    assert_right(after, [at(n) for n in endpoints])


def test_an_endpoint_that_changes_stays_where_it_is() -> None:
    flipped = [at(n, ready=n != 7) for n in range(250)]
    after = wanted(flipped, THREE)
    assert held_by(after) == held_by(THREE)
    assert changes(THREE, after) == 1


def test_the_last_slice_stays_and_says_that_there_is_nothing() -> None:
    assert held_by(wanted([], THREE)) == {"web-ipv4-0": []}
    kept = tuple(s for s in THREE if s.key.name != "web-ipv4-0")
    assert held_by(wanted([], kept)) == {"web-ipv4-1": []}


def test_a_family_that_is_not_the_services_any_more_loses_its_slices() -> None:
    both = stored(wanted([at(1), at(1, family=6)], families=["IPv4", "IPv6"]))
    assert held_by(wanted([at(1)], both, families=["IPv4"])) == {"web-ipv4-0": [at(1).address]}


def test_a_slice_that_somebody_emptied_is_filled_again() -> None:
    emptied = (replace(THREE[0], endpoints=()), *THREE[1:])
    assert changes(emptied, wanted(map(at, range(250)), emptied)) == 1


def test_names_that_are_free_again_are_used_again() -> None:
    kept = tuple(s for s in THREE if s.key.name != "web-ipv4-0")
    after = wanted(map(at, range(250)), kept)
    assert sorted(held_by(after)) == ["web-ipv4-0", "web-ipv4-1", "web-ipv4-2"]
    assert changes(kept, after) == 1


def test_two_vms_of_one_address_are_two_endpoints() -> None:
    twice = [at(1), at(1)._replace(vm_uid="uid-other", vm_name="other", ready=False)]
    got = wanted(twice)
    assert held_by(got) == {"web-ipv4-0": [at(1).address] * 2}
    assert wanted(twice, stored(got)) == stored(got)


def test_an_address_is_written_as_slices_want_it_and_stays_where_it_is() -> None:
    """An API server takes others in Endpoints, where they are as the VM reports them."""
    one = Endpoint("2001:DB8:0:0::1", "uid-a", True, "a", "")
    held = stored(wanted([one], families=["IPv6"]))
    assert held_by(held) == {"web-ipv6-0": ["2001:db8::1"]}
    assert wanted([one], held, families=["IPv6"]) == held


def test_ports_of_every_slice_are_the_services() -> None:
    after = wanted(map(at, range(250)), THREE, ports=())
    assert [s.ports for s in after] == [(), (), ()]
    assert held_by(after) == held_by(THREE)


def test_marks_are_put_right_and_others_stay() -> None:
    (one,) = stored(wanted([at(1)]))
    labels = {"theirs": "x", "kubernetes.io/service-name": "other"}
    former = OURS._replace(uid="uid-of-a-former-one")
    edited = replace(one, meta=replace(one.meta, labels=labels, owner_references=(former,)))
    (after,) = wanted([at(1)], (edited,), headless=True)
    assert after.meta.labels == {**LABELS, "theirs": "x", "service.kubernetes.io/headless": ""}
    assert after.meta.owner_references == (OURS,)
    (again,) = wanted([at(1)], (after,))
    assert again.meta.labels == {**LABELS, "theirs": "x"}


def test_what_somebody_put_into_a_slice_is_put_right() -> None:
    (one,) = stored(wanted([at(1), at(2)]))
    first, second = one.endpoints
    more = msgspec.structs.replace(first, addresses=(*first.addresses, "10.9.9.9"))
    none = msgspec.structs.replace(first, addresses=())
    several = replace(one, endpoints=(more, second))
    doubled = replace(one, endpoints=(first, second, first))
    nameless = replace(one, endpoints=(none, second))
    for edited in (several, doubled, nameless, replace(one, endpoints=())):
        (after,) = wanted([at(1), at(2)], (edited,))
        assert sorted(after.endpoints, key=lambda e: e.addresses) == [first, second]


NUMBERS = st.sets(st.integers(0, 450), max_size=450)


@given(st.lists(st.tuples(NUMBERS, st.booleans()), min_size=1, max_size=4), st.integers(0, 450))
def test_whatever_was_before(states: list[tuple[set[int], bool]], other: int) -> None:
    """Through any states: each endpoint once, none too many in a slice, one family in each."""
    held: Slices = ()
    endpoints: set[int] = set()
    for endpoints, dual in states:
        families = ("IPv4", "IPv6") if dual else ("IPv4",)
        both = [at(n, family=f) for n in endpoints for f in (4, 6)[: len(families)]]
        held = stored(wanted(both, held, families=families))
        assert_right(held, both)
        assert wanted(both, held, families=families) == held
    before = stored(wanted(map(at, endpoints), held))
    after = wanted(map(at, endpoints ^ {other}), before)
    assert changes(before, after) <= 2
    assert_right(after, [at(n) for n in endpoints ^ {other}])


def assert_right(held: Slices, endpoints: list[Endpoint]) -> None:
    ids = [(e.addresses[0], e.target_ref.uid) for s in held for e in s.endpoints if e.target_ref]
    assert sorted(ids) == sorted((e.address, e.vm_uid) for e in endpoints)
    assert max(len(s.endpoints) for s in held) <= ENDPOINTS_MAX
    assert len({s.key for s in held}) == len(held)
    for slice_ in held:
        of_ipv6 = {":" in e.addresses[0] for e in slice_.endpoints}
        assert of_ipv6 <= {slice_.address_type == "IPv6"}


def test_new_slices_are_as_few_as_can_be() -> None:
    assert len(wanted(map(at, range(1000)))) == 10


@pytest.mark.parametrize("type_", ["IPv6", "FQDN"])
def test_a_slice_of_another_address_type_keeps_its_name_from_ours(type_: str) -> None:
    """No API server changes an address type: the slice goes, or is of use as what it is."""
    held = stored(wanted([at(1)]))
    odd = tuple(replace(s, address_type=type_, endpoints=()) for s in held)
    after = wanted([at(1), at(2, family=6)], odd, families=("IPv4", "IPv6"))
    assert {s.key.name: s.address_type for s in after} == {
        "web-ipv4-1": "IPv4",
        ("web-ipv4-0" if type_ == "IPv6" else "web-ipv6-0"): "IPv6",
    }
