"""A merge patch leads from one object to the other, and says no more than that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.objects import WEB, service
from tests.unit.reconciler.test_plan import OBSERVED, VMSERVICES
from vmsvc_grpc.model.objects import (
    ACCEPTED,
    Condition,
    EndpointPort,
    Ingress,
    ObjectMeta,
    StoredAddress,
    StoredEndpoints,
    StoredService,
    Subset,
)
from vmsvc_grpc.reconciler.held import Held
from vmsvc_grpc.reconciler.manifest import manifest
from vmsvc_grpc.reconciler.patch import merge_patch


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2, word for word."""
    if not isinstance(patch, dict):
        return patch
    if not isinstance(target, dict):
        target = {}
    result = dict(target)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def untyped(patch: Any) -> Any:
    """A patch or manifest as an API server reads it."""
    return msgspec.json.decode(msgspec.json.encode(patch))


def without_empty(value: Any) -> Any:
    """A section in which nothing is left says as much as none."""
    return {key: one for key, one in value.items() if one != {}}


PAIRS = st.one_of(
    st.tuples(OBSERVED, OBSERVED).map(lambda both: (both[0].service, both[1].service)).filter(all),
    st.tuples(OBSERVED, OBSERVED)
    .map(lambda both: (both[0].endpoints, both[1].endpoints))
    .filter(all),
    st.tuples(OBSERVED, OBSERVED)
    .map(lambda both: (next(iter(both[0].slices), None), next(iter(both[1].slices), None)))
    .filter(all),
    st.tuples(VMSERVICES, VMSERVICES),
)


@given(PAIRS)
def test_what_is_patched_is_what_was_wanted(pair: tuple[Held, Held]) -> None:
    before, after = pair
    patched = merged(untyped(manifest(before)), untyped(merge_patch(before, after)))
    assert without_empty(patched) == without_empty(untyped(manifest(after)))
    assert merge_patch(after, after) == {}


@given(PAIRS)
def test_what_is_not_known_of_stays(pair: tuple[Held, Held]) -> None:
    before, after = pair
    stored = merged(manifest(before), {"metadata": {"x": 1}, "spec": {"x": 1}, "x": 1})
    patched = merged(stored, untyped(merge_patch(before, after)))
    assert (patched["metadata"]["x"], patched["spec"]["x"], patched["x"]) == (1, 1, 1)


SERVICE = StoredService(
    meta=ObjectMeta(key=WEB, uid="u", labels={"a": "1", "b": "2"}), type="ClusterIP"
)
ENDPOINTS = StoredEndpoints(meta=ObjectMeta(key=WEB, uid="u"))
ADDRESS = StoredAddress("10.0.0.1")
SUBSET = Subset((ADDRESS,), (), (EndpointPort("http", 80, "TCP"),))
REFUSED = Condition(type=ACCEPTED, status="False")


@pytest.mark.parametrize(
    ("before", "after", "patch"),
    [
        pytest.param(
            SERVICE,
            replace(SERVICE, meta=replace(SERVICE.meta, labels={"a": "1", "b": "3"})),
            {"metadata": {"labels": {"b": "3"}}},
            id="one label",
        ),
        pytest.param(
            SERVICE,
            replace(SERVICE, meta=replace(SERVICE.meta, labels={"a": "1"})),
            {"metadata": {"labels": {"b": None}}},
            id="a label that goes",
        ),
        pytest.param(
            replace(SERVICE, type="LoadBalancer", load_balancer_ip="192.0.2.1"),
            SERVICE,
            {"spec": {"type": "ClusterIP", "loadBalancerIP": None}},
            id="a field that goes",
        ),
        pytest.param(
            replace(SERVICE, allocate_load_balancer_node_ports=None),
            replace(SERVICE, allocate_load_balancer_node_ports=False),
            {"spec": {"allocateLoadBalancerNodePorts": False}},
            id="false, which is not absent",
        ),
        pytest.param(
            ENDPOINTS,
            replace(ENDPOINTS, subsets=(SUBSET,)),
            {
                "subsets": [
                    {
                        "addresses": [{"ip": "10.0.0.1"}],
                        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
                    }
                ]
            },
            id="a list, whole",
        ),
        pytest.param(
            replace(ENDPOINTS, subsets=(SUBSET,)),
            ENDPOINTS,
            {"subsets": []},
            id="a list that becomes empty",
        ),
        pytest.param(
            replace(service(), ingress=(Ingress("192.0.2.1", ""),), conditions=(REFUSED,)),
            replace(service(), conditions=(REFUSED,)),
            {"status": {"loadBalancer": None}},
            id="one part of the status, the other stays",
        ),
    ],
)
def test_patches(before: Held, after: Held, patch: Any) -> None:
    assert untyped(merge_patch(before, after)) == patch
