"""Which answers are remembered that no open call goes by."""

from __future__ import annotations

from dataclasses import dataclass

from vmsvc_grpc.server.access.memory import IDLE_PART, Memory

_MOST = 8


@dataclass
class _Fact:
    caller: str
    granted: bool = True


def _with_idle(*facts: tuple[str, _Fact]) -> Memory[str, _Fact]:
    memory = Memory[str, _Fact](_MOST, _MOST)
    for key, fact in facts:
        memory.use(key, fact)
        memory.release(key, fact, keep=True)
    return memory


def test_of_one_caller_the_newest_are_remembered() -> None:
    memory = _with_idle(*((f"{n}", _Fact("a")) for n in range(5)))

    assert len(memory) == _MOST // IDLE_PART
    assert [n for n in range(5) if memory.find(f"{n}")] == [3, 4]


def test_of_all_callers_the_newest_are_remembered() -> None:
    memory = _with_idle(*((f"{n}", _Fact(f"caller-{n}")) for n in range(_MOST + 3)))

    assert [n for n in range(_MOST + 3) if memory.find(f"{n}")] == list(range(3, _MOST + 3))


def test_one_that_was_in_use_again_counts_as_new() -> None:
    memory = _with_idle(("first", _Fact("a")), ("second", _Fact("a")))

    again = memory.find("first")
    assert again
    memory.release("first", again, keep=True)
    third = _Fact("a")
    memory.use("third", third)
    memory.release("third", third, keep=True)

    assert memory.find("first")
    assert memory.find("third")
    assert not memory.find("second")


def test_a_no_displaces_no_yes_and_is_not_in_use() -> None:
    yes = ("yes", _Fact("a"))
    memory = _with_idle(yes, *((f"no-{n}", _Fact("a", granted=False)) for n in range(_MOST)))

    assert memory.find("yes")
    assert memory.find(f"no-{_MOST - 1}")
    assert (memory.in_use.of("a"), memory.in_use.in_all) == (2, 2)
