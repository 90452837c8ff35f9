"""ACKs, NACKs and nonces of xDS, and what the status of clients shows of them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from envoy.admin.v3 import config_dump_shared_pb2
from envoy.service.discovery.v3 import discovery_pb2 as pb
from envoy.service.status.v3 import csds_pb2

from tests.unit.counting import counted_lines
from tests.unit.objects import service, spec, vm
from tests.unit.server.endpoint_service.watching import synced_cache
from tests.unit.server.xds.client import CDS, EDS, LDS, RDS, XdsClient, addresses, node
from tests.unit.server.xds.world import (
    API,
    BOTH,
    NAME,
    C,
    E,
    ask,
    cache,
    move,
)
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.call import Call, Code, RpcError
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.xds.resources import TypeUrl
from vmsvc_grpc.server.xds.shared import Form
from vmsvc_grpc.server.xds.status import ClientStatus


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
    for fields, counted in (({}, (1, 0)), ({"error_detail": {"message": ""}}, (0, 1))):
        client = XdsClient(cache()).ask(EDS, NAME)
        client.pump()
        client.ask(EDS, NAME, version_info="another", response_nonce="E1", **fields)
        assert (client.counts.xds_acks[E], client.counts.xds_nacks[E]) == counted


@BOTH
def test_a_nack_outlives_what_comes_and_goes_unseen_and_not_what_is_new(form: Form) -> None:
    served = cache()
    client = ask(XdsClient(served, form), EDS, NAME)
    client.read(refuse="no good")
    move(served, "10.0.0.2")
    move(served, "10.0.0.1")
    assert client.read_all() == []
    move(served, "10.0.0.2")
    assert client.read_all() == [(E, NAME)]


@BOTH
def test_each_response_is_answered_once(form: Form) -> None:
    client = ask(XdsClient(cache(), form), EDS, NAME)
    client.read()
    late = {"error_detail": {"message": "late"}}
    for nonce in ("1", "1", "2", "99999999999999999999", "9" * 5_000, "one", "-1", "\u0661", ""):
        answer: dict[str, Any] = {"response_nonce": f"E{nonce}", **late}
        if form is Form.SOTW:
            client.ask(EDS, NAME, **answer)
        else:
            client.change(EDS, **answer)
    assert (client.counts.xds_acks[E], client.counts.xds_nacks[E]) == (1, 0)
    assert client.refusals == []
    assert client.read_all() == []


def test_a_nonce_of_an_earlier_stream_says_nothing() -> None:
    served = cache()
    client = XdsClient(served).ask(EDS, NAME, response_nonce="E7", error_detail={"message": "old"})
    assert (client.counts.xds_nacks[E], client.refusals) == (0, [])
    assert client.read_all() == [(E, NAME)]


@BOTH
def test_types_have_their_own_nonces_on_one_stream(form: Form) -> None:
    served = cache()
    client = XdsClient(served, form)
    for type_url in (CDS, EDS):
        ask(client, type_url, NAME)
    client.pump()
    client.pump()
    client.read(refuse="a cluster")  # By now a response of another type has gone out.
    client.read()
    assert [refusal.type_url for refusal in client.refusals] == [CDS]
    assert (client.counts.xds_nacks[C], client.counts.xds_acks[E]) == (1, 1)
    move(served, "10.0.0.2")
    assert client.read_all() == [(E, NAME)]


@BOTH
@pytest.mark.parametrize("name", [NAME, "*"])
def test_a_stream_is_quiet_until_there_is_news(form: Form, name: str) -> None:
    """So its transport does not ask it again after each message."""
    served = cache()
    client = ask(XdsClient(served, form), EDS, name)

    def quiet() -> bool:
        return client.stream.quiet

    assert not quiet()
    client.read_all()
    for address in ("10.0.0.2", "10.0.0.3"):
        assert quiet()
        move(served, address)
        assert not quiet()
        client.pump()
        assert quiet(), "though it has yet to be acknowledged"
        client.read()
    client.stream.expire()
    assert not quiet()


@BOTH
def test_a_nonce_of_another_type_says_nothing(form: Form) -> None:
    """Be its number between those of the type's own."""
    served = cache()
    client = XdsClient(served, form)
    nonces = []
    for type_url in (EDS, LDS, RDS):
        ask(client, type_url, NAME).pump()
        nonces.append(pb.DiscoveryResponse.FromString(client.flying[-1]).nonce)
    move(served, "10.0.0.2")
    client.pump()
    for nonce in (*nonces[1:], "1"):
        answer: dict[str, Any] = {"response_nonce": nonce, "error_detail": {"message": "no"}}
        if form is Form.SOTW:
            client.ask(EDS, NAME, **answer)
        else:
            client.change(EDS, **answer)
    assert client.refusals == []
    assert client.stream.subscriptions[EDS].unanswered() == {NAME}
    assert [nonce[0] for nonce in nonces] == ["E", "L", "R"]


