"""What a client of xDS may ask for, and what is kept of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2 as pb

from tests.unit.leavings import leavings
from tests.unit.objects import service
from tests.unit.server.endpoint_service.watching import emptied, synced_cache
from tests.unit.server.xds.client import (
    CDS,
    EDS,
    RDS,
    XdsClient,
    addresses,
    node,
)
from tests.unit.server.xds.world import (
    API,
    BOTH,
    ENVOY,
    NAME,
    C,
    E,
    R,
    ask,
    cache,
    move,
    remove,
)
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.events import Apply, Delete
from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.server.call import LATER, EndOfStream
from vmsvc_grpc.server.followed import FollowedNames
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.xds.requests import Node
from vmsvc_grpc.server.xds.resources import TypeUrl
from vmsvc_grpc.server.xds.shared import LOOKS_MAX, Form


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
    client.close()
    emptied(served)
    assert leavings(served) == []


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
    assert not client.stream._following._topics
    subscription = client.stream.subscriptions[CDS]
    assert not subscription.digests
    assert not subscription.under_way
    assert sorted(client.held(CDS)) == [NAME]


# -- What a client may ask for --


def request(form: Form, names: Sequence[str], type_url: str = EDS.value, **fields: Any) -> bytes:
    """A request that has these names wherever it can."""
    if form is Form.SOTW:
        message: Any = pb.DiscoveryRequest(type_url=type_url, resource_names=names, **fields)
    else:
        message = pb.DeltaDiscoveryRequest(
            type_url=type_url,
            resource_names_subscribe=names,
            resource_names_unsubscribe=names[len(names) // 2 :],
            initial_resource_versions=dict.fromkeys(names, "1"),
            **fields,
        )
    raw: bytes = message.SerializeToString()
    return raw


LONG = "x" * 5_000
ODD = [
    "",
    "*",
    "\0",
    "\n\x1b[2J",
    "\u202e",
    ".",
    ":",
    "a.b.c.d",
    ":80",
    "web.shop:",
    LONG,
    "x" * 200_000,
]
MANY = [f"s{number}.shop:80" for number in range(4)]
KINDS = pytest.mark.parametrize("type_url", [EDS.value, CDS.value, "another", "another" * 1_000])


@BOTH
@KINDS
@pytest.mark.parametrize(
    "names",
    [
        pytest.param(ODD, id="odd ones"),
        pytest.param([LONG], id="a long one alone"),
        pytest.param([NAME] * 10, id="the same ones"),
        pytest.param(MANY * 3, id="more than a stream may have"),
        pytest.param([f"{'y' * 2_000}{number}" for number in range(100)], id="many long ones"),
    ],
)
def test_no_name_and_no_number_of_them_ends_a_stream(
    form: Form, type_url: str, names: list[str]
) -> None:
    """One HTTP request with a long `x-cluster` cut an Envoy off for good: its stream was ended
    for the name, and each one after it.
    """
    limits = Limits(xds_resources_max=3, response_bytes_max=10_000)
    client = XdsClient(cache(), form, limits=limits)
    client.stream.receive(request(form, names, type_url))
    while (raw := client.said()) is not None:
        assert len(raw) < limits.response_bytes_max + 1_000
    client = ask(client, RDS, NAME)
    assert client.read_all() == [(R, NAME)]
    for subscription in client.stream.subscriptions.values():
        assert len(subscription.names) <= 3
        assert not subscription.under_way


@BOTH
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"node": {"id": "n" * 100_000}}, id="a node's id"),
        pytest.param({"node": node(namespace="x" * 100_000, readiness="\0")}, id="metadata"),
        pytest.param({"response_nonce": "E" + "9" * 100_000}, id="a nonce"),
        pytest.param({"error_detail": {"code": -1, "message": "e\n" * 100_000}}, id="an error"),
    ],
)
def test_nothing_that_a_client_says_of_itself_ends_a_stream(form: Form, fields: Any) -> None:
    client = XdsClient(cache(), form)
    client.stream.receive(request(form, [], **fields))
    assert (R, NAME) in ask(client, RDS, NAME).read_all()


@BOTH
@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(b"\xff", id="not UTF-8"),
        pytest.param(b"web.shop:80\xc3", id="cut within a character"),
        pytest.param(b"\xed\xa0\x80", id="half a surrogate"),
    ],
)
def test_text_that_is_not_utf8_is_nothings_name(form: Form, bad: bytes) -> None:
    """Envoy passes on what a header of an HTTP request says, which may be any bytes."""
    client = XdsClient(cache(), form)
    text = b"?" * len(bad)
    who = {"id": "?" * len(bad), "user_agent_name": "envoy"}
    error = {"message": "?" * len(bad)}
    names = [NAME, text.decode()]
    fields: dict[str, Any] = {"node": who, "error_detail": error, "response_nonce": text.decode()}
    client.stream.receive(request(form, names, **fields).replace(text, bad))
    told = client.read()
    assert told is not None
    assert told[:1] == (E,)
    assert (R, NAME) in ask(client, RDS, NAME).read_all()


def test_a_node_that_holds_what_cannot_be_read_is_known_by_its_id() -> None:
    value = b""
    for _ in range(60):  # A list in a list, and so on: fields 1 and 6 of google.protobuf.
        value = _field(6, _field(1, value))
    who = node("envoy").SerializeToString() + _field(
        3, _field(1, _field(1, b"k") + _field(2, value))
    )
    client = XdsClient(cache())
    client.stream.receive(request(Form.SOTW, [NAME]) + _field(2, who))
    assert client.read_all() == [(E, NAME)]
    assert client.stream.node is not None
    assert client.stream.node == Node("n1", None, envoy=True)
    assert client.stream.node.message == base_pb2.Node(id="n1")


def _field(number: int, content: bytes) -> bytes:
    assert len(content) < 1 << 14
    return bytes((number << 3 | 2, len(content) & 0x7F | 0x80, len(content) >> 7)) + content


def test_names_that_a_stream_has_no_room_for_are_of_nothing_until_it_has() -> None:
    client = XdsClient(cache(), Form.DELTA, limits=Limits(xds_resources_max=3))
    client.change(EDS, MANY[:3]).change(EDS, MANY[:3])
    client.read_all()
    client.change(EDS, [NAME])
    assert client.read_all() == [(E, f"-{NAME}")]
    assert client.counts.refusals == {"xds_resources_max": 1}
    client.change(EDS, [], MANY[:1]).change(EDS, [NAME])
    assert client.read_all() == [(E, NAME)]
    far = XdsClient(cache(), limits=Limits(xds_resources_max=3)).ask(EDS, *MANY[:3], NAME)
    far.read_all()
    assert NAME not in far.held(EDS)
    far.ask(EDS, *MANY[1:3], NAME)
    assert far.read_all() == [(E, NAME)]


def test_names_without_room_are_counted_once_and_not_with_each_acknowledgement() -> None:
    """The state of the world repeats all names in each ACK; refused ones were refused each time."""
    limits = Limits(xds_resources_max=3)
    client = XdsClient(served := cache(), limits=limits).ask(EDS, NAME, *MANY)
    for number in range(5):
        client.read_all()
        move(served, f"10.0.1.{number}")
    assert client.counts.refusals == {"xds_resources_max": 2}
    assert len(client.excess) == 2
    client.ask(EDS, NAME, *MANY, "other.shop:80")
    client.read_all()
    assert client.counts.refusals == {"xds_resources_max": 5}, "they are asked for once more"


@pytest.mark.parametrize("type_url", [CDS, EDS], ids=lambda type_url: type_url.label)
def test_names_without_room_beside_a_wildcard_are_not_answered_again_and_again(
    type_url: TypeUrl,
) -> None:
    """Each ACK seemed to ask for something new, and was answered with all clusters at once."""
    client = XdsClient(cache(), limits=Limits(xds_resources_max=3)).ask(type_url, "*")
    client.read_all()
    client.ask(type_url, "*", NAME, *MANY)
    told = [client.read() for _ in range(4)]
    assert told[-2:] == [None, None]


def test_a_name_that_another_stream_leaves_room_for_is_taken_with_the_next_acknowledgement() -> (
    None
):
    limits = Limits(names_per_client_max=3)
    names = FollowedNames(limits, Counter())
    other = XdsClient(served := cache(), limits=limits, names=names).ask(EDS, *MANY[:2])
    other.read_all()
    client = XdsClient(served, limits=limits, names=names).ask(EDS, MANY[3], NAME)
    client.read_all()
    assert NAME not in client.held(EDS)
    other.close()
    served.apply(Apply(service(Key("shop", "s3"))))
    assert client.read_all() == [(E, MANY[3]), (E, NAME)]


def test_a_name_without_room_that_the_wildcard_has_is_sent() -> None:
    client = XdsClient(cache(), Form.DELTA, limits=Limits(xds_resources_max=1)).change(CDS)
    client.read_all()
    client.change(CDS, ["gone.shop:80", NAME])
    assert client.read_all() == [(C, "-gone.shop:80"), (C, NAME)]
    client.change(CDS, [], ["never.shop:80", NAME])
    assert client.read_all() == [(C, NAME), (C, "-never.shop:80")]


@BOTH
def test_a_wildcard_has_no_bound(form: Form) -> None:
    """Else two services with many ports would end it for all."""
    others = [service(Key("shop", f"s{number}")) for number in range(3)]
    limits = Limits(xds_resources_max=3)
    client = ask(XdsClient(served := cache(*others), form, limits=limits, who=ENVOY), CDS)
    client.read_all()
    assert len(client.held(CDS)) == 4
    remove(served)
    client.reconnect()
    client.read_all()
    assert sorted(client.held(CDS)) == [f"s{number}.shop:80" for number in range(3)]


def test_a_name_that_is_told_back_is_of_bounded_length() -> None:
    client = XdsClient(cache(), Form.DELTA, limits=Limits(response_bytes_max=4_000))
    client.change(EDS, ["x" * 1_025, "y" * 5_000, "z" * 2_000, "w" * 2_000])
    assert client.read_all() == [(E, "-" + "x" * 1_025, "-" + "z" * 2_000)]
    assert client.stream.subscriptions[EDS].names == {}


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
    assert client.stream.subscriptions[EDS].refusals.words_of(NAME) == "no" * 500


def test_the_words_of_refusals_do_not_multiply_by_names() -> None:
    """8 MB were kept of a stream that follows 2,000 names by one wildcard, which counts as none."""
    keys = [Key("shop", f"s{number}") for number in range(50)]
    client = XdsClient(cache(*map(service, keys)), Form.DELTA, who=ENVOY).change(EDS, ["*"])
    client.read_all()
    names = [f"{key.name}.shop:80" for key in keys]
    for name in names:
        client.change(EDS, [], [name])
        assert client.read(refuse=f"{name}: " + "x" * 900) == (E, name)
    subscription = client.stream.subscriptions[EDS]
    kept = {id(words): words for words in map(subscription.refusals.words_of, names)}
    assert all(kept.values()), "each is shown as refused"
    assert sum(map(len, kept.values())) <= 4_200
    assert subscription.refusals.words_of(names[-1]).startswith(names[-1])
    assert subscription.refusals.words_of(names[-4]).startswith(names[-4])
    client.change(EDS, ["*"])
    client.read_all()
    assert not subscription.refusals


@pytest.mark.parametrize("named", [(), ("*",), (NAME,)], ids=["all", "a wildcard", "a name"])
def test_of_a_request_that_comes_again_nothing_is_kept_but_its_names(
    named: tuple[str, ...],
) -> None:
    """protobuf's own list keeps its message: an Envoy's node, of some 100 KB, with each type."""
    client = XdsClient(cache(), Form.SOTW, who=node("envoy", node_id="n" * 100_000))
    for _ in range(2):
        client._first = True
        client.ask(EDS, *named)
    assert client.stream.subscriptions[EDS].asked_few == named
    assert type(client.stream.subscriptions[EDS].asked_few) is tuple


def test_a_reason_that_comes_again_and_again_is_not_forgotten_for_it() -> None:
    keys = [Key("shop", f"s{number}") for number in range(10)]
    client = XdsClient(cache(*map(service, keys)), Form.DELTA, who=ENVOY)
    client.change(EDS, [NAME])
    client.read(refuse="first")
    for key in keys:
        client.change(EDS, [f"{key.name}.shop:80"])
        client.read(refuse="again")
    assert client.stream.subscriptions[EDS].refusals.words_of(NAME) == "first"


def test_a_refusal_of_names_that_are_denied_leaves_nothing() -> None:
    client = XdsClient(cache(), Form.DELTA, who=ENVOY)
    denied = [f"none{number}" + "x" * 1_100 for number in range(5)]
    client.change(CDS, [NAME, *denied])
    while client.read(refuse="no") is not None:
        pass
    told = {name for refusal in client.refusals for name in refusal.names}
    assert len(told) == 1 + len(denied), "the log has all of them"
    assert len(client.stream.subscriptions[CDS].refusals) == 1
    assert client.stream.subscriptions[CDS].refusals.words_of(NAME) == "no"


@pytest.mark.parametrize("letter", ["x", "\u00e4"])
@pytest.mark.parametrize("size", [20, 1_000, 1_100], ids=["short", "long", "too long"])
@pytest.mark.parametrize("dropped", [True, False], ids=["and drops them", "beyond its room"])
def test_a_client_that_never_acknowledges_keeps_little_more_than_it_follows(
    letter: str, size: int, dropped: bool
) -> None:
    """One kept 200 MiB after half a minute: all names that it had ever been sent."""
    client = XdsClient(cache(), Form.DELTA, who=ENVOY, limits=Limits(xds_resources_max=50))
    client.change(EDS, [NAME])
    for begin in range(0, 4_000, 100):
        names = [f"{number:06}".ljust(size, letter) for number in range(begin, begin + 100)]
        client.change(EDS, names)
        while client.pump():
            client.flying.pop()
        if dropped:
            client.change(EDS, [], names)
    subscription = client.stream.subscriptions[EDS]
    kept = [name for sent in subscription._unanswered for name in sent.names or ()]
    followed = sum(len(name.encode()) for name in subscription.names)
    assert sum(len(name.encode()) for name in kept) < 20_000 + 5 * followed
    assert len(subscription._unanswered) <= 65
    # What it acknowledges in the end counts.
    client.change(EDS, response_nonce=f"E{subscription.nonce}")
    assert not subscription.unanswered()


def test_a_refusal_after_many_answers_unheard_is_of_what_is_followed() -> None:
    served = cache()
    client = XdsClient(served, Form.DELTA, who=ENVOY).change(EDS, [NAME])
    for number in range(200):
        move(served, f"10.0.1.{number}")
        client.pump()
        client.flying.pop()
    nonce = f"E{client.stream.subscriptions[EDS].nonce}"
    client.change(EDS, response_nonce=nonce, error_detail={"message": "no"})
    assert [refusal.names for refusal in client.refusals] == [[NAME]]
    assert len(client.stream.subscriptions[EDS].refusals) == 1
    assert client.stream.subscriptions[EDS].refusals.words_of(NAME) == "no"


def test_a_refusal_of_a_name_that_was_dropped_before_it_came_leaves_nothing() -> None:
    client = XdsClient(cache(), Form.DELTA, who=ENVOY)
    client.change(CDS, [NAME])
    assert client.pump()
    client.change(CDS, [], [NAME])
    while client.read(refuse="no") is not None:
        pass
    assert client.refusals
    assert not client.stream.subscriptions[CDS].refusals


def test_a_refusal_of_what_a_wildcard_covers_is_kept() -> None:
    client = ask(XdsClient(cache(), Form.DELTA, who=ENVOY), CDS)
    client.read_all()
    client.change(CDS, ["*"])
    assert client.read(refuse="no") is not None
    assert client.stream.subscriptions[CDS].refusals.words_of(NAME) == "no"


_REFUSABLE = [Key("shop", f"s{number}") for number in range(20)]


def _refused(limits: Limits | None = None) -> tuple[Cache, XdsClient]:
    """A delta client that has refused all load assignments that its wildcard covers."""
    served = synced_cache(*map(service, _REFUSABLE))
    client = XdsClient(served, Form.DELTA, who=ENVOY, limits=limits).change(EDS, ["*"])
    while client.read(refuse="no") is not None:
        pass
    return served, client


def _accept_all(served: Cache, client: XdsClient) -> None:
    client.change(EDS, ["*"]).read_all()


def _accept_one_by_one(served: Cache, client: XdsClient) -> None:
    client.change(EDS, [f"{key.name}.shop:80" for key in _REFUSABLE]).read_all()
    client.change(EDS, [], [f"{key.name}.shop:80" for key in _REFUSABLE]).read_all()


def _drop_the_wildcard(served: Cache, client: XdsClient) -> None:
    client.change(EDS, [], ["*"]).read_all()


def _delete_all(served: Cache, client: XdsClient) -> None:
    for key in _REFUSABLE:
        served.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, key))
    client.read_all()


def _end(served: Cache, client: XdsClient) -> None:
    client.close()


@pytest.mark.parametrize(
    "let_go", [_accept_all, _accept_one_by_one, _drop_the_wildcard, _delete_all, _end]
)
def test_what_is_refused_of_a_wildcard_takes_room_until_it_is_let_go(
    let_go: Callable[[Cache, XdsClient], None],
) -> None:
    """Each such name kept 100 bytes that counted for nobody: 2 GB with 10,000 services."""
    served, client = _refused()
    assert client.names.names == len(_REFUSABLE)
    assert len(client.stream.subscriptions[EDS].refusals) == len(_REFUSABLE)
    let_go(served, client)
    assert (client.names.names, client.names.name_bytes) == (0, 0)


def test_what_is_refused_by_name_and_by_the_wildcard_takes_room_once() -> None:
    _, client = _refused()
    names = [f"{key.name}.shop:80" for key in _REFUSABLE]
    client.change(EDS, names[:5])
    assert client.names.names == len(_REFUSABLE), "five of them now have their room as names"
    client.change(EDS, [], names[:5])
    assert client.names.names == len(_REFUSABLE), "and now again as what is refused"
    refusals = client.stream.subscriptions[EDS].refusals
    assert [refusals.words_of(name) for name in names] == ["no"] * len(names)


def test_a_refusal_without_room_is_counted_and_leaves_the_stream_as_it_is() -> None:
    served, client = _refused(Limits(names_per_client_max=5))
    assert client.names.names == len(client.stream.subscriptions[EDS].refusals) == 5
    assert client.counts.refusals == {"names_per_client_max": len(_REFUSABLE) - 5}
    assert [len(refusal.names) for refusal in client.refusals] == [len(_REFUSABLE)]
    served.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, _REFUSABLE[-1]))
    assert client.read_all() == [(E, f"-{_REFUSABLE[-1].name}.shop:80")]


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


@BOTH
def test_a_wildcard_that_is_not_read_holds_nothing_for_it(form: Form) -> None:
    served = cache()
    client = ask(XdsClient(served, form, who=ENVOY), CDS)
    client.read_all()
    keys = [Key("shop", f"s{number}") for number in range(20)]
    for key in keys:
        served.apply(Apply(service(key)))
    assert client.wakes == 1
    assert not client.stream.subscriptions[CDS].under_way
    client.read_all()
    assert sorted(client.held(CDS)) == sorted([NAME, *(f"{key.name}.shop:80" for key in keys)])


@pytest.mark.parametrize("what", ["asked", "held", "let go"])
def test_names_of_nothing_are_taken_away_some_at_a_time(what: str) -> None:
    """In one response they took up to 0.4 s of everybody's time."""
    many = [f"n{number:05}.shop:80" for number in range(5_000)]
    client = XdsClient(cache(), Form.DELTA)
    asked = {
        "asked": {"resource_names_subscribe": many},
        "held": {"initial_resource_versions": dict.fromkeys(many, "x")},
        "let go": {"resource_names_unsubscribe": many},
    }[what]
    request = pb.DeltaDiscoveryRequest(type_url=EDS.value, **asked)  # type: ignore[arg-type]
    client.stream.receive(request.SerializeToString())
    removed = []
    while (said := client.stream.next_message()) is not None:
        if said is not LATER:
            removed.append(list(pb.DeltaDiscoveryResponse.FromString(said).removed_resources))
    assert max(map(len, removed)) <= 4 * LOOKS_MAX
    assert sorted(name for some in removed for name in some) == many
