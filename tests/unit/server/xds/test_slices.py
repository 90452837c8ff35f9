"""Who follows everything: what is done in one turn, and what is made once for all."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2 as pb

from tests.unit.counting import counted_calls, counted_lines, is_linear
from tests.unit.objects import service, spec, vm
from tests.unit.server.endpoint_service.watching import synced_cache
from tests.unit.server.xds.client import CDS, EDS, LDS, RDS, XdsClient, node, truth
from tests.unit.server.xds.world import API, BOTH, C, E, ask, ports
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply, Delete
from vmsvc_grpc.model.objects import Key, Kind, VirtualMachine
from vmsvc_grpc.server.access.caller import Caller
from vmsvc_grpc.server.access.gate import ShutGate
from vmsvc_grpc.server.access.needs import OPEN, Needs
from vmsvc_grpc.server.admission import Admission
from vmsvc_grpc.server.call import LATER, RequestBound, StreamMethod
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.session import Session, Sessions
from vmsvc_grpc.server.xds.assignments import AT_ONCE
from vmsvc_grpc.server.xds.listing import Listings
from vmsvc_grpc.server.xds.resources import Resources, TypeUrl
from vmsvc_grpc.server.xds.shared import LOOKS_MAX, Form

OPEN_TO_ALL = Needs(OPEN)

COUNT = 5 * LOOKS_MAX
ALL_CLUSTERS = f"all {C}"


def many(count: int = COUNT) -> Cache:
    return synced_cache(*(service(Key("shop", f"s{number:04}")) for number in range(count)))


def following(served: Cache, form: Form, resources: Resources | None = None) -> XdsClient:
    """An Envoy that has asked for everything, and read nothing yet."""
    client = XdsClient(served, form, who=node("envoy"), resources=resources)
    for type_url in (CDS, EDS):
        if form is Form.SOTW:
            client.ask(type_url)
        else:
            client.change(type_url)
    return client


@BOTH
def test_the_first_answers_are_worked_out_in_slices(form: Form) -> None:
    client = following(many(), form)
    made: list[int] = []
    while (said := client.stream.next_message()) is not None:
        made.append(sum(client.counts.xds_encodings.values()))
        if said is not LATER:
            client.flying.append(said)
    assert len(client.flying) <= 4, "slices are no reason for more responses"
    client.read_all()
    assert len(client.held(CDS)) == len(client.held(EDS)) == COUNT
    a_turn = [after - before for before, after in zip([0, *made], made, strict=False)]
    assert max(a_turn) <= LOOKS_MAX + 1


@BOTH
def test_a_change_among_many_takes_one_turn_but_for_a_body_that_is_large(form: Form) -> None:
    served = many()
    client = following(served, form)
    client.read_all()
    client.slices = 0
    served.apply(Apply(service(Key("shop", "new"))))
    assert sorted(kind for kind, *_ in client.read_all()) == [C, "ClusterLoadAssignment"]
    assert client.slices == (1 if form is Form.SOTW else 0)


def test_all_clusters_are_one_body_made_once_for_all_who_are_told_the_same() -> None:
    served, counts = many(), ServerCounts()
    resources = Resources(counts)
    clients = [following(served, Form.SOTW, resources) for _ in range(10)]
    for client in clients:
        client.read_all()
    assert counts.xds_encodings[ALL_CLUSTERS] == 1
    assert counts.xds_encodings[C] == COUNT
    served.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, Key("shop", "s0000")))
    sent = []
    for client in clients:
        while not client.pump():
            pass
        sent.append(client.flying[0])
        client.read_all()
        assert len(client.held(CDS)) == COUNT - 1
    assert len({id(message) for message in sent}) == 1, "one message for all, nonce and all"
    assert counts.xds_encodings[ALL_CLUSTERS] == 2
    assert counts.xds_encodings[C] == COUNT


def test_the_body_of_all_clusters_goes_with_those_who_follow_it() -> None:
    served, resources = many(), Resources(ServerCounts())
    client = following(served, Form.SOTW, resources)
    client.read_all()
    bodies = resources._bodies[CDS]
    assert len(bodies._bodies) == 1
    client.close()
    assert (len(bodies._bodies), bodies.size) == (0, 0)


@pytest.mark.parametrize("refuse", ["", "no good"], ids=["acknowledged", "refused"])
def test_a_response_with_everything_is_noted_without_an_entry_for_each(refuse: str) -> None:
    client = XdsClient(many(), Form.SOTW, who=node("envoy"))
    client.ask(CDS)
    client.pump()
    subscription = client.stream.subscriptions[CDS]
    assert [sent.names for sent in subscription._unanswered] == [None]
    assert len(subscription.unanswered()) == COUNT
    client.read(refuse=refuse)
    assert client.read() is None
    assert not subscription.unanswered()
    assert subscription.refusals.words_of("s0000.shop:80") == refuse
    assert len(subscription.refusals) == 0
    assert [len(refusal.names) for refusal in client.refusals] == ([COUNT] if refuse else [])


@BOTH
def test_a_request_with_many_names_is_taken_in_in_slices(form: Form) -> None:
    client = XdsClient(many(), form, who=node("envoy"))
    names = [f"{kind}{number:04}.shop:80" for kind in ("s", "none") for number in range(COUNT)]
    if form is Form.SOTW:
        client.ask(EDS, *names)
    else:
        client.change(EDS, names)
    subscription = client.stream.subscriptions[EDS]
    taken = [len(subscription.names)]
    while len(subscription.names) < len(names):
        assert client.stream.next_message() is LATER, "nothing is said before all is taken in"
        taken.append(len(subscription.names))
    assert max(after - before for before, after in pairwise([0, *taken])) <= 4 * LOOKS_MAX
    client.read_all()
    assert len(client.held(EDS)) == (2 if form is Form.SOTW else 1) * COUNT


@BOTH
def test_the_requests_behind_a_large_one_wait_until_that_is_taken_in(form: Form) -> None:
    """They were taken in at once with it, in one turn, where they were more than a few."""
    client = XdsClient(many(), form, who=node("envoy"))
    sessions = Sessions(Admission(Limits(), client.counts), client.counts, Limits(), ShutGate())
    method = StreamMethod(
        "/t.T/M", lambda *_: client.stream, RequestBound.MANY_NAMES, {}, OPEN_TO_ALL, True
    )
    session = sessions.open(method, Caller("ipv4:192.0.2.1:50000"), lambda: None)
    assert isinstance(session, Session)
    kind: Any = pb.DiscoveryRequest if form is Form.SOTW else pb.DeltaDiscoveryRequest
    field = "resource_names" if form is Form.SOTW else "resource_names_subscribe"
    count = 20
    waiting = deque(
        kind(type_url=EDS.value, **{field: [f"s{n}.shop:{port}" for n in range(COUNT)]})
        for port in range(count)
    )
    turns = 0
    while waiting:
        if not session.in_hand:
            session.receive(waiting.popleft().SerializeToString())
        turns += session.next() is LATER
    assert turns >= (count - 1) * (COUNT // (4 * LOOKS_MAX))


@BOTH
def test_a_stream_lets_go_of_what_it_named_step_by_step_and_hears_of_none_of_it(form: Form) -> None:
    """100 Envoys that went at once stood all others still for up to a second."""
    served = many()
    client = XdsClient(served, form, who=node("envoy"))
    names = [f"s{number:04}.shop:80" for number in range(COUNT)]
    client = ask(ask(client, CDS), EDS, *names)
    client.read_all()
    client.stream.close()
    wakes = client.wakes
    (steps,) = client.left

    def followed() -> int:
        return sum(len(topic.subscriptions) for topic in served._topics._topics.values())

    for left in reversed(range(COUNT)):
        next(steps)
        assert followed() == left
        if left == COUNT // 2:
            served.apply(Apply(vm("a", "10.0.0.1")))
    assert client.wakes == wakes


@BOTH
@pytest.mark.parametrize("by_name", [True, False], ids=["by name", "wildcard"])
def test_large_load_assignments_have_turns_of_their_own(form: Form, by_name: bool) -> None:
    """Those of 5,000 VMs take some 20 ms each, and were 128 a turn as all others."""
    keys = [Key("shop", f"large-{number}") for number in range(10)]
    vms = (vm(f"vm-{n}", f"10.0.{n // 250}.{n % 250}") for n in range(2_000))
    served = synced_cache(*map(service, keys), *vms)
    client = XdsClient(served, form, who=node("envoy"))
    names = [f"{key.name}.shop:80" for key in keys] if by_name else ["*"]
    ask(client, EDS, *names)
    made = [0]
    while client.stream.next_message() is not None:
        made.append(client.counts.xds_encodings[E])
    assert made[-1] == 10
    assert max(after - before for before, after in pairwise(made)) <= 3, "of 50 KB each"


@pytest.mark.parametrize("type_url", [CDS, EDS, LDS], ids=lambda type_url: type_url.label)
@BOTH
def test_a_request_between_two_slices_loses_no_news(form: Form, type_url: TypeUrl) -> None:
    """What the first slice had found was never sent if the client dropped all that was left."""
    served = synced_cache()
    client = XdsClient(served, form, looks_max=3)
    names = [f"web.shop:{number}" for number in range(80, 86)]
    ask(client, type_url, *names).read_all()
    served.apply(Apply(service(given=ports(*range(80, 86)))))
    served.apply(Apply(vm("a", "10.0.0.1")))
    subscription = client.stream.subscriptions[type_url]
    while not subscription.draft:
        assert client.stream.next_message() is LATER
    dropped = list(subscription.pending)
    kept = sorted(set(names) - set(dropped))
    assert dropped
    assert kept
    if form is Form.SOTW:
        client.ask(type_url, *kept)
    else:
        client.change(type_url, [], dropped)
    client.read_all()
    assert client.held(type_url) == {name: truth(served, type_url, name) for name in kept}
    assert not subscription.draft


# -- What one request, or one change, may make a stream do at once --


def worked(client: XdsClient, counted: Callable[[], int]) -> list[int]:
    """How much a stream does in each of its turns, until it has nothing more to send."""
    done = [counted()]
    while (message := client.stream.next_message()) is not None:
        if message is not LATER:
            client.flying.append(message)
        done.append(counted())
    return [abs(after - before) for before, after in pairwise(done)]


@BOTH
def test_names_of_one_service_are_marked_some_a_turn(form: Form) -> None:
    """A client may call one port of one service by any number of names: 160,000 took 50 ms."""
    served = synced_cache(service())
    client = XdsClient(served, form, who=node("envoy"))
    count = 40_000
    ask(client, EDS, *(f"web.shop:{number}" for number in range(count))).read_all()
    served.apply(Apply(vm("a", "10.0.0.1")))
    subscription = client.stream.subscriptions[EDS]
    marked = [0]
    while client.stream.next_message() is not None:
        marked.append(len(subscription.pending))
    assert 1 < max(after - before for before, after in pairwise(marked)) <= 32 * LOOKS_MAX
    assert len(marked) > count // (32 * LOOKS_MAX)


@BOTH
def test_services_that_are_let_go_are_released_some_a_turn(form: Form) -> None:
    """20,000 at once took 100 ms."""
    served = many()
    client = XdsClient(served, form, who=node("envoy"))
    names = [f"s{number:04}.shop:80" for number in range(COUNT)]
    ask(client, EDS, *names).read_all()
    if form is Form.SOTW:
        client.ask(EDS, "other.shop:80")
    else:
        client.change(EDS, [], names)
    topics = client.stream._following._topics
    assert max(worked(client, lambda: len(topics))) <= 4 * LOOKS_MAX
    assert len(topics) == (form is Form.SOTW)


@pytest.mark.parametrize("type_url", [CDS, EDS], ids=lambda type_url: type_url.label)
@BOTH
def test_a_refusal_is_noted_some_names_a_turn(form: Form, type_url: TypeUrl) -> None:
    """That of 20,000 clusters took 23 ms."""
    client = XdsClient(many(8 * COUNT), form, who=node("envoy"))
    ask(client, type_url, *(f"s{number:04}.shop:80" for number in range(8 * COUNT)))
    assert client.pump()
    client.read(refuse="no")
    turns = 1
    while not client.refusals:
        message = client.stream.next_message()
        assert message is LATER or client.refusals, "nothing is sent before all is noted"
        turns += 1
    (refusal,) = client.refusals
    assert turns >= len(refusal.names) // (4 * LOOKS_MAX) > 1
    assert client.stream.subscriptions[type_url].refusals.words_of(refusal.names[-1]) == "no"


def test_clusters_that_go_are_removed_some_a_turn_and_by_one_response() -> None:
    """15,000 at once took 27 ms."""
    served = many(4 * COUNT)
    client = XdsClient(served, Form.SOTW, who=node("envoy"))
    client.ask(CDS).read_all()
    for number in range(4 * COUNT - 1):
        served.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, Key("shop", f"s{number:04}")))
    subscription = client.stream.subscriptions[CDS]
    left: list[int] = []
    while (message := client.stream.next_message()) is LATER:
        left.append(len(subscription.leaving))
    assert isinstance(message, bytes)
    client.flying.append(message)
    client.read_all()
    assert len(client.held(CDS)) == 1
    falls = [before - after for before, after in pairwise(left)]
    assert 1 < max(falls) <= 4 * LOOKS_MAX
    assert client.sizes == client.sizes[:1], "all have gone by one response"


@pytest.mark.parametrize("type_url", [CDS, EDS], ids=lambda type_url: type_url.label)
@BOTH
def test_names_that_were_to_be_removed_and_come_back_are_looked_at_some_a_turn(
    form: Form, type_url: TypeUrl
) -> None:
    """Only those that were removed counted, so all that had come back were one turn's work."""
    keys = [Key("shop", f"s{number:04}") for number in range(4 * COUNT)]
    served, resources = synced_cache(*map(service, keys)), Resources(ServerCounts())
    listings = Listings(served, resources)
    client, other = (
        XdsClient(served, form, who=node("envoy"), resources=resources, listings=listings)
        for _ in range(2)
    )
    for one in (client, other):
        ask(one, type_url, "*").read_all()
    for key in keys:
        served.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, key))
    subscription = client.stream.subscriptions[type_url]
    while len(subscription.leaving) < len(keys) - LOOKS_MAX:
        assert client.stream.next_message() is LATER
    for key in keys:
        served.apply(Apply(service(key)))
    other.read_all()  # So that what all follow has them again.
    assert max(worked(client, lambda: len(subscription.leaving))) <= 4 * LOOKS_MAX
    client.read_all()
    assert len(client.held(type_url)) == len(keys)