def test_the_names_of_a_stale_request_are_taken_in() -> None:
    """They are the newest that the client has said; only what it acknowledges is old."""
    served = cache(service(API))
    client = XdsClient(served).ask(EDS, NAME)
    client.read()
    client.ask(EDS, "api.shop:80", response_nonce="E0", error_detail={"message": "late"})
    assert client.read_all() == [(E, "api.shop:80")]
    assert client.refusals == []
    move(served, "10.0.0.2")
    assert client.read_all() == [(E, "api.shop:80")]


def test_one_response_of_assignments_is_under_way_to_a_client_that_acknowledges() -> None:
    served = cache()
    client = XdsClient(served).ask(EDS, NAME)
    client.read()
    move(served, "10.0.0.2")
    assert client.pump()
    move(served, "10.0.0.3")
    assert not client.pump()
    client.ask(CDS, NAME)
    assert client.pump(), "other types do not wait for it"
    client.read()
    assert client.pump()
    client.read_all()
    assert addresses(client.held(EDS)[NAME]) == ["10.0.0.3:9376"]


def test_a_client_that_never_acknowledges_is_not_waited_for() -> None:
    """As a person with grpcurl."""
    served = cache()
    client = XdsClient(served).ask(EDS, NAME)
    for number in range(3):
        assert client.pump()
        move(served, f"10.0.1.{number}")
    client.read()
    client.stream.half_close()
    assert client.pump(), "it can acknowledge nothing any more"


def test_a_stale_change_of_a_delta_subscription_counts() -> None:
    client = XdsClient(cache(service(API)), Form.DELTA).change(EDS, [NAME])
    client.read_all()
    client.change(EDS, ["api.shop:80"], response_nonce="E0")
    assert client.read_all() == [(E, "api.shop:80")]


# -- What the status of clients shows --


def status(client: XdsClient) -> dict[str, tuple[str, str, str]]:
    """Of each name: config status, client status, and the error."""
    shown = ClientStatus(lambda: [client.stream], Limits()).fetch(b"", Call("ipv4:127.0.0.1:1"))
    (config,) = csds_pb2.ClientStatusResponse.FromString(shown).config
    return {
        one.name: (
            csds_pb2.ConfigStatus.Name(one.config_status),
            config_dump_shared_pb2.ClientResourceStatus.Name(one.client_status),
            one.error_state.details,
        )
        for one in config.generic_xds_configs
    }


SYNCED = ("SYNCED", "ACKED", "")
STALE = ("STALE", "REQUESTED", "")


@BOTH
def test_a_status_is_that_of_the_resource_and_not_of_its_type(form: Form) -> None:
    served = cache(service(API, spec({"app": "api"})))
    api = "api.shop:80"
    client = ask(XdsClient(served, form), EDS, NAME, api)
    client.pump()
    assert status(client) == {NAME: STALE, api: STALE}
    client.read()
    assert status(client) == {NAME: SYNCED, api: SYNCED}
    move(served, "10.0.0.2")
    client.read(refuse="no good")
    assert status(client) == {NAME: ("ERROR", "NACKED", "no good"), api: SYNCED}
    served.apply(Apply(vm("b", "10.0.0.9", labels={"app": "api"})))
    client.read()
    assert status(client) == {NAME: ("ERROR", "NACKED", "no good"), api: SYNCED}
    move(served, "10.0.0.3")
    client.read()
    assert status(client) == {NAME: SYNCED, api: SYNCED}


