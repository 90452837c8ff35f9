"""How objects of each API version are read, and how unreadable ones are reported."""

from __future__ import annotations

import copy
import json
from typing import Any

import msgspec
import pytest

from vmsvc_grpc.model.from_wire import ParseError
from vmsvc_grpc.model.kinds import kind_of
from vmsvc_grpc.model.objects import (
    KNOWN_VERSIONS,
    IPFamily,
    IPFamilyPolicy,
    Key,
    Kind,
    Probe,
    Readiness,
    ReadyWords,
    ReportedAddress,
    ServicePort,
    StoredEndpoints,
    StoredEndpointSlice,
    StoredService,
    VirtualMachine,
    VirtualMachineService,
)
from vmsvc_grpc.model.ownership import service_of_slice
from vmsvc_grpc.model.parse import parse, parse_json

GROUP = "vmoperator.vmware.com"


def vm_object(version: str = "v1alpha5", **parts: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/{version}",
        "kind": "VirtualMachine",
        "metadata": {"name": "web-1", "namespace": "shop", "uid": "u1"},
        **parts,
    }


def service_object(spec: Any, version: str = "v1alpha6", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/{version}",
        "kind": "VirtualMachineService",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u1", **metadata},
        "spec": spec,
    }


def read(untyped: dict[str, Any]) -> Any:
    """Read both ways, as a file and as an API server's bytes: they must agree."""
    kind = kind_of(untyped["apiVersion"], untyped["kind"])
    assert kind is not None
    model = parse(kind, untyped)
    assert parse_json(kind, msgspec.json.encode(untyped)) == model
    return model


def read_vm(**parts: Any) -> VirtualMachine:
    model = read(vm_object(**parts))
    assert isinstance(model, VirtualMachine)
    return model


def read_service(spec: Any, version: str = "v1alpha6") -> VirtualMachineService:
    model = read(service_object(spec, version))
    assert isinstance(model, VirtualMachineService)
    return model


@pytest.mark.parametrize("version", KNOWN_VERSIONS)
def test_the_address_stands_where_the_version_has_it(version: str) -> None:
    status = {
        "vmIp": "10.0.0.1",
        "network": {"primaryIP4": "10.0.0.4", "primaryIP6": "2001:db8::6"},
    }
    expected: tuple[ReportedAddress, ...]
    if version == "v1alpha1":
        expected = (ReportedAddress("status.vmIp", "10.0.0.1", None),)
    else:
        expected = (
            ReportedAddress("status.network.primaryIP4", "10.0.0.4", IPFamily.IPV4),
            ReportedAddress("status.network.primaryIP6", "2001:db8::6", IPFamily.IPV6),
        )
    assert read_vm(version=version, status=status).addresses == expected


@pytest.mark.parametrize(
    ("version", "probe", "expected"),
    [
        pytest.param("v1alpha1", {"tcpSocket": {"port": 22}}, Probe.TCP_SOCKET, id="tcpSocket"),
        pytest.param("v1alpha3", {"tcpSocket": {}}, Probe.TCP_SOCKET, id="tcpSocket, empty"),
        pytest.param("v1alpha2", {"guestHeartbeat": {}}, Probe.GUEST_HEARTBEAT, id="heartbeat"),
        pytest.param("v1alpha6", {"guestInfo": [{"key": "k"}]}, Probe.GUEST_INFO, id="guestInfo"),
        pytest.param("v1alpha6", {"guestInfo": []}, None, id="an empty guestInfo is none"),
        pytest.param("v1alpha1", {"guestInfo": [{"key": "k"}]}, None, id="v1alpha1 has none"),
        pytest.param("v1alpha6", {"periodSeconds": 5}, None, id="a probe of no kind"),
        pytest.param("v1alpha6", None, None, id="null"),
    ],
)
def test_probe(version: str, probe: Any, expected: Probe | None) -> None:
    assert read_vm(version=version, spec={"readinessProbe": probe}).probe is expected


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        pytest.param([], None, id="none yet"),
        pytest.param(None, None, id="null"),
        pytest.param([{"type": "Created", "status": "True"}], None, id="only others"),
        pytest.param([{"type": "Ready", "status": "True"}], Readiness.TRUE, id="no reason"),
        pytest.param(
            [{"type": "X", "status": "True"}, {"type": "Ready", "status": "Unknown"}],
            Readiness.UNKNOWN,
            id="among others",
        ),
        pytest.param([{"type": "Ready", "status": "Yes"}], Readiness.UNKNOWN, id="none of them"),
        pytest.param([{"type": "Ready"}], Readiness.UNKNOWN, id="no status"),
    ],
)
def test_ready_condition(conditions: Any, expected: Readiness | None) -> None:
    assert read_vm(status={"conditions": conditions}).ready is expected


