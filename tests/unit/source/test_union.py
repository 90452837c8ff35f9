"""What files say together, and what is told of it."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.objects import vm
from vmsvc_grpc.model.events import Apply, Delete, Malformed
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


def told(events: list[Apply | Malformed]) -> list[str]:
    """Name and address of each event."""
    texts = []
    for event in events:
        assert isinstance(event, Apply)
        assert event.object.key.name
        texts.append(f"{event.object.key.name}={event.object.addresses[0].text}")  # type: ignore[union-attr]  # All are VMs.
    return texts


def test_only_differences_are_told() -> None:
    union = Union()
    assert told(union.put("a", contents({"x": "1", "y": "1"}))) == ["x=1", "y=1"]
    assert told(union.put("a", contents({"x": "1", "y": "2"}))) == ["y=2"]
    assert told(union.put("a", contents({"x": "1", "y": "2", "z": "1"}))) == ["z=1"]
    assert union.tie(0.0) == []


def test_the_first_file_counts_and_another_takes_over() -> None:
    union = Union()
    assert told(union.put("b", contents({"x": "b"}))) == ["x=b"]
    assert told(union.put("c", contents({"x": "c"}))) == []
    assert told(union.put("a", contents({"x": "a"}))) == ["x=a"]
    union.drop("a")
    assert told(union.tie(0.0)) == ["x=b"]
    union.drop("b")
    assert told(union.tie(0.0)) == ["x=c"]
    assert list(union.missing) == []


def test_repeats_are_told_of_every_file_but_the_first() -> None:
    union = Union()
    union.put("b", contents({"w": "1", "x": "b"}))
    union.put("c", contents({"x": "c"}))
    assert union.reshuffled() == {"b", "c"}
    assert union.reshuffled() == set()
    text = "VirtualMachine shop/x is defined in b already, which counts; remove one of them"
    assert union.repeats("b") == []
    assert union.repeats("c") == [Flaw("document 1", text)]
    union.put("a", contents({"x": "a"}))
    assert union.reshuffled() == {"a", "b", "c"}
    assert union.repeats("b") == [Flaw("document 2", text.replace("in b", "in a"))]
    union.drop("a")
    union.drop("b")
    assert union.reshuffled() >= {"b", "c"}
    assert union.repeats("c") == []
    assert union.repeats("b") == []


def test_an_object_that_moves_is_never_missing() -> None:
    union = Union()
    union.put("a", contents({"x": "1"}))
    union.put("a", contents({}))
    assert union.put("b", contents({"x": "1"})) == []
    assert union.tie(1.0) == []
    assert list(union.missing) == []


def test_what_no_file_defines_is_missing_until_it_is_deleted_or_back() -> None:
    union = Union()
    union.put("a", contents({"x": "1", "y": "1"}))
    union.drop("a")
    assert union.tie(1.0) == []
    x, y = Missing(id_of("x"), "a", 1.0), Missing(id_of("y"), "a", 1.0)
    assert list(union.missing) == [x, y]
    union.postpone(x, 2.0)
    assert list(union.missing) == [x._replace(since=2.0), y]
    assert union.put("b", contents({"x": "1"})) == []
    assert list(union.missing) == [y]
    assert union.delete(y) == Delete(*id_of("y"))
    assert list(union.missing) == []
    assert told(union.put("a", contents({"y": "1"}))) == ["y=1"]


def test_an_object_that_was_never_told_is_never_missing() -> None:
    union = Union()
    union.put("a", contents({"x": "1"}))
    union.put("b", contents({"x": "2"}))
    union.drop("b")
    assert union.tie(1.0) == []
    assert list(union.missing) == []


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


@given(steps)
def test_what_was_told_is_what_a_rebuild_says(
    steps: list[tuple[str, dict[str, str] | None, bool]],
) -> None:
    """Once all is tied and what is missing is deleted, whenever that is done."""
    union, held, known = Union(), dict[str, dict[str, str]](), dict[str, str]()

    def note(events: list[Apply | Malformed]) -> None:
        for text in told(events):
            name, _, address = text.partition("=")
            known[name] = address

    def finish() -> None:
        note(union.tie(0.0))
        for missing in union.missing:
            del known[union.delete(missing).key.name]

    for path, addresses, finished in steps:
        if addresses is None:
            held.pop(path, None)
            union.drop(path)
        else:
            held[path] = addresses
            note(union.put(path, contents(addresses)))
        if finished:
            finish()
    finish()
    rebuilt: dict[str, str] = {}
    for path in sorted(held, reverse=True):
        rebuilt |= held[path]
    assert known == rebuilt
