"""The rules of xDS, one by one, on a stream without a server."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2 as pb

from tests.unit.leavings import leavings
from tests.unit.objects import WEB, service, spec, vm
from tests.unit.server.endpoint_service.watching import emptied, listed, synced_cache
from tests.unit.server.xds.client import (
    CDS,
    EDS,
    LDS,
    RDS,
    Release,
    XdsClient,
    addresses,
    node,
    truth,
)
from tests.unit.server.xds.world import (
    API,
    BOTH,
    ENVOY,
    NAME,
    OTHER,
    C,
    E,
    L,
    R,
    ask,
    cache,
    move,
    nothing,
    ports,
    remove,
)
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.model.objects import Key, Probe, Readiness, ServicePort
from vmsvc_grpc.model.problem import Problem
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.server.call import Code, RpcError
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.xds.following import XdsScope
from vmsvc_grpc.server.xds.resources import TypeUrl
from vmsvc_grpc.server.xds.shared import Form

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
    assert client.read_all() == nothing(form, L)


@BOTH
def test_a_wildcard_over_nothing_is_answered(form: Form) -> None:
    client = ask(XdsClient(synced_cache(), form, who=ENVOY), CDS)
    assert client.read_all() == nothing(form, C)


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
        if namespace != "shop":
            assert not any(message.endpoints for message in client.held(EDS).values())
        shown[namespace] = [sorted(client.held(CDS)), sorted(client.held(EDS))]
    hidden = [NAME] if form is Form.SOTW else []  # An empty one; a delta says that there is none.
    assert shown == {"shop": [[NAME], [NAME]], "lab": [["web.lab:80"], hidden], "": [[], hidden]}


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
@pytest.mark.parametrize("named", [(), (NAME,)], ids=["alone", "beside a name"])
@pytest.mark.parametrize("synced", [True, False], ids=["synced", "to be synced"])
def test_the_first_answer_of_a_wildcard_is_all_there_is(
    form: Form, named: tuple[str, ...], synced: bool
) -> None:
    """What it lacked, an Envoy that comes back would delete."""
    served = Cache(AddressRules())
    if synced:
        listed(served, service(), service(API))
    client = XdsClient(served, form, who=ENVOY)
    ask(client, EDS, NAME)
    client = ask(client, CDS, "*", *named)
    if not synced:
        assert client.read_all() == []
        listed(served, service(), service(API))
    told = [one for one in client.read_all() if one[0] == C]
    assert told == [(C, "api.shop:80", NAME)]


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


def test_what_is_no_request_ends_the_stream() -> None:
    with pytest.raises(RpcError, match="is not a envoy"):
        XdsClient(cache()).stream.receive(b"\xff")


def test_a_stream_of_one_type_has_it_without_saying_so() -> None:
    assert XdsClient(cache(), implied=EDS).ask(EDS, NAME).read_all() == [(E, NAME)]


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
    client.close()
    assert leavings(served) == []


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


@pytest.mark.parametrize("type_url", [CDS, LDS, RDS], ids=lambda type_url: type_url.label)
def test_something_missing_is_not_answered_until_it_is_there(type_url: TypeUrl) -> None:
    served = synced_cache()
    client = XdsClient(served).ask(type_url, NAME)
    assert [told[1:] for told in client.read_all()] in ([], [()])
    served.apply(Apply(service()))
    assert client.read_all() == [(type_url.label, NAME)]


@pytest.mark.parametrize(
    "name", ["web.shop:80", "api.shop:80", "web.gone", "web.shop:no", "a.b.svc.cluster.local:1"]
)
def test_an_assignment_that_could_be_a_services_is_answered_at_once(name: str) -> None:
    """A static cluster of an Envoy holds back its listeners for 15 s otherwise."""
    served = synced_cache(service(API))
    client = XdsClient(served).ask(EDS, name)
    assert client.read_all() == [(E, name)]
    assert not client.held(EDS)[name].endpoints
    assert client.read_all() == []


def test_an_assignment_of_a_service_to_come_is_filled_when_it_does() -> None:
    served = synced_cache()
    client = XdsClient(served).ask(EDS, NAME, "no-service-is-called-so")
    assert client.read_all() == [(E, NAME)]
    served.apply(Apply(vm("a", "10.0.0.1")))
    served.apply(Apply(service()))
    assert client.read_all() == [(E, NAME)]
    assert addresses(client.held(EDS)[NAME]) == ["10.0.0.1:9376"]


def test_a_wildcard_that_is_given_up_for_a_name_is_told_of_that_name_again() -> None:
    """It is newly asked for: the client may not have kept what it got without asking."""
    served = cache(service(API))
    client = XdsClient(served).ask(CDS)
    client.read_all()
    client.ask(CDS, NAME)
    assert client.read_all() == [(C, NAME)]
    remove(served, API)
    assert client.read_all() == []
    remove(served)
    assert client.read_all() == [(C,)]


@pytest.mark.parametrize("type_url", TypeUrl, ids=lambda type_url: type_url.label)
def test_a_name_beside_a_wildcard_that_has_had_it_is_told_again(type_url: TypeUrl) -> None:
    client = XdsClient(cache()).ask(type_url)
    client.read_all()
    client.ask(type_url, "*", NAME)
    assert client.read_all() == [(type_url.label, NAME)]
    assert client.read_all() == []


def test_a_star_ends_the_legacy_form_so_that_an_empty_list_means_nothing() -> None:
    served = cache()
    client = XdsClient(served).ask(CDS)
    client.read_all()
    client.ask(CDS, "*")
    client.ask(CDS)
    served.apply(Apply(service(API)))
    assert client.read_all() == []


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


def test_a_load_assignment_is_emptied_before_it_is_removed() -> None:
    """An Envoy that is told endpoints alone goes on with those of one that is only removed."""
    served = cache()
    client = XdsClient(served, Form.DELTA).change(EDS, [NAME])
    client.read_all()
    remove(served)
    assert client.read() == (E, NAME)
    assert not client.held(EDS)[NAME].endpoints
    assert client.read_all() == [(E, f"-{NAME}")]
    served.apply(Apply(service()))
    client.read_all()
    move(served, "10.0.0.2")
    remove(served)
    assert client.read() == (E, NAME)
    served.apply(Apply(service()))
    assert client.read_all() == [(E, NAME)]
    assert client.held(EDS)[NAME].endpoints


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
    emptied_and_gone = [(E, "api.shop:80"), (E, "-api.shop:80")]
    assert client.read_all() == [(E, "web.lab:80"), *emptied_and_gone]


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


def test_a_wildcard_that_is_subscribed_to_again_is_told_in_full() -> None:
    """As any name: the client may have let go of all of it."""
    client = XdsClient(cache(service(API)), Form.DELTA).change(CDS)
    client.read_all()
    client.change(CDS, ["*"])
    assert client.read_all() == [(C, "api.shop:80", NAME)]
    client.change(CDS, ["*", NAME])
    assert client.read_all() == [(C, "api.shop:80", NAME)]
    assert client.read_all() == []


def test_unsubscribing_everything_at_once_is_silent() -> None:
    client = XdsClient(cache(), Form.DELTA).change(CDS, ["*", NAME])
    client.read_all()
    client.change(CDS, [], [NAME, "*"])
    assert client.read_all() == []


def test_a_resubscription_is_answered_even_if_it_comes_and_goes_meanwhile() -> None:
    served = cache(service(API))
    client = XdsClient(served, Form.DELTA, limits=Limits(response_bytes_max=1))
    client.change(EDS, [NAME, "api.shop:80"])
    client.read_all()
    remove(served)
    client.change(EDS, ["api.shop:80", NAME])
    assert client.read() == (E, "api.shop:80")  # By now it has seen that the other is gone.
    served.apply(Apply(service()))
    assert client.read_all() == [(E, NAME)]


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


def test_what_is_held_and_not_asked_for_is_taken_away() -> None:
    client = XdsClient(cache(), Form.DELTA).change(
        EDS, [NAME], held={"gone.shop:80": "1", "api.shop:80": "x" * 100, "xdstp://x": ""}
    )
    assert client.read_all() == [(E, NAME), (E, "-api.shop:80", "-gone.shop:80", "-xdstp://x")]


def test_what_is_held_is_not_taken_away_before_the_cache_is_synced() -> None:
    served = Cache(AddressRules())
    before = XdsClient(cache(), Form.DELTA, who=ENVOY).change(CDS)
    before.read_all()
    held = before.asked(CDS).versions
    client = XdsClient(served, Form.DELTA, who=ENVOY).change(CDS, held=held | {"api.shop:80": "x"})
    assert client.read_all() == []
    listed(served, service())
    assert client.read_all() == [(C, "-api.shop:80")]


@pytest.mark.parametrize("order", [(CDS, EDS), (EDS, CDS)], ids=["clusters first", "last"])
@pytest.mark.parametrize("first_synced", [True, False], ids=["synced", "to be synced"])
@pytest.mark.parametrize("claimed", ["old", "none"])
@pytest.mark.parametrize("names", [(NAME, "api.shop:80"), ("*",)], ids=["names", "wildcard"])
def test_a_cluster_that_changed_meanwhile_brings_its_assignment_whatever_is_claimed(
    order: tuple[TypeUrl, TypeUrl], first_synced: bool, claimed: str, names: tuple[str, ...]
) -> None:
    """envoy#22418: an Envoy that came back said that it held the assignment, and waited for it."""
    served = Cache(AddressRules())
    before = XdsClient(full := cache(service(API)), Form.DELTA, who=ENVOY).change(CDS)
    before.read_all()
    before.change(EDS, names).read_all()
    clusters, assignments = before.asked(CDS).versions, before.asked(EDS).versions
    held = {CDS: clusters | {NAME: "of another release"}, EDS: assignments}
    if claimed == "none":
        held[CDS] = {}
    if first_synced:
        served = full
    client = XdsClient(served, Form.DELTA, who=ENVOY)
    told = []
    for type_url in order:
        client.change(type_url, ["*"] if type_url is CDS else names, held=held[type_url])
        told += client.read_all()
    if not first_synced:
        assert told == []
        listed(served, service(), vm("a", "10.0.0.1"), service(API))
        told = client.read_all()
    both = ("api.shop:80", NAME)
    changed = both if claimed == "none" else (NAME,)
    assert [one for one in told if one[0] == C] == [(C, *changed)]
    assert sorted(name for one in told if one[0] == E for name in one[1:]) == sorted(changed)


