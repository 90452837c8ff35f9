"""The rules of xDS, one by one, on a stream without a server."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2 as pb

from tests.unit.objects import WEB, service, spec, vm
from tests.unit.server.watching import emptied, listed, synced_cache
from tests.unit.server.xds_client import (
    CDS,
    EDS,
    LDS,
    RDS,
    XdsClient,
    addresses,
    node,
    truth,
)
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply, Delete
from vmsvc_grpc.model.objects import Key, Kind, Probe, Readiness, ServicePort
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.server.call import Code, EndOfStream, RpcError
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.xds_resources import TypeUrl
from vmsvc_grpc.server.xds_stream import Form, XdsScope

NAME = "web.shop:80"
API = Key("shop", "api")
OTHER = Key("lab", "web")
ENVOY = node("envoy")

C, E, L, R = (type_url.label for type_url in (CDS, EDS, LDS, RDS))
BOTH = pytest.mark.parametrize("form", Form, ids=lambda form: form.value)


def cache(*others: Any) -> Cache:
    return synced_cache(service(), vm("a", "10.0.0.1"), *others)


def ask(client: XdsClient, type_url: TypeUrl, *names: str) -> XdsClient:
    """Ask for names in the client's form."""
    if client.form is Form.SOTW:
        return client.ask(type_url, *names)
    return client.change(type_url, names)


def move(served: Cache, address: str) -> None:
    served.apply(Apply(vm("a", address)))


def remove(served: Cache, key: Key = WEB) -> None:
    served.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, key))


def ports(*numbers: int) -> Any:
    return spec(ports=tuple(ServicePort(f"p{n}", "TCP", n, 9000 + n) for n in numbers))


# -- What is asked for, and what is there --


@BOTH
@pytest.mark.parametrize("type_url", TypeUrl, ids=lambda type_url: type_url.label)
def test_a_name_is_answered_with_its_resource(form: Form, type_url: TypeUrl) -> None:
    served = cache()
    client = ask(XdsClient(served, form), type_url, NAME)
    assert client.read_all() == [(type_url.label, NAME)]
    assert client.held(type_url) == {NAME: truth(served, type_url, NAME)}


@BOTH
def test_an_alias_is_answered_under_the_name_asked_for(form: Form) -> None:
    client = ask(XdsClient(cache(), form), EDS, "web.shop.svc.cluster.local:http")
    assert client.read_all() == [(E, "web.shop.svc.cluster.local:http")]


@BOTH
@pytest.mark.parametrize("asking", [(), ("*",)], ids=["legacy", "with a star"])
def test_a_wildcard_has_the_canonical_name_of_each_port(
    form: Form, asking: tuple[str, ...]
) -> None:
    served = cache(service(API, ports(1, 2)), service(OTHER))
    client = ask(XdsClient(served, form, who=ENVOY), CDS, *asking)
    assert client.read_all() == [(C, "api.shop:1", "api.shop:2", "web.lab:80", NAME)]
    served.apply(Apply(service(Key("lab", "new"), ports(7))))
    client.read_all()
    assert "new.lab:7" in client.held(CDS)


@BOTH
def test_envoy_has_no_listeners_and_hears_so(form: Form) -> None:
    client = ask(XdsClient(cache(), form, who=ENVOY), LDS)
    assert client.read_all() == [(L,)]


@BOTH
def test_a_wildcard_over_nothing_is_answered(form: Form) -> None:
    client = ask(XdsClient(synced_cache(), form, who=ENVOY), CDS)
    assert client.read_all() == [(C,)]


@BOTH
def test_a_service_without_endpoints_has_an_empty_assignment(form: Form) -> None:
    client = ask(XdsClient(synced_cache(service()), form), EDS, NAME)
    assert client.read_all() == [(E, NAME)]
    assert not client.held(EDS)[NAME].endpoints


@BOTH
def test_a_node_can_ask_for_endpoints_that_are_not_ready(form: Form) -> None:
    sick = vm("b", "10.0.0.2", probe=Probe.TCP_SOCKET, ready=Readiness.FALSE)
    served = cache(sick)
    ready = ask(XdsClient(served, form), EDS, NAME)
    ready.read_all()
    assert addresses(ready.held(EDS)[NAME]) == ["10.0.0.1:9376"]
    everything = ask(XdsClient(served, form, who=node(readiness="all")), EDS, NAME)
    everything.read_all()
    assert addresses(everything.held(EDS)[NAME]) == ["10.0.0.1:9376", "10.0.0.2:9376"]


