"""Objects as values."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from tests.unit.objects import WEB, service
from vmsvc_grpc.model.objects import (
    ObjectMeta,
    StoredEndpoints,
    StoredEndpointSlice,
    StoredService,
    Written,
    says_the_same,
)

META = ObjectMeta(key=WEB, uid="u", resource_version="1")
WRITTEN: list[Written] = [
    service(),
    StoredService(meta=META),
    StoredEndpoints(meta=META),
    StoredEndpointSlice(meta=META, address_type="IPv4"),
]


@pytest.mark.parametrize("one", WRITTEN, ids=lambda one: one.kind.value)
def test_two_states_say_the_same_if_nothing_but_the_resource_version_differs(one: Written) -> None:
    assert says_the_same(one, one)
    newer: Any = replace(one, meta=replace(one.meta, resource_version="2"))
    assert says_the_same(one, newer)
    meta: Any = one.meta
    other: Any
    for of in fields(ObjectMeta):
        if of.name != "resource_version":
            other = replace(one, meta=replace(meta, **{of.name: "another"}))
            assert not says_the_same(one, other), of.name
    for of in fields(one):
        if of.name != "meta":
            other = replace(newer, **{of.name: "another"})
            assert not says_the_same(one, other), of.name
