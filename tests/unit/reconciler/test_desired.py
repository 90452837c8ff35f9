"""What Service and Endpoints should be, rule by rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.objects import HTTP, WEB, service, spec
from vmsvc_grpc.model.endpoints import Endpoint
from vmsvc_grpc.model.objects import (
    NEWEST_API_VERSION,
    Condition,
    EndpointPort,
    Ingress,
    IPFamily,
    IPFamilyPolicy,
    Key,
    ObjectMeta,
    OwnerReference,
    ServicePort,
    ServiceSpec,
    ServiceType,
    StoredAddress,
    StoredEndpoints,
    StoredPort,
    StoredService,
    Subset,
    TargetRef,
    VirtualMachineService,
)
from vmsvc_grpc.reconciler.copying import Copying
from vmsvc_grpc.reconciler.desired import Desired, desired
from vmsvc_grpc.reconciler.held import Child, HeldObjects
from vmsvc_grpc.reconciler.rules import NSX_T_LB, Rules
from vmsvc_grpc.reconciler.service import EXTERNAL_TRAFFIC_POLICY, HEALTH_CHECK_NODE_PORT

OURS = OwnerReference(NEWEST_API_VERSION, "VirtualMachineService", "web", "uid-web", True, True)
FORMER = OURS._replace(uid="uid-of-a-former-one")
DEPLOYMENT = OwnerReference("apps/v1", "Deployment", "someone", "uid-someone", True, True)
HTTPS = ServicePort("https", "TCP", 443, 8443)
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
CONVERSION = "vmoperator.vmware.com/conversion"
PROXY_NAME = "service.kubernetes.io/service-proxy-name"
NCP_HEALTH_CHECK = "ncp/healthCheckNodePort"
NSX_HOSTNAME = "nsx.vmware.com/hostname"
READY = Endpoint("10.0.0.1", "uid-a", True, "a", "")
NOT_READY = Endpoint("10.0.0.2", "uid-b", False, "b", "")


def balanced(**fields: Any) -> ServiceSpec:
    return spec(type=ServiceType.LOAD_BALANCER, **fields)


def marked(
    labels: Mapping[str, str] | None = None, annotations: Mapping[str, str] | None = None
) -> VirtualMachineService:
    plain = service()
    return replace(
        plain, meta=replace(plain.meta, labels=labels or {}, annotations=annotations or {})
    )


def meta(*owners: OwnerReference, **fields: Any) -> ObjectMeta:
    return ObjectMeta(key=WEB, uid="uid-stored", owner_references=owners, **fields)


def stored_service(
    *owners: OwnerReference,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    **fields: Any,
) -> StoredService:
    given = meta(*owners, labels=labels or {}, annotations=annotations or {})
    return StoredService(meta=given, **{"type": "ClusterIP", **fields})


def stored_endpoints(*owners: OwnerReference, **fields: Any) -> StoredEndpoints:
    return StoredEndpoints(meta=meta(*owners), **fields)


def wanted(
    given: ServiceSpec | None = None,
    *endpoints: Endpoint,
    by: VirtualMachineService | None = None,
    held: HeldObjects | None = None,
    provider: str = "",
    copying: Copying | None = None,
) -> Desired:
    return desired(
        replace(held or HeldObjects(), vmservice=by or service()),
        given or spec(),
        endpoints,
        Rules(load_balancer_provider=provider, copying=copying or Copying()),
    )


def service_of(result: Desired) -> StoredService:
    assert not result.failures
    assert result.objects.service is not None
    return result.objects.service


def endpoints_of(result: Desired) -> StoredEndpoints:
    assert not result.failures
    assert result.objects.endpoints is not None
    return result.objects.endpoints


# -- A new Service --


def test_a_new_service_holds_what_the_vmservice_says_and_no_selector() -> None:
    assert service_of(wanted(spec(ports=(HTTP, HTTPS)))) == StoredService(
        meta=ObjectMeta(key=WEB, uid="", owner_references=(OURS,)),
        type="ClusterIP",
        ports=(
            StoredPort("http", "TCP", 80, 9376),
            StoredPort("https", "TCP", 443, 8443),
        ),
    )


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        pytest.param(
            spec(cluster_ip="10.96.0.9"), {"cluster_ip": "10.96.0.9"}, id="an address asked for"
        ),
        pytest.param(spec(cluster_ip="None", ports=()), {"cluster_ip": "None"}, id="headless"),
        pytest.param(
            balanced(load_balancer_ip="192.0.2.4", load_balancer_source_ranges=("192.0.2.0/24",)),
            {
                "type": "LoadBalancer",
                "load_balancer_ip": "192.0.2.4",
                "load_balancer_source_ranges": ("192.0.2.0/24",),
                "allocate_load_balancer_node_ports": False,
                "external_traffic_policy": "Cluster",
            },
            id="a load balancer allocates no node ports and has a traffic policy",
        ),
        pytest.param(
            spec(
                ip_families=(IPFamily.IPV6, IPFamily.IPV4),
                ip_family_policy=IPFamilyPolicy.REQUIRE_DUAL_STACK,
            ),
            {"ip_families": ("IPv6", "IPv4"), "ip_family_policy": "RequireDualStack"},
            id="families and their policy are copied where they are set",
        ),
        pytest.param(
            spec(), {"ip_families": (), "ip_family_policy": ""}, id="and else left to the server"
        ),
    ],
)
def test_fields_of_a_new_service(given: ServiceSpec, fields: dict[str, Any]) -> None:
    got = service_of(wanted(given))
    assert {name: getattr(got, name) for name in fields} == fields


# -- A stored Service --


@pytest.mark.parametrize(
    ("given", "held", "fields"),
    [
        pytest.param(
            spec(),
            {"selector": {"app": "pods"}},
            {"selector": {}},
            id="a selector that somebody put on ours is taken off",
        ),
        pytest.param(
            spec(),
            {"ports": (StoredPort("x", "UDP", 1, "named", 0, "h2c"),)},
            {"ports": (StoredPort("http", "TCP", 80, 9376),)},
            id="ports are replaced",
        ),
        pytest.param(
            balanced(ports=(HTTPS, HTTP)),
            {"ports": (StoredPort("http", "TCP", 8080, 80, 30080), StoredPort("x", "TCP", 2, 2))},
            {
                "ports": (
                    StoredPort("https", "TCP", 443, 8443),
                    StoredPort("http", "TCP", 80, 9376, 30080),
                )
            },
            id="a node port stays with the port of its name",
        ),
        pytest.param(
            spec(),
            {"type": "LoadBalancer", "ports": (StoredPort("http", "TCP", 80, 9376, 30080),)},
            {"ports": (StoredPort("http", "TCP", 80, 9376),)},
            id="a cluster IP has no node ports",
        ),
        pytest.param(
            spec(cluster_ip="10.96.0.2"),
            {"cluster_ip": "10.96.0.1", "cluster_ips": ("10.96.0.1",)},
            {"cluster_ip": "10.96.0.1", "cluster_ips": ("10.96.0.1",)},
            id="a later change of the cluster address is ignored",
        ),
        pytest.param(
            spec(cluster_ip="10.96.0.2"),
            {},
            {"cluster_ip": ""},
            id="a cluster address that comes later is ignored too",
        ),
        pytest.param(
            balanced(),
            {"load_balancer_ip": "192.0.2.4", "load_balancer_source_ranges": ("192.0.2.0/24",)},
            {"load_balancer_ip": "", "load_balancer_source_ranges": ()},
            id="address and ranges of a load balancer are cleared with those of the VMService",
        ),
        pytest.param(
            spec(),
            {
                "type": "LoadBalancer",
                "cluster_ip": "10.96.0.1",
                "load_balancer_ip": "192.0.2.4",
                "load_balancer_source_ranges": ("192.0.2.0/24",),
                "load_balancer_class": "example.com/lb",
                "allocate_load_balancer_node_ports": False,
                "external_traffic_policy": "Local",
                "health_check_node_port": 30012,
                "ingress": (Ingress("192.0.2.4", ""),),
            },
            {
                "type": "ClusterIP",
                "cluster_ip": "10.96.0.1",
                "load_balancer_ip": "",
                "load_balancer_source_ranges": (),
                "load_balancer_class": "",
                "allocate_load_balancer_node_ports": None,
                "external_traffic_policy": "",
                "health_check_node_port": 0,
                "ingress": (),
            },
            id="from load balancer to cluster IP all that belongs to the former goes",
        ),
        pytest.param(
            balanced(),
            {"cluster_ip": "10.96.0.1"},
            {
                "type": "LoadBalancer",
                "cluster_ip": "10.96.0.1",
                "allocate_load_balancer_node_ports": False,
                "external_traffic_policy": "Cluster",
            },
            id="from cluster IP to load balancer the cluster address stays",
        ),
        pytest.param(
            balanced(),
            {
                "type": "LoadBalancer",
                "load_balancer_class": "example.com/lb",
                "ingress": (Ingress("192.0.2.4", ""),),
                "ready": Condition(type="Ready", status="True"),
            },
            {
                "load_balancer_class": "example.com/lb",
                "ingress": (Ingress("192.0.2.4", ""),),
                "ready": Condition(type="Ready", status="True"),
            },
            id="class and status of a load balancer are others' and stay",
        ),
        pytest.param(
            spec(),
            {"type": "ExternalName", "external_name": "example.com"},
            {"type": "ClusterIP", "external_name": ""},
            id="an external name goes",
        ),
        pytest.param(
            spec(),
            {"external_traffic_policy": "Cluster"},
            {"external_traffic_policy": "Cluster"},
            id="the policy that a cluster IP with external addresses is given stays",
        ),
        pytest.param(
            spec(),
            {"ip_families": ("IPv4", "IPv6"), "ip_family_policy": "PreferDualStack"},
            {"ip_families": ("IPv4", "IPv6"), "ip_family_policy": "PreferDualStack"},
            id="families that the server chose stay",
        ),
        pytest.param(
            spec(ip_families=(IPFamily.IPV4,), ip_family_policy=IPFamilyPolicy.PREFER_DUAL_STACK),
            {"ip_families": ("IPv4", "IPv6"), "ip_family_policy": "PreferDualStack"},
            {"ip_families": ("IPv4", "IPv6")},
            id="the second family that the server added to the one asked for stays",
        ),
        pytest.param(
            spec(ip_families=(IPFamily.IPV4,)),
            {"ip_families": ("IPv4", "IPv6")},
            {"ip_families": ("IPv4",)},
            id="without a policy, families are those asked for",
        ),
        pytest.param(
            spec(ip_families=(IPFamily.IPV6,), ip_family_policy=IPFamilyPolicy.PREFER_DUAL_STACK),
            {"ip_families": ("IPv4", "IPv6"), "ip_family_policy": "PreferDualStack"},
            {"ip_families": ("IPv6",)},
            id="another first family is asked for, whatever the server says to it",
        ),
        pytest.param(
            spec(ip_family_policy=IPFamilyPolicy.SINGLE_STACK),
            {"ip_families": ("IPv4", "IPv6"), "ip_family_policy": "RequireDualStack"},
            {"ip_families": ("IPv4",), "ip_family_policy": "SingleStack"},
            id="single stack leaves the first family",
        ),
    ],
)
def test_a_stored_service_is_brought_in_line(
    given: ServiceSpec, held: dict[str, Any], fields: dict[str, Any]
) -> None:
    got = service_of(wanted(given, held=HeldObjects(service=stored_service(OURS, **held))))
    assert {name: getattr(got, name) for name in fields} == fields


IPV4, IPV6 = IPFamily
PREFER = IPFamilyPolicy.PREFER_DUAL_STACK


@pytest.mark.parametrize(
    ("given", "stored", "cluster", "expected"),
    [
        pytest.param(
            spec(ip_families=(IPV6,), ip_family_policy=PREFER),
            "",
            (IPV4, IPV6),
            (IPV6, IPV4),
            id="by policy",
        ),
        pytest.param(
            spec(ip_families=(IPV6,), ip_family_policy=PREFER),
            "",
            (IPV6,),
            (IPV6,),
            id="of one family",
        ),
        pytest.param(
            spec(ip_families=(IPV6,)), "", (IPV4, IPV6), (IPV6,), id="without a policy, none"
        ),
        pytest.param(
            spec(ip_families=(IPV4,), cluster_ip="None"),
            "None",
            (IPV4,),
            (IPV4, IPV6),
            id="headless",
        ),
        pytest.param(
            spec(ip_families=(IPV4,), cluster_ip="None"),
            "10.96.0.9",
            (IPV4,),
            (IPV4,),
            id="too late",
        ),
        pytest.param(spec(ip_family_policy=PREFER), "", (IPV4, IPV6), (), id="none are asked for"),
    ],
)
def test_without_api_server_we_complete_the_families_asked_for(
    given: ServiceSpec,
    stored: str,
    cluster: tuple[IPFamily, ...],
    expected: tuple[IPFamily, ...],
) -> None:
    observed = HeldObjects(vmservice=service(), service=stored_service(OURS, cluster_ip=stored))
    got = desired(observed, given, (), Rules(cluster_families=cluster))
    assert service_of(got).ip_families == tuple(family.value for family in expected)


def test_a_service_keeps_its_identity_and_the_owners_that_others_gave_it() -> None:
    other = OwnerReference("v1", "ConfigMap", "note", "uid-note")
    old = OURS._replace(api_version="vmoperator.vmware.com/v1alpha2", block_owner_deletion=False)
    held = stored_service()
    held = replace(
        held,
        meta=replace(
            held.meta,
            resource_version="7",
            generation=3,
            finalizers=("service.kubernetes.io/load-balancer-cleanup",),
            owner_references=(old, other),
        ),
    )
    got = service_of(wanted(held=HeldObjects(service=held)))
    assert got.meta == replace(held.meta, owner_references=(OURS, other))


@pytest.mark.parametrize(
    "owners",
    [
        pytest.param((OURS,), id="ours"),
        pytest.param((OURS, OURS), id="ours twice"),
        pytest.param((OURS._replace(controller=False),), id="ours, not controlling"),
        pytest.param(
            (OURS._replace(uid="uid-w", controller=False),), id="ours, with half of its uid"
        ),
        pytest.param((OwnerReference("vmoperator", "", "", ""),), id="what refers to nothing"),
        pytest.param((), id="none"),
    ],
)
def test_there_is_one_reference_to_the_vmservice(owners: tuple[OwnerReference, ...]) -> None:
    held = HeldObjects(service=stored_service(*owners), endpoints=stored_endpoints(*owners))
    got = wanted(held=held)
    assert service_of(got).meta.owner_references == (OURS,)
    assert endpoints_of(got).meta.owner_references == (OURS,)


V6, V5 = NEWEST_API_VERSION, "vmoperator.vmware.com/v1alpha5"


@pytest.mark.parametrize(
    ("stored", "served", "written"),
    [
        pytest.param(None, V6, V6, id="the newest"),
        pytest.param(None, V5, V5, id="the newest that is served there"),
        pytest.param(V5, V6, V6, id="not an older one that is there"),
        pytest.param(
            "vmoperator.vmware.com/v1alpha10",
            V6,
            "vmoperator.vmware.com/v1alpha10",
            id="one that only a newer VM Operator knows",
        ),
        pytest.param(
            "vmoperator.vmware.com/v1beta1", V6, "vmoperator.vmware.com/v1beta1", id="a beta"
        ),
        pytest.param("vmoperator.vmware.com/v1", V6, "vmoperator.vmware.com/v1", id="a stable one"),
        pytest.param("vmoperator.vmware.com/new", V6, V6, id="no version"),
        pytest.param(
            "vmoperator.vmware.com/v" + "9" * 5_000, V6, V6, id="5,000 digits are no version"
        ),
    ],
)
def test_references_are_by_the_newest_version(
    stored: str | None, served: str, written: str
) -> None:
    owners = (OURS._replace(api_version=stored),) if stored else ()
    held = HeldObjects(service=stored_service(*owners), endpoints=stored_endpoints(*owners))
    got = desired(
        replace(held, vmservice=replace(service(), api_version=served)),
        spec(),
        (READY,),
        Rules(direct_slices=True, vmservices_held=True),
    )
    endpoints = got.objects.endpoints
    assert endpoints is not None
    assert service_of(got).meta.owner_references == (OURS._replace(api_version=written),)
    assert endpoints.meta.owner_references == (OURS._replace(api_version=written),)
    targets = [address.target_ref for subset in endpoints.subsets for address in subset.addresses]
    targets += [endpoint.target_ref for s in got.objects.slices for endpoint in s.endpoints]
    assert [target and target.api_version for target in targets] == [written] * 2


# -- Traffic policy and the marks of a provider --


@pytest.mark.parametrize(
    ("given", "annotation", "policy"),
    [
        pytest.param(balanced(), "Local", "Local", id="Local by annotation"),
        pytest.param(balanced(), "Cluster", "Cluster", id="Cluster by annotation"),
        pytest.param(balanced(), "local", "Cluster", id="other values mean Cluster"),
        pytest.param(spec(), "Local", "", id="a cluster IP has none, whatever the annotation"),
    ],
)
def test_external_traffic_policy(given: ServiceSpec, annotation: str, policy: str) -> None:
    by = marked(annotations={EXTERNAL_TRAFFIC_POLICY: annotation})
    assert service_of(wanted(given, by=by)).external_traffic_policy == policy


def test_the_health_check_port_stays_only_while_the_policy_is_local() -> None:
    held = HeldObjects(
        service=stored_service(OURS, type="LoadBalancer", health_check_node_port=30012)
    )
    local = marked(annotations={EXTERNAL_TRAFFIC_POLICY: "Local"})
    assert service_of(wanted(balanced(), by=local, held=held)).health_check_node_port == 30012
    assert service_of(wanted(balanced(), held=held)).health_check_node_port == 0


LOCAL = {EXTERNAL_TRAFFIC_POLICY: "Local"}
CHECKED = {HEALTH_CHECK_NODE_PORT: "30012"}


@pytest.mark.parametrize(
    ("given", "annotations", "held", "marks"),
    [
        pytest.param(
            balanced(),
            LOCAL,
            ({}, {}),
            ({PROXY_NAME: "nsx-t"}, LOCAL),
            id="a local load balancer is NSX's own to proxy",
        ),
        pytest.param(
            balanced(),
            {},
            ({PROXY_NAME: "nsx-t", "theirs": "x"}, {}),
            ({"theirs": "x"}, {}),
            id="and no longer when it is not local",
        ),
        pytest.param(
            balanced(),
            CHECKED,
            ({}, {}),
            ({}, {**CHECKED, NCP_HEALTH_CHECK: "30012"}),
            id="the health check port is echoed in NCP's words",
        ),
        pytest.param(
            balanced(),
            {},
            ({}, {**CHECKED, NCP_HEALTH_CHECK: "30012"}),
            ({}, {}),
            id="and leaves with what it echoes",
        ),
        pytest.param(
            balanced(),
            {NCP_HEALTH_CHECK: "30012"},
            ({}, {NCP_HEALTH_CHECK: "30012"}),
            ({}, {}),
            id="even where VM Operator's echo is still on the VMService",
        ),
        pytest.param(
            balanced(),
            {},
            ({}, {NSX_HOSTNAME: "a.example"}),
            ({}, {}),
            id="the host name leaves with that of the VMService",
        ),
        pytest.param(
            balanced(),
            {NSX_HOSTNAME: "b.example"},
            ({}, {NSX_HOSTNAME: "a.example"}),
            ({}, {NSX_HOSTNAME: "b.example"}),
            id="and follows it",
        ),
        pytest.param(
            spec(),
            {**LOCAL, **CHECKED},
            ({}, {}),
            ({}, {**LOCAL, **CHECKED}),
            id="a cluster IP is given no marks",
        ),
    ],
)
def test_nsx_t_lb_marks_the_service(
    given: ServiceSpec,
    annotations: Mapping[str, str],
    held: tuple[Mapping[str, str], Mapping[str, str]],
    marks: tuple[Mapping[str, str], Mapping[str, str]],
) -> None:
    stored = stored_service(OURS, labels=held[0], annotations=held[1])
    got = service_of(
        wanted(
            given,
            by=marked(annotations=annotations),
            held=HeldObjects(service=stored),
            provider=NSX_T_LB,
        )
    )
    assert (got.meta.labels, got.meta.annotations) == marks


def test_without_that_provider_its_marks_are_others_keys() -> None:
    marks = {PROXY_NAME: "x"}, {NCP_HEALTH_CHECK: "1", NSX_HOSTNAME: "a.example"}
    stored = stored_service(OURS, labels=marks[0], annotations=marks[1])
    got = service_of(wanted(balanced(), held=HeldObjects(service=stored)))
    assert (got.meta.labels, got.meta.annotations) == marks


# -- Labels and annotations --


@pytest.mark.parametrize(
    ("held", "given", "result"),
    [
        pytest.param({}, {"team": "blue"}, {"team": "blue"}, id="they are copied"),
        pytest.param(
            {"team": "old", "theirs": "x"},
            {"team": "blue"},
            {"team": "blue", "theirs": "x"},
            id="the VMService's win, and keys of others stay",
        ),
        pytest.param(
            {"once": "ours"}, {}, {"once": "ours"}, id="a key taken off the VMService stays"
        ),
    ],
)
def test_labels_and_annotations_overlay_those_of_the_service(
    held: Mapping[str, str], given: Mapping[str, str], result: Mapping[str, str]
) -> None:
    stored = stored_service(OURS, labels=held, annotations=held)
    got = wanted(by=marked(given, given), held=HeldObjects(service=stored))
    assert service_of(got).meta.labels == result
    assert service_of(got).meta.annotations == result
    assert endpoints_of(got).meta.labels == result
    assert endpoints_of(got).meta.annotations == result


@pytest.mark.parametrize(
    ("held", "given", "result"),
    [
        pytest.param({}, {"deny/a": "x", "b": "x"}, {"b": "x"}, id="never copied"),
        pytest.param(
            {"deny/a": "x"}, {"deny/a": "x"}, {"deny/a": "x"}, id="stays where it was copied before"
        ),
        pytest.param(
            {"deny/a": "old"}, {"deny/a": "new"}, {"deny/a": "old"}, id="and does not follow"
        ),
        pytest.param({"deny/a": "x"}, {}, {"deny/a": "x"}, id="somebody's own stays"),
    ],
)
def test_what_is_denied_is_not_copied_and_not_taken_away(
    held: Mapping[str, str], given: Mapping[str, str], result: Mapping[str, str]
) -> None:
    stored = stored_service(OURS, labels=held, annotations=held)
    copying = Copying(denied_labels=("deny/*",), denied_annotations=("deny/*",))
    got = wanted(by=marked(given, given), held=HeldObjects(service=stored), copying=copying)
    for child in (service_of(got), endpoints_of(got)):
        assert child.meta.labels == result
        assert child.meta.annotations == result


def test_a_field_that_follows_from_an_annotation_follows_from_a_denied_one_too() -> None:
    by = marked(annotations={EXTERNAL_TRAFFIC_POLICY: "Local"})
    copying = Copying(denied_annotations=("virtualmachineservice.vmoperator.vmware.com/*",))
    got = service_of(wanted(balanced(), by=by, copying=copying))
    assert got.external_traffic_policy == "Local"
    assert got.meta.annotations == {}


@pytest.mark.parametrize(
    ("held", "given", "result"),
    [
        pytest.param(
            {EXTERNAL_TRAFFIC_POLICY: "Local", HEALTH_CHECK_NODE_PORT: "1", "keep": "me"},
            {},
            {"keep": "me"},
            id="the managed ones leave with those of the VMService",
        ),
        pytest.param(
            {},
            {LAST_APPLIED: "{}", CONVERSION: "{}", "note": "n"},
            {"note": "n"},
            id="what tells of the VMService itself is not copied",
        ),
        pytest.param(
            {LAST_APPLIED: "of the Service"},
            {LAST_APPLIED: "of the VMService"},
            {LAST_APPLIED: "of the Service"},
            id="the Service's own stays",
        ),
    ],
)
def test_annotations_with_rules_of_their_own(
    held: Mapping[str, str], given: Mapping[str, str], result: Mapping[str, str]
) -> None:
    stored = stored_service(OURS, annotations=held)
    got = service_of(wanted(by=marked(annotations=given), held=HeldObjects(service=stored)))
    assert got.meta.annotations == result


# -- Endpoints --


def address(ip: str, name: str) -> StoredAddress:
    target = TargetRef(NEWEST_API_VERSION, "VirtualMachine", "shop", name, f"uid-{name}")
    return StoredAddress(ip, target)


HTTP_PORT = EndpointPort("http", 9376, "TCP")


@pytest.mark.parametrize(
    ("given", "endpoints", "subsets"),
    [
        pytest.param(spec(), (), (), id="no address gives no subsets"),
        pytest.param(
            spec(),
            (READY, NOT_READY),
            (Subset((address("10.0.0.1", "a"),), (address("10.0.0.2", "b"),), (HTTP_PORT,)),),
            id="ready and not ready stand apart, with the target port",
        ),
        pytest.param(
            spec(ports=(HTTP, HTTPS)),
            (READY,),
            (
                Subset(
                    (address("10.0.0.1", "a"),),
                    (),
                    (HTTP_PORT, EndpointPort("https", 8443, "TCP")),
                ),
            ),
            id="all ports are in one subset",
        ),
        pytest.param(
            spec(cluster_ip="None", ports=()),
            (READY,),
            (Subset((address("10.0.0.1", "a"),), (), ()),),
            id="headless without ports has addresses and no ports",
        ),
        pytest.param(
            spec(),
            (
                READY._replace(address="10.0.0.9", vm_uid="uid-a"),
                NOT_READY._replace(address="10.0.0.9"),
            ),
            (Subset((address("10.0.0.9", "a"),), (address("10.0.0.9", "b"),), (HTTP_PORT,)),),
            id="two VMs with one address are two addresses",
        ),
    ],
)
def test_subsets(
    given: ServiceSpec, endpoints: tuple[Endpoint, ...], subsets: tuple[Subset, ...]
) -> None:
    got = endpoints_of(wanted(given, *endpoints))
    assert got == StoredEndpoints(
        meta=ObjectMeta(key=WEB, uid="", owner_references=(OURS,)), subsets=subsets
    )


def test_labels_that_are_only_on_the_endpoints_go() -> None:
    held = StoredEndpoints(meta=meta(OURS, labels={"x": "y"}, annotations={"x": "y"}))
    got = endpoints_of(wanted(by=marked({"team": "blue"}), held=HeldObjects(endpoints=held)))
    assert got.meta == meta(OURS, labels={"team": "blue"})


@pytest.mark.parametrize(
    "held",
    [
        pytest.param(None, id="there are none"),
        pytest.param(stored_endpoints(), id="they are the user's"),
        pytest.param(stored_endpoints(OURS), id="they are left from a time with a selector"),
        pytest.param(stored_endpoints(DEPLOYMENT), id="they are somebody else's"),
    ],
)
def test_without_selector_endpoints_stay_as_they_are(held: StoredEndpoints | None) -> None:
    got = wanted(spec(selector={}), READY, held=HeldObjects(endpoints=held))
    assert got.objects.endpoints == held
    assert service_of(got).selector == {}


def test_endpoints_without_owner_are_taken_over() -> None:
    got = endpoints_of(wanted(held=HeldObjects(endpoints=stored_endpoints())))
    assert got.meta == meta(OURS)


def test_endpoints_that_another_controls_stay_and_are_reported() -> None:
    held = stored_endpoints(DEPLOYMENT)
    got = wanted(spec(), READY, held=HeldObjects(endpoints=held))
    assert got.objects.endpoints == held
    assert got.objects.service is not None
    (failure,) = got.failures
    assert failure.reason == "EndpointsNotOurs"
    assert "Deployment someone" in failure.message


# -- Whose it is --


@pytest.mark.parametrize(
    "held",
    [
        pytest.param(stored_service(), id="no owner and no selector"),
        pytest.param(
            stored_service(DEPLOYMENT._replace(controller=False)),
            id="an owner that controls nothing",
        ),
        pytest.param(
            stored_service(OURS._replace(controller=False), selector={"app": "x"}),
            id="ours, though not controlling, with a selector",
        ),
    ],
)
def test_a_service_is_adopted(held: StoredService) -> None:
    got = service_of(wanted(held=HeldObjects(service=held)))
    assert got.meta.uid == "uid-stored"
    assert got.meta.controller == OURS
    assert got.selector == {}


@pytest.mark.parametrize(
    ("held", "words"),
    [
        pytest.param(stored_service(DEPLOYMENT), "Deployment someone", id="another controls it"),
        pytest.param(
            stored_service(DEPLOYMENT, OURS._replace(controller=False)),
            "Deployment someone",
            id="another controls it, though we own it",
        ),
        pytest.param(
            stored_service(OURS._replace(name="db", uid="uid-db")),
            "VirtualMachineService db",
            id="the VMService of another name controls it",
        ),
        pytest.param(
            stored_service(selector={"app": "pods"}), "has a selector", id="it serves pods"
        ),
    ],
)
def test_a_service_that_is_not_ours_stays_and_no_endpoints_are_written(
    held: StoredService, words: str
) -> None:
    for endpoints in (None, stored_endpoints(OURS)):
        observed = HeldObjects(vmservice=service(), service=held, endpoints=endpoints)
        got = wanted(spec(), READY, held=observed)
        assert got.objects == observed
        (failure,) = got.failures
        assert failure.reason == "ServiceNotOurs"
        assert words in failure.message
        assert "shop/web" in failure.message


def test_the_api_servers_own_service_is_not_taken_over() -> None:
    """It has neither owner nor selector; who takes it receives what is meant for the API server."""
    key = Key("default", "kubernetes")
    held = StoredService(meta=ObjectMeta(key=key, uid="uid-stored"))
    endpoints = StoredEndpoints(meta=ObjectMeta(key=key, uid="uid-stored"))
    observed = HeldObjects(vmservice=service(key), service=held, endpoints=endpoints)
    got = wanted(spec(), READY, by=service(key), held=observed)
    assert got.objects == observed
    (failure,) = got.failures
    assert failure.reason == "ServiceNotOurs"
    assert "API server" in failure.message


@pytest.mark.parametrize("owner", [OURS, FORMER], ids=["ours", "a former one's"])
def test_what_is_kept_by_finalizers_after_its_deletion_is_reported(owner: OwnerReference) -> None:
    """Nothing is made anew before it is gone, which may be never (point 18)."""
    held = stored_service(owner)
    going = replace(held, meta=replace(held.meta, deleting=True))
    assert wanted(held=HeldObjects(service=going)).failures == ()
    kept = replace(going, meta=replace(going.meta, finalizers=("example.com/hold",)))
    (failure,) = wanted(held=HeldObjects(service=kept)).failures
    assert failure.reason == "ServiceBeingDeleted"
    for word in ("Service shop/web", "metadata.finalizers", "example.com/hold"):
        assert word in failure.message


def test_what_a_former_vmservice_of_the_name_left_is_replaced() -> None:
    held = HeldObjects(
        service=stored_service(
            FORMER, cluster_ip="10.96.0.1", labels={"old": "x"}, selector={"app": "pods"}
        ),
        endpoints=stored_endpoints(FORMER),
    )
    assert wanted(held=held) == wanted()


# -- EndpointSlices --

SKIP = {"endpointslice.kubernetes.io/skip-mirror": "true"}
MARK = {"vmsvc-grpc/endpoint-slices": "direct"}


def direct(
    given: ServiceSpec,
    held: HeldObjects | None = None,
    by: VirtualMachineService | None = None,
    *,
    on: bool = True,
) -> HeldObjects:
    observed = replace(held or HeldObjects(), vmservice=by or service())
    return desired(observed, given, (READY,), Rules(direct_slices=on)).objects


def marks(children: HeldObjects) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Labels and annotations of the Service; those of the Endpoints are the same."""
    stored, endpoints = children.service, children.endpoints
    assert stored is not None
    if endpoints is not None:
        assert endpoints.meta.labels == stored.meta.labels
        assert endpoints.meta.annotations == stored.meta.annotations
    return stored.meta.labels, stored.meta.annotations


