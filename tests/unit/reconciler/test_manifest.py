"""Objects as manifests: what is written is what is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.objects import WEB, service
from vmsvc_grpc.model.objects import (
    NEWEST_API_VERSION,
    Condition,
    EndpointPort,
    Ingress,
    ObjectMeta,
    OwnerReference,
    SliceConditions,
    SliceEndpoint,
    StoredAddress,
    StoredEndpoints,
    StoredEndpointSlice,
    StoredPort,
    StoredService,
    Subset,
    TargetRef,
)
from vmsvc_grpc.model.parse import parse
from vmsvc_grpc.reconciler.held import Held
from vmsvc_grpc.reconciler.manifest import manifest, yaml_document

OURS = OwnerReference(NEWEST_API_VERSION, "VirtualMachineService", "web", "uid-web", True, True)
META = ObjectMeta(
    key=WEB,
    uid="",
    labels={"team": "blue", "app": "web"},
    annotations={"note": "a: b # c"},
    owner_references=(OURS,),
)
SERVICE = StoredService(
    meta=META,
    type="LoadBalancer",
    ports=(StoredPort("http", "TCP", 80, 9376),),
    cluster_ip="10.96.0.1",
    load_balancer_source_ranges=("192.0.2.0/24", "2001:db8::/32"),
    allocate_load_balancer_node_ports=False,
    external_traffic_policy="Cluster",
)
VM_A = TargetRef(
    NEWEST_API_VERSION, "VirtualMachine", "shop", "a", "0758ec89-6b0f-4e5d-8d48-051e5721b694"
)
ENDPOINTS = StoredEndpoints(
    meta=META,
    subsets=(
        Subset(
            (StoredAddress("10.0.0.1", VM_A), StoredAddress("2001:db8::1", VM_A)),
            (StoredAddress("10.0.0.2", None),),
            (EndpointPort("http", 9376, "TCP"),),
        ),
    ),
)
METADATA_YAML = """\
metadata:
  name: web
  namespace: shop
  labels:
    app: web
    team: blue
  annotations:
    note: "a: b # c"
  ownerReferences:
  - apiVersion: vmoperator.vmware.com/v1alpha6
    kind: VirtualMachineService
    name: web
    uid: uid-web
    controller: true
    blockOwnerDeletion: true
"""


def text(held: Held) -> str:
    return yaml_document(manifest(held))


def test_a_service_reads_well() -> None:
    assert text(SERVICE) == (
        f"""\
apiVersion: v1
kind: Service
{METADATA_YAML}\
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.1
  loadBalancerSourceRanges:
  - "192.0.2.0/24"
  - "2001:db8::/32"
  allocateLoadBalancerNodePorts: false
  externalTrafficPolicy: Cluster
  ports:
  - name: http
    protocol: TCP
    port: 80
    targetPort: 9376
"""
    )


def test_endpoints_read_well() -> None:
    target = """\
    targetRef:
      apiVersion: vmoperator.vmware.com/v1alpha6
      kind: VirtualMachine
      namespace: shop
      name: a
      uid: 0758ec89-6b0f-4e5d-8d48-051e5721b694
"""
    assert text(ENDPOINTS) == (
        f"""\
apiVersion: v1
kind: Endpoints
{METADATA_YAML}\
subsets:
- addresses:
  - ip: 10.0.0.1
{target}\
  - ip: "2001:db8::1"
{target}\
  notReadyAddresses:
  - ip: 10.0.0.2
  ports:
  - name: http
    port: 9376
    protocol: TCP
