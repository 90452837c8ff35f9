"""The unary methods: what they answer from the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from tests.unit.counting import counted_calls, counted_lines
from tests.unit.leavings import leavings
from tests.unit.objects import APP_WEB, service, spec, vm
from tests.unit.server.endpoint_service.watching import emptied, key, listed, synced_cache
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply, Delete, Init
from vmsvc_grpc.model.objects import (
    NEWEST_API_VERSION,
    Ingress,
    IPFamily,
    Kind,
    ObjectMeta,
    OwnerReference,
    Probe,
    Readiness,
    ServicePort,
    ServiceType,
    StoredService,
)
from vmsvc_grpc.model.problem import Problem
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.server.call import Call, Code, RpcError
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.endpoint_service.encode import Encoder
from vmsvc_grpc.server.endpoint_service.lookup import Lookup
from vmsvc_grpc.server.limits import Limits

CALL = Call("ipv4:192.0.2.1:1")
WEB = key("shop/web")
A = vm("a", "10.0.0.1")
SICK = vm("b", "10.0.0.2", probe=Probe.TCP_SOCKET, ready=Readiness.FALSE)
NODE_PORT = (Problem("spec.type", "NodePort is not supported"),)


def lookup(cache: Cache) -> Lookup:
    return Lookup(cache, Encoder(ServerCounts()), Limits(retry_delay_s=1.5))


def resolved(cache: Cache, name: str, readiness: pb.Readiness) -> pb.EndpointSet:
    request = pb.ResolveEndpointsRequest(service=name, readiness=readiness)
    raw = lookup(cache).resolve_endpoints(request.SerializeToString(), CALL)
    assert isinstance(raw, bytes), "it is a small service"
    return pb.ResolveEndpointsResponse.FromString(raw).endpoint_set


def summaries(cache: Cache, **fields: object) -> list[pb.ServiceSummary]:
    return list(page(cache, **fields).services)


def page(cache: Cache, **fields: object) -> pb.ListServicesResponse:
    request = pb.ListServicesRequest(**fields)  # type: ignore[arg-type]  # as given
    raw = lookup(cache).list_services(request.SerializeToString(), CALL)
    return pb.ListServicesResponse.FromString(raw)


def test_a_look_up_gives_the_endpoints_of_the_class_asked_for() -> None:
    cache = synced_cache(service(), A, SICK)
    ready = resolved(cache, "shop/web", pb.READINESS_UNSPECIFIED)
    everything = resolved(cache, "shop/web", pb.READINESS_ALL)
    assert [e.address for e in ready.endpoints] == ["10.0.0.1"]
    assert [(e.address, e.ready) for e in everything.endpoints] == [
        ("10.0.0.1", True),
        ("10.0.0.2", False),
    ]
    assert ready.revision != everything.revision


def test_a_service_that_nothing_serves_is_an_answer() -> None:
    found = resolved(synced_cache(service()), "shop/web", pb.READINESS_ALL)
    assert (found.service, len(found.endpoints), len(found.ports)) == ("shop/web", 0, 1)


@pytest.mark.parametrize(
    ("objects", "code", "says"),
    [
        pytest.param([], Code.NOT_FOUND, "there is no VirtualMachineService shop/web", id="none"),
        pytest.param(
            [service(deleting=True)], Code.NOT_FOUND, "is being deleted", id="being deleted"
        ),
        pytest.param(
            [service(problems=NODE_PORT)],
            Code.FAILED_PRECONDITION,
            "shop/web is refused: spec.type: NodePort is not supported",
            id="refused",
        ),
    ],
)
def test_a_look_up_that_has_no_answer_says_why(
    objects: list[object], code: Code, says: str
) -> None:
    cache = synced_cache(*objects)  # type: ignore[arg-type]  # they are model objects
    with pytest.raises(RpcError, match=says) as failure:
        resolved(cache, "shop/web", pb.READINESS_ALL)
    assert failure.value.code is code
    if code is Code.NOT_FOUND:
        (detail,) = failure.value.details
        assert isinstance(detail, error_details_pb2.ResourceInfo)
        assert detail.resource_name == "shop/web"


def test_what_was_valid_before_is_still_answered() -> None:
    cache = synced_cache(service(), A)
    cache.apply(Apply(service(problems=NODE_PORT)))
    assert len(resolved(cache, "shop/web", pb.READINESS_ALL).endpoints) == 1
    (summary,) = summaries(cache)
    assert (summary.refused, summary.refused_reason) == (
        True,
        "spec.type: NodePort is not supported",
    )
    assert summary.ready == 1


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        (Lookup.resolve_endpoints, pb.ResolveEndpointsRequest(service="shop/web")),
        (Lookup.list_services, pb.ListServicesRequest()),
        (Lookup.explain_endpoints, pb.ExplainEndpointsRequest(service="shop/web")),
    ],
    ids=["resolve", "list", "explain"],
)
def test_nothing_is_answered_before_the_cache_is_synced(
    method: Callable[[Lookup, bytes, Call], bytes], request_: Message
) -> None:
    """linkerd2 #10036, #8245: while it syncs it is alive and gives no empty answers."""
    cache = Cache(AddressRules())
    cache.apply(Init(Kind.VIRTUAL_MACHINE_SERVICE))
    cache.apply(Apply(service()))
    with pytest.raises(RpcError) as failure:
        method(lookup(cache), request_.SerializeToString(), CALL)
    assert failure.value.code is Code.UNAVAILABLE
    assert "VirtualMachine, VirtualMachineService have not been listed" in failure.value.message
    (detail,) = failure.value.details
    assert isinstance(detail, error_details_pb2.RetryInfo)
    assert detail.retry_delay.ToMilliseconds() == 1500
    listed(cache, service())
    assert method(lookup(cache), request_.SerializeToString(), CALL)