def test_a_wildcard_is_left_some_names_a_turn() -> None:
    """All that its client claimed to hold is forgotten: some 80,000 names."""
    client = XdsClient(many(), Form.DELTA, who=node("envoy"))
    held = {f"x{number}.shop:80": "1" for number in range(8 * COUNT)}
    client.change(CDS, [], held=held)
    subscription = client.stream.subscriptions[CDS]
    while len(subscription.claimed) < len(held):
        assert client.stream.next_message() is LATER
    while client.stream._intake.under_way:
        client.stream.next_message()
    client.change(CDS, [], ["*"])
    assert max(worked(client, lambda: len(subscription.claimed))) <= 4 * LOOKS_MAX
    assert not subscription.claimed


@pytest.mark.parametrize("every", [["*"], []], ids=["beside a wildcard", "alone"])
@BOTH
def test_to_drop_names_that_were_never_acknowledged_costs_the_names(
    form: Form, every: list[str]
) -> None:
    """Beside a wildcard, 16,000 names took 2 s in one turn, for one request of 100 KB."""
    works = []
    for count in (1_000, 2_000, 4_000):
        client = XdsClient(synced_cache(), form, who=node("envoy"))
        names = [f"n{number:05}.shop:80" for number in range(count)]
        ask(client, EDS, *every, *names)
        while client.said() is not None:
            pass  # It says nothing to that.
        subscription = client.stream.subscriptions[EDS]
        assert len(subscription.unanswered()) == count
        with counted_lines() as lines:
            if form is Form.SOTW:
                client.ask(EDS, *(every or names[:1]))
            else:
                client.change(EDS, [], names)
            while client.stream._intake.under_way:
                client.turn()
        works.append(lines[0])
        assert len(subscription.unanswered()) < 500
    assert is_linear(works), works