@BOTH
def test_a_scope_of_the_namespace_bounds_names_and_wildcards(form: Form) -> None:
    served = cache(service(OTHER))
    shown: dict[str, list[Any]] = {}
    for namespace in ("shop", "lab", ""):
        who = node("envoy", namespace=namespace)
        client = ask(XdsClient(served, form, who=who, scope=XdsScope.NAMESPACE), CDS)
        client.read_all()
        ask(client, EDS, NAME)
        client.read_all()
        shown[namespace] = [sorted(client.held(CDS)), sorted(client.held(EDS))]
    assert shown == {"shop": [[NAME], [NAME]], "lab": [["web.lab:80"], []], "": [[], []]}


@BOTH
def test_nothing_is_said_before_the_cache_is_synced(form: Form) -> None:
    served = Cache(AddressRules())
    client = ask(XdsClient(served, form, who=ENVOY), CDS)
    assert client.read_all() == []
    wakes = client.wakes
    listed(served, service())
    assert client.wakes > wakes
    assert client.read_all() == [(C, NAME)]


@BOTH
def test_an_unknown_type_is_not_answered_and_the_stream_stays(form: Form) -> None:
    client = XdsClient(cache(), form)
    kind = pb.DiscoveryRequest if form is Form.SOTW else pb.DeltaDiscoveryRequest
    request = kind(type_url="type.googleapis.com/envoy.Secret")
    client.stream.receive(request.SerializeToString())
    assert client.read_all() == []
    assert ask(client, EDS, NAME).read_all() == [(E, NAME)]


@pytest.mark.parametrize(
    ("implied", "type_url"),
    [
        pytest.param(None, "", id="an aggregated stream without a type"),
        pytest.param(EDS, CDS.value, id="a stream of one type with another"),
    ],
)
def test_a_wrong_type_ends_the_stream(implied: TypeUrl | None, type_url: str) -> None:
    client = XdsClient(cache(), implied=implied)
    with pytest.raises(RpcError) as error:
        client.stream.receive(pb.DiscoveryRequest(type_url=type_url).SerializeToString())
    assert error.value.code is Code.INVALID_ARGUMENT


def test_what_is_kept_of_a_client_is_bounded() -> None:
    who = node("envoy")
    who.extensions.add(name="x" * 1_000)
    client = XdsClient(cache(), who=who).ask(EDS, NAME)
    client.read(refuse="no" * 1_000)
    assert client.stream.node is not None
    assert client.stream.node.message.ByteSize() < 100
    assert [len(refusal.message) for refusal in client.refusals] == [1_000]


def test_what_is_no_request_ends_the_stream() -> None:
    with pytest.raises(RpcError, match="is not a envoy"):
        XdsClient(cache()).stream.receive(b"\xff")


def test_a_stream_of_one_type_has_it_without_saying_so() -> None:
    assert XdsClient(cache(), implied=EDS).ask(EDS, NAME).read_all() == [(E, NAME)]


def test_a_stream_that_asks_for_too_much_is_ended() -> None:
    client = XdsClient(cache(), limits=Limits(services_per_stream_max=2))
    with pytest.raises(RpcError) as error:
        client.ask(EDS, "a.b:1", "a.b:2", "a.b:3")
    assert error.value.code is Code.RESOURCE_EXHAUSTED


# -- ACK, NACK, nonces --


@BOTH
def test_a_change_is_told_once_and_nothing_when_nothing_changed(form: Form) -> None:
    served = cache()
    client = ask(XdsClient(served, form), EDS, NAME)
    client.read_all()
    move(served, "10.0.0.2")
    assert client.read_all() == [(E, NAME)]
    move(served, "10.0.0.3")
    move(served, "10.0.0.2")
    served.apply(Apply(vm("z", "10.9.9.9", labels={})))
    assert client.read_all() == []
    assert client.counts.xds_resources_skipped[E] == 1


@BOTH
def test_a_nack_is_not_answered_until_the_content_changes(form: Form) -> None:
    """go-control-plane #962: a NACK was answered with the same again, and so for ever."""
    served = cache()
    client = ask(XdsClient(served, form), EDS, NAME)
    assert client.read(refuse="no good") == (E, NAME)
    assert client.read_all() == []
    assert [refusal.message for refusal in client.refusals] == ["no good"]
    move(served, "10.0.0.2")
    assert client.read_all() == [(E, NAME)]
    assert (client.counts.xds_nacks[E], client.counts.xds_acks[E]) == (1, 1)


