"""Slices are found by name, and by the service that each is of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.leavings import leavings
from vmsvc_grpc.cache.slice_index import SliceIndex
from vmsvc_grpc.model.objects import Key, ObjectMeta, StoredEndpointSlice
from vmsvc_grpc.model.ownership import service_of_slice

namespaces = st.sampled_from(["shop", "other"])


@given(st.lists(st.tuples(namespaces, st.sampled_from("123"), st.sampled_from("ab")), max_size=20))
def test_slices_by_service(made: list[tuple[str, str, str]]) -> None:
    index = SliceIndex()
    held: dict[Key, StoredEndpointSlice] = {}
    for namespace, name, labelled in made:
        labels = {"kubernetes.io/service-name": labelled}
        meta = ObjectMeta(key=Key(namespace, name), uid="u", labels=labels)
        slice_ = StoredEndpointSlice(meta=meta, address_type="IPv4")
        assert index.put(slice_) == held.get(slice_.key)
        held[slice_.key] = slice_
    assert index.keys() == set(held)
    for service_key in {service_of_slice(slice_) for slice_ in held.values()}:
        of_service = sorted(key for key in held if service_of_slice(held[key]) == service_key)
        assert index.of(service_key) == tuple(held[key] for key in of_service)
    for key, slice_ in held.items():
        assert index.remove(key) == slice_
        assert index.remove(key) is None
    assert leavings(index) == []
    assert not index._by_service