def test_to_follow_all_and_acknowledge_nothing_costs_each_change_little() -> None:
    """Names in what a client had not answered were compared with all others at each change."""
    works = []
    for count in (1_000, 2_000, 4_000):
        keys = [Key("production", f"a-service-with-a-long-name-{n:04}") for n in range(count)]
        served = synced_cache(*map(service, keys))
        client = XdsClient(served, Form.DELTA, who=node("envoy"))
        client.change(EDS, ["*"])
        for _ in range(2):  # All are in two responses that it has not answered.
            while client.said() is not None:
                pass
            client.change(EDS, ["*"])
        while client.said() is not None:
            pass
        with counted_lines() as lines:
            for number in range(10):
                served.apply(Apply(service(Key("production", f"new-{number}"))))
                assert client.said() is not None
        works.append(lines[0])
    assert max(works) < 1.5 * min(works), works


@BOTH
def test_streams_that_follow_the_same_are_sent_one_message_and_acknowledge_it_alike(
    form: Form,
) -> None:
    served = synced_cache(service(), vm("a", "10.0.0.1"))
    first = ask(XdsClient(served, form), EDS, "web.shop:80")
    shared = first.stream._shared.resources
    others = [ask(XdsClient(served, form, resources=shared), EDS, "web.shop:80") for _ in range(3)]
    clients = [first, *others]
    for number in range(1, 4):
        for client in clients:
            client.read_all()
        served.apply(Apply(vm("a", f"10.0.1.{number}")))
        for client in clients:
            assert client.pump()
        messages = [client.flying[0] for client in clients]
        assert len(set(messages[1:])) == 1
        assert all(message is messages[1] for message in messages[1:]), "the first encodes it"
    counts = [client.counts for client in clients]
    for client, counted in zip(clients, counts, strict=True):
        client.read_all()
        assert client.held(EDS)["web.shop:80"] == truth(served, EDS, "web.shop:80")
        assert counted.xds_acks[E] == 4