def test_a_list_tells_counts_and_refusals_and_leaves_out_what_is_being_deleted() -> None:
    cache = synced_cache(
        service(),
        service(key("shop/old"), deleting=True),
        service(key("office/x"), problems=NODE_PORT, declared_type="NodePort"),
        A,
        SICK,
        vm("no-address"),
        vm("going", "10.0.0.8", deleting=True),
        vm("other", "10.0.0.9", labels={"app": "db"}),
    )
    refused, web = summaries(cache)
    assert refused == pb.ServiceSummary(
        service="office/x",
        type="NodePort",
        refused=True,
        refused_reason="spec.type: NodePort is not supported",
    )
    assert web == pb.ServiceSummary(
        service="shop/web",
        type="ClusterIP",
        matching=3,
        ready=1,
        not_ready=1,
        ports=[pb.Port(name="http", port=80, target_port=9376, protocol="TCP")],
    )


def test_a_list_counts_vms_with_vms() -> None:
    """Addresses were counted as ready, and held against VMs: 4 ready of 2."""
    dual = spec(APP_WEB, ip_families=(IPFamily.IPV4, IPFamily.IPV6))
    sick = vm("b", "10.0.0.2", "fd00::2", probe=Probe.TCP_SOCKET, ready=Readiness.FALSE)
    cache = synced_cache(service(given=dual), vm("a", "10.0.0.1", "fd00::1"), sick, vm("none"))

    def counts() -> tuple[int, int, int]:
        (summary,) = summaries(cache)
        return summary.matching, summary.ready, summary.not_ready

    assert counts() == (3, 1, 1)
    cache.apply(Apply(vm("none", "10.0.0.3")))
    assert counts() == (3, 2, 1)
    cache.apply(Apply(vm("a", "10.0.0.1", labels={})))
    assert counts() == (2, 1, 1)
    cache.apply(Apply(vm("b", "10.0.0.2", "fd00::2")))
    assert counts() == (2, 2, 0)
    cache.apply(Apply(service(problems=NODE_PORT)))
    assert counts() == (2, 2, 0), "the last valid specification is served"
    cache.apply(Delete(Kind.VIRTUAL_MACHINE, key("shop/b")))
    assert counts() == (1, 1, 0)


