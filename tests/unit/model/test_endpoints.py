"""The difference between two endpoint sets, and their digest."""

from __future__ import annotations

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.unit.objects import HTTP, WEB
from vmsvc_grpc.model.endpoints import Assembly, Endpoint, EndpointSet, assembled, diff, repeats_id

endpoint = st.builds(
    Endpoint,
    address=st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.10"]),
    vm_uid=st.sampled_from(["u1", "u2"]),
    ready=st.booleans(),
    vm_name=st.sampled_from(["a", "b"]),
    zone=st.sampled_from(["", "z"]),
)
endpoints = st.lists(endpoint.map(lambda e: (e,)), max_size=8).map(assembled)
ports = st.sampled_from([(), (HTTP,), (HTTP, HTTP._replace(name="b", port=81))])
endpoint_set = st.builds(
    EndpointSet, service=st.just(WEB), version=st.integers(1, 9), ports=ports, endpoints=endpoints
)


@given(endpoint_set, endpoint_set)
def test_a_diff_leads_from_one_to_the_other(old: EndpointSet, new: EndpointSet) -> None:
    change = diff(old, new)
    held = {(e.address, e.vm_uid): e for e in old.endpoints}
    for key in change.removed:
        del held[key]
    held.update({(e.address, e.vm_uid): e for e in change.upserted})
    assert tuple(sorted(held.values())) == new.endpoints
    assert (change.ports if change.ports is not None else old.ports) == new.ports


@given(endpoint_set)
def test_nothing_leads_from_a_set_to_itself(given_set: EndpointSet) -> None:
    change = diff(given_set, given_set)
    assert (change.gone, change.removed, change.upserted, change.ports) == ((), (), (), None)


@given(endpoint_set, endpoint_set, st.booleans())
def test_a_set_that_follows_another_has_the_digest_of_its_own_content(
    old: EndpointSet, new: EndpointSet, same_objects: bool
) -> None:
    if same_objects:
        known = {endpoint: endpoint for endpoint in old.endpoints}
        new = replace(new, endpoints=tuple(known.get(e, e) for e in new.endpoints))
    new.follow(old, diff(old, new))
    fresh = replace(new)
    assert (new.digest, new.revision) == (fresh.digest, fresh.revision)


@given(endpoint_set, endpoint_set)
def test_revisions_are_equal_exactly_if_the_content_is(a: EndpointSet, b: EndpointSet) -> None:
    assert (a.revision == b.revision) is ((a.ports, a.endpoints) == (b.ports, b.endpoints))


@given(st.lists(st.lists(endpoint, max_size=3).map(tuple), max_size=5))
def test_assembled_is_sorted_unique_and_free_of_order(parts: list[tuple[Endpoint, ...]]) -> None:
    whole = assembled(parts)
    assert list(whole) == sorted(whole)
    keys = [(e.address, e.vm_uid) for e in whole]
    assert len(set(keys)) == len(keys)
    assert whole == assembled(reversed(parts))


given_by_vms = st.lists(
    st.tuples(st.sampled_from("123"), st.lists(endpoint, max_size=3, unique=True).map(tuple)),
    max_size=12,
)


@given(given_by_vms, given_by_vms)
def test_exchanging_what_one_vm_gives_equals_assembling_all_anew(
    first: list[tuple[str, tuple[Endpoint, ...]]],
    changes: list[tuple[str, tuple[Endpoint, ...]]],
) -> None:
    contributions = dict(first)
    endpoints = sorted(chain.from_iterable(contributions.values()))
    assembly = Assembly(endpoints, repeats=repeats_id(endpoints))
    assert assembly.endpoints == assembled(contributions.values())
    for vm, given_now in changes:
        before = EndpointSet(WEB, 1, (), assembly.endpoints)
        change = assembly.exchange(contributions.get(vm, ()), given_now)
        contributions[vm] = given_now
        after = EndpointSet(WEB, 2, (), assembly.endpoints)
        assert after.endpoints == assembled(contributions.values())
        if change is None:
            assert after.endpoints == before.endpoints
            continue
        assert change == diff(before, after)
        ready = tuple(e for e in before.endpoints if e.ready)
        of_ready = change.of_ready()
        assert (of_ready.patched(ready) if of_ready else ready) == tuple(
            e for e in after.endpoints if e.ready
        )
        assert before.revision
        assert before.changed(2, change, after.endpoints).digest == replace(after).digest