def test_direct_slices_hold_the_endpoints_which_are_not_mirrored_then() -> None:
    got = direct(spec())
    assert [e.addresses for s in got.slices for e in s.endpoints] == [("10.0.0.1",)]
    assert [s.meta.owner_references for s in got.slices] == [(OURS,)]
    assert got.endpoints is not None
    assert marks(got) == (SKIP, MARK)


def test_they_are_told_that_the_service_is_headless() -> None:
    (slice_,) = direct(spec(cluster_ip="None")).slices
    assert slice_.meta.labels["service.kubernetes.io/headless"] == ""


def test_there_is_one_for_each_family_of_the_service() -> None:
    held = HeldObjects(service=stored_service(OURS, ip_families=("IPv6", "IPv4")))
    assert [s.address_type for s in direct(spec(), held).slices] == ["IPv4", "IPv6"]


@pytest.mark.parametrize("given", [spec(), spec(selector={})], ids=["selecting", "selectorless"])
def test_they_go_with_their_marks(given: ServiceSpec) -> None:
    """When the option is turned off, and with the selector: the Endpoints are the user's then."""
    held = direct(spec())
    got = direct(given, held, on=not given.selector)
    assert got.slices == ()
    assert (got.service and (got.service.meta.labels, got.service.meta.annotations)) == ({}, {})