"""
    )


def test_endpoints_without_address_say_so() -> None:
    assert text(StoredEndpoints(meta=META)).endswith("\nsubsets: []\n")


def test_what_only_an_api_server_gives_is_left_out() -> None:
    live = replace(META, uid="uid", resource_version="7", generation=3)
    assert manifest(replace(SERVICE, meta=live)) == manifest(SERVICE)


# -- What is written is what is read --

TEXTS = st.text(min_size=1, max_size=8) | st.sampled_from(["true", "012", "1e3", "~", "a: b", "-"])
PAIRS = st.dictionaries(TEXTS, st.text(max_size=8), max_size=3)
METAS = st.builds(
    ObjectMeta,
    key=st.just(WEB),
    uid=st.just(""),
    labels=PAIRS,
    annotations=PAIRS,
    finalizers=st.lists(TEXTS, max_size=2).map(tuple),
    owner_references=st.lists(
        st.builds(OwnerReference, TEXTS, TEXTS, TEXTS, TEXTS, st.booleans(), st.booleans()),
        max_size=2,
    ).map(tuple),
)
OPTIONAL = st.just("") | TEXTS
TEXT_LISTS = st.lists(TEXTS, max_size=2).map(tuple)
PORTS = st.integers(1, 65535)
SERVICES = st.builds(
    StoredService,
    meta=METAS,
    type=OPTIONAL,
    selector=PAIRS,
    ports=st.lists(
        st.builds(StoredPort, OPTIONAL, TEXTS, PORTS, PORTS | TEXTS, st.just(0) | PORTS, OPTIONAL),
        max_size=2,
    ).map(tuple),
    cluster_ip=OPTIONAL,
    cluster_ips=TEXT_LISTS,
    ip_families=TEXT_LISTS,
    ip_family_policy=OPTIONAL,
    load_balancer_ip=OPTIONAL,
    load_balancer_source_ranges=TEXT_LISTS,
    load_balancer_class=OPTIONAL,
    allocate_load_balancer_node_ports=st.sampled_from([None, True, False]),
    external_traffic_policy=OPTIONAL,
    external_name=OPTIONAL,
    health_check_node_port=st.just(0) | PORTS,
    ingress=st.lists(st.builds(Ingress, OPTIONAL, OPTIONAL), max_size=2).map(tuple),
    ready=st.none()
    | st.builds(
        Condition,
        type=st.just("Ready"),
        status=TEXTS,
        reason=OPTIONAL,
        message=OPTIONAL,
        last_transition_time=OPTIONAL,
        observed_generation=st.just(0) | PORTS,
    ),
)
ADDRESSES = st.lists(
    st.builds(
        StoredAddress,
        TEXTS,
        st.none() | st.builds(TargetRef, OPTIONAL, TEXTS, OPTIONAL, OPTIONAL, OPTIONAL),
        OPTIONAL,
        OPTIONAL,
    ),
    max_size=2,
).map(tuple)
ENDPOINTS_OBJECTS = st.builds(
    StoredEndpoints,
    meta=METAS,
    subsets=st.lists(
        st.builds(
            Subset,
            ADDRESSES,
            ADDRESSES,
            st.lists(st.builds(EndpointPort, OPTIONAL, PORTS, TEXTS, OPTIONAL), max_size=2).map(
                tuple
            ),
        ),
        max_size=2,
    ).map(tuple),
)


FLAGS = st.sampled_from([None, True, False])
SLICES = st.builds(
    StoredEndpointSlice,
    meta=METAS,
    address_type=TEXTS,
    endpoints=st.lists(
        st.builds(
            SliceEndpoint,
            st.lists(TEXTS, max_size=2).map(tuple),
            st.builds(SliceConditions, FLAGS, FLAGS, FLAGS),
            OPTIONAL,
            OPTIONAL,
            OPTIONAL,
            st.none() | st.builds(TargetRef, OPTIONAL, TEXTS, OPTIONAL, OPTIONAL, OPTIONAL),
        ),
        max_size=2,
    ).map(tuple),
    ports=st.lists(st.builds(EndpointPort, OPTIONAL, PORTS, TEXTS, OPTIONAL), max_size=2).map(
        tuple
    ),
)


@given(SERVICES | ENDPOINTS_OBJECTS | SLICES)
def test_what_is_parsed_of_a_manifest_is_what_it_was_made_of(
    held: StoredService | StoredEndpoints | StoredEndpointSlice,
) -> None:
    read = parse(held.kind, yaml.safe_load(text(held)))
    assert isinstance(read, type(held))
    assert replace(read, meta=replace(read.meta, uid="")) == held


def test_of_a_vmservice_only_what_is_written_is_said() -> None:
    condition = Condition(type="T", status="True", reason="R", last_transition_time="then")
    told = replace(
        service(), ingress=(Ingress("192.0.2.1", ""), Ingress("", "a.b")), conditions=(condition,)
    )
    assert manifest(told) == {
        "apiVersion": NEWEST_API_VERSION,
        "kind": "VirtualMachineService",
        "metadata": {"name": "web", "namespace": "shop"},
        "status": {
            "loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "a.b"}]},
            "conditions": [
                {
                    "type": "T",
                    "status": "True",
                    "reason": "R",
                    "message": "",
                    "lastTransitionTime": "then",
                }
            ],
        },
    }
    assert "status" not in manifest(service())


VALUES: Any = st.recursive(
    st.text() | st.integers() | st.booleans(),
    lambda inner: (
        st.lists(st.text() | st.dictionaries(st.text(), inner), max_size=3)
        | st.dictionaries(st.text(), inner, max_size=3)
    ),
)


@given(st.dictionaries(st.text(), VALUES, min_size=1))
def test_yaml_is_what_a_parser_reads(mapping: dict[str, Any]) -> None:
    assert yaml.safe_load(yaml_document(mapping)) == mapping


AWKWARD = [
    *["yes", "No", "NULL", "On", "y", "n", "~", ".inf", ".nan", "=", "<<", "?", ":", "-"],
    *["&a", "*a", "!a", "%a", "@a", "`a", "{a}", "[a]", "'a'", '"a"', "é", "a\\b", "#"],
    *["1", "1.5", "1e3", "0x1f", "0o7", "1_000", "12:30:45", "2026-01-01", "123e4567"],
    *["2001:db8::1", "10.0.0.1", "", " a", "a ", "- a", "a: b", "a #b", "a\nb", "a\tb"],
    *["a\x85b", "\x7f", "\u2028", "\ufeffa", "\U0001f600"],
]


@pytest.mark.parametrize("awkward", AWKWARD)
def test_a_text_stays_a_text(awkward: str) -> None:
    assert yaml.safe_load(yaml_document({awkward: [awkward]})) == {awkward: [awkward]}
