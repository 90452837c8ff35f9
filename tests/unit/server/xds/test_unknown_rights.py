"""Streams for which nobody can say whether their clients may hear of some namespaces."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.objects import service, vm
from tests.unit.server.xds.client import CDS, EDS, XdsClient, node, truth
from tests.unit.server.xds.world import BOTH, ask, cache, move
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.access.caller import Caller
from vmsvc_grpc.server.access.facts import RightFact, Seat
from vmsvc_grpc.server.access.gate import Verdict
from vmsvc_grpc.server.access.needs import Need, endpoints_in
from vmsvc_grpc.server.access.principal import Principal
from vmsvc_grpc.server.access.verdicts import VerdictBounds, Verdicts
from vmsvc_grpc.server.call import Code, RpcError
from vmsvc_grpc.server.xds.shared import Form
from vmsvc_grpc.server.xds.visible import VERDICTS_PER_STREAM_MAX

SHOP, BANK = "web.shop:80", "web.bank:80"


class Office:
    """A gate over real verdicts, all of one caller. `away`: no question is answered."""

    def __init__(self, *namespaces: str, bounds: VerdictBounds | None = None) -> None:
        self.verdicts = Verdicts(bounds or VerdictBounds(), lambda: 0.5)
        self.rights = {endpoints_in("watch", namespace) for namespace in namespaces}
        self.away = False
        self.now = 0.0
        self.checks = 0

    def enter(self, caller: Caller, wake: Callable[[], None]) -> OfficePass:
        return OfficePass(self, Seat(wake, principal=Principal(username="sa")))

    def work(self) -> bool:
        """Answer what is asked, or fail to; whether anything was."""
        asked = list(self.verdicts.questions())
        for question in asked:
            assert isinstance(question, RightFact)
            if self.away:
                self.verdicts.failed(question, self.now)
            else:
                self.verdicts.right_answered(question, question.need in self.rights, self.now)
        return bool(asked)

    def come_back(self) -> None:
        self.away = False
        self.now += 100
        self.verdicts.advance(self.now)


class OfficePass:
    username = "sa"
    last_username = "sa"

    def __init__(self, office: Office, seat: Seat) -> None:
        self._office = office
        self._seat = seat

    def check(self, need: Need) -> Verdict:
        self._office.checks += 1
        return self._office.verdicts.check(self._seat, need, self._office.now)

    def let_go(self, need: Need) -> None:
        self._office.verdicts.let_go(self._seat, need)

    def close(self) -> None:
        self._office.verdicts.close(self._seat)


def world() -> Cache:
    """The services `web` in `shop` and `bank`, each with a virtual machine."""
    return cache(service(Key("bank", "web")), vm("b", "10.0.0.9", namespace="bank"))


def connected(served: Cache, form: Form, office: Office) -> XdsClient:
    return XdsClient(served, form, gate=office, who=node("envoy"))


def read(client: XdsClient, office: Office) -> list[tuple[str, ...]]:
    """Read all, and have all answered that is asked meanwhile."""
    told = client.read_all()
    while office.work():
        told += client.read_all()
    return told


def asks(served: Cache, form: Form, office: Office, *names: str) -> XdsClient:
    client = connected(served, form, office)
    ask(client, EDS, *names)
    read(client, office)
    return client


def hears_of_the_shop(client: XdsClient, office: Office) -> None:
    for address in ("10.0.0.2", "10.0.0.3"):
        move(client.cache, address)
        read(client, office)
        assert client.held(EDS)[SHOP] == truth(client.cache, EDS, SHOP)


@BOTH
def test_names_in_more_namespaces_than_there_is_room_for_end_nothing(form: Form) -> None:
    office = Office("shop", bounds=VerdictBounds(verdicts_per_caller_max=12))
    client = asks(world(), form, office, SHOP, *(f"x.n{number}:80" for number in range(30)))
    hears_of_the_shop(client, office)
    assert client.counts.refusals["verdicts_per_caller_max"] == 31 - 12
    assert len(client.excess) == 31 - 12
    client.close()
    assert not office.verdicts.under_way


@BOTH
def test_a_name_without_room_is_answered_once_there_is_some(form: Form) -> None:
    office = Office("shop", "bank", bounds=VerdictBounds(verdicts_per_caller_max=12))
    served = world()
    other = asks(served, form, office, *(f"x.n{number}:80" for number in range(11)))
    client = asks(served, form, office, SHOP, BANK)
    assert client.held(EDS).keys() == {SHOP}
    other.close()
    read(client, office)
    assert client.held(EDS)[BANK] == truth(served, EDS, BANK)
    client.close()


@BOTH
def test_one_stream_leaves_others_of_its_caller_room(form: Form) -> None:
    most = VERDICTS_PER_STREAM_MAX
    office = Office("shop", "bank", bounds=VerdictBounds(verdicts_per_caller_max=most + 1))
    served = world()
    names = [f"x.n{number}:80" for number in range(most + 10)]
    client = asks(served, form, office, SHOP, *names)
    hears_of_the_shop(client, office)
    assert client.counts.refusals["verdicts_per_stream_max"] == 11
    other = asks(served, form, office, BANK)
    assert other.held(EDS)[BANK] == truth(served, EDS, BANK)
    client.close()
    other.close()


@BOTH
def test_a_new_namespace_without_room_ends_no_wildcard(form: Form) -> None:
    office = Office("shop", "bank", bounds=VerdictBounds(verdicts_per_caller_max=4))
    served = world()
    client = connected(served, form, office)
    ask(client, CDS)
    read(client, office)
    for number in range(6):
        served.apply(Apply(service(Key(f"m{number}", "web"))))
        read(client, office)
    served.apply(Apply(service(Key("shop", "api"))))
    read(client, office)
    assert client.held(CDS).keys() == {SHOP, BANK, "api.shop:80"}
    client.close()


@BOTH
@pytest.mark.parametrize("allowed", [True, False], ids=["allowed", "denied"])
def test_a_name_of_which_nobody_can_say_is_answered_later(form: Form, allowed: bool) -> None:
    """While the API server is away, on the stream that is there and on the next one."""
    office = Office("shop", *(["bank"] if allowed else []))
    served = world()
    client = asks(served, form, office, SHOP)
    office.away = True
    ask(client, EDS, SHOP, BANK)
    told = read(client, office)
    client.reconnect()
    told += read(client, office)
    assert not any(BANK in part for each in told for part in each), "neither there nor absent"
    hears_of_the_shop(client, office)
    office.come_back()
    told = read(client, office)
    assert any(BANK in part for each in told for part in each)
    held = client.held(EDS).get(BANK)
    if allowed:
        assert held == truth(served, EDS, BANK)
    else:
        assert held is None or not held.endpoints
    assert not client.stream._following._withheld
    client.close()


@BOTH
@pytest.mark.parametrize("allowed", [True, False], ids=["allowed", "denied"])
def test_what_a_client_holds_of_such_a_name_it_keeps_until_it_is_known(
    form: Form, allowed: bool
) -> None:
    served = world()
    client = asks(served, form, Office("shop", "bank"), SHOP, BANK)
    held = client.held(EDS)[BANK]
    # Another replica, which has been asked about the shop alone.
    office = client._gate = Office("shop", *(["bank"] if allowed else []))
    other = asks(served, form, office, SHOP)
    office.away = True
    client.reconnect()
    read(client, office)
    hears_of_the_shop(client, office)
    assert client.held(EDS)[BANK] is held
    served.apply(Apply(vm("b", "10.0.0.10", namespace="bank")))
    office.come_back()
    read(client, office)
    found = client.held(EDS).get(BANK)
    if allowed:
        assert found == truth(served, EDS, BANK)
    else:
        assert found is None or not found.endpoints
    client.close()
    other.close()


@BOTH
def test_a_name_that_is_given_up_before_anybody_can_say_leaves_nothing(form: Form) -> None:
    office = Office("shop", "bank")
    client = asks(world(), form, office, SHOP)
    office.away = True
    ask(client, EDS, SHOP, BANK)
    read(client, office)
    if form is Form.SOTW:
        client.ask(EDS, SHOP)
    else:
        client.change(EDS, (), [BANK])
    read(client, office)
    assert not client.stream._following._withheld
    assert office.verdicts._rights.in_use.in_all == 1, "of the shop alone"
    office.come_back()
    told = read(client, office)
    assert not any(BANK in part for each in told for part in each)
    client.close()


@BOTH
@pytest.mark.parametrize("wildcard", [False, True], ids=["names", "wildcard"])
def test_a_stream_of_which_nothing_is_known_ends(form: Form, wildcard: bool) -> None:
    """So does one whose first answer to a wildcard would lack what its client may hold."""
    office = Office("shop", "bank")
    served = world()
    client = connected(served, form, office)
    if wildcard:
        ask(client, EDS, SHOP)
        read(client, office)
        ask(client, CDS)
        client.read_all()
        office.work()  # It may not hear of all: so it asks about each.
        client.read_all()
    else:
        ask(client, EDS, SHOP, BANK)
    office.away = True
    with pytest.raises(RpcError) as raised:
        read(client, office)
    assert raised.value.code is Code.UNAVAILABLE
    client.close()


def give_up(client: XdsClient, *names: str, keeping: str) -> None:
    """Ask for these names no more, but for others."""
    if client.form is Form.SOTW:
        client.ask(EDS, keeping)
    else:
        client.change(EDS, (), names)


@BOTH
def test_verdicts_are_let_go_with_the_last_name_that_needs_them(form: Form) -> None:
    office = Office("shop", "bank")
    served = world()
    rights = office.verdicts._rights.in_use
    client = asks(served, form, office, SHOP)
    few = rights.in_all
    for turn in range(3):
        others = [BANK, "api.bank:80", *(f"x.n{turn}-{number}:80" for number in range(5))]
        ask(client, EDS, SHOP, *others)
        read(client, office)
        assert client.held(EDS)[BANK] == truth(served, EDS, BANK)
        assert rights.in_all == few + 6
        give_up(client, *others, keeping=SHOP)
        read(client, office)
        assert rights.in_all == few
    hears_of_the_shop(client, office)
    # A right that nothing goes by any more ends nothing.
    office.rights.clear()
    office.rights.add(endpoints_in("watch", "shop"))
    office.come_back()
    read(client, office)
    hears_of_the_shop(client, office)
    client.close()


@BOTH
def test_a_name_that_stays_keeps_the_verdict_of_its_namespace(form: Form) -> None:
    office = Office("shop", "bank")
    client = asks(world(), form, office, SHOP, BANK, "api.bank:80")
    give_up(client, SHOP, "api.bank:80", keeping=BANK)
    read(client, office)
    office.rights.clear()
    office.come_back()
    with pytest.raises(RpcError, match="in the namespace 'bank' was taken away"):
        read(client, office)
    client.close()


def test_a_wildcard_that_is_given_up_lets_go_of_its_namespaces() -> None:
    office = Office("shop", "bank")
    served = world()
    rights = office.verdicts._rights.in_use
    client = asks(served, Form.DELTA, office, SHOP)
    few = rights.in_all
    ask(client, CDS, "*", "web.far:80")
    read(client, office)
    assert client.held(CDS).keys() == {SHOP, BANK}
    assert rights.in_all == few + 3, "everywhere, in the bank and far away"
    client.change(CDS, (), ["*"])
    client.change(CDS, (), ["web.far:80"])
    read(client, office)
    hears_of_the_shop(client, office)
    assert rights.in_all == few + 1, "everywhere is one right, whatever follows"
    client.close()
    assert not rights.in_all


@BOTH
def test_a_wildcard_without_room_to_ask_about_all_covers_what_there_is_room_for(
    form: Form,
) -> None:
    office = Office("shop", "bank", bounds=VerdictBounds(verdicts_per_caller_max=3))
    served = world()
    other = asks(served, form, office, "x.n1:80", "x.n2:80")
    client = asks(served, form, office, SHOP)
    ask(client, CDS)
    read(client, office)
    assert client.held(CDS).keys() == {SHOP}
    assert client.counts.refusals["verdicts_per_caller_max"] == 2, "of everywhere, and the bank"
    hears_of_the_shop(client, office)
    other.close()
    read(client, office)
    assert client.held(CDS).keys() == {SHOP, BANK}
    client.close()


@BOTH
@pytest.mark.parametrize("wildcard", [False, True], ids=["names", "wildcard"])
def test_very_many_namespaces_are_looked_at_in_slices(form: Form, wildcard: bool) -> None:
    many = [f"n{number}" for number in range(1_800)]
    office = Office("shop", *many)
    served = world()
    for namespace in many:
        served.apply(Apply(service(Key(namespace, "web"))))
    client = connected(served, form, office)
    if wildcard:
        ask(client, CDS)
    else:
        ask(client, EDS, SHOP, *(f"web.{namespace}:80" for namespace in many))
    slices(client, office)
    read(client, office)
    assert len(client.held(CDS if wildcard else EDS)) >= len(many)
    # Any verdict that changes has all looked at: in slices, and before anything else is sent.
    office.rights.remove(endpoints_in("watch", many[-1]))
    office.come_back()
    while office.work():
        office.verdicts.advance(office.now)
    move(served, "10.0.0.77")
    with pytest.raises(RpcError, match="was taken away"):
        slices(client, office)
    client.close()


def slices(client: XdsClient, office: Office) -> None:
    """Have all answered, and the stream say what it has to: a bounded number of checks a turn."""
    while True:
        office.checks = 0
        message = client.stream.next_message()
        assert office.checks <= 1_100, "two types may be looked at in a turn"
        if message is None and not office.work():
            return
        if isinstance(message, bytes):
            client.flying.append(message)
