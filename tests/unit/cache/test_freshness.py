"""Answers and a watch overtake one another; what the cache holds in the end is what is stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.unit.leavings import leavings
from tests.unit.objects import WEB, service
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.freshness import number
from vmsvc_grpc.model.events import (
    Answer,
    AnswerGone,
    Apply,
    Delete,
    Event,
    Init,
    InitDone,
    Malformed,
)
from vmsvc_grpc.model.objects import (
    Key,
    Kind,
    ObjectMeta,
    StoredService,
    VirtualMachineService,
)
from vmsvc_grpc.model.problem import Problem
from vmsvc_grpc.model.resolve import AddressRules

SERVICES = Kind.SERVICE
DB = Key("shop", "db")
FLAW = Problem("spec", "is no object")
ENDLESS = ObjectMeta(key=WEB, uid="u", resource_version="9" * 5_000)


def stored(version: int, key: Key = WEB, uid: str = "u") -> StoredService:
    """A Service that tells by its type when it was written."""
    meta = ObjectMeta(key=key, uid=uid, resource_version=str(version))
    return StoredService(meta=meta, type=f"at {version}")


def gone(version: int) -> Delete:
    return Delete(SERVICES, WEB, str(version))


def ended(version: int) -> AnswerGone:
    """We deleted it, or found it gone, having seen it last as of that version."""
    return AnswerGone(SERVICES, WEB, "u", str(version))


def listed(version: int, *objects: StoredService) -> Iterator[Event]:
    yield Init(SERVICES)
    yield from map(Apply, objects)
    yield InitDone(SERVICES, None, str(version))


@pytest.mark.parametrize(
    ("events", "held"),
    [
        pytest.param([Answer(stored(5))], 5, id="an answer before the watch tells"),
        pytest.param([Answer(stored(5)), Apply(stored(5))], 5, id="the watch tells it, too"),
        pytest.param([Answer(stored(5)), Apply(stored(4))], 5, id="the watch is behind"),
        pytest.param([Answer(stored(5)), Apply(stored(4)), Apply(stored(6))], 6, id="and goes on"),
        pytest.param([Apply(stored(6)), Answer(stored(5))], 6, id="the answer is behind"),
        pytest.param([Answer(stored(5)), Answer(stored(4))], 5, id="answers out of order"),
        pytest.param([Apply(stored(4)), gone(6), Answer(stored(5))], None, id="deleted meanwhile"),
        pytest.param([Answer(stored(5)), gone(3)], 5, id="a former one's deletion is told late"),
        pytest.param([Answer(stored(5)), gone(6)], None, id="deleted after it was written"),
        pytest.param([Apply(stored(9)), Apply(stored(4))], 4, id="what the source tells counts"),
        pytest.param([*listed(9, stored(3)), Answer(stored(5))], 3, id="older than the list"),
        pytest.param([*listed(9), Answer(stored(5))], None, id="gone before the list"),
        pytest.param(
            [Init(SERVICES), Answer(stored(10)), InitDone(SERVICES, None, "9")],
            10,
            id="made after the list began",
        ),
        pytest.param(
            [Init(SERVICES), Answer(stored(8)), InitDone(SERVICES, None, "9")],
            None,
            id="made before the list, and gone then",
        ),
        pytest.param(
            [Answer(stored(5)), *listed(3, stored(2))], 2, id="a server restored from a backup"
        ),
        pytest.param(
            [Init(SERVICES), Answer(stored(10)), Apply(stored(4)), InitDone(SERVICES, None, "9")],
            10,
            id="a list that is older than the answer holds what was before",
        ),
        pytest.param(
            [Init(SERVICES), Apply(stored(8, DB)), Answer(stored(5))],
            5,
            id="a list's objects come in no order of time",
        ),
        pytest.param(
            [Init(SERVICES), Apply(stored(7)), Answer(stored(5)), InitDone(SERVICES, None, "9")],
            7,
            id="an answer that is older than what the list held",
        ),
        pytest.param(
            [Answer(stored(5)), Init(SERVICES), Answer(stored(4)), InitDone(SERVICES, None, "3")],
            None,
            id="answers out of order while a restored server is listed",
        ),
        pytest.param(
            [Answer(stored(5)), Init(SERVICES), Init(SERVICES), Answer(stored(4))],
            5,
            id="answers out of order while lists fail",
        ),
        pytest.param([Apply(stored(5)), ended(5)], None, id="deleted by us"),
        pytest.param(
            [ended(5), Apply(stored(5))], None, id="deleted before the watch tells that it was made"
        ),
        pytest.param(
            [Apply(stored(3, uid="t")), ended(5)],
            None,
            id="deleted while the watch is at a former one",
        ),
        pytest.param(
            [Answer(stored(5)), ended(5), Init(SERVICES), Answer(stored(5))],
            None,
            id="answers out of order around our deletion, while lists fail",
        ),
        pytest.param(
            [Answer(stored(5)), ended(5), Apply(stored(4)), Apply(stored(5))],
            None,
            id="the watch tells what was before our deletion",
        ),
        pytest.param(
            [Apply(stored(5)), ended(5), Apply(stored(7))],
            None,
            id="and what others did between",
        ),
        pytest.param(
            [Apply(stored(5)), ended(5), Apply(stored(9, uid="v"))], 9, id="and made anew"
        ),
        pytest.param(
            [Apply(stored(5)), ended(5), Answer(stored(9, uid="v")), gone(7)],
            9,
            id="made anew before the watch tells of our deletion",
        ),
        pytest.param(
            [Answer(stored(5)), ended(5), Apply(stored(3, uid="t")), gone(4)],
            None,
            id="the watch tells of a former one",
        ),
        pytest.param(
            [Init(SERVICES), Apply(stored(5)), ended(5), InitDone(SERVICES, None, "9"), gone(10)],
            None,
            id="deleted after it was listed",
        ),
        pytest.param(
            [
                *(Apply(stored(5)), Init(SERVICES), ended(5), Apply(stored(5))),
                *(InitDone(SERVICES, None, "9"), Apply(stored(10))),
            ],
            None,
            id="a list that is older than our deletion holds it",
        ),
        pytest.param(
            [Apply(stored(5)), ended(5), *listed(3, stored(2))],
            2,
            id="deleted, and restored with the server",
        ),
        pytest.param(
            [Apply(stored(8, uid="v")), ended(5)], 8, id="made anew since what we deleted"
        ),
        pytest.param([Apply(stored(5)), gone(6), ended(5), Apply(stored(9))], 9, id="told before"),
        pytest.param([Answer(stored(5)), ended(5), Answer(stored(5))], None, id="twice answered"),
        pytest.param(
            [Answer(stored(5)), Malformed(SERVICES, WEB, FLAW, "4"), ended(5)],
            None,
            id="malformed before",
        ),
        pytest.param(
            [Answer(replace(stored(5), meta=ObjectMeta(key=WEB, uid="u"))), Apply(stored(4))],
            4,
            id="no resource version, no order",
        ),
        pytest.param(
            [Apply(replace(stored(9), meta=ENDLESS)), Answer(stored(5))],
            5,
            id="5,000 digits are no resource version",
        ),
    ],
)
def test_the_newer_telling_counts(events: list[Event], held: int | None) -> None:
    cache = Cache(AddressRules())
    for event in events:
        cache.apply(event)
    service = cache.stored_services.get(WEB)
    assert (service and service.type) == (held and f"at {held}")


def test_what_could_not_be_read_before_an_answer_is_no_problem_now() -> None:
    cache = Cache(AddressRules())
    cache.apply(Answer(stored(5)))
    cache.apply(Malformed(SERVICES, WEB, FLAW, "4"))
    assert cache.problems == {}
    cache.apply(Malformed(SERVICES, WEB, FLAW, "6"))
    assert cache.problems == {(SERVICES, WEB): (FLAW,)}


@pytest.mark.parametrize("odd", ["", "9" * 21, "9" * 5_000, "-1", "1.5", "0x9", " 9", "٣", "abc"])
def test_what_is_no_number_is_of_no_time(odd: str) -> None:
    assert number(odd) is None
    cache = Cache(AddressRules())
    meta = ObjectMeta(key=WEB, uid="u", resource_version=odd)
    for event in (
        Answer(stored(5)),
        Apply(StoredService(meta=meta)),
        Answer(StoredService(meta=meta, type="x")),
    ):
        cache.apply(event)
    assert cache.stored_services[WEB].type == "x"
    cache.apply(AnswerGone(SERVICES, WEB, "u", odd))
    assert cache.stored_services == {}
    cache.apply(Apply(StoredService(meta=meta)))
    assert cache.stored_services[WEB].type == ""


def test_an_answer_of_one_namespace_waits_for_no_other() -> None:
    cache = Cache(AddressRules(), kinds=[SERVICES], namespaces=["shop", "other"])
    cache.apply(Apply(stored(9, Key("other", "web"))))
    cache.apply(Answer(stored(5)))
    assert cache.stored_services[WEB].type == "at 5"


def test_an_older_telling_of_a_vmservice_is_not_taken_in() -> None:
    def at(version: int, uid: str = "u") -> VirtualMachineService:
        return replace(service(), meta=ObjectMeta(key=WEB, uid=uid, resource_version=str(version)))

    cache = Cache(AddressRules(), kinds=())
    assert cache.apply(Answer(at(5))) == {WEB}
    assert cache.apply(Apply(at(4, "a former one"))) == frozenset()
    assert cache.services[WEB].object == at(5)
    assert cache.apply(Delete(Kind.VIRTUAL_MACHINE_SERVICE, WEB, "6")) == {WEB}
    assert cache.apply(Answer(at(5))) == frozenset()
    assert leavings(cache) == []