def test_an_assignment_of_another_releases_cluster_is_another() -> None:
    """A stream may break between the two: the Envoy then holds the new cluster, which waits."""
    served = cache()
    before = XdsClient(served, Form.DELTA, resources=Release(2)).change(EDS, [NAME])
    before.read_all()
    for topic in served._topics._topics.values():
        topic.current.encoded.clear()  # Releases share no process.
    client = XdsClient(served, Form.DELTA)
    client.change(EDS, [NAME], held=before.asked(EDS).versions)
    assert client.read_all() == [(E, NAME)]


# -- Services of all kinds --


@BOTH
def test_tcp_has_the_number_that_udp_shares(form: Form) -> None:
    dns = (ServicePort("dns", "UDP", 53, 5354), ServicePort("dns-tcp", "TCP", 53, 5353))
    served = synced_cache(service(given=spec(ports=dns)), vm("a", "10.0.0.1"))
    names = ["web.shop:53", "web.shop:dns", "web.shop:dns-tcp"]
    client = ask(XdsClient(served, form), EDS, *names)
    client.read_all()
    shown = {name: addresses(client.held(EDS)[name]) for name in names}
    told = (["10.0.0.1:5353"], ["10.0.0.1:5354"], ["10.0.0.1:5353"])
    assert shown == dict(zip(names, told, strict=True))
    assert ask(XdsClient(served, form), CDS).read_all() == [(C, "web.shop:53")]


