"""Streams of clients who may hear of some namespaces: what they are sent is what they may hear."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from tests.gate import RightsGate
from tests.unit.objects import service, vm
from tests.unit.server.endpoint_service.watching import synced_cache
from tests.unit.server.xds.client import CDS, EDS, LDS, RDS, XdsClient, node, truth
from tests.unit.server.xds.world import BOTH, C, E, ask, cache, move, nothing
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply, Delete
from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.server.access.needs import Need, endpoints_everywhere, endpoints_in
from vmsvc_grpc.server.call import Code, RpcError
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.xds.bodies import SHARED_FROM
from vmsvc_grpc.server.xds.following import XdsScope
from vmsvc_grpc.server.xds.namespaces import Namespaces
from vmsvc_grpc.server.xds.resources import Resources, TypeUrl
from vmsvc_grpc.server.xds.shared import Form

BANK, NONE = Key("bank", "web"), Key("bank", "none")
SHOP = endpoints_in("watch", "shop")
USER = "user-of-t"
TYPES = pytest.mark.parametrize("type_url", [CDS, EDS, LDS, RDS], ids=lambda url: url.label)


def gate(*rights: Need) -> RightsGate:
    made = RightsGate()
    made.admit("t", *rights)
    return made


def both(*others: object) -> Cache:
    """The service `web` in `shop`, and one in `bank`."""
    return cache(service(BANK), *others)


def wild(client: XdsClient, type_url: TypeUrl) -> set[str]:
    """Everything of a type, by a wildcard in whatever form."""
    ask(client, type_url, *(("*",) if type_url in (EDS, RDS) else ()))
    client.read_all()
    return set(client.held(type_url))


def denied(client: XdsClient) -> RpcError:
    with pytest.raises(RpcError) as raised:
        client.said()
    assert raised.value.code is Code.PERMISSION_DENIED
    return raised.value


@BOTH
@TYPES
def test_a_wildcard_covers_the_namespaces_allowed(form: Form, type_url: TypeUrl) -> None:
    for rights, names in (
        ((SHOP,), {"web.shop:80"}),
        ((endpoints_everywhere("watch"),), {"web.shop:80", "web.bank:80"}),
        ((endpoints_in("get", "shop"), endpoints_in("list", "bank")), set()),
    ):
        client = XdsClient(both(), form, gate=gate(*rights))
        assert wild(client, type_url) == names
        client.close()


@BOTH
def test_who_may_hear_of_nothing_is_answered_as_if_there_were_nothing(form: Form) -> None:
    """An Envoy would wait for its first answer."""
    client = XdsClient(both(), form, gate=gate(), who=node("envoy"))
    assert ask(client, CDS).read_all() == nothing(form, C)
    client.close()


@pytest.mark.parametrize("shared_from", [1, SHARED_FROM], ids=["many", "few"])
@BOTH
@TYPES
def test_a_namespace_that_becomes_allowed_appears(
    form: Form, type_url: TypeUrl, shared_from: int
) -> None:
    """If there are many resources, all of them are one body, which is patched by what changes."""
    rights = gate(SHOP)
    resources = Resources(ServerCounts(), shared_from)
    client = XdsClient(both(), form, gate=rights, resources=resources)
    assert wild(client, type_url) == {"web.shop:80"}
    wakes = client.wakes
    rights.grant(USER, endpoints_in("watch", "bank"))
    assert client.wakes > wakes
    told = client.read_all()
    assert set(client.held(type_url)) == {"web.shop:80", "web.bank:80"}
    if form is Form.DELTA:
        assert told == [(type_url.label, "web.bank:80")], "nothing else is sent again"
    client.close()


@BOTH
@pytest.mark.parametrize("names", [("web.shop:80", "web.bank:80"), ("*",)], ids=["names", "all"])
def test_a_stream_with_rights_is_quiet_until_there_is_news_or_a_verdict_changes(
    form: Form, names: tuple[str, ...]
) -> None:
    """Its transport asked it twice for each message."""
    rights, served = gate(SHOP), both()
    client = ask(XdsClient(served, form, gate=rights), EDS, *names)
    client.read_all()

    def quiet() -> bool:
        return client.stream.quiet

    for address in ("10.0.0.2", "10.0.0.3"):
        assert quiet()
        move(served, address)
        assert not quiet()
        client.read()
    rights.grant(USER, endpoints_in("watch", "bank"))
    assert not quiet()
    client.read_all()
    assert quiet()
    assert "web.bank:80" in client.held(EDS)
    rights.revoke(USER, SHOP)
    assert not quiet()
    denied(client)
    client.close()


@BOTH
def test_all_namespaces_become_allowed(form: Form) -> None:
    rights = gate()
    client = XdsClient(both(), form, gate=rights)
    assert wild(client, CDS) == set()
    rights.grant(USER, endpoints_everywhere("watch"))
    client.read_all()
    assert set(client.held(CDS)) == {"web.shop:80", "web.bank:80"}
    client.close()


@BOTH
def test_a_namespace_that_comes_is_asked_about_once_and_only_if_needed(form: Form) -> None:
    rights = gate(SHOP, endpoints_in("watch", "lab"))
    served = cache()
    client = XdsClient(served, form, gate=rights)
    assert wild(client, CDS) == {"web.shop:80"}
    served.apply(Apply(service(Key("lab", "web"))))
    served.apply(Apply(service(BANK)))
    served.apply(Apply(service(Key("lab", "api"))))
    client.read_all()
    assert set(client.held(CDS)) == {"web.shop:80", "web.lab:80", "api.lab:80"}
    asked = {need: n for need, n in rights.asked.items() if need != endpoints_everywhere("watch")}
    assert set(asked.values()) == {1}
    wakes = client.wakes
    served.apply(Apply(service(Key("bank", "api"))))
    client._do_soon()
    assert client.wakes == wakes, "what it may not hear of wakes it no more"
    client.close()


@BOTH
def test_a_stream_with_two_wildcards_that_drops_one_hears_of_new_namespaces(form: Form) -> None:
    served = cache()
    client = XdsClient(served, form, gate=gate(SHOP, endpoints_in("watch", "lab")))
    ask(client, CDS, "*").read_all()
    ask(client, EDS, "*").read_all()
    if form is Form.SOTW:
        client.ask(EDS, "web.shop:80")
    else:
        client.change(EDS, ["web.shop:80"], ["*"])
    client.read_all()
    wakes = client.wakes
    served.apply(Apply(service(Key("lab", "web"))))
    client._do_soon()
    assert client.wakes > wakes
    client.read_all()
    assert client.held(CDS).keys() == {"web.shop:80", "web.lab:80"}
    client.close()
    assert client._shared.namespaces._reader is None


def test_many_services_that_come_at_once_are_taken_in_in_turns() -> None:
    served = cache()
    client = XdsClient(served, gate=gate(SHOP, endpoints_in("watch", "zoo")))
    assert wild(client, CDS) == {"web.shop:80"}
    for number in range(2_500):
        served.apply(Apply(service(Key("lab", f"s-{number}"))))
    served.apply(Apply(service(Key("zoo", "web"))))
    turns = 0
    while client.soon:
        client.soon.pop(0)()
        turns += 1
    assert turns >= 3
    client.read_all()
    assert client.held(CDS).keys() == {"web.shop:80", "web.zoo:80"}
    client.close()


@BOTH
def test_verdicts_that_come_one_by_one_are_looked_at_one_by_one(form: Form) -> None:
    """Each wakes the stream: to look at all each time would be quadratic."""
    names = [f"ns-{number}" for number in range(200)]
    served = synced_cache(*(service(Key(name, "web")) for name in names))
    rights = gate(*(endpoints_in("watch", name) for name in names))
    rights.open = False
    client = XdsClient(served, form, gate=rights)
    ask(client, CDS, "*")
    client.read_all()
    rights.tell(endpoints_everywhere("watch"))
    client.read_all()
    for name in names:
        rights.tell(endpoints_in("watch", name))
        client.read_all()
    assert len(client.held(CDS)) == len(names)
    assert rights.asked.total() < 10 * len(names)
    client.close()


@BOTH
@pytest.mark.parametrize("rights", [(SHOP,), (endpoints_everywhere("watch"),)], ids=str)
def test_a_right_that_is_taken_away_ends_the_stream_and_the_next_one_removes(
    form: Form, rights: tuple[Need, ...]
) -> None:
    held = gate(*rights)
    served = cache()
    client = XdsClient(served, form, gate=held, who=node("envoy"))
    ask(client, CDS).read_all()
    ask(client, EDS, "web.shop:80").read_all()
    assert client.held(CDS).keys() == {"web.shop:80"}
    held.revoke(USER, *rights)
    assert "connect again" in denied(client).message
    client.reconnect()
    client.read_all()
    assert not client.held(CDS)
    assert all(not each.endpoints for each in client.held(EDS).values())
    client.close()


def described(client: XdsClient, type_url: TypeUrl, *names: str) -> object:
    """What a client is sent that asks for names, but for the names."""
    ask(client, type_url, *names)
    told = client.read_all()
    return [[part.replace("none", "web") for part in each] for each in told]


@BOTH
@TYPES
def test_what_is_denied_is_answered_as_what_is_absent(form: Form, type_url: TypeUrl) -> None:
    """Here and later: neither the service's coming nor its endpoints make a difference."""
    served = both(vm("b", "10.0.0.9"))
    told = []
    for name in ("web.bank:80", "none.bank:80"):
        client = XdsClient(served, form, gate=gate(SHOP))
        told.append(described(client, type_url, "web.shop:80", name))
        wakes = client.wakes
        served.apply(Apply(vm("b", "10.0.0.10", namespace="bank")))
        served.apply(Apply(service(NONE)))
        assert client.wakes == wakes
        assert client.read() is None
        served.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, NONE))
        client.close()
    assert told[0] == told[1]