@pytest.mark.parametrize(
    ("said", "words"),
    [
        pytest.param({}, ReadyWords("", "", ""), id="nothing more"),
        pytest.param(
            {"reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            ReadyWords("R", "m", "2026-01-01T00:00:00Z"),
            id="all",
        ),
        pytest.param({"message": "a\n\x1b[1m"}, ReadyWords("", r"a\n\x1b[1m", ""), id="escaped"),
        pytest.param(
            {"reason": "r" * 9999, "message": "m" * 9999, "lastTransitionTime": "t" * 9999},
            ReadyWords("r" * 197 + "...", "m" * 197 + "...", "t" * 64),
            id="cut",
        ),
    ],
)
def test_the_words_of_the_ready_condition(said: dict[str, str], words: ReadyWords) -> None:
    condition = {"type": "Ready", "status": "False", **said}
    assert read_vm(status={"conditions": [{"type": "Other"}, condition]}).ready_words == words
    assert read_vm(status={"conditions": [{"type": "Other"}]}).ready_words is None


def test_a_zone_that_is_too_long_to_be_a_name_is_none() -> None:
    assert read_vm(status={"zone": "z" * 253}).zone == "z" * 253
    assert read_vm(status={"zone": "z" * 254}).zone == ""


def test_a_uid_that_no_api_server_gives_is_refused() -> None:
    for uid, fits in (("u" * 253, True), ("u" * 254, False)):
        given = vm_object()
        given["metadata"]["uid"] = uid
        if fits:
            assert read(given).uid == uid
            continue
        with pytest.raises(ParseError) as failure:
            read(given)
        assert failure.value.problem.field == "metadata.uid"


@pytest.mark.parametrize(
    ("untyped", "selector"),
    [
        pytest.param(
            service_object({"type": "NodePort", "selector": {"app": "web"}}),
            {"app": "web"},
            id="type",
        ),
        pytest.param(
            service_object({"selector": {"app": "web"}, "ports": [{"port": "x"}]}),
            {"app": "web"},
            id="a port of the wrong shape",
        ),
        pytest.param(
            service_object({"selector": {"app": "web"}}, "v9"), {"app": "web"}, id="version"
        ),
        pytest.param(
            service_object({"selector": {"app": "a b"}, "ports": []}), {}, id="no label's value"
        ),
        pytest.param(service_object({"selector": [1]}), {}, id="a selector of the wrong shape"),
        pytest.param(service_object([1]), {}, id="a spec of the wrong shape"),
        pytest.param(
            service_object({"selector": {"app": "web"}, "ports": [{"port": 80}]}), {}, id="valid"
        ),
    ],
)
def test_the_selector_of_a_refused_service_is_kept_if_it_is_one(
    untyped: dict[str, Any], selector: dict[str, str]
) -> None:
    assert read(untyped).declared_selector == selector


def test_the_region_is_the_label() -> None:
    labelled = {"name": "a", "labels": {"topology.kubernetes.io/region": "r1"}}
    assert read_vm(metadata=labelled).region == "r1"
    assert read_vm().region == ""


def test_the_zone_is_the_label_else_the_status() -> None:
    labelled = {"name": "a", "labels": {"topology.kubernetes.io/zone": "z1"}}
    assert read_vm(metadata=labelled, status={"zone": "z2"}).zone == "z1"
    assert read_vm(status={"zone": "z2"}).zone == "z2"
    assert read_vm().zone == ""


def test_a_missing_namespace_is_default_and_a_missing_uid_is_made_of_the_name() -> None:
    first, again = read_vm(metadata={"name": "a"}), read_vm(metadata={"name": "a"})
    other = read_vm(metadata={"name": "b"})
    assert first.key == Key("default", "a")
    assert first.uid == again.uid != other.uid
    assert read_service({"ports": [{"port": 80}]}).meta.uid == "u1"


def test_defaults_of_a_service() -> None:
    service = read_service({"selector": {"a": "b"}, "ports": [{"port": 80}]})
    assert service.problems == ()
    assert service.spec is not None
    assert service.spec.type.value == "ClusterIP"
    assert service.spec.ports == (ServicePort("", "TCP", 80, 80),)


@pytest.mark.parametrize("target", [0, None])
def test_an_absent_or_zero_target_port_is_the_port(target: int | None) -> None:
    service = read_service({"ports": [{"port": 80, "targetPort": target}]})
    assert service.spec is not None
    assert service.spec.ports[0].target_port == 80


@pytest.mark.parametrize("field", ["clusterIp", "clusterIP"])
def test_both_spellings_of_cluster_ip_are_read(field: str) -> None:
    service = read_service({field: "None"})
    assert service.spec is not None
    assert service.spec.headless


def test_families_are_read_from_v1alpha6_on() -> None:
    given = {
        "ports": [{"port": 80}],
        "ipFamilies": ["IPv6"],
        "ipFamilyPolicy": "SingleStack",
    }
    newest, older = read_service(given).spec, read_service(given, "v1alpha5").spec
    assert newest is not None
    assert older is not None
    assert (newest.ip_families, newest.ip_family_policy) == (
        (IPFamily.IPV6,),
        IPFamilyPolicy.SINGLE_STACK,
    )
    assert (older.ip_families, older.ip_family_policy) == ((), None)


GOOD_PORT = {"name": "http", "port": 80}
LB = {"type": "LoadBalancer", "ports": [GOOD_PORT]}


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        pytest.param({"type": "NodePort"}, ["spec.type"], id="NodePort, whatever else"),
        pytest.param({"type": "ExternalName"}, ["spec.type"], id="ExternalName"),
        pytest.param({"type": "clusterip"}, ["spec.type"], id="an unknown type"),
        pytest.param({}, ["spec.ports"], id="no ports"),
        pytest.param(None, ["spec.ports"], id="no spec"),
        pytest.param({"ports": [{"port": 0}]}, ["spec.ports[0].port"], id="port 0"),
        pytest.param({"ports": [{}]}, ["spec.ports[0].port"], id="port absent"),
        pytest.param({"ports": [{"port": -1, "targetPort": 1}]}, ["spec.ports[0].port"], id="-1"),
        pytest.param(
            {"ports": [{"port": 65536, "targetPort": 65537}]},
            ["spec.ports[0].port", "spec.ports[0].targetPort"],
            id="too large, both",
        ),
        pytest.param(
            {"ports": [{"port": 80, "protocol": "tcp"}]}, ["spec.ports[0].protocol"], id="protocol"
        ),
        pytest.param(
            {"ports": [{"port": 80, "name": "Http"}]}, ["spec.ports[0].name"], id="port name"
        ),
        pytest.param(
            {"ports": [GOOD_PORT, {"port": 81}]}, ["spec.ports[1].name"], id="one of two unnamed"
        ),
        pytest.param(
            {"ports": [GOOD_PORT, {"name": "http", "port": 81}]}, ["spec.ports[1].name"], id="twice"
        ),
        pytest.param(
            {"ports": [GOOD_PORT, {"name": "b", "port": 80}]}, ["spec.ports[1]"], id="same port"
        ),
        pytest.param(
            {"ports": [GOOD_PORT, {"name": "b", "port": 80, "protocol": "UDP"}]}, [], id="TCP, UDP"
        ),
        pytest.param(
            {"ports": [GOOD_PORT], "clusterIp": "10.0.0"}, ["spec.clusterIp"], id="cluster IP"
        ),
        pytest.param({"ports": [GOOD_PORT], "clusterIp": "2001:db8::1"}, [], id="IPv6"),
        pytest.param({**LB, "clusterIp": "None"}, ["spec.clusterIp"], id="headless LoadBalancer"),
        pytest.param(
            {"ports": [GOOD_PORT], "loadBalancerSourceRanges": ["10.0.0.0/8"]},
            ["spec.loadBalancerSourceRanges"],
            id="ranges without LoadBalancer",
        ),
        pytest.param(
            {**LB, "loadBalancerSourceRanges": [" 10.0.0.0/8 ", "10.0.0.1", "x/8", "10.0.0.0/33"]},
            [f"spec.loadBalancerSourceRanges[{i}]" for i in (1, 2, 3)],
            id="ranges that are none",
        ),
        pytest.param(
            {
                **LB,
                "loadBalancerSourceRanges": ["10.0.0.0/-1", "10.0.0.0/ 8", "/8", "10.0.0.0/1/8"],
            },
            [f"spec.loadBalancerSourceRanges[{i}]" for i in range(4)],
            id="ranges whose length or address is none",
        ),
        pytest.param(
            {
                **LB,
                "loadBalancerSourceRanges": [
                    *("010.00.0.0/8", "10.0.0.1/008", "192.0.2.0/32"),
                    *("2001:DB8:0::/128", "::ffff:10.0.0.0/104"),
                ],
            },
            [],
            id="ranges that an API server takes, though nobody should write them",
        ),
        pytest.param(
            {"ports": [GOOD_PORT], "clusterIp": "010.96.0.9"}, [], id="as an API server reads it"
        ),
        pytest.param(
            {"ports": [GOOD_PORT], "clusterIp": "fd00::1%1"}, ["spec.clusterIp"], id="a zone index"
        ),
        pytest.param(
            {"ports": [GOOD_PORT], "selector": {"a b": "c", "-/x": "y", "ok": "not ok"}},
            ["spec.selector"] * 3,
            id="selector pairs that no label can be",
        ),
        pytest.param({"ports": [GOOD_PORT], "selector": {"example.com/a": ""}}, [], id="they can"),
        pytest.param(
            {"ports": [GOOD_PORT], "ipFamilies": ["IPv4", "IPv4", "IPv5"]},
            ["spec.ipFamilies[1]", "spec.ipFamilies[2]"],
            id="families",
        ),
        pytest.param(
            {"ports": [GOOD_PORT], "ipFamilyPolicy": "Dual"}, ["spec.ipFamilyPolicy"], id="policy"
        ),
        pytest.param(
            {"ports": [{"name": f"p{i}", "port": i} for i in range(1, 1001)]}, [], id="1,000 ports"
        ),
        pytest.param({"ports": [GOOD_PORT] * 1001}, ["spec.ports"], id="1,001 ports"),
        pytest.param({"ports": [{"port": "80"}]}, ["spec.ports[0].port"], id="a number as text"),
        pytest.param({"ports": {"port": 80}}, ["spec.ports"], id="ports not a list"),
        pytest.param(
            {"ports": [{"port": 80, "targetPort": "http"}]},
            ["spec.ports[0].targetPort"],
            id="named",
        ),
        pytest.param("web", ["spec"], id="the spec not a mapping"),
    ],
)
def test_what_makes_a_service_refused(spec: Any, fields: list[str]) -> None:
    service = read_service(spec)
    assert [problem.field for problem in service.problems] == fields
    assert (service.spec is None) is bool(fields)


