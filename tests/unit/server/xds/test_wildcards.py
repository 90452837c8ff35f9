"""Wildcards beside names, claims and each other, whatever comes between two turns."""

from __future__ import annotations

import sys
from itertools import product

import pytest

from tests.unit.objects import WEB, service, spec, vm
from tests.unit.server.endpoint_service.watching import synced_cache
from tests.unit.server.xds.client import CDS, EDS, Release, XdsClient
from tests.unit.server.xds.world import API, BOTH, ENVOY, NAME, ask, cache, move, ports, remove
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.xds.listing import Listings
from vmsvc_grpc.server.xds.resources import Resources, TypeUrl
from vmsvc_grpc.server.xds.shared import Form

OTHER_NAME = "api.shop:80"
TURNS = range(7)


def slowly(served: Cache, form: Form) -> XdsClient:
    """An Envoy whose stream looks at one thing a turn."""
    return XdsClient(served, form, who=ENVOY, looks_max=1)


def following(
    served: Cache, shared: tuple[Resources, Listings], looks_max: int, form: Form, *names: str
) -> XdsClient:
    """An Envoy that has been told all clusters, on a server with others."""
    client = XdsClient(
        served, form, who=ENVOY, resources=shared[0], listings=shared[1], looks_max=looks_max
    )
    ask(client, CDS, "*", *names).read_all()
    return client


def turns(client: XdsClient, count: int) -> None:
    for _ in range(count):
        client.turn()


def gone(client: XdsClient, type_url: TypeUrl, name: str) -> bool:
    """Whether the client holds nothing of a name, or no endpoints."""
    held = client.held(type_url).get(name)
    return held is None or (type_url is EDS and not held.endpoints)


@BOTH
@pytest.mark.parametrize("type_url", [CDS, EDS], ids=lambda type_url: type_url.label)
@pytest.mark.parametrize("named", [(), (NAME,)], ids=["alone", "beside its name"])
def test_what_goes_comes_back_and_goes_is_gone(
    form: Form, type_url: TypeUrl, named: tuple[str, ...]
) -> None:
    for between in product(TURNS, repeat=3):
        served = cache(service(API, spec({"app": "api"})))
        client = ask(slowly(served, form), type_url, "*", *named)
        client.read_all()
        remove(served)
        turns(client, between[0])
        served.apply(Apply(service()))
        turns(client, between[1])
        remove(served)
        turns(client, between[2])
        client.read_all()
        assert gone(client, type_url, NAME), between
        assert OTHER_NAME in client.held(type_url)
        client.close()


@BOTH
@pytest.mark.parametrize("type_url", [CDS, EDS], ids=lambda type_url: type_url.label)
def test_a_name_that_is_let_go_is_the_wildcards(form: Form, type_url: TypeUrl) -> None:
    for count, there in product(TURNS, (True, False)):
        served = cache(service(API, spec({"app": "api"})))
        client = ask(slowly(served, form), type_url, "*", NAME)
        client.read_all()
        move(served, "10.0.0.2")
        turns(client, count)
        client.read_all()
        if form is Form.SOTW:
            client.ask(type_url, "*")
        else:
            client.change(type_url, [], [NAME])
        turns(client, count)
        if not there:
            remove(served)
        client.read_all()
        assert gone(client, type_url, NAME) is not there, count
        assert not client.stream.subscriptions[type_url].digests
        served.apply(Apply(service(WEB, ports(81))))
        client.read_all()
        assert gone(client, type_url, NAME)
        assert not gone(client, type_url, "web.shop:81")
        client.close()


@BOTH
@pytest.mark.parametrize("type_url", [CDS, EDS], ids=lambda type_url: type_url.label)
@pytest.mark.parametrize("named", [(NAME,), ("*", NAME)], ids=["instead", "beside"])
def test_what_a_wildcard_gave_goes_though_it_was_just_asked_for_by_name(
    form: Form, type_url: TypeUrl, named: tuple[str, ...]
) -> None:
    for count in TURNS:
        served = cache(service(API, spec({"app": "api"})))
        client = slowly(served, form)
        ask(client, type_url).read_all()
        assert not gone(client, type_url, NAME)
        ask(client, type_url, *named)
        if form is Form.DELTA and "*" not in named:
            client.change(type_url, [], ["*"])
        turns(client, count)
        remove(served)
        client.read_all()
        assert gone(client, type_url, NAME), count
        client.close()