@BOTH
def test_a_name_is_sent_once_its_namespace_is_allowed(form: Form) -> None:
    rights = gate()
    client = XdsClient(both(), form, gate=rights)
    ask(client, CDS, "web.bank:80", "web.shop:80")
    client.read_all()
    ask(client, EDS, "web.bank:80", "web.shop:80")
    client.read_all()
    rights.grant(USER, endpoints_in("watch", "bank"))
    client.read_all()
    assert client.held(CDS).keys() == {"web.bank:80"}
    assert client.held(EDS)["web.bank:80"] == truth(client.cache, EDS, "web.bank:80")
    client.close()


@BOTH
def test_names_that_are_given_up_before_they_are_allowed_leave_nothing(form: Form) -> None:
    rights = gate(SHOP)
    client = XdsClient(both(), form, gate=rights)
    ask(client, EDS, "web.bank:80", "web.shop:80").read_all()
    if form is Form.SOTW:
        client.ask(EDS, "web.shop:80")
    else:
        client.change(EDS, (), ["web.bank:80"])
    client.read_all()
    rights.grant(USER, endpoints_in("watch", "bank"))
    assert client.read_all() == []
    assert not client.stream._following._hidden
    assert client.stream._following.topic(BANK) is None
    client.close()


@BOTH
@pytest.mark.parametrize("names", [(), ("web.shop:80", "web.bank:80")], ids=["wildcard", "names"])
def test_nothing_is_said_until_it_is_known_what_may_be(form: Form, names: Iterable[str]) -> None:
    """A partial answer would delete, at the client, what it lacks."""
    rights = gate(SHOP)
    rights.open = False
    client = XdsClient(both(), form, gate=rights, who=node("envoy"))
    ask(client, CDS, *names)
    assert client.said() is None
    rights.answer()
    client.read_all()
    assert client.held(CDS).keys() == {"web.shop:80"}
    client.close()