@BOTH
def test_two_responses_are_answered_each_for_itself(form: Form) -> None:
    served = cache(service(API))
    client = XdsClient(served, form, limits=Limits(response_bytes_max=1))
    ask(client, EDS, NAME, "api.shop:80")
    assert client.pump()
    assert client.pump()
    client.read(refuse="the first")
    client.read()
    assert status(client) == {NAME: ("ERROR", "NACKED", "the first"), "api.shop:80": SYNCED}
    (refusal,) = client.refusals
    assert list(refusal.names) == [NAME]


@BOTH
@pytest.mark.parametrize("type_url", [CDS, EDS], ids=lambda type_url: type_url.label)
def test_what_does_not_exist_is_shown_as_far_as_it_can_be_told(
    form: Form, type_url: TypeUrl
) -> None:
    client = ask(XdsClient(cache(), form), type_url, "gone.shop:80")
    client.read_all()
    told = ("SYNCED", "DOES_NOT_EXIST", "")
    if form is Form.SOTW:  # An empty load assignment says it; of a cluster, nothing can.
        told = SYNCED if type_url is EDS else ("NOT_SENT", "REQUESTED", "")
    assert status(client) == {"gone.shop:80": told}


@BOTH
def test_a_refusal_is_of_the_same_content_whoever_refuses(form: Form) -> None:
    served = cache(service(API))
    first = ask(XdsClient(served, form), EDS, NAME)
    second = ask(XdsClient(served, form), EDS, "api.shop:80")
    second.read_all()
    ask(second, EDS, *([NAME, "api.shop:80"] if form is Form.SOTW else [NAME]))
    for client in (first, second):
        client.read(refuse="no good")
    assert first.refusals == second.refusals


def test_a_status_that_no_client_could_take_is_refused() -> None:
    client = XdsClient(cache()).ask(EDS, NAME)
    status = ClientStatus(lambda: [client.stream] * 10, Limits(status_bytes_max=500))
    with pytest.raises(RpcError, match="by node_matchers on node_id") as error:
        status.fetch(b"", Call("ipv4:127.0.0.1:1"))
    assert error.value.code is Code.RESOURCE_EXHAUSTED
    request = csds_pb2.ClientStatusRequest()
    request.node_matchers.add().node_id.exact = "another"
    assert status.fetch(request.SerializeToString(), Call("ipv4:127.0.0.1:1")) == b""


@pytest.mark.parametrize(
    ("matcher", "shown"),
    [
        pytest.param({"exact": "Pod-1"}, True, id="exact"),
        pytest.param({"exact": "pod-1"}, False, id="exact, but for its case"),
        pytest.param({"exact": "pod-1", "ignore_case": True}, True, id="in any case"),
        pytest.param({"prefix": "Pod"}, True, id="a prefix"),
        pytest.param({"suffix": "-2"}, False, id="another suffix"),
        pytest.param({"contains": "D-", "ignore_case": True}, True, id="a part, in any case"),
    ],
)
def test_a_status_can_be_of_some_clients(matcher: dict[str, Any], shown: bool) -> None:
    client = XdsClient(cache(), who=node(node_id="Pod-1")).ask(EDS, NAME)
    request = csds_pb2.ClientStatusRequest(node_matchers=[{"node_id": matcher}])
    status = ClientStatus(lambda: [client.stream], Limits())
    told = status.fetch(request.SerializeToString(), Call("ipv4:127.0.0.1:1"))
    assert bool(csds_pb2.ClientStatusResponse.FromString(told).config) is shown


def matching(*matchers: Any) -> csds_pb2.ClientStatusRequest:
    return csds_pb2.ClientStatusRequest(node_matchers=matchers)


@pytest.mark.parametrize(
    ("matchers", "shown"),
    [
        pytest.param([], ["a", "b"], id="no matcher"),
        pytest.param([{}], ["a", "b"], id="one that says nothing"),
        pytest.param([{"node_id": {"exact": "a"}}, {}], ["a", "b"], id="any of them is enough"),
        pytest.param(
            [{"node_id": {"exact": "b"}}, {"node_id": {"exact": "x"}}], ["b"], id="one of two"
        ),
        pytest.param([{"node_id": {"prefix": ""}}], ["a", "b"], id="any beginning"),
    ],
)
def test_a_status_is_of_clients_that_any_matcher_matches(matchers: Any, shown: list[str]) -> None:
    clients = [XdsClient(cache(), who=node(node_id=name)).ask(EDS, NAME) for name in "ab"]
    status = ClientStatus(lambda: [client.stream for client in clients], Limits())
    told = status.fetch(matching(*matchers).SerializeToString(), Call("ipv4:127.0.0.1:1"))
    configs = csds_pb2.ClientStatusResponse.FromString(told).config
    assert [config.node.id for config in configs] == shown


