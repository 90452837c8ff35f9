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

    def __init__(self, office: Office, seat: Seat) -> None:
        self._office = office
        self._seat = seat

    def check(self, need: Need) -> Verdict:
        return self._office.verdicts.check(self._seat, need, self._office.now)

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