@BOTH
@pytest.mark.parametrize("type_url", [CDS, LDS], ids=lambda type_url: type_url.label)
@pytest.mark.parametrize("comes", [False, True], ids=["there before", "comes meanwhile"])
def test_a_name_that_is_left_to_a_wildcard_of_some_namespaces_is_answered(
    form: Form, type_url: TypeUrl, comes: bool
) -> None:
    """It was sent ahead, which was taken for part of the wildcard's answer: that never ended."""
    rights = gate(SHOP)
    client = XdsClient(both(), form, gate=rights)
    beside = ["*"] if comes else []
    name = "web.bank:80" if comes else "web.shop:80"
    ask(client, type_url, *beside, name).read_all()
    if comes:
        rights.grant(USER, endpoints_in("watch", "bank"))
    ask(client, type_url, "*")
    if form is Form.DELTA:
        client.change(type_url, [], [name])
    for _ in range(20):
        client.turn()
    assert client.stream.quiet
    client.read_all()
    assert set(client.held(type_url)) == {"web.shop:80", name}


@BOTH
def test_nobody_can_say_what_is_allowed(form: Form) -> None:
    """The stream ends, at first; later, what it was not sent so far waits until somebody can."""
    rights = gate(SHOP, endpoints_in("watch", "lab"))
    rights.away = True
    served = cache()
    client = XdsClient(served, form, gate=rights)
    with pytest.raises(RpcError) as raised:
        wild(client, CDS)
    assert raised.value.code is Code.UNAVAILABLE
    rights.away = False
    client.close()
    client.types.clear()
    client.connect()
    assert wild(client, CDS) == {"web.shop:80"}
    rights.away = True
    served.apply(Apply(service(Key("lab", "web"))))
    served.apply(Apply(service(Key("shop", "api"))))
    client.read_all()
    assert client.held(CDS).keys() == {"web.shop:80", "api.shop:80"}
    rights.away = False
    rights.answer()
    client.read_all()
    assert client.held(CDS).keys() == {"web.shop:80", "api.shop:80", "web.lab:80"}
    client.close()