def test_a_refused_service_counts_the_vms_that_it_selects() -> None:
    refused = service(problems=NODE_PORT, declared_selector=APP_WEB)
    cache = synced_cache(refused, A, SICK, vm("c", labels={"app": "db"}))
    (summary,) = summaries(cache)
    assert (summary.matching, summary.ready, summary.not_ready) == (2, 0, 0)
    cache.apply(Apply(service(problems=NODE_PORT, declared_selector={"app": "db"})))
    (summary,) = summaries(cache)
    assert summary.matching == 1
    cache.apply(Apply(service()))
    (summary,) = summaries(cache)
    assert (summary.matching, summary.ready, summary.not_ready) == (2, 1, 1)
    emptied(cache)
    assert leavings(cache) == []


def stored(uid: str, **fields: object) -> StoredService:
    owner = OwnerReference(NEWEST_API_VERSION, "VirtualMachineService", "web", uid, controller=True)
    meta = ObjectMeta(key=WEB, uid="s", owner_references=(owner,))
    return StoredService(meta=meta, **fields)  # type: ignore[arg-type]  # as given


BALANCED = spec(APP_WEB, type=ServiceType.LOAD_BALANCER)
SEEN = (Ingress("192.0.2.7", ""), Ingress("", "lb.example"))


@pytest.mark.parametrize(
    ("given", "held", "cluster_ips", "ingress"),
    [
        pytest.param(service(), None, [], [], id="nothing known"),
        pytest.param(
            service(given=spec(cluster_ip="None")), None, ["None"], [], id="headless, by its spec"
        ),
        pytest.param(
            service(given=spec(cluster_ip="10.96.0.7")), None, ["10.96.0.7"], [], id="asked for"
        ),
        pytest.param(
            service(),
            stored("uid-web", cluster_ip="10.96.0.1", cluster_ips=("10.96.0.1", "fd00::1")),
            ["10.96.0.1", "fd00::1"],
            [],
            id="those of its Service",
        ),
        pytest.param(
            service(), stored("uid-web", cluster_ip="10.96.0.1"), ["10.96.0.1"], [], id="one"
        ),
        pytest.param(
            service(), stored("another", cluster_ip="10.96.0.1"), [], [], id="another's Service"
        ),
        pytest.param(
            service(given=BALANCED, ingress=SEEN),
            None,
            [],
            ["192.0.2.7", "lb.example"],
            id="ingress of its status",
        ),
        pytest.param(
            service(given=BALANCED, ingress=SEEN),
            stored("uid-web", ingress=(Ingress("192.0.2.9", ""),)),
            [],
            ["192.0.2.9"],
            id="ingress of its Service",
        ),
        pytest.param(service(ingress=SEEN), None, [], [], id="no load balancer any more"),
    ],
)
def test_a_list_tells_addresses_as_far_as_known(
    given: object, held: StoredService | None, cluster_ips: list[str], ingress: list[str]
) -> None:
    cache = synced_cache(given)  # type: ignore[arg-type]  # a VMService
    if held is not None:
        cache.apply(Apply(held))
    (summary,) = summaries(cache)
    assert list(summary.cluster_ips) == cluster_ips
    assert list(summary.load_balancer_ingress) == ingress


def pages(cache: Cache, **fields: object) -> Iterator[list[str]]:
    token = ""
    while True:
        found = page(cache, page_token=token, **fields)
        yield [of.service for of in found.services]
        if not (token := found.next_page_token):
            return


