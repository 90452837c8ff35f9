"""What files say together, and what is told of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.objects import vm
from vmsvc_grpc.model.events import Apply, Delete, Event
from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.source.manifests import Contents, Entry, Flaw, ObjectId
from vmsvc_grpc.source.union import Missing, Union


def id_of(name: str) -> ObjectId:
    return Kind.VIRTUAL_MACHINE, Key("shop", name)


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


def missing(union: Union, now: float) -> list[Missing]:
    """What is missing, what was loose included."""
    union.tie(now)
    return list(union.missing)


def test_only_differences_are_told() -> None:
    union = Union()
    assert told(union.put("a", contents({"x": "1", "y": "1"}))) == ["x=1", "y=1"]
    assert told(union.put("a", contents({"x": "1", "y": "2"}))) == ["y=2"]
    assert told(union.put("a", contents({"x": "1", "y": "2", "z": "1"}))) == ["z=1"]
    assert missing(union, 0.0) == []


def test_the_file_that_had_an_object_goes_on_having_it() -> None:
    union = Union()
    assert told(union.put("b", contents({"x": "b"}))) == ["x=b"]
    assert told(union.put("c", contents({"x": "c"}))) == []
    assert told(union.put("a", contents({"x": "a"}))) == []
    assert told(union.put("b", contents({"x": "b2"}))) == ["x=b2"]
    union.drop("b")
    assert union.put("c", contents({"x": "c2"})) == [], "it may be back yet"
    (let_go,) = missing(union, 1.0)
    assert told(union.settle(let_go)) == ["x=a"]
    assert union.put("b", contents({"x": "b"})) == []
    assert missing(union, 2.0) == []


def test_a_file_that_is_back_in_time_has_its_object_still() -> None:
    union = Union()
    union.put("b", contents({"x": "b"}))
    union.put("a", contents({"x": "a"}))
    union.drop("b")
    assert union.put("b", contents({"x": "b"})) == []
    assert missing(union, 1.0) == []
    union.drop("b")
    (let_go,) = missing(union, 2.0)
    assert let_go in union
    assert told(union.put("b", contents({"x": "b2"}))) == ["x=b2"]
    assert missing(union, 3.0) == []
    assert let_go not in union


def test_one_that_says_the_same_is_the_next() -> None:
    """As a file that was renamed does; then nothing has happened."""
    union = Union()
    union.put("b", contents({"x": "1"}))
    union.put("a", contents({"x": "2"}))
    union.drop("b")
    union.put("c", contents({"x": "1"}))
    (let_go,) = missing(union, 1.0)
    assert union.settle(let_go) == []
    assert told(union.put("c", contents({"x": "3"}))) == ["x=3"]


def test_repeats_are_told_of_every_file_but_the_one_that_has_it() -> None:
    union = Union()
    union.put("b", contents({"w": "1", "x": "b"}))
    union.put("c", contents({"x": "c"}))
    assert union.reshuffled() == {"b", "c"}
    assert union.reshuffled() == set()
    text = "VirtualMachine shop/x is defined in b already, which counts; remove one of them"
    assert union.repeats("b") == []
    assert union.repeats("c") == [id_of("x")]
    assert union.repeat(id_of("x"), "c") == Flaw("document 1", text)
    union.put("a", contents({"x": "a"}))
    after = "; after a restart this one would count, as the first in path order"
    assert union.repeat(id_of("x"), "a") == Flaw("document 1", text + after)
    assert union.losers(id_of("x")) == ["a", "c"]
    assert union.losers(id_of("w")) == []
    union.drop("b")
    assert union.reshuffled() >= {"a", "b", "c"}
    assert union.losers(id_of("x")) == [], "nobody has it for now"
    for let_go in missing(union, 1.0):
        union.settle(let_go)
    assert union.reshuffled() >= {"a", "c"}
    assert union.repeats("a") == []
    assert union.repeats("c") == [id_of("x")]


def test_what_no_file_defines_is_missing_until_it_is_deleted_or_back() -> None:
    union = Union()
    union.put("a", contents({"x": "1", "y": "1"}))
    union.drop("a")
    x, y = Missing(id_of("x"), "a", 1.0), Missing(id_of("y"), "a", 1.0)
    assert missing(union, 1.0) == [x, y]
    union.postpone(x, 2.0)
    assert list(union.missing) == [x._replace(since=2.0), y]
    assert union.settle(y) == [Delete(*id_of("y"))]
    assert told(union.put("b", contents({"y": "1"}))) == ["y=1"]
    assert union.put("a", contents({"x": "1"})) == []
    assert list(union.missing) == []


def test_an_object_that_was_never_told_is_never_missing() -> None:
    union = Union()
    union.put("a", contents({"x": "1"}))
    union.put("b", contents({"x": "2"}))
    union.drop("b")
    assert missing(union, 1.0) == []


def test_an_object_that_was_malformed_is_told_once_it_is_good() -> None:
    union = Union()
    good = contents({"x": "1"})
    union.put("a", good)
    assert union.put("a", good.malformed("no YAML")) == [
        entry.event for entry in good.malformed("no YAML").entries.values()
    ]
    assert told(union.put("a", good)) == ["x=1"]


def test_counts_what_is_ignored_in_files_that_are_there() -> None:
    union = Union()
    union.put("a", Contents(ignored=2))
    union.put("b", Contents(ignored=3))
    assert union.ignored == 5
    union.drop("a")
    assert union.ignored == 3


files = st.dictionaries(st.sampled_from("xyz"), st.sampled_from("12"), max_size=3)
steps = st.lists(st.tuples(st.sampled_from("abc"), st.none() | files, st.booleans()), max_size=20)


class Model:
    """A union, the files that it was told of, what follows, and which file has what."""

    def __init__(self) -> None:
        self.union = Union()
        self.held: dict[str, dict[str, str]] = {}
        self.known: dict[str, str] = {}
        self.holders: dict[str, str] = {}

    def write(self, path: str, addresses: dict[str, str] | None) -> None:
        if addresses is None:
            self.held.pop(path, None)
            self.union.drop(path)
            return
        self.held[path] = addresses
        self._note(self.union.put(path, contents(addresses)))
        for name in addresses:
            self.holders.setdefault(name, path)

    def settle(self) -> None:
        for let_go in missing(self.union, 0.0):
            name = let_go.id[1].name
            said = self.known[name]
            self._note(self.union.settle(let_go))
            definers = [path for path in sorted(self.held) if name in self.held[path]]
            same = [path for path in definers if self.held[path][name] == said]
            del self.holders[name]
            if definers:
                self.holders[name] = (same or definers)[0]

    def _note(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Delete):
                del self.known[event.key.name]
            else:
                name, _, address = told([event])[0].partition("=")
                self.known[name] = address


@given(steps)
def test_what_was_told_is_what_the_files_with_each_object_say(
    steps: list[tuple[str, dict[str, str] | None, bool]],
) -> None:
    """Once what is missing is settled, whenever that is done; beside a naive model of it."""
    model = Model()
    for path, addresses, settled in steps:
        model.write(path, addresses)
        if settled:
            model.settle()
    model.settle()
    held = model.held
    assert model.known == {name: held[path][name] for name, path in model.holders.items()}
    assert model.known.keys() == {name for addresses in held.values() for name in addresses}


def test_many_objects_are_put_in_steps_that_others_may_come_between() -> None:
    many = {f"vm-{index}": "1" for index in range(1_000)}
    union = Union()
    union.put("a", contents({"vm-999": "old"}))
    steps = union.putting("b", contents(many))
    assert next(step for step in steps if step is None) is None
    union.put("b", contents({"vm-1": "2", "vm-998": "2"}))
    assert list(steps) == []
    assert union.repeats("b") == []
    steps = union.putting("b", contents(many))
    events = [step for step in steps if step is not None]
    assert len(events) == 998, "another file holds the last one, and the first was put before"
    assert union.repeats("b") == [id_of("vm-999")]
    assert sum(step is None for step in union.putting("b", contents(many))) >= 10
    assert missing(union, 0.0) == []
    union.drop("b")
    assert len(missing(union, 0.0)) == 999
    assert list(union.losers(id_of("vm-999"))) == []