def test_they_are_kept_right_without_their_marks_until_kubernetes_has_taken_over() -> None:
    held = direct(spec())
    got = desired(held, spec(), (READY, NOT_READY), Rules(), handed_over=False).objects
    assert [e.addresses for s in got.slices for e in s.endpoints] == [("10.0.0.1",), ("10.0.0.2",)]
    assert marks(got) == ({}, {})
    # Where there are none, none are made.
    held = replace(held, slices=())
    assert desired(held, spec(), (READY,), Rules(), handed_over=False).objects.slices == ()


def test_with_the_selector_gone_they_stay_as_they_were_until_then() -> None:
    held = direct(spec())
    for on in (False, True):
        rules = Rules(direct_slices=on)
        got = desired(held, spec(selector={}), (), rules, handed_over=False).objects
        assert got.slices == held.slices
        assert got.endpoints is not None
        assert held.endpoints is not None
        assert got.endpoints.subsets == held.endpoints.subsets
        assert marks(got) == ({}, {})


def test_marks_on_endpoints_that_are_another_s_stay() -> None:
    theirs = StoredEndpoints(meta=meta(DEPLOYMENT, labels=SKIP, annotations=MARK))
    held = HeldObjects(vmservice=service(), service=stored_service(OURS), endpoints=theirs)
    assert desired(held, spec(selector={}), (), Rules()).objects.endpoints == theirs