@pytest.mark.parametrize("names", [(NAME, OTHER_NAME), (OTHER_NAME, NAME)], ids=["first", "second"])
def test_a_name_that_is_let_go_and_goes_before_the_first_answer_comes_back(
    names: tuple[str, ...],
) -> None:
    """What was passed on ahead of the answer is part of it, or gone."""
    for between in product(TURNS, repeat=3):
        served = cache(service(API, spec({"app": "api"})))
        client = slowly(served, Form.SOTW)
        client.ask(CDS, "*", *names)
        turns(client, between[0])
        client.ask(CDS, "*")
        turns(client, between[1])
        remove(served)
        turns(client, between[2])
        client.read_all()
        served.apply(Apply(service()))
        client.read_all()
        assert set(client.held(CDS)) == {NAME, OTHER_NAME}, between
        client.close()


def test_what_one_client_was_sent_is_what_its_digest_says_to_another() -> None:
    """A body is shared by its digest: one that lacks a name would be everybody's."""
    keys = [Key("shop", f"s{number:03}") for number in range(200)]
    names = [f"{key.name}.{key.namespace}:80" for key in keys]
    for between in range(4):
        served = synced_cache(*(service(key) for key in keys))
        resources = Resources(ServerCounts())
        listings = Listings(served, resources)
        shared = resources, listings
        other = following(served, shared, 128, Form.SOTW)
        client = XdsClient(
            served, Form.SOTW, who=ENVOY, resources=resources, listings=listings, looks_max=128
        )
        client.ask(CDS, "*", *names)
        client.ask(CDS, "*")
        turns(client, between)
        assert len(listings._open) == 1, "both follow one listing"
        remove(served, keys[0])
        for one in (client, other):
            one.read_all()
        served.apply(Apply(service(keys[0])))
        client.read_all()
        for one in (client, other, following(served, shared, 128, Form.SOTW)):
            one.read_all()
            assert set(one.held(CDS)) == set(names), between
            one.close()
        client.close()


@pytest.mark.parametrize("type_url", [CDS, EDS], ids=lambda type_url: type_url.label)
@pytest.mark.parametrize(
    ("first", "anew", "sent"),
    [
        ((NAME, OTHER_NAME), NAME, {NAME}),
        ((), NAME, {NAME}),
        ((), "*", {NAME, OTHER_NAME}),
        ((NAME, "*"), "*", {OTHER_NAME}),
    ],
    ids=["a name again", "a name of the wildcard", "the wildcard again", "the rest again"],
)
def test_what_is_asked_for_anew_is_sent_though_a_claim_of_it_is_not_compared_yet(
    type_url: TypeUrl, first: tuple[str, ...], anew: str, sent: set[str]
) -> None:
    for looks_max, count in product((1, 128), TURNS):
        served = cache(service(API, spec({"app": "api"})))
        client = XdsClient(served, Form.DELTA, who=ENVOY, looks_max=looks_max)
        client.change(type_url, first).read_all()
        client.reconnect()
        turns(client, count)
        client.change(type_url, [anew])
        told = {name for _, *names in client.read_all() for name in names}
        assert told >= sent, (looks_max, count)
        assert set(client.held(type_url)) == {NAME, OTHER_NAME}
        client.close()


def test_an_assignment_that_was_claimed_and_goes_before_it_is_compared_is_gone() -> None:
    """Its cluster is another since: the claim does not count, but that the client holds it does."""
    for count in range(20):
        served = cache(service(API, spec({"app": "api"})))
        client = slowly(served, Form.DELTA)
        for type_url in (EDS, CDS):
            client.change(type_url)
            client.read_all()
        client.upgrade(Release(1))
        client.reconnect()
        turns(client, count)
        remove(served)
        client.read_all()
        assert set(client.held(EDS)) == set(client.held(CDS)) == {OTHER_NAME}, count
        client.close()


@BOTH
def test_little_is_kept_for_a_client_that_never_acknowledges(form: Form) -> None:
    served = cache(service(API, spec({"app": "api"})))
    client = ask(XdsClient(served, form, who=ENVOY), EDS, "*")
    for number in range(1_000):
        move(served, f"10.0.{number // 250}.{number % 250}")
        assert client.pump()
    subscription = client.stream.subscriptions[EDS]
    kept = [len(sent.names or ()) for sent in subscription._unanswered]
    assert sum(kept) <= 64 + 2
    assert subscription.unanswered() == {NAME, OTHER_NAME}
    client.read_all()
    assert not subscription.unanswered()