@pytest.mark.parametrize(
    ("namespace", "size", "found"),
    [
        pytest.param("", 2, [["a/s0", "a/s1"], ["a/s2", "b/s0"], ["b/s1", "b/s2"]], id="all"),
        pytest.param("", 4, [["a/s0", "a/s1", "a/s2", "b/s0"], ["b/s1", "b/s2"]], id="a rest"),
        pytest.param("b", 2, [["b/s0", "b/s1"], ["b/s2"]], id="a namespace"),
        pytest.param("b", 3, [["b/s0", "b/s1", "b/s2"]], id="a page that is just full"),
        pytest.param("none", 3, [[]], id="a namespace without services"),
    ],
)
def test_pages_lead_through_all_services(namespace: str, size: int, found: list[list[str]]) -> None:
    cache = synced_cache(*(service(key(f"{n}/s{i}")) for n in "ba" for i in range(3)))
    assert list(pages(cache, namespace=namespace, page_size=size)) == found


def test_pages_go_on_where_the_last_service_was_deleted_meanwhile() -> None:
    cache = synced_cache(*(service(key(f"a/s{i}")) for i in range(4)))
    first = page(cache, page_size=2)
    cache.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, key("a/s1")))
    rest = page(cache, page_size=2, page_token=first.next_page_token)
    assert [of.service for of in rest.services] == ["a/s2", "a/s3"]
    assert not rest.next_page_token


@pytest.mark.parametrize("namespace", ["", "b"], ids=["all", "a namespace"])
def test_a_page_costs_the_page(namespace: str) -> None:
    """All names were sorted for each page. (How often a search halves them is not counted.)"""

    def calls(services: int) -> int:
        names = (f"{place}/s{n:04}" for place in "abc" for n in range(services))
        cache = synced_cache(*(service(key(name)) for name in names))
        first = page(cache, namespace=namespace, page_size=5)
        with counted_calls() as counted:
            rest = page(cache, namespace=namespace, page_size=5, page_token=first.next_page_token)
        assert len(rest.services) == 5
        return counted[0]

    calls(20)
    assert calls(20) == calls(300)


MANY = tuple(ServicePort(f"p{n}-{'x' * 50}", "TCP", 1 + n, 9000 + n) for n in range(1000))


def all_pages(cache: Cache, **fields: object) -> Iterator[pb.ListServicesResponse]:
    token = ""
    while True:
        found = page(cache, page_token=token, **fields)
        yield found
        if not (token := found.next_page_token):
            return


@pytest.mark.parametrize(
    "large",
    [
        pytest.param({"given": spec(ports=MANY)}, id="1,000 ports"),
        pytest.param({"given": spec({f"k{n:05}": "v" * 63 for n in range(10_000)})}, id="selector"),
        pytest.param(
            {"given": BALANCED, "ingress": tuple(Ingress("", "h" * 4_000) for _ in range(10_000))},
            id="ingress",
        ),
        pytest.param(
            {"problems": tuple(Problem("f" * 500, "\u202e" * 5_000) for _ in range(11))},
            id="problems",
        ),
    ],
)
def test_a_page_is_small_whatever_is_in_a_service(large: dict[str, Any]) -> None:
    """A selector of 1.4 MB made each list too large for a client of 4 MiB."""
    keys = [key(f"shop/s{n:03}") for n in range(100)]
    cache = synced_cache(*(service(one, **large) for one in keys), service(key("shop/t")))
    found = list(all_pages(cache, page_size=1000))
    assert max(one.ByteSize() for one in found) < 512 * 1024
    assert [of.service for one in found for of in one.services] == [*map(str, keys), "shop/t"]


def test_a_page_of_500_costs_the_page_of_20000_services() -> None:
    def lines(count: int) -> int:
        cache = synced_cache(*(service(key(f"shop/s{n:05}")) for n in range(count)))
        first = page(cache, page_size=500)
        with counted_lines() as counted:
            rest = page(cache, page_size=500, page_token=first.next_page_token)
        assert len(rest.services) == 500
        return counted[0]

    assert lines(20_000) == lines(1_500)


def test_the_methods_have_the_paths_of_the_proto() -> None:
    descriptor = pb.DESCRIPTOR.services_by_name["EndpointService"]
    paths = {f"/{descriptor.full_name}/{method.name}" for method in descriptor.methods}
    assert {method.path for method in lookup(synced_cache()).methods()} < paths