@pytest.mark.parametrize(
    ("matchers", "says"),
    [
        pytest.param(
            [{}, {"node_id": {"safe_regex": {"regex": "(a+)+"}}}],
            "node_matchers[1].node_id: safe_regex cannot be matched by here; use exact, prefix",
            id="a regular expression",
        ),
        pytest.param(
            [{"node_id": {}}],
            "node_matchers[0].node_id: has no pattern; use exact",
            id="no pattern",
        ),
        pytest.param(
            [{"node_id": {"exact": "a"}, "node_metadatas": [{"path": [{"key": "k"}]}]}],
            "node_matchers[0].node_metadatas: cannot be matched by here; match on node_id",
            id="metadata",
        ),
        pytest.param([{}] * 21, "node_matchers: 21 are too many; use at most 20", id="too many"),
    ],
)
def test_what_a_status_cannot_be_matched_by_is_refused(matchers: Any, says: str) -> None:
    with pytest.raises(RpcError) as failure:
        ClientStatus(list, Limits()).fetch(matching(*matchers).SerializeToString(), Call("peer"))
    assert failure.value.code is Code.INVALID_ARGUMENT
    assert failure.value.message.startswith(says)


def test_a_status_that_is_too_large_is_refused_before_it_is_made() -> None:
    """And one of just below costs what it tells: some lines a resource."""
    keys = [Key("shop", f"s{number:04}") for number in range(1_000)]
    served = synced_cache(*map(service, keys))
    client = XdsClient(served).ask(EDS, *(f"{key.name}.shop:80" for key in keys))
    client.read_all()
    streams = [client.stream] * 500

    def fetched(limits: Limits) -> int:
        with counted_lines() as lines, suppress(RpcError):
            ClientStatus(lambda: streams, limits).fetch(b"", Call("peer"))
        return lines[0]

    assert fetched(Limits(status_bytes_max=30_000_000)) < 20 * len(streams)
    # Where only its making tells, no more is made of one client than is too much.
    streams = [client.stream]
    assert fetched(Limits(status_bytes_max=71_000)) < 30 * 1_000
    told = ClientStatus(lambda: streams, Limits()).fetch(b"", Call("peer"))
    (config,) = csds_pb2.ClientStatusResponse.FromString(told).config
    assert [one.name for one in config.generic_xds_configs] == [f"{k.name}.shop:80" for k in keys]


def test_a_name_and_a_refusal_of_any_length_are_told_as_they_are() -> None:
    for length in (1, 100, 200, 1_000):
        name = "x" * length
        client = XdsClient(cache(), who=node(node_id="n" * length)).ask(EDS, NAME, name)
        client.read(refuse="no " * (length // 3))
        told = ClientStatus(lambda stream=client.stream: [stream], Limits()).fetch(  # type: ignore[misc] # bound now
            b"", Call("peer")
        )
        (config,) = csds_pb2.ClientStatusResponse.FromString(told).config
        assert config.node.id == "n" * length
        shown = {one.name: one for one in config.generic_xds_configs}
        assert shown.keys() == {NAME, name}
        assert shown[NAME].error_state.details == "no " * (length // 3)
        assert {one.type_url for one in shown.values()} == {EDS.value}


@BOTH
def test_an_envoy_that_asks_for_listeners_of_which_there_are_none_is_quiet(form: Form) -> None:
    """It never was, so no message was made once for it and for others with the same news."""
    client = XdsClient(cache(), form, who=node("envoy"))
    for type_url in (CDS, LDS):
        ask(client, type_url).read_all()
    assert client.stream.quiet
    ask(client, EDS, NAME).read_all()
    move(client.cache, "10.0.0.9")
    assert client.read_all() == [(E, NAME)]
    assert client.stream.quiet