@pytest.mark.parametrize("name", ["1web", "web.shop", "a" * 64])
def test_a_service_whose_name_cannot_be_a_services_is_refused(name: str) -> None:
    service = parse(Kind.VIRTUAL_MACHINE_SERVICE, service_object({"clusterIp": "None"}, name=name))
    assert isinstance(service, VirtualMachineService)
    assert [problem.field for problem in service.problems] == ["metadata.name"]


def test_a_service_of_an_unknown_version_is_refused() -> None:
    service = read_service({"ports": [{"port": 80}]}, version="v1beta9")
    assert [problem.field for problem in service.problems] == ["apiVersion"]


def test_a_service_with_broken_labels_is_refused_by_name() -> None:
    untyped = service_object({"ports": [{"port": 80}]}, labels={"release": 3})
    service = parse(Kind.VIRTUAL_MACHINE_SERVICE, untyped)
    assert isinstance(service, VirtualMachineService)
    assert service.key == Key("shop", "web")
    assert [str(problem) for problem in service.problems] == [
        "metadata.labels.release: must be text, not 3"
    ]


TOO_LARGE = {"a": "x" * 200_000, "b": "y" * 70_000}


@pytest.mark.parametrize(
    ("metadata", "problems"),
    [
        pytest.param(
            {"labels": {"a b": "c", "-/x": "y", "ok": "not ok", "example.com/": ""}},
            [
                "metadata.labels: key 'a b' is not a key; use at most 63 letters, digits, ",
                "metadata.labels: key '-/x' has no DNS name before its '/'",
                "metadata.labels: value 'not ok' of 'ok' is not a label's value; use at most 63",
                "metadata.labels: key 'example.com/' is not a key",
            ],
            id="labels",
        ),
        pytest.param(
            {"labels": {"a" * 64: "", "Example.com/a": "", "a": "b" * 64, "a/b/c": ""}},
            [
                "metadata.labels: key 'aaaa",
                "metadata.labels: key 'Example.com/a' has no DNS name",
                "metadata.labels: value 'bbbb",
                "metadata.labels: key 'a/b/c' has no DNS name",
            ],
            id="labels that nearly are",
        ),
        pytest.param(
            {"annotations": {"a b": "any text: ü", "/": "", "": ""}},
            [
                "metadata.annotations: key 'a b' is not",
                "metadata.annotations: key '/' has",
                "metadata.annotations: key '' is not",
            ],
            id="keys of annotations",
        ),
        pytest.param(
            {"annotations": TOO_LARGE},
            ["metadata.annotations: 270002 bytes are too many"],
            id="annotations of more than 256 KiB",
        ),
        pytest.param(
            {"finalizers": ["example.com/a", "a b"]},
            ["metadata.finalizers[1]: 'a b' is not"],
            id="finalizers",
        ),
        pytest.param(
            {
                "labels": {"a": "", "example.com/B_c": "D.e-f"},
                "annotations": {"EXAMPLE.com/A": "\x00 anything", "b": "x" * (256 * 1024 - 24)},
            },
            [],
            id="what an API server takes",
        ),
    ],
)
def test_metadata_that_no_api_server_takes_is_refused_with_its_key(
    metadata: dict[str, Any], problems: list[str]
) -> None:
    service = parse(
        Kind.VIRTUAL_MACHINE_SERVICE, service_object({"ports": [GOOD_PORT]}, **metadata)
    )
    assert isinstance(service, VirtualMachineService)
    assert len(service.problems) == len(problems)
    for problem, beginning in zip(service.problems, problems, strict=True):
        assert str(problem).startswith(beginning)
    assert (service.spec is None) is bool(problems)
    untyped = vm_object()
    untyped["metadata"] |= metadata
    if problems:
        with pytest.raises(ParseError) as caught:
            parse(Kind.VIRTUAL_MACHINE, untyped)
        assert caught.value.key == Key("shop", "web-1")
        assert str(caught.value.problem).startswith(problems[0])
    else:
        parse(Kind.VIRTUAL_MACHINE, untyped)