def test_a_label_that_the_vmservice_asks_for_stays() -> None:
    by = marked(SKIP)
    assert marks(direct(spec(), direct(spec(), by=by), by, on=False)) == (SKIP, {})


def test_a_label_that_the_vmservice_asks_for_in_vain_goes() -> None:
    by = marked(SKIP)
    observed = replace(direct(spec(), by=by), vmservice=by)
    denying = Rules(copying=Copying(denied_labels=tuple(SKIP)))
    assert marks(desired(observed, spec(), (READY,), denying).objects) == ({}, {})


def test_a_label_that_somebody_else_put_on_the_service_stays() -> None:
    held = HeldObjects(service=stored_service(OURS, labels=SKIP))
    assert marks(direct(spec(), held, on=False)) == (SKIP, {})


def test_slices_go_with_the_vmservice() -> None:
    by = service(deleting=True)
    assert direct(spec(), direct(spec()), by) == HeldObjects(vmservice=by)


def test_slices_without_vmservice_are_left_to_kubernetes() -> None:
    held = replace(direct(spec()), vmservice=None)
    assert desired(held, None, (), Rules()).objects == HeldObjects(slices=held.slices)


@pytest.mark.parametrize("owner", [DEPLOYMENT, OURS], ids=["another's Endpoints", "no valid spec"])
def test_slices_stay_where_the_endpoints_do(owner: OwnerReference) -> None:
    held = replace(direct(spec()), endpoints=stored_endpoints(owner))
    valid = spec() if owner is DEPLOYMENT else None
    got = desired(held, valid, (NOT_READY,), Rules(direct_slices=True)).objects
    assert (got.endpoints, got.slices) == (held.endpoints, held.slices)