@BOTH
def test_a_change_of_one_service_and_its_acknowledgement_cost_few_calls(form: Form) -> None:
    """They took 98 calls, and 36 or 56. Nearly all that streams are sent is such."""
    served = synced_cache(service(), vm("a", "10.0.0.1"))
    client = ask(XdsClient(served, form), EDS, "web.shop:80")
    other = ask(XdsClient(served, form, resources=client._shared.resources), EDS, "web.shop:80")
    for number in range(3):
        for each in (client, other):
            each.read_all()
        served.apply(Apply(vm("a", f"10.0.1.{number}")))
        client.read()
        with counted_calls() as counted:
            other.turn()
        assert counted[0] <= 70
        ack = _ack(other.flying[0], form)
        client.stream.receive(ack)
        with counted_calls() as counted:
            other.stream.receive(ack)
        assert counted[0] <= 30


def _ack(message: bytes, form: Form) -> bytes:
    if form is Form.DELTA:
        nonce = pb.DeltaDiscoveryResponse.FromString(message).nonce
        delta = pb.DeltaDiscoveryRequest(type_url=EDS.value, response_nonce=nonce)
        return bytes(delta.SerializeToString())
    told = pb.DiscoveryResponse.FromString(message)
    sotw = pb.DiscoveryRequest(
        type_url=EDS.value,
        response_nonce=told.nonce,
        version_info=told.version_info,
        resource_names=["web.shop:80"],
    )
    return bytes(sotw.SerializeToString())


