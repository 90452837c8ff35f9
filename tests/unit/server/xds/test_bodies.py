"""All resources as one body: how much of it is made, how often, and for how long it is kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st

from vmsvc_grpc.server.xds.bodies import SLICE, Bodies, Body, BodyReader, Whole

MANY = [f"s{number:05}.shop:80" for number in range(5 * SLICE)]


def part(name: str) -> bytes:
    return f"{name} ".encode()


def digest(names: Iterable[str]) -> int:
    return sum(crc32(name.encode()) + 1 for name in names)


class World:
    """Bodies, and what they ask for: the names of resources, in order."""

    def __init__(self, shared_from: int = 1, bytes_max: int = 1 << 30) -> None:
        self.asked: list[str] = []
        self.begun = 0
        self.joined_bytes = 0
        self.bodies = Bodies(self._part, self._respond, self._begin, shared_from, bytes_max)

    def _part(self, name: str) -> bytes:
        self.asked.append(name)
        return part(name)

    def _respond(self, digest: int, nonce: int, parts: Sequence[bytes | memoryview]) -> bytes:
        message = b"".join((b"%d %d:" % (digest, nonce), *parts))
        self.joined_bytes += len(message)
        return message

    def _begin(self) -> None:
        self.begun += 1


class Reader:
    """A stream in short: what it is told, and what it reads."""

    def __init__(self, world: World, names: Iterable[str] = ()) -> None:
        self.told: dict[str, None] = dict.fromkeys(names)
        self.reader = BodyReader(world.bodies)
        self.nonce = 0
        self.turns = 0

    def change(self, *, new: Iterable[str] = (), gone: Iterable[str] = ()) -> None:
        for name in gone:
            self.told.pop(name, None)
            self.reader.note(name)
        for name in new:
            self.told[name] = None
            self.reader.note(name)

    def turn(self) -> Whole | None:
        self.turns += 1
        return self.reader.read(digest(self.told), self.told, self.nonce)

    def read(self) -> bytes:
        """What it is sent, in as many turns as it takes, and rightly."""
        while (whole := self.turn()) is None:
            pass
        assert whole.nonce > self.nonce, "to each stream nonces rise"
        self.nonce = whole.nonce
        head, _, body = whole.message.partition(b":")
        assert head == b"%d %d" % (digest(self.told), whole.nonce)
        assert sorted(body.decode().split()) == sorted(self.told)
        return whole.message


def test_a_body_is_made_in_slices_once_for_all_who_are_sent_the_same() -> None:
    world = World()
    readers = [Reader(world, MANY) for _ in range(3)]
    while (whole := readers[0].turn()) is None:
        assert len(world.asked) <= SLICE * readers[0].turns
    assert sorted(world.asked) == MANY
    assert readers[0].turns <= len(MANY) / SLICE + 2
    assert all(reader.read() is whole.message for reader in readers[1:])
    assert world.begun == 1
    assert world.joined_bytes == len(whole.message)


def test_all_who_wait_for_a_body_make_it_together() -> None:
    world = World()
    readers = [Reader(world, MANY) for _ in range(10)]
    waiting = readers
    while waiting:
        waiting = [reader for reader in waiting if reader.turn() is None]
    assert sorted(world.asked) == MANY
    assert sum(reader.turns for reader in readers) <= len(MANY) / SLICE + 2 + len(readers)


def test_a_change_costs_what_changed_and_one_copy_for_all() -> None:
    world = World()
    readers = [Reader(world, MANY) for _ in range(3)]
    for reader in readers:
        reader.read()
    world.asked.clear()
    world.joined_bytes = 0
    for reader in readers:
        reader.turns = 0
        reader.change(new=["new.shop:80"], gone=[MANY[7]])
    messages = [reader.read() for reader in readers]
    assert all(message is messages[0] for message in messages)
    assert world.asked == ["new.shop:80"]
    assert world.begun == 2
    assert world.joined_bytes == len(messages[0])
    assert [reader.turns for reader in readers] == [1, 1, 1]


def test_a_change_makes_anew_only_where_it_is() -> None:
    body = Body(0, part, MANY)
    while not body.make():
        pass
    later = body.patched(1, ["new.shop:80", MANY[7]], MANY[:7] + MANY[8:] + ["new.shop:80"])
    anew = [b for a, b in zip(body._drawers, later._drawers, strict=True) if a is not b]
    assert 1 <= len(anew) <= 2
    assert sum(len(drawer.content) for drawer in anew) < later.size / 50
    assert later.size == body.size - len(part(MANY[7])) + len(part("new.shop:80"))


def test_what_changes_while_a_body_is_made_is_in_it() -> None:
    world = World()
    reader = Reader(world, MANY)
    assert reader.turn() is None
    reader.change(new=["new.shop:80"], gone=[MANY[0], MANY[-1]])
    assert reader.turn() is None
    reader.change(gone=["new.shop:80"], new=[MANY[0]])
    reader.read()
    assert len(world.asked) <= len(MANY) + 1, "it did not begin anew"


def test_many_changes_at_once_are_made_in_slices_too() -> None:
    world = World()
    reader = Reader(world, MANY)
    reader.read()
    reader.turns = 0
    reader.change(gone=MANY[: len(MANY) // 2])
    reader.read()
    assert reader.turns > 1


def test_a_state_that_comes_back_is_sent_with_a_later_nonce() -> None:
    world = World()
    moving, resting = Reader(world, MANY), Reader(world, MANY)
    first = moving.read()
    assert resting.read() is first
    moving.change(new=["new.shop:80"])
    moving.read()
    moving.change(gone=["new.shop:80"])
    again = moving.read()
    assert again != first
    assert resting.read() is again, "it has the same once more, if it asks"
    assert world.begun == 2


def test_a_body_goes_with_the_last_stream_that_was_sent_it() -> None:
    world = World()
    readers = [Reader(world, MANY) for _ in range(2)]
    for reader in readers:
        reader.read()
    readers[0].change(gone=MANY[:1])
    readers[0].read()
    assert len(world.bodies._bodies) == 2
    readers[1].change(gone=MANY[:1])
    readers[1].read()
    assert len(world.bodies._bodies) == 1
    readers.pop()
    assert len(world.bodies._bodies) == 1
    del reader
    readers.pop()
    assert (len(world.bodies._bodies), world.bodies.size) == (0, 0)


def test_one_that_is_not_read_any_more_is_let_go_while_others_change() -> None:
    world = World()
    reader = Reader(world, MANY)
    reader.read()
    for number in range(2 * SLICE):
        reader.change(new=[f"new-{number}.shop:80"])
    assert len(world.bodies._bodies) == 0


def test_all_bodies_together_have_a_bound_and_who_needs_one_has_it_anew() -> None:
    size = sum(len(part(name)) for name in MANY)
    world = World(bytes_max=2 * size + 1_000)
    readers = [Reader(world, [*MANY, f"own-{number}.shop:80"]) for number in range(5)]
    for reader in readers:
        reader.read()
        assert world.bodies.size <= 2 * size + 1_000
    for reader in readers:
        reader.read()
        reader.change(new=["new.shop:80"])
        reader.read()
        assert world.bodies.size <= 2 * size + 1_000


def test_one_body_may_be_larger_than_all_together() -> None:
    world = World(bytes_max=10)
    reader = Reader(world, MANY)
    reader.read()
    reader.change(gone=MANY[:1])
    reader.read()
    assert len(world.bodies._bodies) == 1


def test_a_few_are_not_kept() -> None:
    world = World(shared_from=3)
    reader = Reader(world, MANY[:2])
    reader.read()
    assert (len(world.bodies._bodies), world.begun) == (0, 0)
    reader.change(new=MANY[2:3])
    reader.read()
    assert (len(world.bodies._bodies), world.begun) == (1, 1)
    reader.change(gone=MANY[:1])
    reader.read()
    assert len(world.bodies._bodies) == 0


_NAMES = st.lists(st.sampled_from(MANY[:40]), max_size=8)


@given(
    steps=st.lists(st.tuples(st.integers(0, 2), _NAMES, _NAMES, st.booleans()), max_size=30),
    bytes_max=st.sampled_from([1, 700, 1 << 20]),
)
def test_whatever_changes_each_is_sent_what_it_is_told(
    steps: list[tuple[int, list[str], list[str], bool]], bytes_max: int
) -> None:
    world = World(shared_from=2, bytes_max=bytes_max)
    readers = [Reader(world) for _ in range(3)]
    for number, new, gone, reads in steps:
        readers[number].change(new=new, gone=gone)
        if reads:
            readers[number].read()
    for reader in readers:
        reader.read()
    reader = readers[0]
    readers.clear()
    assert len(world.bodies._bodies) <= 1
    reader.read()