# -- No Service wanted --


@pytest.mark.parametrize(
    ("owner", "goes"),
    [
        pytest.param(OURS, True, id="ours"),
        pytest.param(FORMER, False, id="one of a former VMService, which is not this one's"),
        pytest.param(DEPLOYMENT, False, id="another's"),
        pytest.param(None, False, id="nobody's"),
        pytest.param(OURS._replace(controller=False), False, id="one that we do not control"),
    ],
)
def test_a_vmservice_that_is_being_deleted_takes_its_own(
    owner: OwnerReference | None, goes: bool
) -> None:
    owners = (owner,) if owner else ()
    held = HeldObjects(service=stored_service(*owners), endpoints=stored_endpoints(*owners))
    got = wanted(by=service(deleting=True), held=held)
    assert replace(got.objects, vmservice=None) == (HeldObjects() if goes else held)


def test_it_takes_each_by_itself() -> None:
    held = HeldObjects(service=stored_service(DEPLOYMENT), endpoints=stored_endpoints(OURS))
    got = wanted(by=service(deleting=True), held=held)
    assert replace(got.objects, vmservice=None) == HeldObjects(service=held.service)


@pytest.mark.parametrize(
    ("owner", "goes"),
    [
        pytest.param(OURS, True, id="of the name"),
        pytest.param(FORMER, True, id="of the name, whatever its uid"),
        pytest.param(
            OURS._replace(api_version="vmoperator.vmware.com/v1alpha1"), True, id="of any version"
        ),
        pytest.param(OURS._replace(name="db"), False, id="of another name"),
        pytest.param(OURS._replace(api_version="example.com/v1"), False, id="of another group"),
        pytest.param(DEPLOYMENT, False, id="another's"),
        pytest.param(None, False, id="nobody's"),
    ],
)
def test_without_vmservice_what_one_controlled_goes(
    owner: OwnerReference | None, goes: bool
) -> None:
    owners = (owner,) if owner else ()
    held = HeldObjects(service=stored_service(*owners), endpoints=stored_endpoints(*owners))
    assert desired(held, None, (), Rules()).objects == (HeldObjects() if goes else held)