@BOTH
def test_going_back_after_a_nack_is_told(form: Form) -> None:
    """go-control-plane #564."""
    served = cache()
    client = ask(XdsClient(served, form), EDS, NAME)
    client.read_all()
    move(served, "10.0.0.2")
    client.read(refuse="not that")
    move(served, "10.0.0.1")
    assert client.read_all() == [(E, NAME)]


def test_a_nack_is_what_has_an_error_whatever_its_version() -> None:
    client = XdsClient(cache()).ask(EDS, NAME)
    client.read()
    client.ask(EDS, NAME, version_info="", response_nonce="1")
    assert (client.counts.xds_acks[E], client.counts.xds_nacks[E]) == (2, 0)


def test_a_stale_request_is_not_answered_nor_taken() -> None:
    client = XdsClient(cache(service(API))).ask(EDS, NAME)
    client.read()
    client.ask(EDS, "api.shop:80", response_nonce="0")
    assert client.read_all() == []
    client.ask(EDS, NAME, "api.shop:80")
    assert client.read_all() == [(E, "api.shop:80")]


def test_a_stale_change_of_a_delta_subscription_counts() -> None:
    client = XdsClient(cache(service(API)), Form.DELTA).change(EDS, [NAME])
    client.read_all()
    client.change(EDS, ["api.shop:80"], response_nonce="0")
    assert client.read_all() == [(E, "api.shop:80")]


# -- State of the world --


def test_new_names_are_answered_at_the_same_version() -> None:
    """go-control-plane #399: names added while nothing had changed were never answered."""
    client = XdsClient(cache(service(API))).ask(EDS, NAME)
    client.read_all()
    client.ask(EDS, NAME, "api.shop:80")
    assert client.read_all() == [(E, "api.shop:80")]


@BOTH
def test_unsubscribed_and_subscribed_again_is_answered(form: Form) -> None:
    """go-control-plane #431."""
    client = ask(XdsClient(cache(), form), EDS, NAME)
    client.read_all()
    if form is Form.SOTW:
        client.ask(EDS)
        assert client.read_all() == []
        client.ask(EDS, NAME)
    else:
        client.change(EDS, [], [NAME])
        assert client.read_all() == []
        client.change(EDS, [NAME])
    assert client.read_all() == [(E, NAME)]


def test_an_empty_list_after_names_ends_all_subscriptions() -> None:
    served = cache()
    client = XdsClient(served).ask(CDS, NAME)
    client.read_all()
    client.ask(CDS)
    served.apply(Apply(service(API)))
    remove(served)
    assert client.read_all() == []
    client.stream.next_message()
    emptied(served)
    client.stream.close()
    assert served.idle()


@pytest.mark.parametrize("type_url", [CDS, LDS], ids=lambda type_url: type_url.label)
def test_clusters_and_listeners_come_all_each_time(type_url: TypeUrl) -> None:
    served = cache()
    client = XdsClient(served).ask(type_url, "*")
    client.read_all()
    served.apply(Apply(service(API)))
    assert client.read_all() == [(type_url.label, "api.shop:80", NAME)]
    remove(served)
    assert client.read_all() == [(type_url.label, "api.shop:80")]


def test_assignments_that_did_not_change_are_not_sent_again() -> None:
    served = cache(service(API, spec({"app": "api"})))
    client = XdsClient(served).ask(EDS, NAME, "api.shop:80")
    client.read_all()
    move(served, "10.0.0.2")
    assert client.read_all() == [(E, NAME)]


def test_a_deleted_service_leaves_the_list_and_empties_its_assignment() -> None:
    served = cache()
    client = XdsClient(served)
    client.ask(CDS, NAME)
    client.read_all()
    client.ask(EDS, NAME)
    client.read_all()
    remove(served)
    assert client.read_all() == [(C,), (E, NAME)]
    assert not client.held(EDS)[NAME].endpoints
    served.apply(Apply(service()))
    assert client.read_all() == [(C, NAME), (E, NAME)]
    assert client.held(EDS)[NAME].endpoints


def test_something_missing_is_not_answered_until_it_is_there() -> None:
    served = synced_cache()
    client = XdsClient(served).ask(EDS, NAME)
    assert client.read_all() == []
    served.apply(Apply(service()))
    assert client.read_all() == [(E, NAME)]


