"""Indexes give what a scan would give, and hold nothing once everything is gone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.objects import vm
from vmsvc_grpc.cache.index import SelectorIndex, SliceIndex, VirtualMachineIndex
from vmsvc_grpc.model.objects import Key, ObjectMeta, StoredEndpointSlice, VirtualMachine
from vmsvc_grpc.model.ownership import service_of_slice
from vmsvc_grpc.model.selector import matches, nearly_matches

namespaces = st.sampled_from(["shop", "other"])
pairs = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"), max_size=3)
puts = st.lists(st.tuples(namespaces, st.sampled_from("123"), pairs), max_size=20)


@given(puts, namespaces, pairs)
def test_vms_by_selector(
    made: list[tuple[str, str, dict[str, str]]], namespace: str, selector: dict[str, str]
) -> None:
    index = VirtualMachineIndex()
    all_vms: dict[Key, VirtualMachine] = {}
    for place, name, labels in made:
        one = vm(name, namespace=place, labels=labels)
        assert index.put(one) == all_vms.get(one.key)
        all_vms[one.key] = one
    there = [v for v in all_vms.values() if v.key.namespace == namespace]
    assert {v.key for v in index.matching(namespace, selector)} == {
        v.key for v in there if matches(selector, v.labels)
    }
    assert {v.key for v in index.nearly_matching(namespace, selector)} == {
        v.key for v in there if nearly_matches(selector, v.labels)
    }
    assert len(index) == len(all_vms)
    for key, one in all_vms.items():
        assert index.remove(key) == one
        assert index.remove(key) is None
    assert index.empty()


@given(puts, namespaces, pairs)
def test_services_by_labels(
    made: list[tuple[str, str, dict[str, str]]], namespace: str, labels: dict[str, str]
) -> None:
    index, selectors = SelectorIndex(), {}
    for place, name, selector in made:
        index.put(Key(place, name), selector)
        selectors[Key(place, name)] = selector
    found = list(index.selecting(namespace, labels))
    assert len(found) == len(set(found))
    assert set(found) == {
        key for key, s in selectors.items() if key.namespace == namespace and matches(s, labels)
    }
    for key in selectors:
        index.remove(key)
    assert index.empty()


@given(st.lists(st.tuples(namespaces, st.sampled_from("123"), st.sampled_from("ab")), max_size=20))
def test_slices_by_service(made: list[tuple[str, str, str]]) -> None:
    index = SliceIndex()
    held: dict[Key, StoredEndpointSlice] = {}
    for namespace, name, service in made:
        labels = {"kubernetes.io/service-name": service}
        meta = ObjectMeta(key=Key(namespace, name), uid="u", labels=labels)
        slice_ = StoredEndpointSlice(meta=meta, address_type="IPv4")
        assert index.put(slice_) == held.get(slice_.key)
        held[slice_.key] = slice_
    assert index.keys() == set(held)
    assert index.services() == {service_of_slice(slice_) for slice_ in held.values()}
    for service_key in index.services():
        of_service = sorted(key for key in held if service_of_slice(held[key]) == service_key)
        assert index.of(service_key) == tuple(held[key] for key in of_service)
    for key, slice_ in held.items():
        assert index.get(key) == slice_
        assert index.remove(key) == slice_
        assert index.remove(key) is None
    assert index.empty()
    assert index.services() == set()