@BOTH
@pytest.mark.parametrize(
    ("namespace", "names"),
    [("shop", {"web.shop:80"}), ("bank", set()), ("", set()), ("*", set()), ("SHOP", set())],
)
def test_a_nodes_namespace_is_a_wish(form: Form, namespace: str, names: set[str]) -> None:
    who = node(namespace=namespace)
    client = XdsClient(both(), form, gate=gate(SHOP), scope=XdsScope.NAMESPACE, who=who)
    assert wild(client, CDS) == names
    ask(client, EDS, "web.shop:80", "web.bank:80").read_all()
    found = {name for name, each in client.held(EDS).items() if each.endpoints}
    assert found == names
    client.close()


@BOTH
def test_an_empty_namespace_is_no_bypass(form: Form) -> None:
    """Not even for who may hear of everything: it is no namespace."""
    everything = gate(endpoints_everywhere("watch"))
    client = XdsClient(both(), form, gate=everything, scope=XdsScope.NAMESPACE, who=node())
    assert wild(client, CDS) == set()
    client.close()


@BOTH
@pytest.mark.parametrize("name", ["web.:80", "web.*:80", "web.SHOP:80", "web", "", "xdstp://x"])
def test_what_can_be_no_namespace_is_not_asked_about(form: Form, name: str) -> None:
    rights = gate(SHOP)
    client = XdsClient(both(), form, gate=rights)
    ask(client, EDS, name, "web.shop:80").read_all()
    assert set(rights.asked) == {SHOP}
    client.close()


@BOTH
def test_clients_of_different_rights_share_what_is_encoded(form: Form) -> None:
    """1,000 of them, of 8 namespaces: each resource and each body is made once."""
    names = [f"ns-{number}" for number in range(8)]
    served = synced_cache(*(service(Key(name, "web")) for name in names))
    first = XdsClient(served, form)
    shared, listings = first._shared.resources, first._shared.listings
    soon: list[object] = []
    namespaces = Namespaces(served, soon.append)
    clients = []
    for number in range(1_000):
        allowed = [name for bit, name in enumerate(names) if number >> bit & 1]
        rights = gate(*(endpoints_in("watch", name) for name in allowed))
        client = XdsClient(
            served, form, resources=shared, listings=listings, namespaces=namespaces, gate=rights
        )
        clients.append(client)
        assert wild(client, CDS) == {f"web.{name}:80" for name in allowed}
        ask(client, EDS, "*")
        client.read_all()
    assert first.counts.xds_encodings[C] == len(names)
    assert first.counts.xds_encodings[E] == len(names)
    for client in clients:
        client.close()
    assert not listings._open
    first.close()


NAMES = [f"{name}.{namespace}:80" for namespace in ("a", "b", "c") for name in ("x", "y")]


def key(name: str) -> Key:
    service_name, namespace = name.removesuffix(":80").split(".")
    return Key(namespace, service_name)


def happen(dice: random.Random, served: Cache, rights: RightsGate) -> None:
    """One thing of those that can."""
    of = key(dice.choice(NAMES))
    one, everything = endpoints_in("watch", of.namespace), endpoints_everywhere("watch")
    right = dice.choice([one, one, everything])
    address = f"10.0.0.{dice.randrange(9)}"
    (
        lambda: served.apply(Apply(service(of))),
        lambda: served.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, of)),
        lambda: served.apply(Apply(vm("v", address, namespace=of.namespace))),
        lambda: rights.grant(USER, right),
        lambda: rights.revoke(USER, right),
    )[dice.randrange(5)]()


def read_on(client: XdsClient) -> None:
    """Read all, on another stream if this one ends."""
    try:
        client.read_all()
    except RpcError:
        client.reconnect()
        client.read_all()


@BOTH
@pytest.mark.parametrize("seed", range(40))
def test_what_a_client_holds_is_what_there_is_and_it_may_hear_of(form: Form, seed: int) -> None:
    """Services and rights come and go in any order; a stream that ends is followed by another."""
    dice = random.Random(seed)
    served, rights = synced_cache(), gate()
    client = XdsClient(served, form, gate=rights, looks_max=dice.choice([2, 128]))
    asked = NAMES if dice.random() < 0.5 else ["*"]
    for type_url in (CDS, EDS):
        ask(client, type_url, *asked)
    for _ in range(60):
        happen(dice, served, rights)
        if dice.random() < 0.5:
            continue
        read_on(client)
        for name in NAMES:
            shown = rights.allows(USER, endpoints_in("watch", key(name).namespace))
            for type_url in (CDS, EDS):
                expected = truth(served, type_url, name) if shown else None
                found = client.held(type_url).get(name)
                emptied = type_url is EDS and found is not None and not found.endpoints
                assert found == expected or (expected is None and emptied), (name, type_url)
    client.close()