def test_a_wildcard_that_is_given_up_for_a_name_keeps_what_is_told() -> None:
    served = cache(service(API))
    client = XdsClient(served).ask(CDS)
    client.read_all()
    client.ask(CDS, NAME)
    assert client.read_all() == []
    remove(served, API)
    assert client.read_all() == []
    remove(served)
    assert client.read_all() == [(C,)]


# -- Delta --


def test_a_resubscription_is_always_answered() -> None:
    """go-control-plane #1450."""
    client = XdsClient(cache(), Form.DELTA).change(EDS, [NAME])
    client.read_all()
    client.change(EDS, [NAME])
    assert client.read_all() == [(E, NAME)]
    assert client.read_all() == []


def test_what_does_not_exist_is_said_and_told_when_it_does() -> None:
    """go-control-plane #565."""
    served = synced_cache()
    client = XdsClient(served, Form.DELTA).change(EDS, [NAME, "xdstp://shop/x"])
    assert client.read_all() == [(E, f"-{NAME}", "-xdstp://shop/x")]
    served.apply(Apply(service()))
    assert client.read_all() == [(E, NAME)]
    remove(served)
    assert client.read_all() == [(E, f"-{NAME}")]
    client.change(EDS, [NAME])
    assert client.read_all() == [(E, f"-{NAME}")]


def test_first_versions_are_compared() -> None:
    """istio #41494: what was deleted while the client was away stayed for ever."""
    served = cache(service(API), service(OTHER, spec({"app": "other"})))
    names = [NAME, "api.shop:80", "web.lab:80"]
    before = XdsClient(served, Form.DELTA).change(EDS, names)
    before.read_all()
    held = before.asked(EDS).versions
    served.apply(Apply(vm("b", "10.0.0.2", namespace="lab", labels={"app": "other"})))
    remove(served, API)
    client = XdsClient(served, Form.DELTA).change(EDS, names, held=held)
    assert client.read_all() == [(E, "web.lab:80"), (E, "-api.shop:80")]


def test_a_wildcard_is_compared_too_and_what_is_the_same_costs_nothing() -> None:
    """istio #41494."""
    served = cache(service(API))
    before = XdsClient(served, Form.DELTA, who=ENVOY).change(CDS)
    before.read_all()
    held = before.asked(CDS).versions
    assert XdsClient(served, Form.DELTA, who=ENVOY).change(CDS, held=held).read_all() == []
    remove(served, API)
    client = XdsClient(served, Form.DELTA, who=ENVOY).change(CDS, held=held)
    assert client.read_all() == [(C, "-api.shop:80")]


def test_unsubscribing_what_a_wildcard_covers_sends_it() -> None:
    client = XdsClient(cache(), Form.DELTA).change(CDS, ["*", NAME, "gone.shop:80", "web.shop"])
    client.read_all()
    client.change(CDS, [], [NAME, "gone.shop:80", "web.shop"])
    assert client.read_all() == [(C, NAME), (C, "-gone.shop:80", "-web.shop")]


def test_a_wildcard_can_be_unsubscribed() -> None:
    served = cache(service(API))
    client = XdsClient(served, Form.DELTA).change(CDS, ["*", NAME])
    client.read_all()
    client.change(CDS, [], ["*"])
    served.apply(Apply(service(OTHER)))
    remove(served, API)
    assert client.read_all() == []
    remove(served)
    assert client.read_all() == [(C, f"-{NAME}")]


# -- Reconnecting --


def test_a_reconnect_is_answered_in_full() -> None:
    served = cache()
    client = XdsClient(served)
    for type_url in (LDS, RDS, CDS, EDS):
        client.ask(type_url, NAME)
        client.read_all()
    client.reconnect()
    assert sorted(client.read_all()) == sorted([(C, NAME), (E, NAME), (L, NAME), (R, NAME)])


def test_what_was_deleted_meanwhile_is_gone_after_a_reconnect() -> None:
    """istio #41494."""
    served = cache()
    client = XdsClient(served)
    client.ask(CDS, NAME).read_all()
    client.ask(EDS, NAME).read_all()
    remove(served)
    client.reconnect()
    client.read_all()
    assert client.held(CDS) == {}
    assert not client.held(EDS)[NAME].endpoints