@BOTH
def test_a_headless_service_has_a_name_for_each_port_and_none_without(form: Form) -> None:
    headless = service(given=spec(ports=(), cluster_ip="None"))
    client = ask(XdsClient(served := synced_cache(headless), form), CDS)
    assert client.read_all() == nothing(form, C)
    served.apply(Apply(service(given=spec(cluster_ip="None"))))
    assert client.read_all() == [(C, NAME)]


@BOTH
def test_a_refused_service_is_as_it_was_or_not_there(form: Form) -> None:
    """A process that has seen a valid spec goes on by it; another says that there is none."""
    refused = service(problems=(Problem("spec.type", "NodePort is not supported"),))
    for served, told in ((cache(), [(C, NAME)]), (synced_cache(), nothing(form, C))):
        served.apply(Apply(refused))
        client = ask(XdsClient(served, form, who=ENVOY), CDS)
        assert client.read_all() == told
        served.apply(Apply(service()))
        client.read_all()
        assert sorted(client.held(CDS)) == [NAME]


@BOTH
def test_a_change_of_one_endpoint_leaves_the_others(form: Form) -> None:
    """kuberesolver #66: the slice that changed last was taken for all there is."""
    served = cache(*(vm(f"v{number}", f"10.1.0.{number}") for number in range(249)))
    client = ask(XdsClient(served, form), EDS, NAME)
    client.read_all()
    move(served, "10.0.0.2")
    client.read_all()
    assert len(addresses(client.held(EDS)[NAME])) == 250


def test_who_does_not_say_who_it_is_is_answered_as_far_as_it_may_see() -> None:
    for scope, told in ((XdsScope.ALL, ["10.0.0.1:9376"]), (XdsScope.NAMESPACE, [])):
        client = XdsClient(cache(), who=pb.DiscoveryRequest().node, scope=scope).ask(EDS, NAME)
        assert client.read_all() == [(E, NAME)]
        assert addresses(client.held(EDS)[NAME]) == told


# -- Order --


@BOTH
def test_what_others_refer_to_comes_first_and_goes_last(form: Form) -> None:
    """go-control-plane #526, #705, #800."""
    served = cache()
    client = XdsClient(served, form)
    for type_url in (RDS, EDS, LDS, CDS):
        ask(client, type_url, NAME, "api.shop:80")
    assert [told[0] for told in client.read_all() if NAME in told] == [C, E, L, R]
    served.apply(Apply(service(API)))
    remove(served)
    told = client.read_all()
    if form is Form.DELTA:
        gone = [(L, f"-{NAME}"), (R, f"-{NAME}"), (C, f"-{NAME}"), (E, NAME), (E, f"-{NAME}")]
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