@BOTH
def test_to_be_asked_for_nothing_costs_few_calls(form: Form) -> None:
    """A stream is asked after each response and after its ACK: 63 calls a time once."""
    client = following(many(5), form)
    client.read_all()
    with counted_calls() as calls:
        assert client.stream.next_message() is None
    assert calls[0] <= 30


_VMS = 12_000


def _large(vms: int = _VMS) -> Cache:
    return synced_cache(service(), *(_one_of_many(number) for number in range(vms)))


def _one_of_many(number: int, network: int = 10) -> VirtualMachine:
    return vm(f"v{number}", f"{network}.0.{number // 250}.{number % 250}")


_NAMED = pytest.mark.parametrize("wanted", ["web.shop:80", "*"], ids=["by name", "wildcard"])


@pytest.mark.parametrize("before", [0, 96, 108, 127, 128])
@_NAMED
@BOTH
def test_the_endpoints_of_a_large_service_are_encoded_in_slices(
    form: Form, wanted: str, before: int
) -> None:
    """Those of 43,600 took 314 ms in one turn; and again, behind names that had used most of it."""
    others = [f"none{number}.shop:80" for number in range(before)]
    client = ask(XdsClient(_large(), form), EDS, *others, wanted)
    message, calls = None, []
    while message is None or message is LATER:
        with counted_calls() as counted:
            message = client.stream.next_message()
        calls.append(counted[0])
    assert max(calls) < 6 * _VMS < sum(calls)
    assert isinstance(message, bytes)
    client.flying.append(message)
    client.read_all()
    assert client.held(EDS)["web.shop:80"] == truth(client.cache, EDS, "web.shop:80")