def test_of_a_service_with_a_broken_spec_the_status_is_read_as_it_must_not_be_overwritten() -> None:
    condition = {"type": "Other", "status": "True"}
    status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}, "conditions": [condition]}
    untyped = {**service_object({"ports": "none"}, "v1alpha5"), "status": status}
    service = read(untyped)
    assert isinstance(service, VirtualMachineService)
    assert [problem.field for problem in service.problems] == ["spec.ports"]
    assert service.api_version == f"{GROUP}/v1alpha5"
    assert service.ingress == (("192.0.2.1", ""),)
    assert [c.type for c in service.conditions] == ["Other"]
    assert read({**untyped, "status": "up"}).conditions == ()


@pytest.mark.parametrize(
    ("parts", "key", "field"),
    [
        pytest.param({"status": "up"}, True, "status", id="status not a mapping"),
        pytest.param(
            {"status": {"network": {"primaryIP4": 10}}},
            True,
            "status.network.primaryIP4",
            id="address not a text",
        ),
        pytest.param(
            {"status": {"conditions": [{"type": "Ready", "status": True}]}},
            True,
            "status.conditions[0].status",
            id="the status of a condition not a text",
        ),
        pytest.param({"metadata": {}}, False, "metadata.name", id="no name"),
        pytest.param({"metadata": {"name": "A B"}}, False, "metadata.name", id="no such name"),
        pytest.param({"metadata": {"name": 3}}, False, "metadata.name", id="name not a text"),
        pytest.param({"metadata": None}, False, "metadata", id="no metadata"),
        pytest.param({"apiVersion": f"{GROUP}/v2"}, True, "apiVersion", id="unknown version"),
    ],
)
def test_a_vm_that_cannot_be_read(parts: dict[str, Any], key: bool, field: str) -> None:
    untyped = {**vm_object(), **parts}
    with pytest.raises(ParseError) as caught:
        parse(Kind.VIRTUAL_MACHINE, untyped)
    assert caught.value.problem.field == field
    assert caught.value.key == (Key("shop", "web-1") if key else None)
    with pytest.raises(ParseError) as again:
        parse_json(Kind.VIRTUAL_MACHINE, msgspec.json.encode(untyped))
    assert again.value.problem == caught.value.problem


