"""Changes from what is held to what should be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from tests.unit.objects import WEB, service, spec
from vmsvc_grpc.model.endpoints import Endpoint, assembled
from vmsvc_grpc.model.from_wire import ParseError
from vmsvc_grpc.model.objects import (
    ACCEPTED,
    NEWEST_API_VERSION,
    Condition,
    EndpointPort,
    Ingress,
    IPFamily,
    IPFamilyPolicy,
    Key,
    Kind,
    ObjectMeta,
    OwnerReference,
    ServicePort,
    ServiceSpec,
    ServiceType,
    SliceConditions,
    SliceEndpoint,
    StoredAddress,
    StoredEndpoints,
    StoredEndpointSlice,
    StoredPort,
    StoredService,
    Subset,
    TargetRef,
    VirtualMachineService,
)
from vmsvc_grpc.model.parse import parse
from vmsvc_grpc.reconciler.desired import desired
from vmsvc_grpc.reconciler.held import Child, HeldObjects
from vmsvc_grpc.reconciler.manifest import manifest, yaml_document
from vmsvc_grpc.reconciler.plan import Change, Verb, plan, same
from vmsvc_grpc.reconciler.rules import NSX_T_LB, Rules
from vmsvc_grpc.reconciler.service import EXTERNAL_TRAFFIC_POLICY, HEALTH_CHECK_NODE_PORT
from vmsvc_grpc.reconciler.vmservice import FINALIZER, FORMER_FINALIZER, SERVICE_READY

META = ObjectMeta(key=WEB, uid="uid")
SERVICE = StoredService(meta=META, type="ClusterIP")
ENDPOINTS = StoredEndpoints(meta=META)
BOTH = HeldObjects(service=SERVICE, endpoints=ENDPOINTS)


def slice_of(number: int, **meta: Any) -> StoredEndpointSlice:
    given = ObjectMeta(**{"key": Key("shop", f"web-ipv4-{number}"), "uid": f"uid-{number}", **meta})
    return StoredEndpointSlice(meta=given, address_type="IPv4")


SLICED = replace(BOTH, slices=(slice_of(0), slice_of(1)))
NEW = ObjectMeta(key=WEB, uid="")
GOING = replace(META, deleting=True)


CLAIMED = service()
UNCLAIMED = replace(CLAIMED, meta=replace(CLAIMED.meta, finalizers=()))
CLAIMED = replace(CLAIMED, meta=replace(CLAIMED.meta, finalizers=(FINALIZER,)))
REPORTED = replace(CLAIMED, ingress=(Ingress("192.0.2.1", ""),))
LEAVING = replace(CLAIMED, meta=replace(CLAIMED.meta, deleting=True))
LET_GO = replace(LEAVING, meta=replace(LEAVING.meta, finalizers=()))


def described(changes: tuple[Change, ...]) -> list[str]:
    return [str(change) for change in changes]


@pytest.mark.parametrize(
    ("wanted", "held", "changes"),
    [
        pytest.param(HeldObjects(), HeldObjects(), [], id="nothing to nothing"),
        pytest.param(BOTH, BOTH, [], id="all as it should be"),
        pytest.param(
            BOTH,
            HeldObjects(),
            ["create Service shop/web", "create Endpoints shop/web"],
            id="the Service is created first",
        ),
        pytest.param(
            HeldObjects(),
            BOTH,
            ["delete Endpoints shop/web", "delete Service shop/web"],
            id="the Service is deleted last",
        ),
        pytest.param(
            HeldObjects(
                service=replace(SERVICE, type="LoadBalancer"),
                endpoints=replace(ENDPOINTS, meta=replace(META, labels={"a": "b"})),
            ),
            BOTH,
            ["update Service shop/web", "update Endpoints shop/web"],
            id="the Service is updated first",
        ),
        pytest.param(
            HeldObjects(endpoints=ENDPOINTS),
            HeldObjects(service=SERVICE),
            ["delete Service shop/web", "create Endpoints shop/web"],
            id="one goes, one comes",
        ),
        pytest.param(
            HeldObjects(service=replace(SERVICE, meta=NEW), endpoints=replace(ENDPOINTS, meta=NEW)),
            BOTH,
            [
                "delete Endpoints shop/web",
                "delete Service shop/web",
                "create Service shop/web",
                "create Endpoints shop/web",
            ],
            id="others of the same name replace them",
        ),
        pytest.param(
            HeldObjects(),
            HeldObjects(service=replace(SERVICE, meta=GOING)),
            [],
            id="what is going is not deleted again",
        ),
        pytest.param(
            HeldObjects(service=replace(SERVICE, meta=NEW)),
            HeldObjects(service=replace(SERVICE, meta=GOING)),
            [],
            id="what replaces it waits until it is gone",
        ),
        pytest.param(
            replace(SLICED, slices=(slice_of(1, uid=""), slice_of(2, uid=""))),
            HeldObjects(),
            [
                "create Service shop/web",
                "create EndpointSlice shop/web-ipv4-1",
                "create EndpointSlice shop/web-ipv4-2",
                "create Endpoints shop/web",
            ],
            id="slices come before the Endpoints, which are mirrored until then",
        ),
        pytest.param(
            replace(SLICED, slices=(slice_of(1, labels={"a": "b"}),)),
            replace(SLICED, endpoints=None),
            [
                "update EndpointSlice shop/web-ipv4-1",
                "create Endpoints shop/web",
                "delete EndpointSlice shop/web-ipv4-0",
            ],
            id="slices that are too many go when all else is told",
        ),
        pytest.param(
            HeldObjects(),
            SLICED,
            [
                "delete Endpoints shop/web",
                "delete EndpointSlice shop/web-ipv4-0",
                "delete EndpointSlice shop/web-ipv4-1",
                "delete Service shop/web",
            ],
            id="with the Service, they go before it",
        ),
        pytest.param(
            replace(BOTH, vmservice=REPORTED),
            HeldObjects(vmservice=UNCLAIMED),
            [
                "update VirtualMachineService shop/web",
                "create Service shop/web",
                "create Endpoints shop/web",
                "update VirtualMachineService shop/web",
            ],
            id="the finalizer comes before the objects, and what is said of them after",
        ),
        pytest.param(
            HeldObjects(vmservice=LET_GO),
            replace(BOTH, vmservice=LEAVING),
            [
                "delete Endpoints shop/web",
                "delete Service shop/web",
                "update VirtualMachineService shop/web",
            ],
            id="the finalizer goes after the objects",
        ),
    ],
)
def test_changes(wanted: HeldObjects, held: HeldObjects, changes: list[str]) -> None:
    assert described(plan(wanted, held)) == changes


@pytest.mark.parametrize(
    ("change", "verb", "kind"),
    [
        pytest.param(Change(None, SERVICE), Verb.CREATE, Kind.SERVICE, id="create"),
        pytest.param(Change(ENDPOINTS, ENDPOINTS), Verb.UPDATE, Kind.ENDPOINTS, id="update"),
        pytest.param(Change(SERVICE, None), Verb.DELETE, Kind.SERVICE, id="delete"),
        pytest.param(
            Change(service(), service()),
            Verb.UPDATE,
            Kind.VIRTUAL_MACHINE_SERVICE,
            id="of the VMService itself",
        ),
    ],
)
def test_a_change_says_what_it_does(change: Change, verb: Verb, kind: Kind) -> None:
    assert (change.verb, change.kind, change.key) == (verb, kind, WEB)


# -- What counts as the same --


def target(name: str, version: str = "v1alpha6") -> TargetRef:
    return TargetRef(f"vmoperator.vmware.com/{version}", "VirtualMachine", "shop", name, name)


A, B, C = (StoredAddress(f"10.0.0.{i}", target(name)) for i, name in enumerate("abc"))
NOBODY = StoredAddress("10.0.0.9", None)
P, Q = EndpointPort("p", 1, "TCP"), EndpointPort("q", 2, "TCP")


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        pytest.param(
            [Subset((A, B), (C,), (P, Q))],
            [Subset((B, A), (C,), (Q, P))],
            True,
            id="addresses and ports in another order",
        ),
        pytest.param(
            [Subset((A,), (), (P,)), Subset((B,), (), (Q,))],
            [Subset((B,), (), (Q,)), Subset((A,), (), (P,))],
            True,
            id="subsets in another order",
        ),
        pytest.param(
            [Subset((A, NOBODY), (), (P,))],
            [Subset((NOBODY, A), (), (P,))],
            True,
            id="an address that belongs to no object, in another place",
        ),
        pytest.param(
            [Subset((A,), (B,), (P,))],
            [Subset((A, B), (), (P,))],
            False,
            id="ready and not ready differ",
        ),
        pytest.param(
            [Subset((A,), (), (P,))],
            [Subset((structs.replace(A, target_ref=target("a", "v1alpha5")),), (), (P,))],
            False,
            id="the version of a target differs",
        ),
        pytest.param(
            [Subset((A,), (), (P,))],
            [Subset((structs.replace(A, hostname="a"),), (), (P,))],
            False,
            id="a host name that somebody added",
        ),
        pytest.param([Subset((A,), (), (P,))], [], False, id="one is empty"),
        pytest.param(
            [Subset((A,), (), (P,))],
            [Subset((A, A), (), (P,))],
            False,
            id="an address twice",
        ),
    ],
)
def test_the_order_within_endpoints_does_not_count(
    one: list[Subset], other: list[Subset], equal: bool
) -> None:
    first, second = (StoredEndpoints(meta=META, subsets=tuple(s)) for s in (one, other))
    assert same(first, second) is equal
    assert same(second, first) is equal


def test_the_order_of_a_services_ports_counts() -> None:
    ports = StoredPort("a", "TCP", 1, 1), StoredPort("b", "TCP", 2, 2)
    assert not same(replace(SERVICE, ports=ports), replace(SERVICE, ports=ports[::-1]))


def test_the_order_of_labels_does_not_count() -> None:
    one, other = (
        replace(META, labels={"a": "1", "b": "2"}),
        replace(META, labels={"b": "2", "a": "1"}),
    )
    assert same(replace(SERVICE, meta=one), replace(SERVICE, meta=other))


# -- Applying a plan, and planning again --

MARKS = st.dictionaries(
    st.sampled_from(["a", "b", EXTERNAL_TRAFFIC_POLICY, HEALTH_CHECK_NODE_PORT]),
    st.sampled_from(["x", "Local"]),
)
NAMES = st.sampled_from(["", "http", "https"])
OURS = OwnerReference(NEWEST_API_VERSION, "VirtualMachineService", "web", "uid-web", True, True)
OWNERS = st.sampled_from(
    [
        (),
        (OURS,),
        (OURS._replace(controller=False),),
        (OURS._replace(uid="former"),),
        (
            OwnerReference("apps/v1", "Deployment", "d", "uid-d", True),
            OURS._replace(controller=False),
        ),
        (OwnerReference("v1", "ConfigMap", "c", "uid-c"),),
    ]
)
METAS = st.builds(
    ObjectMeta,
    key=st.just(WEB),
    uid=st.just("uid-stored"),
    resource_version=st.sampled_from(["", "7"]),
    labels=MARKS,
    annotations=MARKS,
    owner_references=OWNERS,
)
TEXTS = st.sampled_from(["", "x"])
FAMILIES = st.sampled_from([(), ("IPv4",), ("IPv6",), ("IPv4", "IPv6"), ("IPv6", "IPv4")])
POLICIES = st.sampled_from([None, *IPFamilyPolicy])
STORED_SERVICES = st.builds(
    StoredService,
    meta=METAS,
    type=st.sampled_from(["", "ClusterIP", "LoadBalancer", "NodePort", "ExternalName"]),
    selector=st.sampled_from([{}, {"app": "pods"}]),
    ports=st.lists(
        st.builds(
            StoredPort,
            NAMES,
            st.just("TCP"),
            st.integers(1, 3),
            st.sampled_from([1, "named"]),
            st.sampled_from([0, 30000]),
            TEXTS,
        ),
        max_size=2,
    ).map(tuple),
    cluster_ip=TEXTS,
    ip_families=FAMILIES,
    ip_family_policy=POLICIES.map(lambda policy: policy.value if policy else ""),
    load_balancer_ip=TEXTS,
    load_balancer_class=TEXTS,
    allocate_load_balancer_node_ports=st.sampled_from([None, True, False]),
    external_traffic_policy=st.sampled_from(["", "Local", "Cluster"]),
    external_name=TEXTS,
    health_check_node_port=st.sampled_from([0, 30001]),
)
ADDRESSES = st.builds(
    StoredAddress, st.sampled_from(["10.0.0.1", "10.0.0.2"]), st.sampled_from([None, target("a")])
)
SUBSETS = st.builds(
    Subset,
    st.lists(ADDRESSES, max_size=2).map(tuple),
    st.lists(ADDRESSES, max_size=2).map(tuple),
    st.lists(st.sampled_from([P, Q]), max_size=2).map(tuple),
)
OBSERVED = st.builds(
    HeldObjects,
    service=st.none() | STORED_SERVICES,
    endpoints=st.none()
    | st.builds(StoredEndpoints, meta=METAS, subsets=st.lists(SUBSETS, max_size=2).map(tuple)),
    slices=st.lists(
        st.builds(
            lambda number, family, meta, endpoints, ports: StoredEndpointSlice(
                meta=replace(meta, key=Key("shop", f"web-{family.lower()}-{number}")),
                address_type=family,
                endpoints=endpoints,
                ports=ports,
            ),
            st.integers(0, 2),
            st.sampled_from(["IPv4", "IPv6"]),
            METAS,
            st.lists(
                st.builds(
                    SliceEndpoint,
                    st.sampled_from([(), ("10.0.0.1",), ("10.0.0.2", "10.0.0.1")]),
                    st.builds(SliceConditions, st.sampled_from([None, True])),
                    target_ref=st.sampled_from([None, target("a")]),
                ),
                max_size=2,
            ).map(tuple),
            st.sampled_from([(), (P,)]),
        ),
        max_size=3,
        unique_by=lambda slice_: slice_.key,
    ).map(lambda held: tuple(sorted(held, key=lambda slice_: slice_.key))),
)
SPECS = st.builds(
    ServiceSpec,
    type=st.sampled_from(ServiceType),
    selector=st.sampled_from([{}, {"app": "web"}]),
    ports=st.lists(
        st.builds(ServicePort, NAMES, st.just("TCP"), st.integers(1, 3), st.integers(1, 3)),
        max_size=2,
        unique_by=lambda port: port.name,
    ).map(tuple),
    cluster_ip=st.sampled_from(["", "None", "10.96.0.1"]),
    load_balancer_ip=TEXTS,
    ip_families=FAMILIES.map(lambda texts: tuple(map(IPFamily, texts))),
    ip_family_policy=POLICIES,
)
ENDPOINT_LISTS = st.lists(
    st.builds(
        Endpoint,
        st.sampled_from(["10.0.0.1", "10.0.0.2", "2001:db8::1"]),
        st.sampled_from(["uid-a", "uid-b"]),
        st.booleans(),
        st.sampled_from(["a", "b"]),
        st.just(""),
    ),
    max_size=4,
).map(lambda endpoints: assembled([tuple(endpoints)]))
VMSERVICES = st.builds(
    lambda labels, annotations, finalizers, deleting, ingress, conditions: VirtualMachineService(
        meta=ObjectMeta(
            key=WEB,
            uid="uid-web",
            labels=labels,
            annotations=annotations,
            finalizers=finalizers,
            deleting=deleting,
        ),
        spec=spec(),
        ingress=ingress,
        conditions=conditions,
    ),
    MARKS,
    MARKS,
    st.lists(st.sampled_from([FINALIZER, FORMER_FINALIZER, "a/b"]), unique=True).map(tuple),
    st.booleans(),
    st.sampled_from([(), (Ingress("192.0.2.1", ""),)]),
    st.lists(
        st.builds(
            Condition,
            type=st.sampled_from(["Ready", ACCEPTED, SERVICE_READY]),
            status=st.sampled_from(["True", "False"]),
        ),
        unique_by=lambda condition: condition.type,
    ).map(tuple),
)


RULES = st.builds(
    Rules,
    load_balancer_provider=st.sampled_from(["", NSX_T_LB]),
    direct_slices=st.booleans(),
    vmservices_held=st.booleans(),
)


def applied(changes: tuple[Change, ...], observed: HeldObjects) -> HeldObjects:
    """What is held once the changes are made, as a store gives uids."""
    held: dict[tuple[Kind, Key], Any] = {
        (one.kind, one.key): one
        for one in (
            observed.vmservice,
            observed.service,
            observed.endpoints,
            *observed.slices,
        )
        if one is not None
    }
    for change in changes:
        assert held.pop((change.kind, change.key), None) == change.before
        after = change.after
        if after is not None:
            meta = replace(after.meta, uid=after.meta.uid or "uid-given")
            held[change.kind, change.key] = replace(after, meta=meta)
    of_kind = [held[at] for at in sorted(held, key=str) if at[0] is Kind.ENDPOINT_SLICE]
    return HeldObjects(
        vmservice=held.get((Kind.VIRTUAL_MACHINE_SERVICE, WEB)),
        service=held.get((Kind.SERVICE, WEB)),
        endpoints=held.get((Kind.ENDPOINTS, WEB)),
        slices=tuple(of_kind),
    )


@given(
    VMSERVICES,
    st.none() | SPECS,
    ENDPOINT_LISTS,
    OBSERVED,
    RULES,
)
def test_applying_a_plan_and_planning_again_yields_nothing(
    by: VirtualMachineService,
    given_spec: ServiceSpec | None,
    endpoints: tuple[Endpoint, ...],
    observed: HeldObjects,
    rules: Rules,
) -> None:
    observed = replace(observed, vmservice=by)

    def wanted(held: HeldObjects) -> HeldObjects:
        return desired(held, given_spec, endpoints, rules, now="now").objects

    held = applied(plan(wanted(observed), observed), observed)
    assert described(plan(wanted(held), held)) == []


def test_a_manifest_that_was_cut_short_anywhere_is_put_right() -> None:
    """Whatever is left of it, as long as it is an object of that name."""
    ready = Endpoint("10.0.0.1", "uid-a", True, "a", "")
    right = desired(HeldObjects(vmservice=service()), spec(), (ready,), Rules()).objects
    put_right = 0
    for child in (right.service, right.endpoints):
        assert child is not None
        text = yaml_document(manifest(child))
        for end in range(len(text)):
            match read(child.kind, text[:end]):
                case StoredService() as cut:
                    observed = replace(right, service=cut)
                case StoredEndpoints() as cut:
                    observed = replace(right, endpoints=cut)
                case _:
                    continue
            if cut.key == WEB:
                wanted = desired(observed, spec(), (ready,), Rules()).objects
                made = applied(plan(wanted, observed), observed)
                assert text in [yaml_document(manifest(m)) for m in children(made)]
                put_right += 1
    assert put_right > 100


def children(held: HeldObjects) -> list[Child]:
    return [child for child in (held.service, held.endpoints) if child is not None]


def read(kind: Kind, text: str) -> object:
    """The object in a text; None if there is none that can be read."""
    try:
        return parse(kind, yaml.safe_load(text))
    except (yaml.YAMLError, ParseError):
        return None


@given(OBSERVED)
def test_cleaning_up_and_cleaning_up_again_yields_nothing(observed: HeldObjects) -> None:
    held = applied(plan(desired(observed, None, (), Rules()).objects, observed), observed)
    assert described(plan(desired(held, None, (), Rules()).objects, held)) == []


@given(SPECS, ENDPOINT_LISTS, OBSERVED)
def test_what_another_controls_is_never_written(
    given_spec: ServiceSpec, endpoints: tuple[Endpoint, ...], observed: HeldObjects
) -> None:
    """But for slices: those observed say that they are managed by us."""
    observed = replace(observed, slices=(), vmservice=service())
    for change in plan(desired(observed, given_spec, endpoints, Rules()).objects, observed):
        owner = change.before.meta.controller if change.before else None
        assert owner is None or owner.kind == "VirtualMachineService"