@_NAMED
@BOTH
def test_all_streams_encode_the_endpoints_of_a_large_service_together(
    form: Form, wanted: str
) -> None:
    served = _large()
    first = ask(XdsClient(served, form), EDS, wanted)
    shared = first.stream._shared
    others = [
        ask(
            XdsClient(served, form, resources=shared.resources, listings=shared.listings),
            EDS,
            wanted,
        )
        for _ in range(3)
    ]
    with counted_calls() as counted:
        first.pump()
    alone = counted[0]
    with counted_calls() as counted:
        assert [other.pump() for other in others] == [True, True, True]
    assert counted[0] < alone / 10


@_NAMED
@BOTH
def test_a_large_service_that_changes_in_each_turn_is_sent_all_the_same(
    form: Form, wanted: str
) -> None:
    client = ask(XdsClient(_large(), form), EDS, wanted)
    changes = 0
    while (message := client.stream.next_message()) is LATER:
        assert changes < 100
        client.cache.apply(Apply(_one_of_many(changes, network=11)))
        changes += 1
    assert changes > 3
    assert isinstance(message, bytes)
    client.flying.append(message)
    client.read_all()
    assert client.held(EDS)["web.shop:80"] == truth(client.cache, EDS, "web.shop:80")


@BOTH
@pytest.mark.parametrize("beside", [EDS, CDS, LDS, RDS], ids=lambda type_url: type_url.label)
def test_a_large_service_that_changes_in_each_turn_holds_back_no_first_answer(
    form: Form, beside: TypeUrl
) -> None:
    """News was looked at while an answer was due, and so the newest was begun again and again."""
    client = XdsClient(_large(), form)
    if beside is EDS:
        client = ask(client, EDS, "*", "web.shop:80")
    else:
        client = ask(ask(client, EDS, "web.shop:80"), beside, "*")
    told: set[tuple[str, str]] = set()
    for turn in range(60):
        client.turn()
        if client.flying:
            kind, *names = client.read() or ()
            told.update((kind, name) for name in names)
        client.cache.apply(Apply(_one_of_many(turn, network=11)))
    assert told == {(E, "web.shop:80"), (beside.label, "web.shop:80")}
    client.read_all()
    for type_url in (EDS, beside):
        expected = truth(client.cache, type_url, "web.shop:80")
        assert client.held(type_url) == {"web.shop:80": expected}


@BOTH
def test_a_large_service_that_changes_in_each_turn_holds_up_no_other(form: Form) -> None:
    """Of a wildcard: while the large one is encoded, what it was stays listed, and others go on."""
    served = _large()
    served.apply(Apply(service(API, spec({"app": "api"}))))
    client = ask(XdsClient(served, form), EDS, "*")
    client.read_all()
    told: list[str] = []
    changes = 0
    for number in range(20):
        served.apply(Apply(vm("other", f"10.1.0.{number}", labels={"app": "api"})))
        while "api.shop:80" not in told:
            assert changes < 1_000
            changes += 1
            served.apply(Apply(_one_of_many(changes, network=11)))
            client.turn()
            if client.flying:
                told += client.read() or ()
        told.clear()
    assert changes < 60, "about one a change of the other service"
    client.read_all()
    assert client.held(EDS)["web.shop:80"] == truth(served, EDS, "web.shop:80")


def test_a_large_service_that_changes_while_its_client_is_waited_for_is_sent_as_it_is() -> None:
    """Its first acknowledgement comes while endpoints are encoded: news of them is noted then."""
    served = _large()
    served.apply(Apply(service(API, spec({"app": "api"}))))
    client = XdsClient(served).ask(EDS, "api.shop:80")
    assert client.pump()
    served.apply(Apply(vm("other", "10.1.0.1", labels={"app": "api"})))
    assert client.pump(), "it may only listen, for all that is known"
    client.ask(EDS, "api.shop:80", "web.shop:80")
    assert client.stream.next_message() is LATER
    client.read()
    served.apply(Apply(_one_of_many(0, network=11)))
    assert client.said() is None, "it has yet to acknowledge the second"
    client.read_all()
    assert client.held(EDS)["web.shop:80"] == truth(served, EDS, "web.shop:80")


