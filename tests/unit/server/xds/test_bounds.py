"""What a client of xDS may ask for, and what is kept of it."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2 as pb

from tests.unit.objects import WEB, service
from tests.unit.server.endpoint_service.watching import emptied
from tests.unit.server.xds.client import (
    CDS,
    EDS,
    XdsClient,
    addresses,
    node,
)
from tests.unit.server.xds.world import (
    API,
    BOTH,
    ENVOY,
    NAME,
    E,
    ask,
    cache,
    move,
    remove,
)
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.call import Code, EndOfStream, RpcError
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.xds.stream import Form


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
    assert client.stream._following._topics.keys() == {WEB}
    assert sorted(client.held(CDS)) == [NAME]


# -- What a client may ask for --


def refused(client: XdsClient, **request: Any) -> RpcError:
    """How a stream ends for a request of load assignments."""
    kind = pb.DiscoveryRequest if client.form is Form.SOTW else pb.DeltaDiscoveryRequest
    with pytest.raises(RpcError) as error:
        client.stream.receive(kind(type_url=EDS.value, **request).SerializeToString())
    return error.value


MANY = [f"s{number}.shop:80" for number in range(4)]


@pytest.mark.parametrize(
    ("form", "request_"),
    [
        pytest.param(Form.SOTW, {"resource_names": MANY}, id="asked for"),
        pytest.param(Form.DELTA, {"resource_names_subscribe": MANY}, id="subscribed to"),
        pytest.param(Form.DELTA, {"resource_names_unsubscribe": MANY}, id="unsubscribed from"),
        pytest.param(
            Form.DELTA, {"initial_resource_versions": dict.fromkeys(MANY, "1")}, id="held"
        ),
    ],
)
def test_more_names_than_a_stream_may_have_end_it(form: Form, request_: Any) -> None:
    error = refused(XdsClient(cache(), form, limits=Limits(xds_resources_max=3)), **request_)
    assert error.code is Code.RESOURCE_EXHAUSTED
    assert "xds_resources_max" in error.message


def test_names_add_up() -> None:
    client = XdsClient(cache(), Form.DELTA, limits=Limits(xds_resources_max=3))
    client.change(EDS, MANY[:3]).change(EDS, MANY[:3])
    assert refused(client, resource_names_subscribe=MANY[3:]).code is Code.RESOURCE_EXHAUSTED


@BOTH
def test_a_wildcard_over_more_than_a_client_could_name_later_ends_the_stream(form: Form) -> None:
    """Else its next stream, which says what it holds, would be refused for ever."""
    others = [service(Key("shop", f"s{number}")) for number in range(3)]
    client = ask(XdsClient(cache(*others), form, limits=Limits(xds_resources_max=3)), CDS)
    with pytest.raises(RpcError) as error:
        client.read_all()
    assert error.value.code is Code.RESOURCE_EXHAUSTED


def test_a_name_that_is_told_back_is_of_bounded_length() -> None:
    client = XdsClient(cache(), Form.DELTA).change(EDS, ["x" * 1_024])
    assert client.read_all() == [(E, "-" + "x" * 1_024)]
    assert refused(client, resource_names_subscribe=["x" * 1_025]).code is Code.INVALID_ARGUMENT


# -- What is kept of it --


def test_little_is_kept_of_what_a_client_says_about_itself() -> None:
    who = node("envoy", readiness="all")
    who.extensions.add(name="x" * 1_000)
    client = XdsClient(cache(), who=who).ask(EDS, NAME)
    assert client.stream.node is not None
    assert client.stream.node.message.ByteSize() < 100
    assert client.stream.node.filter_class is FilterClass.ALL
    who = node("envoy", node_id="n" * 100_000, readiness="all", much="x" * 100_000)
    client = XdsClient(cache(), who=who).ask(EDS, NAME)
    assert client.stream.node is not None
    assert client.stream.node.message.ByteSize() < 1_100
    assert client.stream.node.filter_class is FilterClass.ALL


def test_little_is_kept_of_a_refusal() -> None:
    client = XdsClient(cache()).ask(EDS, NAME)
    client.read(refuse="no" * 1_000)
    assert [len(refusal.message) for refusal in client.refusals] == [1_000]
    assert len(client.stream.subscriptions[EDS].refused[NAME]) == 1_000


def test_names_that_come_and_go_leave_nothing_even_if_there_is_always_something_to_say() -> None:
    served = cache()
    client = XdsClient(served, Form.DELTA)
    topics = served.topic_count
    before = ""
    for number in range(50):
        name = f"gone{number}.shop:80"
        client.change(EDS, [name], [before] if before else [])
        assert client.pump()
        before = name
    assert served.topic_count <= topics + 2


def test_a_client_that_does_not_read_has_few_services_noted() -> None:
    served = cache()
    client = XdsClient(served, Form.DELTA, who=ENVOY, limits=Limits(services_per_stream_max=5))
    client.change(CDS).read_all()
    keys = [Key("shop", f"s{number}") for number in range(20)]
    for key in keys:
        served.apply(Apply(service(key)))
    assert len(client.stream._following._noted) <= 5
    client.read_all()
    assert sorted(client.held(CDS)) == sorted([NAME, *(f"{key.name}.shop:80" for key in keys)])
