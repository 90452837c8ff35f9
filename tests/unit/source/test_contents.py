"""What a text defines, of which some belongs in other files."""

from __future__ import annotations

from vmsvc_grpc.model.events import Malformed
from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.model.problem import Problem
from vmsvc_grpc.source.contents import Contents, Entry

_OBJECTS = 10_000
_OBJECTS_A_STEP = 100
_BROKEN = Problem("(object)", "is broken")


def test_the_objects_of_other_files_are_left_out_in_steps() -> None:
    ids = [(Kind.SERVICE, Key("a", f"s{number}")) for number in range(_OBJECTS)]
    contents = Contents({id_: Entry(id_, "", Malformed(*id_, _BROKEN)) for id_ in ids}, ignored=3)
    asked = 0

    def place_of(_: Kind, key: Key) -> str:
        nonlocal asked
        asked += 1
        return f"a/{key.name}"

    left, most, before = contents, 0, 0
    steps = contents.placed("a/s7", place_of)
    try:
        while True:
            next(steps)
            most, before = max(most, asked - before), asked
    except StopIteration as over:
        left = over.value

    assert list(left.entries) == [ids[7]]
    assert left.ignored == 3 + _OBJECTS - 1
    assert asked == _OBJECTS
    assert most <= _OBJECTS_A_STEP
