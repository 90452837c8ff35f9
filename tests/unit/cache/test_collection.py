"""The names of all services, in order, whatever comes and goes."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tests.unit.objects import WEB, service
from tests.unit.server.endpoint_service.watching import synced_cache
from vmsvc_grpc.cache.collection import Collection
from vmsvc_grpc.model.events import Apply, Delete
from vmsvc_grpc.model.objects import Key, Kind

keys = st.builds(Key, st.sampled_from(["a", "a-b", "b"]), st.sampled_from(["db", "web", "x"]))


@given(st.lists(st.tuples(st.booleans(), keys)), st.data())
def test_a_page_is_the_next_names_in_order(
    steps: list[tuple[bool, Key]], data: st.DataObject
) -> None:
    collection, naive = Collection(), set[Key]()
    for add, key in steps:
        if add:
            assert collection.add(key) == (key not in naive)
            naive.add(key)
        else:
            collection.discard(key)
            naive.discard(key)
    assert len(collection) == len(naive)
    namespace = data.draw(st.sampled_from([None, "", "a", "a-b", "b", "c"]))
    after = data.draw(st.none() | keys)
    size = data.draw(st.integers(1, 4))
    expected = sorted(
        key
        for key in naive
        if namespace in (None, key.namespace) and (after is None or key > after)
    )
    assert collection.page(namespace, after, size) == expected[:size]


@pytest.mark.parametrize("uid", ["", "another"])
def test_a_service_that_is_being_deleted_is_not_in_it(uid: str) -> None:
    cache = synced_cache(service())
    assert cache.collection.page(None, None, 9) == [WEB]
    cache.apply(Apply(service(deleting=True)))
    assert cache.collection.page(None, None, 9) == []
    cache.apply(Apply(service(uid=uid)))
    assert cache.collection.page("shop", None, 9) == [WEB]
    cache.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, WEB))
    assert cache.collection.page(None, None, 9) == []