def test_nulls_and_whole_numbers_mean_what_they_mean_to_kubernetes() -> None:
    metadata: dict[str, Any] = {
        "labels": {"app": None},
        "annotations": {"note": None},
        "finalizers": [None],
        "ownerReferences": [None],
    }
    spec = {"selector": {"app": None}, "ports": [{"name": "a", "port": 80.0, "targetPort": 8e1}]}
    service = read(
        service_object(spec, "v1alpha6", **metadata) | {"status": {"conditions": [None]}}
    )
    assert service.problems == ()
    assert service.spec.selector == {"app": ""}
    assert service.spec.ports == (ServicePort("a", "TCP", 80, 80),)
    assert service.meta.labels == {"app": ""}
    assert service.meta.annotations == {"note": ""}
    assert service.meta.finalizers == ("",)
    assert len(service.meta.owner_references) == len(service.conditions) == 1
    vm = read(vm_object() | {"metadata": {"name": "web-1", "labels": {"app": None}}})
    assert vm.labels == {"app": ""}


@pytest.mark.parametrize("deep", [50, 2_000])
def test_a_null_label_beside_a_field_of_any_depth(deep: int) -> None:
    raw = msgspec.json.encode(vm_object(metadata={"name": "web-1", "labels": {"app": None}}))
    nested = b'{"spec":' + b'{"a":' * deep + b"1" + b"}" * deep + b","
    vm = parse_json(Kind.VIRTUAL_MACHINE, nested + raw.removeprefix(b"{"))
    assert isinstance(vm, VirtualMachine)
    assert vm.labels == {"app": ""}