def test_versions_agree_between_streams_and_replicas() -> None:
    first, second = cache(service(API)), synced_cache(service(API), vm("a", "10.0.0.1"), service())
    one, other = XdsClient(first).ask(EDS, NAME), XdsClient(second).ask(EDS, "api.shop:80", NAME)
    one.read_all()
    one.ask(EDS, NAME, "api.shop:80")
    for client in (one, other):
        client.read_all()
    assert one.asked(EDS).version == other.asked(EDS).version
    move(first, "10.0.0.2")
    one.read_all()
    assert one.asked(EDS).version != other.asked(EDS).version


# -- Order --


@BOTH
def test_what_others_refer_to_comes_first_and_goes_last(form: Form) -> None:
    """go-control-plane #526, #705, #800."""
    served = cache()
    client = XdsClient(served, form)
    for type_url in (RDS, EDS, LDS, CDS):
        ask(client, type_url, NAME, "api.shop:80")
    assert [told[0] for told in client.read_all() if told[1] == NAME] == [C, E, L, R]
    served.apply(Apply(service(API)))
    remove(served)
    told = client.read_all()
    if form is Form.DELTA:
        gone = [(label, f"-{NAME}") for label in (L, R, C, E)]
        assert told == [*((label, "api.shop:80") for label in (C, E, L, R)), *gone]
    else:
        assert [one[0] for one in told] == [C, E, L, R, L, C, E]
        assert (told[0], told[5]) == ((C, "api.shop:80", NAME), (C, "api.shop:80"))


@BOTH
def test_a_changed_cluster_has_its_endpoints_sent_again(form: Form) -> None:
    """Else Envoy keeps it warming until it times out."""
    served = cache()
    client = XdsClient(served, form, who=ENVOY)
    ask(client, CDS)
    client.read_all()
    ask(client, EDS, NAME)
    client.read_all()
    served.apply(Apply(service(WEB, ports(81))))
    client.read_all()
    served.apply(Apply(service()))
    told = client.read_all()
    assert (E, NAME) in told[1:]
    assert told[0][0] == C


# -- Bounds --


@BOTH
def test_responses_are_split(form: Form) -> None:
    keys = [Key("shop", f"s{number:02}") for number in range(20)]
    served = cache(*map(service, keys))
    names = [f"{key.name}.shop:80" for key in keys]
    size = 1_000
    client = ask(XdsClient(served, form, limits=Limits(response_bytes_max=size)), EDS, *names)
    told = client.read_all()
    assert len(told) > 2
    assert sorted(name for one in told for name in one[1:]) == names
    assert max(client.sizes) < size + 300


def test_a_stalled_stream_holds_marks_and_no_messages() -> None:
    served = cache()
    client = XdsClient(served).ask(EDS, NAME)
    for number in range(100):
        move(served, f"10.0.1.{number}")
    assert client.counts.xds_encodings[E] == 0
    assert client.read_all() == [(E, NAME)]
    assert addresses(client.held(EDS)[NAME]) == ["10.0.1.99:9376"]


def test_an_old_stream_ends_with_ok() -> None:
    client = XdsClient(cache()).ask(EDS, NAME)
    client.stream.expire()
    with pytest.raises(EndOfStream):
        client.stream.next_message()


def test_a_client_that_only_listens_gets_its_answer_and_the_end() -> None:
    """As grpcurl does."""
    client = XdsClient(cache()).ask(EDS, NAME)
    client.stream.half_close()
    assert client.stream.next_message() is not None
    with pytest.raises(EndOfStream):
        client.stream.next_message()


@BOTH
def test_nothing_is_left_of_a_stream(form: Form) -> None:
    served = cache(service(API))
    client = XdsClient(served, form)
    ask(client, CDS)
    ask(client, EDS, NAME, "gone.shop:80")
    client.read_all()
    client.stream.close()
    emptied(served)
    assert served.idle()


@BOTH
def test_services_that_come_and_go_leave_nothing_in_a_wildcard_stream(form: Form) -> None:
    served = cache()
    client = ask(XdsClient(served, form, who=ENVOY), CDS)
    for number in range(50):
        key = Key("shop", f"s{number}")
        served.apply(Apply(service(key)))
        client.read_all()
        remove(served, key)
        client.read_all()
    assert served.topic_count == 2
    assert client.stream._topics.keys() == {WEB}
    assert sorted(client.held(CDS)) == [NAME]