@pytest.mark.parametrize(
    "held",
    [
        pytest.param(HeldObjects(), id="nothing"),
        pytest.param(
            HeldObjects(service=stored_service(OURS), endpoints=stored_endpoints(OURS)), id="ours"
        ),
        pytest.param(HeldObjects(service=stored_service(FORMER)), id="a former one's"),
    ],
)
def test_a_vmservice_that_was_never_valid_leaves_all_as_it_is(held: HeldObjects) -> None:
    observed = replace(held, vmservice=service())
    assert desired(observed, None, (READY,), Rules()) == Desired(observed)


def test_a_refused_vmservice_is_held_by_its_last_valid_spec() -> None:
    refused = replace(service(), spec=None)
    got = desired(HeldObjects(vmservice=refused), spec(), (READY,), Rules())
    assert replace(got.objects, vmservice=service()) == wanted(spec(), READY).objects


def test_names_and_namespaces_are_those_of_the_vmservice() -> None:
    by = service(Key("bank", "ledger"))
    got = wanted(spec(), READY, by=by).objects
    children: list[Child | None] = [got.service, got.endpoints]
    assert [child.key for child in children if child] == [by.key, by.key]


# -- Beside VM Operator, which writes what it is given --


@pytest.mark.parametrize(
    ("given", "stored", "written"),
    [
        pytest.param((" 10.0.0.0/8 ",), None, (" 10.0.0.0/8 ",), id="as given"),
        pytest.param((" 10.0.0.0/8 ",), ("10.0.0.0/8",), ("10.0.0.0/8",), id="trimmed by another"),
        pytest.param(("10.0.0.0/8",), (" 10.0.0.0/8",), (" 10.0.0.0/8",), id="blanks by another"),
        pytest.param(("10.0.0.0/8",), ("10.0.0.0/9",), ("10.0.0.0/8",), id="another range"),
    ],
)
def test_source_ranges_are_as_given_and_compared_without_blanks(
    given: tuple[str, ...], stored: tuple[str, ...] | None, written: tuple[str, ...]
) -> None:
    held = stored_service(OURS, type="LoadBalancer", load_balancer_source_ranges=stored or ())
    observed = HeldObjects(service=held) if stored else None
    got = wanted(balanced(load_balancer_source_ranges=given), held=observed)
    assert service_of(got).load_balancer_source_ranges == written


