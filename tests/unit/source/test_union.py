"""What files say together, and what is told of it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.counting import counted_lines
from tests.unit.objects import vm
from vmsvc_grpc.model.events import Apply, Delete, Event, Malformed
from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.model.problem import Problem
from vmsvc_grpc.source.contents import Contents, Entry, Flaw, ObjectId
from vmsvc_grpc.source.union import Missing, Union


def id_of(name: str) -> ObjectId:
    return Kind.VIRTUAL_MACHINE, Key("shop", name)


BROKEN = Malformed(*id_of("x"), Problem("(object)", "is broken"))


def contents(addresses: Mapping[str, str], flaws: tuple[Flaw, ...] = ()) -> Contents:
    """A file that defines VMs, each with its address."""
    return Contents(
        {
            id_of(name): Entry(id_of(name), f"document {index}", Apply(vm(name, address)))
            for index, (name, address) in enumerate(addresses.items(), 1)
        },
        flaws,
    )


def told(events: Sequence[Event]) -> list[str]:
    """Name and address of each event."""
    texts = []
    for event in events:
        assert isinstance(event, Apply)
        assert event.object.key.name
        texts.append(f"{event.object.key.name}={event.object.addresses[0].text}")  # type: ignore[union-attr]  # All are VMs.
    return texts


def missing(union: Union, now: float = 0.0) -> list[Missing]:
    """What is missing, longest first, once what is gone has let go."""
    for _ in union.letting_go(now):
        pass
    found: list[Missing] = []
    while (first := union.missing) and first.since < math.inf:
        found.append(first)
        union.postpone(first, math.inf)
    for one in found:
        union.postpone(one, one.since)
    return found


def test_only_differences_are_told() -> None:
    union = Union()
    assert told(union.put("a", contents({"x": "1", "y": "1"}), 0.0)) == ["x=1", "y=1"]
    assert told(union.put("a", contents({"x": "1", "y": "2"}), 0.0)) == ["y=2"]
    assert told(union.put("a", contents({"x": "1", "y": "2", "z": "1"}), 0.0)) == ["z=1"]
    assert missing(union, 0.0) == []


def test_the_file_that_had_an_object_goes_on_having_it() -> None:
    union = Union()
    assert told(union.put("b", contents({"x": "b"}), 0.0)) == ["x=b"]
    assert told(union.put("c", contents({"x": "c"}), 0.0)) == []
    assert told(union.put("a", contents({"x": "a"}), 0.0)) == []
    assert told(union.put("b", contents({"x": "b2"}), 0.0)) == ["x=b2"]
    union.drop("b")
    assert union.put("c", contents({"x": "c2"}), 0.0) == [], "it may be back yet"
    (let_go,) = missing(union, 1.0)
    assert told(list(union.pass_on(let_go))) == ["x=a"]
    assert union.put("b", contents({"x": "b"}), 0.0) == []
    assert missing(union, 2.0) == []


def test_a_file_that_is_back_in_time_has_its_object_still() -> None:
    union = Union()
    union.put("b", contents({"x": "b"}), 0.0)
    union.put("a", contents({"x": "a"}), 0.0)
    union.drop("b")
    assert union.put("b", contents({"x": "b"}), 0.0) == []
    assert missing(union, 1.0) == []
    union.drop("b")
    assert missing(union, 2.0) == [Missing(id_of("x"), "b", 2.0, 2.0)]
    assert told(union.put("b", contents({"x": "b2"}), 0.0)) == ["x=b2"]
    assert missing(union, 3.0) == []


def test_one_that_says_the_same_is_the_next() -> None:
    """As a file that was renamed does; then nothing has happened."""
    union = Union()
    union.put("b", contents({"x": "1"}), 0.0)
    union.put("a", contents({"x": "2"}), 0.0)
    union.drop("b")
    union.put("c", contents({"x": "1"}), 0.0)
    (let_go,) = missing(union, 1.0)
    assert list(union.pass_on(let_go)) == []
    assert told(union.put("c", contents({"x": "3"}), 0.0)) == ["x=3"]


def test_some_of_many_files_that_define_an_object_cost_some() -> None:
    """Each VM of an explanation asks for the first ten."""

    def lines(files: int) -> int:
        union = Union()
        for number in range(files):
            union.put(f"{number:05}", contents({"x": "1"}), 0.0)
        with counted_lines() as counted:
            assert len(list(islice(union.losers(id_of("x")), 10))) == 10
        return counted[0]

    assert lines(2_000) == lines(20)


def test_a_repeat_spells_its_holder_as_a_problem_spells_the_file() -> None:
    union = Union()
    union.put(os.fsdecode(b"d\xfe/q.yaml"), contents({"x": "1"}), 0.0)
    union.put("e.yaml", contents({"x": "1"}), 0.0)
    flaw = union.repeat(id_of("x"), "e.yaml")
    assert "is defined in d\\xfe/q.yaml already" in flaw.message


def test_repeats_are_told_of_every_file_but_the_one_that_has_it() -> None:
    union = Union()
    union.put("b", contents({"w": "1", "x": "b"}), 0.0)
    union.put("c", contents({"x": "c"}), 0.0)
    assert union.reshuffled() == {"b", "c"}
    assert union.reshuffled() == set()
    text = "VirtualMachine shop/x is defined in b already, which counts; remove one of them"
    assert not union.repeats("b")
    assert list(union.repeats("c")) == [id_of("x")]
    assert union.repeat(id_of("x"), "c") == Flaw("document 1", text)
    union.put("a", contents({"x": "a"}), 0.0)
    after = "; after a restart this one would count, as the first in path order"
    assert union.repeat(id_of("x"), "a") == Flaw("document 1", text + after)
    assert list(union.losers(id_of("x"))) == ["a", "c"]
    assert list(union.losers(id_of("w"))) == []
    union.drop("b")
    let_gone = missing(union, 1.0)
    assert union.reshuffled() >= {"a", "b", "c"}
    assert list(union.losers(id_of("x"))) == [], "nobody has it for now"
    for let_go in let_gone:
        assert len(list(union.pass_on(let_go))) == 1
    assert union.reshuffled() >= {"a", "c"}
    assert not union.repeats("a")
    assert list(union.repeats("c")) == [id_of("x")]


def test_what_no_file_defines_is_missing_until_it_is_deleted_or_back() -> None:
    union = Union()
    union.put("a", contents({"x": "1", "y": "1"}), 0.0)
    union.drop("a")
    x, y = Missing(id_of("x"), "a", 1.0, 1.0), Missing(id_of("y"), "a", 1.0, 1.0)
    assert missing(union, 1.0) == [x, y]
    union.postpone(x, 2.0)
    assert missing(union) == [y, x._replace(since=2.0)]
    assert list(union.pass_on(y)) == [Delete(*id_of("y"))]
    assert told(union.put("b", contents({"y": "1"}), 0.0)) == ["y=1"]
    assert union.put("a", contents({"x": "1"}), 0.0) == []
    assert missing(union) == []


def test_what_was_postponed_for_a_file_is_recalled() -> None:
    union = Union()
    for path in "ab":
        union.put(path, contents({f"{path}-{n}": "1" for n in range(300)}), 0.0)
        union.put(path, contents({f"{path}-0": "1"}), 1.0)
    for one in missing(union, 1.0):
        union.postpone(one, 50.0)
    assert len(list(union.recalling("a", 2.0))) >= 2, "in steps"
    found = missing(union)
    assert [(one.path, one.since) for one in found[:299]] == [("a", 2.0)] * 299
    assert {(one.path, one.since) for one in found[299:]} == {("b", 50.0)}
    for one in found[:299]:
        assert list(union.pass_on(one)) == [Delete(*one.id)]
    union.drop("b")
    assert {one.since for one in missing(union, 3.0)} == {3.0}, "its file is gone"


def test_what_is_found_again_is_not_recalled() -> None:
    union = Union()
    union.put("a", contents({"x": "1", "y": "1"}), 0.0)
    union.put("a", contents({"y": "1"}), 1.0)
    (one,) = missing(union)
    union.postpone(one, 50.0)
    union.put("a", contents({"x": "1", "y": "1"}), 2.0)
    assert list(union.recalling("a", 3.0)) == []
    assert missing(union) == []


def test_an_object_that_was_never_told_is_never_missing() -> None:
    union = Union()
    union.put("a", contents({"x": "1"}), 0.0)
    union.put("b", contents({"x": "2"}), 0.0)
    union.drop("b")
    assert missing(union, 1.0) == []


def test_an_object_that_was_malformed_is_told_once_it_is_good() -> None:
    union = Union()
    good = contents({"x": "1"})
    bad = Contents({id_: entry._replace(event=BROKEN) for id_, entry in good.entries.items()})
    union.put("a", good, 0.0)
    assert union.put("a", bad, 0.0) == [BROKEN]
    assert told(union.put("a", good, 0.0)) == ["x=1"]


def test_counts_what_is_ignored_in_files_that_are_there() -> None:
    union = Union()
    union.put("a", Contents(ignored=2), 0.0)
    union.put("b", Contents(ignored=3), 0.0)
    assert union.ignored == 5
    union.drop("a")
    assert union.ignored == 3


FEW, MANY = ("x", "y", "z"), 150
"""Names that are told apart, and how many more a large file has, so that it takes steps."""

# What a file says: nothing if it is gone; whether it is large.
files = st.dictionaries(st.sampled_from(FEW), st.sampled_from("12"), max_size=3)
writes = st.tuples(st.sampled_from("abc"), st.none() | files, st.booleans())
turns = st.sampled_from(["step", "settle"])


def _large(addresses: dict[str, str]) -> dict[str, str]:
    """The same, and many others, before and behind them."""
    others = {f"other-{index}": "1" for index in range(MANY)}
    return {"first": "1"} | addresses | others | {"last": "1"}


class Model:
    """A union that is given files in steps, and a naive model of the files and their holders."""

    def __init__(self) -> None:
        self.union = Union()
        self.held: dict[str, dict[str, str]] = {}
        self.known: dict[str, str] = {}
        self.under_way: list[Iterator[Event | None]] = []

    def write(self, path: str, addresses: dict[str, str] | None) -> None:
        if addresses is None:
            self.held.pop(path, None)
            self.union.drop(path)
            self.under_way.append(self.union.letting_go(0.0))
        else:
            self.held[path] = addresses
            self.under_way.append(self.union.putting(path, contents(addresses), 0.0))
        self.step()

    def step(self) -> None:
        """Go on with what was begun last: what was begun before it has been overtaken."""
        if not self.under_way:
            return
        try:
            self._note([next(self.under_way[-1])])
        except StopIteration:
            self.under_way.pop()
        self.check()

    def finish(self) -> None:
        while self.under_way:
            self.step()

    def settle(self) -> None:
        for let_go in missing(self.union):
            self._note(list(self.union.pass_on(let_go)))

    def check(self) -> None:
        """Whatever is under way, each loser can be told of."""
        for path in "abc":
            for id_ in islice(self.union.repeats(path), 5):
                assert self.union.repeat(id_, path).message
        for name in FEW:
            for path in self.union.losers(id_of(name)):
                assert self.union.repeat(id_of(name), path).message

    def _note(self, events: Sequence[Event | None]) -> None:
        for event in events:
            if isinstance(event, Delete):
                del self.known[event.key.name]
            elif event is not None:
                name, _, address = told([event])[0].partition("=")
                self.known[name] = address


@given(st.lists(writes | turns, max_size=20))
def test_what_was_told_is_what_the_files_say_however_steps_mix(
    steps: list[tuple[str, dict[str, str] | None, bool] | str],
) -> None:
    model = Model()
    for step in steps:
        if step == "step":
            model.step()
        elif step == "settle":
            model.finish()
            model.settle()
        else:
            assert not isinstance(step, str)
            path, addresses, large = step
            model.write(path, _large(addresses) if large and addresses is not None else addresses)
    model.finish()
    model.settle()
    union, held = model.union, model.held
    defined = {name for addresses in held.values() for name in addresses}
    assert model.known.keys() == defined
    for name, address in model.known.items():
        losers = list(union.losers(id_of(name)))
        (holder,) = {path for path in held if name in held[path]}.difference(losers)
        assert held[holder][name] == address
        assert all(id_of(name) in union.repeats(path) for path in losers)
    assert sum(len(union.repeats(path)) for path in "abc") == sum(
        len(list(union.losers(id_of(name)))) for name in defined
    )
    assert missing(union) == []


@given(st.lists(writes | st.just("settle"), max_size=20))
def test_the_holder_is_the_one_that_a_naive_model_has(
    steps: list[tuple[str, dict[str, str] | None, bool] | str],
) -> None:
    model = Model()
    holders: dict[str, str] = {}

    def settle() -> None:
        said = {
            let_go.id[1].name: model.known[let_go.id[1].name] for let_go in missing(model.union)
        }
        model.settle()
        for name, address in said.items():
            definers = [path for path in sorted(model.held) if name in model.held[path]]
            same = [path for path in definers if model.held[path][name] == address]
            del holders[name]
            if definers:
                holders[name] = (same or definers)[0]

    for step in steps:
        if isinstance(step, str):
            settle()
            continue
        path, addresses, _ = step
        model.write(path, addresses)
        model.finish()
        for name in addresses or ():
            holders.setdefault(name, path)
    settle()
    assert model.known == {name: model.held[path][name] for name, path in holders.items()}


MANY_ADDRESSES = {f"vm-{index}": "1" for index in range(1_000)}


def test_many_objects_are_put_and_let_go_of_in_steps() -> None:
    union = Union()
    union.put("a", contents({"vm-999": "old"}), 0.0)
    steps = list(union.putting("b", contents(MANY_ADDRESSES), 0.0))
    assert steps.count(None) >= 10
    assert len(steps) - steps.count(None) == 999, "another file holds the last one"
    assert list(union.repeats("b")) == [id_of("vm-999")]
    union.drop("b")
    assert union.missing is None, "nothing was done for each of them yet"
    assert list(union.losers(id_of("vm-999"))) == []
    assert len(list(union.letting_go(0.0))) >= 10
    assert len(missing(union)) == 999
    assert not union.repeats("b")


def test_a_file_that_is_back_before_all_was_let_go_has_all_of_it() -> None:
    union = Union()
    union.put("a", contents(MANY_ADDRESSES), 0.0)
    union.drop("a")
    letting_go = union.letting_go(0.0)
    for _ in range(3):
        next(letting_go)
    assert union.put("a", contents(MANY_ADDRESSES), 0.0) == []
    assert all(step is None for step in letting_go)
    assert missing(union) == []
    union.drop("a")
    assert len(missing(union)) == 1_000


@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "gone"])
def test_what_a_file_said_before_is_freed_in_steps(replaced: bool) -> None:
    """Python freed 90,000 objects at once, in 36 ms, in which nobody was served."""
    union, before = Union(), contents(MANY_ADDRESSES)
    union.put("a", before, 0.0)
    if replaced:
        union.put("a", contents({"vm-0": "2"}), 0.0)
    else:
        union.drop("a")
    held = [len(before.entries), *(len(before.entries) for _ in union.letting_go(0.0))]
    assert held[0] == len(MANY_ADDRESSES), "none were freed where the file was taken"
    assert held[-1] == 0
    assert max(now - then for then, now in pairwise(reversed(held))) <= 100


def test_putting_goes_on_where_what_it_put_is_outdated_and_freed() -> None:
    union = Union()
    putting = union.putting("a", contents(MANY_ADDRESSES), 0.0)
    next(putting)
    union.put("a", contents({"vm-0": "2"}), 0.0)
    assert missing(union) == []
    assert all(step is None for step in putting)
    assert union.holder(id_of("vm-0")) == "a"
    assert union.holder(id_of("vm-1")) is None