@pytest.mark.parametrize("digits", [20, 400])
def test_a_number_out_of_all_bounds_costs_its_object_only(digits: int) -> None:
    service = read_service({"ports": [{"name": "a", "port": 80}]})
    assert service.spec
    huge = service_object({"ports": [{"name": "a", "port": 80}]}, generation=int("9" * digits))
    kind = Kind.VIRTUAL_MACHINE_SERVICE
    for model in (parse(kind, huge), parse_json(kind, json.dumps(huge).encode())):
        assert isinstance(model, VirtualMachineService)
        assert model.spec is None
        assert [problem.field for problem in model.problems] == ["metadata.generation"]


@pytest.mark.parametrize(
    ("api_version", "kind", "expected"),
    [
        (f"{GROUP}/v1alpha1", "VirtualMachine", Kind.VIRTUAL_MACHINE),
        (f"{GROUP}/v9", "VirtualMachineService", Kind.VIRTUAL_MACHINE_SERVICE),
        (f"{GROUP}/v1alpha5", "VirtualMachineClass", None),
        ("v1", "Service", Kind.SERVICE),
        ("v1", "Endpoints", Kind.ENDPOINTS),
        ("v1", "Pod", None),
        ("discovery.k8s.io/v1", "EndpointSlice", Kind.ENDPOINT_SLICE),
        ("v1", "EndpointSlice", None),
        ("example.com/v1", "Service", None),
    ],
)
def test_which_kinds_are_ours(api_version: str, kind: str, expected: Kind | None) -> None:
    assert kind_of(api_version, kind) is expected