def test_an_external_name_that_another_writer_copied_is_left_alone() -> None:
    held = HeldObjects(service=stored_service(OURS, external_name="a.example"))
    assert service_of(wanted(held=held)).external_name == "a.example"


NSX_KEYS = {NCP_HEALTH_CHECK: "30012", NSX_HOSTNAME: "lb.example"}


@pytest.mark.parametrize("on_service", [True, False], ids=["put there", "taken away"])
@pytest.mark.parametrize("on_vmservice", [True, False], ids=["on the VMService", "not on it"])
def test_a_provider_s_keys_are_another_writer_s_where_we_have_none(
    on_service: bool, on_vmservice: bool
) -> None:
    """It marks both objects, and takes the marks off the Service alone: we did not let it."""
    by = marked({PROXY_NAME: "nsx-t"}, NSX_KEYS) if on_vmservice else marked()
    labels, annotations = ({PROXY_NAME: "nsx-t"}, NSX_KEYS) if on_service else ({}, {})
    stored = stored_service(OURS, labels=labels, annotations=annotations)
    held = HeldObjects(service=stored, endpoints=stored_endpoints(OURS))
    got = wanted(balanced(), READY, by=by, held=held)
    for child in (service_of(got), endpoints_of(got)):
        assert (child.meta.labels, child.meta.annotations) == (labels, annotations)
