"""An explanation a page at a time: what is told, in which order, at which cost (issue 10, 5)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.counting import counted_lines
from tests.unit.objects import WEB, service, spec, vm
from tests.unit.server.endpoint_service.watching import synced_cache
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply, Delete, Malformed
from vmsvc_grpc.model.objects import Key, Kind, Probe
from vmsvc_grpc.model.parse import parse_json
from vmsvc_grpc.model.problem import Problem
from vmsvc_grpc.server.call import Call, Code, RpcError
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.endpoint_service.encode import Encoder
from vmsvc_grpc.server.endpoint_service.lookup import Lookup
from vmsvc_grpc.server.limits import Limits

CALL = Call("ipv4:192.0.2.1:1")
CLIENT_BYTES_MAX = 4 * 1024 * 1024
THREE = {"app": "web", "tier": "front", "env": "prod"}
FLAW = Problem("status", "is no object")


def page(cache: Cache, **fields: Any) -> pb.ExplainEndpointsResponse:
    request = pb.ExplainEndpointsRequest(**{"service": str(WEB), **fields})
    lookup = Lookup(cache, Encoder(ServerCounts()), Limits())
    raw = lookup.explain_endpoints(request.SerializeToString(), CALL)
    assert len(raw) < CLIENT_BYTES_MAX
    return pb.ExplainEndpointsResponse.FromString(raw)


def pages(cache: Cache, **fields: Any) -> Iterator[pb.ExplainEndpointsResponse]:
    token = ""
    while True:
        yield (found := page(cache, page_token=token, **fields))
        if not (token := found.next_page_token):
            return


def names(found: pb.ExplainEndpointsResponse) -> list[str]:
    return [of.vm_name for of in found.virtual_machines]


def all_names(cache: Cache, **fields: Any) -> list[str]:
    return [name for found in pages(cache, **fields) for name in names(found)]


def unread(name: str) -> Malformed:
    return Malformed(Kind.VIRTUAL_MACHINE, Key(WEB.namespace, name), FLAW)


def mixed(members: int = 4) -> Cache:
    """Members `m`, near misses `n` that lack one, two or all pairs, and unreadable ones `u`."""
    cache = synced_cache(
        service(given=spec(THREE)),
        *(vm(f"m{n}", "10.0.0.1", labels=THREE) for n in range(members)),
        vm("n-a", labels={"app": "x", "tier": "x", "env": "x"}),
        vm("n-b", labels={**THREE, "env": "test"}),
        vm("n-c", labels={"tier": "front", "env": "test"}),
        vm("n-d", labels={"app": "web", "env": "prod"}),
        vm("n-e", labels=THREE, deleting=True),
        vm("far", labels={"role": "db"}),
    )
    cache.apply(unread("u1"))
    cache.apply(unread("u0"))
    return cache


IN_ORDER = ["m0", "m1", "m2", "m3", "n-e", "n-b", "n-d", "n-c", "n-a", "u0", "u1"]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 10, 11, 12, 500])
def test_what_is_in_the_service_comes_first_then_the_nearest(size: int) -> None:
    cache = mixed()
    found = list(pages(cache, page_size=size))
    assert [name for one in found for name in names(one)] == IN_ORDER
    assert all(len(names(one)) == size for one in found[:-1])
    assert names(found[-1])
    for one in found:
        assert (one.matching, one.ready, one.not_ready) == (4, 4, 0)
        assert (one.near_misses, one.near_misses_incomplete, one.unreadable) == (5, False, 2)
        assert dict(one.selector) == THREE


def test_matching_and_ready_count_vms() -> None:
    sick = vm("sick", "10.0.0.2", probe=Probe.TCP_SOCKET)
    found = page(synced_cache(service(), vm("a", "10.0.0.1"), sick, vm("none")))
    assert (found.matching, found.ready, found.not_ready) == (3, 1, 1)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_pages_tell_each_vm_that_stays_once_whatever_comes_and_goes(size: int) -> None:
    """After each page what was told last goes, and one comes on either side of it."""
    cache = mixed()
    told: list[str] = []
    for number, found in enumerate(pages(cache, page_size=size)):
        told += names(found)
        cache.apply(Delete(Kind.VIRTUAL_MACHINE, Key(WEB.namespace, told[-1])))
        if number < 4:
            cache.apply(Apply(vm(f"m0-{number}", "10.0.0.9", labels=THREE)))
            cache.apply(Apply(vm(f"m9-{number}", "10.0.0.9", labels=THREE)))
            cache.apply(Apply(vm(f"n-0{number}", labels={**THREE, "env": "x"})))
            cache.apply(Apply(vm(f"n-z{number}", labels={**THREE, "env": "x"})))
    assert [name for name in told if name in IN_ORDER] == IN_ORDER
    assert len(told) == len(set(told))


def test_near_misses_of_a_selector_with_many_keys_are_told_however_many_they_share() -> None:
    """A VM was looked at once for each key that it shares."""
    many = {f"key-{n:02}": "x" for n in range(40)}
    near = (vm(f"near-{n:03}", labels={**many, f"key-{n % 40:02}": "y"}) for n in range(300))
    told = names(page(synced_cache(service(given=spec(many)), *near)))
    assert len(told) == 100


def test_members_do_not_hide_near_misses() -> None:
    near = (vm(f"near-{n}", labels={"app": "web"}) for n in range(20))
    members = (vm(f"v-{n:04}", labels={"app": "web", "tier": "front"}) for n in range(3_000))
    served = service(given=spec({"app": "web", "tier": "front"}))
    cache = synced_cache(served, *near, *members)
    assert page(cache).near_misses == 20
    assert {f"near-{n}" for n in range(20)} <= set(all_names(cache))


def test_of_many_near_misses_a_hundred_of_the_nearest_are_told_and_all_are_counted() -> None:
    far = (vm(f"far-{n:04}", labels={"app": "db"}) for n in range(500))
    near = (vm(f"near-{n:04}", labels={**THREE, "env": "test"}) for n in range(40))
    cache = synced_cache(service(given=spec(THREE)), *far, *near)
    for size in (7, 100, 500):
        told = all_names(cache, page_size=size)
        assert len(told) == 100
        assert told[:40] == [f"near-{n:04}" for n in range(40)]
        assert {name[:4] for name in told[40:]} == {"far-"}
    assert page(cache).near_misses == 540


def test_one_that_was_just_labelled_is_among_those_looked_at() -> None:
    """Whose VM is not in the service asks soon after it was made, or its label changed."""
    many = (vm(f"v-{n:05}", labels={"app": "db"}) for n in range(5_000))
    cache = synced_cache(service(given=spec(THREE)), *many)
    cache.apply(Apply(vm("mine", labels={"app": "web", "tier": "fornt", "env": "prod"})))
    assert all_names(cache)[0] == "mine"
    cache.apply(Apply(vm("v-00000", labels={**THREE, "tier": "fornt"})))
    assert all_names(cache)[:2] == ["mine", "v-00000"]


def test_of_many_that_cannot_be_read_a_hundred_are_told_and_all_are_counted() -> None:
    cache = synced_cache(service(), vm("a", "10.0.0.1"))
    for number in range(300):
        cache.apply(unread(f"u{number:03}"))
    told = all_names(cache, page_size=30)
    assert told == ["a", *(f"u{n:03}" for n in range(100))]
    assert page(cache).unreadable == 300


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("m3", pb.VirtualMachineExplanation.VERDICT_READY),
        ("n-e", pb.VirtualMachineExplanation.VERDICT_DELETING),
        ("far", pb.VirtualMachineExplanation.VERDICT_LABELS_DIFFER),
        ("u0", pb.VirtualMachineExplanation.VERDICT_INVALID),
    ],
)
def test_one_vm_can_be_asked_for_however_far_it_is(name: str, verdict: int) -> None:
    found = page(mixed(), vm_name=name)
    assert [(of.vm_name, of.verdict) for of in found.virtual_machines] == [(name, verdict)]
    assert (found.next_page_token, found.matching) == ("", 4)


def test_a_vm_that_there_is_not_is_not_found() -> None:
    with pytest.raises(RpcError) as failure:
        page(mixed(), vm_name="none")
    assert (failure.value.code, failure.value.message) == (
        Code.NOT_FOUND,
        "there is no VirtualMachine shop/none",
    )
    with pytest.raises(RpcError) as failure:
        page(synced_cache(), vm_name="a")
    assert failure.value.message == f"there is no VirtualMachineService {WEB}"


# -- What it costs --


def many(vms: int) -> Cache:
    """A selector of three keys that all VMs have, with other values but for ten."""
    others = (vm(f"v-{n:05}", "10.0.0.1", labels={**THREE, "app": f"a{n % 7}"}) for n in range(vms))
    members = (vm(f"m{n}", "10.0.0.1", labels=THREE) for n in range(10))
    return synced_cache(service(given=spec(THREE)), *others, *members)


def lines_of_a_page(cache: Cache, **fields: Any) -> int:
    page(cache, **fields)  # Addresses that were judged once are known.
    with counted_lines() as counted:
        page(cache, **fields)
    return counted[0]


def test_a_page_costs_the_page_and_not_the_namespace() -> None:
    """Three keys among 20,000 VMs took 0.58 s, and 6.2 MB that no client takes."""
    few, lots = many(4_000), many(20_000)
    assert page(lots).near_misses == 20_000
    assert lines_of_a_page(lots) < 1.1 * lines_of_a_page(few)
    # Of a page in the midst of the members, not even near misses are looked for.
    assert lines_of_a_page(lots, page_size=5) < 1_000


def test_a_page_costs_the_page_and_not_the_service() -> None:
    def lines(members: int) -> int:
        cache = synced_cache(service(), *(vm(f"v-{n:05}", "10.0.0.1") for n in range(members)))
        first = page(cache, page_size=50)
        return lines_of_a_page(cache, page_size=50, page_token=first.next_page_token)

    assert lines(20_000) == lines(200)


def test_labels_of_their_own_on_each_vm_are_counted_as_far_as_that_is_cheap() -> None:
    def own(vms: int) -> Cache:
        labels = ({"app": "db", f"own-{n}": "x", f"other-{n}": "y"} for n in range(vms))
        return synced_cache(
            service(given=spec(THREE)), *(vm(f"v-{n:05}", labels=of) for n, of in enumerate(labels))
        )

    found = page(own(5_000))
    assert (found.near_misses, found.near_misses_incomplete) == (5_000, False)
    found = page(own(10_000))
    assert found.near_misses_incomplete
    assert 5_000 < found.near_misses < 10_000
    assert lines_of_a_page(own(20_000)) < 1.1 * lines_of_a_page(own(10_000))


def test_a_selector_of_10000_pairs_costs_little_more() -> None:
    selector = {f"key-{n:05}": "x" * 60 for n in range(10_000)}
    others = [vm(f"v-{n:03}", labels={"key-00000": "y"}) for n in range(500)]
    members = [vm(f"m-{n:03}", "10.0.0.1", labels=selector) for n in range(20)]
    cache = synced_cache(service(given=spec(selector)), *others, *members)
    assert lines_of_a_page(cache) < 60_000
    assert len(names(page(cache))) > 20, "members do not hide all near misses"
    found = page(cache)
    assert (found.matching, found.near_misses) == (20, 500)
    assert 0 < len(found.selector) < 2_000
    (problem,) = found.problems
    assert problem.message.startswith("has 10000 pairs, of which ")
    (near,) = page(cache, vm_name="v-000").virtual_machines
    assert len(near.reasons) == 11
    assert near.reasons[-1] == (
        "9990 more of the labels that the service selects are missing or differ"
    )


# -- Whatever VM owners write, no page is too large --


def hostile(name: str, **labels: str) -> bytes:
    """A VM whose texts are as long as they can be, and need three bytes a character."""
    long = "\u202e界" * 2_000
    return json.dumps(
        {
            "apiVersion": "vmoperator.vmware.com/v1alpha5",
            "kind": "VirtualMachine",
            "metadata": {"namespace": "shop", "name": name, "labels": {"app": "web", **labels}},
            "spec": {"readinessProbe": {"tcpSocket": {}}},
            "status": {
                "zone": long,
                "network": {"primaryIP4": long, "primaryIP6": long},
                "conditions": [
                    {
                        "type": "Ready",
                        "status": "False",
                        "reason": long,
                        "message": long,
                        "lastTransitionTime": long,
                    }
                ],
            },
        }
    ).encode()


def test_pages_are_small_whatever_vm_owners_write() -> None:
    raw = hostile("x" * 253)
    cache = synced_cache(service())
    for number in range(2_000):
        name = f"{number:04}" + "x" * 249
        vm_ = parse_json(Kind.VIRTUAL_MACHINE, raw.replace(b"x" * 253, name.encode()))
        cache.apply(Apply(vm_))
    told = 0
    for found in pages(cache, page_size=500):
        assert found.ByteSize() < 512 * 1024
        told += len(found.virtual_machines)
    assert told == 2_000