def test_a_stored_service_and_endpoints_are_read() -> None:
    service = read(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "web",
                "namespace": "shop",
                "uid": "s",
                "resourceVersion": "7",
                "ownerReferences": [{"kind": "K", "name": "n", "uid": "o", "controller": True}],
            },
            "spec": {
                "clusterIP": "10.96.0.9",
                "ipFamilies": ["IPv4"],
                "ports": [{"port": 80, "targetPort": "http", "nodePort": 30080}],
            },
            "status": {
                "loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]},
                "conditions": [{"type": "Ready", "status": "False", "reason": "R"}],
            },
        }
    )
    assert isinstance(service, StoredService)
    assert service.meta.controller is not None
    assert (service.cluster_ip, service.ports[0].node_port) == ("10.96.0.9", 30080)
    assert service.ingress == (("192.0.2.1", ""),)
    assert service.ready is not None
    endpoints = read(
        {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": "web", "namespace": "shop", "uid": "e"},
            "subsets": [
                {
                    "addresses": [
                        {"ip": "10.0.0.1", "targetRef": {"kind": "VirtualMachine", "uid": "a"}},
                        {"ip": "10.0.0.2"},
                    ],
                    "notReadyAddresses": [{"ip": "10.0.0.3", "targetRef": {"uid": "c"}}],
                    "ports": [{"port": 9376}],
                }
            ],
        }
    )
    assert isinstance(endpoints, StoredEndpoints)
    assert endpoints.ready_uids() == {"a"}


def test_a_stored_slice_is_read() -> None:
    owner = {
        "apiVersion": f"{GROUP}/v1alpha6",
        "kind": "VirtualMachineService",
        "name": "web",
        "uid": "o",
        "controller": True,
    }
    untyped = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web-0", "namespace": "shop", "uid": "s", "ownerReferences": [owner]},
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": ["10.0.0.1"],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "zone": "z",
                "targetRef": {"kind": "VirtualMachine", "uid": "a"},
            },
            {"addresses": ["10.0.0.2"]},
        ],
        "ports": [{"name": "http", "port": 80}],
    }
    slice_ = read(untyped)
    assert isinstance(slice_, StoredEndpointSlice)
    assert [e.addresses for e in slice_.endpoints] == [("10.0.0.1",), ("10.0.0.2",)]
    assert [e.target_ref and e.target_ref.uid for e in slice_.endpoints] == ["a", None]
    assert [e.conditions.ready for e in slice_.endpoints] == [True, None]
    assert slice_.ports == (("http", 80, "TCP", ""),)
    assert [reference.name for reference in slice_.meta.owner_references] == ["web"]
    assert service_of_slice(slice_) == Key("shop", "web")


def test_reading_does_not_change_what_is_read() -> None:
    untyped = service_object({"ports": [{"port": 80}]})
    before = copy.deepcopy(untyped)
    parse(Kind.VIRTUAL_MACHINE_SERVICE, untyped)
    assert untyped == before


@pytest.mark.parametrize("field", ["creationTimestamp", "deletionTimestamp"])
def test_a_time_that_is_none_costs_the_object_and_deletes_nothing(field: str) -> None:
    metadata = {"name": "web", field: "junk"}
    head = {"apiVersion": f"{GROUP}/v1alpha6", "metadata": metadata}
    with pytest.raises(ParseError, match=f"metadata.{field}: 'junk' is not a time"):
        parse(Kind.VIRTUAL_MACHINE, {**head, "kind": "VirtualMachine"})
    spec = {"ports": [{"port": 80}]}
    service = parse(
        Kind.VIRTUAL_MACHINE_SERVICE, {**head, "kind": "VirtualMachineService", "spec": spec}
    )
    assert isinstance(service, VirtualMachineService)
    assert not service.meta.deleting
    assert [problem.field for problem in service.problems] == [f"metadata.{field}"]