@BOTH
def test_streams_share_the_text_of_names(form: Form) -> None:
    """Each stream reads its own, and an Envoy names each of its clusters."""
    served = cache()
    texts = []
    for _ in range(2):
        client = ask(XdsClient(served, form, who=ENVOY), EDS, NAME)
        client.read_all()
        subscription = client.stream.subscriptions[EDS]
        texts += [*subscription.names, *subscription.digests, *subscription.names_of(WEB)]
    assert len({id(text) for text in texts}) == 1


@pytest.mark.parametrize("named", [(), (NAME,)], ids=["alone", "beside a name"])
def test_streams_that_share_a_body_are_all_told_what_is_there(named: tuple[str, ...]) -> None:
    """One of them has more to tell by then than the others, of a listing that they share."""
    for count in TURNS:
        served = cache(service(API, spec({"app": "api"})))
        resources = Resources(ServerCounts(), shared_from=1)
        shared = resources, Listings(served, resources)

        slow = following(served, shared, 1, Form.SOTW, *named)
        quick = following(served, shared, 100, Form.DELTA)
        remove(served)
        turns(slow, count)
        served.apply(Apply(service(Key("shop", "new"))))
        quick.read_all()
        turns(slow, count)
        late = following(served, shared, 100, Form.SOTW)
        for client in (slow, quick, late):
            client.read_all()
            assert sorted(client.held(CDS)) == [OTHER_NAME, "new.shop:80"], count


@pytest.mark.parametrize("there", [True, False], ids=["there", "not there"])
def test_a_wildcard_among_names_is_never_answered_emptily(there: bool) -> None:
    """Envoy 1.40 crashes at that, and anybody may make it ask by the header `x-cluster: *`."""
    served = cache()
    if not there:
        remove(served)
    client = XdsClient(served, Form.DELTA, who=ENVOY).change(CDS, [NAME])
    client.read_all()
    for _ in range(2):
        client.change(CDS, ["*"])
        gone = [("Cluster", "-*"), ("Cluster", f"-{NAME}")]
        assert client.read_all() == ([("Cluster", NAME)] if there else gone)
    client.change(CDS, [], [NAME]).read_all()
    client.change(CDS, ["*"])
    assert client.read_all() == [("Cluster", NAME if there else "-*")]
    served.apply(Apply(service(API, spec({"app": "api"}))))
    assert client.read_all() == [("Cluster", OTHER_NAME)]


def test_what_is_done_with_takes_no_room() -> None:
    """A dict that was emptied one by one is as large as it was when it was full."""
    served = synced_cache(*(service(Key("shop", f"s{number:04}")) for number in range(2_000)))
    client = XdsClient(served, Form.DELTA, who=ENVOY).change(CDS)
    client.read_all()
    client.change(EDS, client.held(CDS)).read_all()
    client.reconnect()
    client.read_all()
    served.apply(Apply(vm("a", "10.0.0.1")))
    client.read_all()
    for number in range(2_000):
        remove(served, Key("shop", f"s{number:04}"))
    client.read_all()
    client.change(EDS, [], list(client.asked(EDS).names)).read_all()
    client.read_all()
    for subscription in client.stream.subscriptions.values():
        done = (
            subscription.pending,
            subscription.leaving,
            subscription.claimed,
            subscription.draft,
            subscription.denied._names,
        )
        assert max(map(sys.getsizeof, done)) < 1_000
    following = client.stream._following
    assert max(map(sys.getsizeof, (following.noted, following.loose))) < 1_000


@pytest.mark.parametrize("services", [2, 600], ids=["few", "more than are remembered by name"])
@pytest.mark.parametrize("by_name", [False, True], ids=["wildcard", "name"])
@pytest.mark.parametrize("type_url", [CDS, EDS])
def test_what_goes_while_its_response_flies_is_gone_though_everything_is_asked_for_anew(
    type_url: TypeUrl, by_name: bool, services: int
) -> None:
    """The client wants it again by the time it arrives, and must not keep it."""
    others = [service(Key("shop", f"s{number:04}")) for number in range(services)]
    served = cache(*others)
    client = XdsClient(served, Form.DELTA, who=ENVOY)
    client.change(type_url, [NAME] if by_name else ["*"])
    while client.pump():
        pass
    client.change(type_url, [], [NAME] if by_name else ["*"])
    remove(served)
    client.change(type_url, ["*"])
    client.read_all()
    assert NAME not in client.held(type_url)
    assert len(client.held(type_url)) == services