@pytest.mark.parametrize("then", ["deleted", "small", "created again", "without ports"])
@pytest.mark.parametrize("waits", [False, True], ids=["is encoded", "waits to be encoded"])
@BOTH
def test_a_large_service_may_become_another_while_it_is_encoded_for_all(
    form: Form, waits: bool, then: str
) -> None:
    served = _large(AT_ONCE + 1)
    client = ask(XdsClient(served, form, looks_max=2), EDS, "*")
    client.read_all()
    if waits:
        served.apply(Apply(service(Key("shop", "also"))))
    served.apply(Apply(_one_of_many(0, network=11)))
    for _ in range(4):
        assert client.stream.next_message() is LATER
    (listing,) = client.stream._shared.listings._open.values()
    assert list(listing._large).index(Key("shop", "web")) == waits
    if then in ("deleted", "created again"):
        served.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, Key("shop", "web")))
    if then == "created again":
        served.apply(Apply(service(given=ports(81, 80))))
    if then == "small":
        served.apply(Apply(service(given=spec({"app": "other"}))))
    if then == "without ports":
        served.apply(Apply(service(given=spec({"app": "x"}, ports=()))))
    client.read_all()
    for name in ("web.shop:80", "web.shop:81"):
        expected = truth(served, EDS, name)
        if form is Form.SOTW and expected is None:
            assert name not in client.held(EDS) or not client.held(EDS)[name].endpoints
        else:
            assert client.held(EDS).get(name) == expected


@pytest.mark.parametrize("begins", ["itself", "another"])
def test_a_large_service_that_is_left_to_the_wildcard_while_it_is_encoded_stays(
    begins: str,
) -> None:
    """It was sent by its name; for the wildcard, which has yet to encode it, there was none."""
    served = synced_cache(*(_one_of_many(number) for number in range(_VMS)))
    other = XdsClient(served, Form.DELTA).change(EDS, ["*"])
    resources, listings = other.stream._shared.resources, other.stream._shared.listings
    client = XdsClient(served, Form.DELTA, resources=resources, listings=listings)
    client.change(EDS, ["*"])
    for one in (client, other):
        one.read_all()
    served.apply(Apply(service()))
    assert (client if begins == "itself" else other).stream.next_message() is LATER
    client.change(EDS, ["web.shop:80"])
    client.change(EDS, [], ["web.shop:80"])
    assert (E, "-web.shop:80") not in client.read_all()
    assert client.held(EDS)["web.shop:80"] == truth(served, EDS, "web.shop:80")


@pytest.mark.parametrize("ends", ["deleted", "dropped"])
def test_a_large_service_may_go_while_it_is_encoded(ends: str) -> None:
    client = ask(XdsClient(_large(), Form.DELTA), EDS, "web.shop:80")
    assert client.stream.next_message() is LATER
    if ends == "deleted":
        client.cache.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, Key("shop", "web")))
        client.read_all()
        assert not client.held(EDS)
    else:
        client.change(EDS, [], ["web.shop:80"])
        assert client.read() is None
    client.cache.apply(Apply(service()))
    client.change(EDS, ["web.shop:80"])
    client.read_all()
    assert client.held(EDS)["web.shop:80"] == truth(client.cache, EDS, "web.shop:80")


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "later"])
@BOTH
def test_a_large_service_that_is_asked_for_again_is_sent_as_it_is_then(
    form: Form, at_once: bool
) -> None:
    """What was being encoded as the client dropped it was sent first, however long after that."""
    others = ["other.shop:80"]
    client = ask(XdsClient(_large(), form), EDS, *others, "web.shop:80")
    assert client.stream.next_message() is LATER
    if form is Form.SOTW:
        client.ask(EDS, *others)
    else:
        client.change(EDS, [], ["web.shop:80"])
    if not at_once:
        client.read_all()
    served = client.cache
    served.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, Key("shop", "web")))
    for number in range(_VMS):
        served.apply(Delete(Kind.VIRTUAL_MACHINE, Key("shop", f"v{number}")))
    served.apply(Apply(vm("new", "10.99.0.1")))
    served.apply(Apply(service()))
    ask(client, EDS, *others, "web.shop:80")
    while "web.shop:80" not in client.held(EDS):
        assert client.read() is not None
    assert client.held(EDS)["web.shop:80"] == truth(served, EDS, "web.shop:80")
