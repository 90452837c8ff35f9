"""Requests: what is taken, and every way in which one is refused."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.call import Code, RpcError
from vmsvc_grpc.server.endpoint_service import requests

LIMIT = 5


def watch(raw: bytes, limit: int = LIMIT) -> requests.WatchQuery:
    """What a request asks for, read to the end at once."""
    reading = requests.watch(raw, limit)
    while True:
        try:
            next(reading)
        except StopIteration as read:
            query = read.value
            assert isinstance(query, requests.WatchQuery)
            return query


def refused(parse: Callable[[bytes], object], request: Message) -> RpcError:
    with pytest.raises(RpcError) as refusal:
        parse(request.SerializeToString())
    assert refusal.value.code is Code.INVALID_ARGUMENT
    return refusal.value


def violations(refusal: RpcError) -> list[tuple[str, str]]:
    (detail,) = refusal.details
    assert isinstance(detail, error_details_pb2.BadRequest)
    return [(v.field, v.description) for v in detail.field_violations]


def watched(*services: str) -> list[pb.WatchedService]:
    return [pb.WatchedService(service=service) for service in services]


def token(*parts: str) -> str:
    return base64.urlsafe_b64encode("\n".join(parts).encode()).decode()


EXPLAINED = requests.explained_token(
    requests.ExplainQuery(Key("shop", "web"), "", 1, None),
    requests.ExplainedPlace(requests.ExplainedPart.NEAR, 2, "vm-1", 7),
)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        pytest.param("", "is missing", id="none"),
        pytest.param("web", "'web' has no namespace", id="bare"),
        pytest.param("/web", "'' cannot be a namespace's name", id="no namespace"),
        pytest.param("shop/", "'' cannot be a service's name", id="no name"),
        pytest.param("Shop/web", "'Shop' cannot be a namespace's name", id="upper case"),
        pytest.param("shop/Web", "'Web' cannot be a service's name", id="upper case in the name"),
        pytest.param("shop/web ", "'web ' cannot be a service's name", id="a blank"),
        pytest.param("shop/web/x", "'web/x' cannot be a service's name", id="three parts"),
        pytest.param("sh.op/web", "'sh.op' cannot be a namespace's name", id="dotted namespace"),
        pytest.param("shop/-web", "'-web' cannot be a service's name", id="a hyphen first"),
        pytest.param("shop/wéb", "'wéb' cannot be a service's name", id="not ASCII"),
        pytest.param("shop/web\n", r"'web\n' cannot be a service's name", id="a line break"),
        pytest.param("n" * 64 + "/web", "cannot be a namespace's name", id="a long namespace"),
        pytest.param("shop/" + "n" * 254, "cannot be a service's name", id="a long name"),
    ],
)
@pytest.mark.parametrize(
    ("parse", "field", "request_of"),
    [
        (requests.resolve, "service", lambda name: pb.ResolveEndpointsRequest(service=name)),
        (requests.explain, "service", lambda name: pb.ExplainEndpointsRequest(service=name)),
        (
            watch,
            "services[1].service",
            lambda name: pb.WatchEndpointsRequest(services=watched("shop/web", name)),
        ),
    ],
    ids=["resolve", "explain", "watch"],
)
def test_a_name_that_is_none_is_refused_with_what_to_write(
    parse: Callable[[bytes], object],
    field: str,
    request_of: Callable[[str], Message],
    name: str,
    says: str,
) -> None:
    ((where, text),) = violations(refused(parse, request_of(name)))
    assert where == field
    assert says in text
    assert text.endswith("; write namespace/name, in lower case, as in shop/web")
    assert len(text) < 400, "a client's text cannot fill the answer"


REFUSED = [
    pytest.param(
        requests.resolve,
        pb.ResolveEndpointsRequest(service="shop/web", readiness=7),  # type: ignore[arg-type]  # unknown
        [("readiness", "7 is not known")],
        id="an unknown readiness",
    ),
    pytest.param(
        requests.resolve,
        pb.ResolveEndpointsRequest(service="web", readiness=-1),  # type: ignore[arg-type]  # unknown
        [("service", "has no namespace"), ("readiness", "-1 is not known")],
        id="two at once",
    ),
    pytest.param(
        watch, pb.WatchEndpointsRequest(), [("services", "is empty; name services")], id="empty"
    ),
    pytest.param(
        watch,
        pb.WatchEndpointsRequest(all_services=True, namespaces=["shop"]),
        [("namespaces", "cannot be combined with all_services")],
        id="all and namespaces",
    ),
    pytest.param(
        watch,
        pb.WatchEndpointsRequest(services=watched("shop/a", "shop/b", "shop/a")),
        [("services[2].service", "'shop/a' is also services[0]")],
        id="a service twice",
    ),
    pytest.param(
        watch,
        pb.WatchEndpointsRequest(namespaces=["shop", "Office", "shop", ""]),
        [
            ("namespaces[1]", "'Office' cannot be a namespace's name"),
            ("namespaces[2]", "'shop' is also namespaces[0]"),
            ("namespaces[3]", "'' cannot be a namespace's name"),
        ],
        id="namespaces that are none, or twice",
    ),
    pytest.param(
        watch,
        pb.WatchEndpointsRequest(
            services=watched("web", "shop/web", "Shop/x"),
            all_services=True,
            namespaces=["shop"],
            readiness=9,  # type: ignore[arg-type]  # unknown
        ),
        [
            ("namespaces", "cannot be combined"),
            ("readiness", "9 is not known"),
            ("services[0].service", "'web' has no namespace"),
            ("services[2].service", "'Shop' cannot be"),
        ],
        id="all that is wrong in one answer",
    ),
    pytest.param(
        watch,
        pb.WatchEndpointsRequest(services=watched(*(f"shop/s{i}" for i in range(LIMIT + 1)))),
        [("services", "names 6; the server's limit (services_per_stream_max) is 5")],
        id="too many services",
    ),
    pytest.param(
        watch,
        pb.WatchEndpointsRequest(namespaces=[f"n{i}" for i in range(LIMIT + 1)]),
        [("namespaces", "names 6; the server's limit (services_per_stream_max) is 5")],
        id="too many namespaces",
    ),
    pytest.param(
        requests.list_page,
        pb.ListServicesRequest(namespace="Shop", page_size=-1, page_token="?"),
        [
            ("namespace", "'Shop' cannot be"),
            ("page_size", "-1 is negative"),
            ("page_token", "is not a next_page_token of this method"),
        ],
        id="a page that is wrong in every field",
    ),
]


@pytest.mark.parametrize(("parse", "request_", "found"), REFUSED)
def test_a_request_that_is_wrong_is_refused_with_every_field_that_is(
    parse: Callable[[bytes], object], request_: Message, found: list[tuple[str, str]]
) -> None:
    told = violations(refused(parse, request_))
    assert [field for field, _ in told] == [field for field, _ in found]
    for (_, text), (_, says) in zip(told, found, strict=True):
        assert says in text


def test_violations_without_end_are_cut_to_what_a_header_may_hold() -> None:
    many = pb.WatchEndpointsRequest(services=watched(*("X" * 200 for _ in range(10_000))))
    with pytest.raises(RpcError) as refusal:
        watch(many.SerializeToString(), 20_000)
    (detail,) = refusal.value.details
    assert detail.ByteSize() < 4500
    told = violations(refusal.value)
    assert told[-1] == ("(others)", f"{10_000 - len(told) + 1} more are wrong, and left out here")
    assert refusal.value.message.endswith("(and 9999 more)")


@pytest.mark.parametrize("parse", [requests.resolve, requests.explain, watch, requests.list_page])
def test_bytes_that_are_no_message_are_refused(parse: Callable[[bytes], object]) -> None:
    with pytest.raises(RpcError, match=r"is not a vmsvc\.v1\.\w+Request"):
        parse(b"\xff\xff\xff")


@pytest.mark.parametrize(
    ("readiness", "filter_class"),
    [
        (pb.READINESS_UNSPECIFIED, FilterClass.READY_ONLY),
        (pb.READINESS_READY_ONLY, FilterClass.READY_ONLY),
        (pb.READINESS_ALL, FilterClass.ALL),
    ],
)
def test_readiness_chooses_the_class(readiness: pb.Readiness, filter_class: FilterClass) -> None:
    asked = pb.ResolveEndpointsRequest(service="shop/web.x", readiness=readiness)
    resolve = requests.ResolveQuery(Key("shop", "web.x"), filter_class)
    assert requests.resolve(asked.SerializeToString()) == resolve


def test_a_watch_keeps_names_with_revisions_and_what_it_covers() -> None:
    asked = pb.WatchEndpointsRequest(
        services=[pb.WatchedService(service="shop/web", revision="r"), *watched("lab/x")],
        namespaces=["office", "shop"],
    )
    found = watch(asked.SerializeToString())
    assert found.held == {Key("shop", "web"): "r", Key("lab", "x"): ""}
    assert found.namespaces == {"office", "shop"}
    assert not found.all_services


@pytest.mark.parametrize(
    ("page_size", "size"),
    [(0, 500), (1, 1), (1000, 1000), (1001, 1000), (2_147_483_647, 1000)],
)
def test_a_page_has_a_default_size_and_a_largest(page_size: int, size: int) -> None:
    asked = pb.ListServicesRequest(page_size=page_size)
    assert requests.list_page(asked.SerializeToString()) == requests.ListQuery(None, size, None)


@pytest.mark.parametrize("namespace", [None, "shop"])
def test_a_page_token_leads_on_from_the_last_service(namespace: str | None) -> None:
    last = Key("shop", "web")
    asked = pb.ListServicesRequest(
        namespace=namespace or "", page_token=requests.services_token(namespace, last)
    )
    assert requests.list_page(asked.SerializeToString()).after == last


@pytest.mark.parametrize(
    ("namespace", "text"),
    [
        pytest.param("", "garbage", id="not base64"),
        pytest.param("", "%%%%", id="not base64's letters"),
        pytest.param("", base64.urlsafe_b64encode(b"\xff\xfe").decode(), id="not text"),
        pytest.param("", base64.urlsafe_b64encode(b"1").decode(), id="too short"),
        pytest.param("", token("services 1", "", "shop", "web", "x"), id="too long"),
        pytest.param("", token("services 2", "", "shop", "web"), id="of another release"),
        pytest.param(
            "", token("services 1", "shop", "shop", "web"), id="of a namespace, sent for all"
        ),
        pytest.param(
            "shop", token("services 1", "", "shop", "web"), id="of all, sent for a namespace"
        ),
        pytest.param(
            "shop", token("services 1", "office", "office", "web"), id="of another namespace"
        ),
        pytest.param(
            "shop", token("services 1", "shop", "office", "web"), id="that leads elsewhere"
        ),
        pytest.param("", "é", id="not ASCII"),
        pytest.param("", "A" * 10_000_000, id="10 MB"),
        pytest.param("", EXPLAINED, id="of another method"),
    ],
)
def test_a_page_token_that_is_none_of_ours_is_refused(namespace: str, text: str) -> None:
    asked = pb.ListServicesRequest(namespace=namespace, page_token=text)
    ((field, _),) = violations(refused(requests.list_page, asked))
    assert field == "page_token"


@pytest.mark.parametrize(
    ("page_size", "size"), [(0, 250), (1, 1), (500, 500), (501, 500), (2**31 - 1, 500)]
)
def test_a_page_of_an_explanation_has_a_default_size_and_a_largest(
    page_size: int, size: int
) -> None:
    asked = pb.ExplainEndpointsRequest(service="shop/web", page_size=page_size)
    assert requests.explain(asked.SerializeToString()).size == size


@pytest.mark.parametrize("part", requests.ExplainedPart)
@pytest.mark.parametrize("vm_name", ["", "vm-1"])
def test_a_token_of_an_explanation_leads_on_from_the_last_vm(
    part: requests.ExplainedPart, vm_name: str
) -> None:
    """Another page size is no other request."""
    query = requests.ExplainQuery(Key("shop", "web"), vm_name, 7, None)
    last = requests.ExplainedPlace(part, 3, "vm-9", 41)
    asked = pb.ExplainEndpointsRequest(
        service="shop/web",
        vm_name=vm_name,
        page_size=9,
        page_token=requests.explained_token(query, last),
    )
    assert requests.explain(asked.SerializeToString()).after == last


def explained(*parts: str) -> str:
    return token("explained 1", "shop/web", "", *parts)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        pytest.param({"page_token": "garbage"}, "page_token", id="garbage"),
        pytest.param(
            {"page_token": requests.services_token(None, Key("shop", "web"))},
            "page_token",
            id="of another method",
        ),
        pytest.param(
            {"page_token": EXPLAINED, "service": "shop/api"}, "page_token", id="of another service"
        ),
        pytest.param({"page_token": EXPLAINED, "vm_name": "x"}, "page_token", id="of all VMs"),
        pytest.param({"page_token": explained("none", "0", "a", "0")}, "page_token", id="no part"),
        pytest.param(
            {"page_token": explained("near", "-1", "a", "0")}, "page_token", id="negative"
        ),
        pytest.param(
            {"page_token": explained("near", "0", "a", "\u0663")}, "page_token", id="digits"
        ),
        pytest.param(
            {"page_token": explained("near", "0", "a", "9" * 5000)}, "page_token", id="large"
        ),
        pytest.param({"page_token": explained("near", "0", "a")}, "page_token", id="too short"),
        pytest.param({"page_size": -1}, "page_size", id="a negative size"),
        pytest.param({"vm_name": "shop/vm-1"}, "vm_name", id="a VM with its namespace"),
        pytest.param({"vm_name": "é" * 1_000_000}, "vm_name", id="2 MB of a name"),
        pytest.param({"service": ""}, "service", id="no service"),
    ],
)
def test_an_explanation_that_cannot_be_asked_for(fields: dict[str, object], says: str) -> None:
    asked = pb.ExplainEndpointsRequest(**{"service": "shop/web", **fields})  # type: ignore[arg-type]
    ((field, text),) = violations(refused(requests.explain, asked))
    assert field == says
    assert len(text) < 300
