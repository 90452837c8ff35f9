"""Indexes give what a scan would give, and hold nothing once everything is gone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.leavings import leavings
from tests.unit.objects import vm
from vmsvc_grpc.cache.membership import SelectorIndex, VirtualMachineIndex
from vmsvc_grpc.model.objects import Key, VirtualMachine
from vmsvc_grpc.model.selector import matches

BACK = {"app": "web", "tier": "back"}

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
    candidates = index.candidates(namespace, selector)
    assert len(candidates) == len(set(candidates))
    assert {v.key for v in there if selector and matches(selector, v.labels)} <= {*candidates}
    rarest = min((sum(v.labels.get(k) == x for v in there) for k, x in selector.items()), default=0)
    assert len(candidates) == rarest
    having = {v.key for v in there if selector.keys() & v.labels.keys()}
    assert index.having_any(namespace, selector.keys(), 1000) == (len(having), True)
    members = {v.key for v in there if matches(selector, v.labels)}
    nearly = [v.key for v in index.nearly_matching(namespace, selector, members, 1000)]
    assert len(nearly) == len(set(nearly))
    assert set(nearly) == having - members
    few = [v.key for v in index.nearly_matching(namespace, selector, members, 1)]
    assert few == nearly[:1]
    assert len(index) == len(all_vms)
    for key, one in all_vms.items():
        assert index.remove(key) == one
        assert index.remove(key) is None
    assert leavings(index) == []


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
    assert leavings(index) == []


def test_vms_of_other_namespaces_are_looked_at_up_to_a_bound() -> None:
    index = VirtualMachineIndex()
    labels = {"app": "web", "tier": "front"}
    for namespace in ("shop", "lab", "data"):
        for number in range(4):
            index.put(vm(f"vm-{number}", namespace=namespace, labels=labels))
            index.put(vm(f"other-{number}", namespace=namespace, labels={"app": "web"}))
    index.put(vm("alone", namespace="far", labels={"app": "web"}))
    found = [vm.key for vm in index.matching_elsewhere("shop", labels, looks_max=100)]
    assert found == [Key(ns, f"vm-{number}") for ns in ("lab", "data") for number in range(4)]
    assert len(list(index.matching_elsewhere("shop", labels, looks_max=6))) == 6
    assert len(list(index.matching_elsewhere("shop", labels, looks_max=2))) == 2
    assert list(index.matching_elsewhere("shop", {}, looks_max=100)) == []
    assert list(index.matching_elsewhere("shop", BACK, looks_max=100)) == []
