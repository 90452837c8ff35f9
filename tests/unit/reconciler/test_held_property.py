"""Without an API server, what is held does not change what is served, nor does looking again."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from tests.conformance.case import VM, VM_SERVICE, Apply, Case, Manifest, ObjectId
from tests.unit.reconciler.test_cases import World

FAMILIES = ["IPv4", "IPv6"]
META = {"name": "web", "namespace": "shop", "uid": "uid-web"}

some_families = st.lists(st.sampled_from(FAMILIES), unique=True, max_size=2)
cluster_families = st.lists(st.sampled_from(FAMILIES), unique=True, min_size=1, max_size=2)
fields = st.fixed_dictionaries(
    {"type": st.sampled_from(["ClusterIP", "LoadBalancer"])},
    optional={
        "clusterIp": st.sampled_from(["None", "10.96.0.9", "::ffff:10.96.0.9", "fd00::9", ""]),
        "ipFamilies": some_families,
        "ipFamilyPolicy": st.sampled_from(["SingleStack", "PreferDualStack", "RequireDualStack"]),
        "loadBalancerIP": st.just("203.0.113.7"),
    },
).filter(lambda spec: spec.get("clusterIp") != "None" or spec["type"] == "ClusterIP")


def vm(name: str, **addresses: str) -> Manifest:
    return {
        "apiVersion": "vmoperator.vmware.com/v1alpha6",
        "kind": VM,
        "metadata": {**META, "name": name, "uid": f"uid-{name}", "labels": {"app": "web"}},
        "status": {"network": addresses},
    }


VMS = [
    vm("both", primaryIP4="10.20.0.1", primaryIP6="2001:db8::1"),
    vm("four", primaryIP4="10.20.0.2"),
    vm("six", primaryIP6="2001:db8::3"),
]


def vmservice(spec: dict[str, Any]) -> Manifest:
    ports = [{"name": "http", "port": 80}]
    return {
        "apiVersion": "vmoperator.vmware.com/v1alpha6",
        "kind": VM_SERVICE,
        "metadata": META,
        "spec": {"selector": {"app": "web"}, "ports": ports, **spec},
    }


def addresses(world: World) -> list[str]:
    endpoints = world.manifests[ObjectId("Endpoints", "shop", "web")]
    return [one["ip"] for subset in endpoints["subsets"] for one in subset["addresses"]]


@given(spec=fields, cluster=cluster_families)
def test_endpoints_are_the_same_once_they_are_held(
    spec: dict[str, Any], cluster: list[str]
) -> None:
    world = World(Case("any", tuple(cluster), None, None, ()))
    for one in [*VMS, vmservice(spec)]:
        world.perform(Apply(one))
    at_first = world.served(ObjectId(VM_SERVICE, "shop", "web"))
    world.settle()
    assert world.served(ObjectId(VM_SERVICE, "shop", "web")) == at_first == addresses(world)


@given(specs=st.lists(fields, min_size=2, max_size=4), cluster=cluster_families)
def test_streams_show_what_is_held_after_each_change(
    specs: list[dict[str, Any]], cluster: list[str]
) -> None:
    world = World(Case("any", tuple(cluster), None, None, ()))
    for one in VMS:
        world.perform(Apply(one))
    for spec in specs:
        world.perform(Apply(vmservice(spec)))
        world.settle()
        assert world.served(ObjectId(VM_SERVICE, "shop", "web")) == addresses(world)
        assert world.settle() == []
