"""How much is taken in of requests that have not come whole."""

from __future__ import annotations

from vmsvc_grpc.server.transport.uploads import Room, Uploads


class Asked:
    """Rooms by name, and the names in the order in which they were granted after a wait."""

    def __init__(self, bytes_max: int) -> None:
        self.uploads = Uploads(bytes_max)
        self.rooms: dict[str, Room] = {}
        self.waited: list[str] = []

    def ask(self, name: str, size: int) -> bool:
        room = Room(name[0], size, lambda: self.waited.append(name))
        self.rooms[name] = room
        self.uploads.ask(room)
        return room.granted

    def let_go(self, *names: str) -> None:
        for name in names:
            self.uploads.let_go(self.rooms.pop(name))

    def empty(self) -> bool:
        uploads = self.uploads
        return not (uploads.in_all or uploads._granted._of_client or uploads._waiting)


def test_one_client_at_its_bound_leaves_the_others_theirs_and_goes_on_by_turns() -> None:
    asked = Asked(400)
    assert asked.ask("a1", 60)
    assert asked.ask("a2", 40)
    assert not asked.ask("a3", 40)
    assert not asked.ask("a4", 10), "in their order"
    assert asked.ask("b1", 100)
    asked.let_go("a2")
    assert asked.waited == ["a3"]
    asked.let_go("a1")
    assert asked.waited == ["a3", "a4"]
    asked.let_go("a3", "a4", "b1")
    assert asked.empty()


def test_all_clients_share_what_there_is_in_all_and_have_their_turns() -> None:
    asked = Asked(400)
    for client in "abcd":
        assert asked.ask(f"{client}1", 100)
    for client in "aef":
        assert not asked.ask(f"{client}2", 50)
        assert not asked.ask(f"{client}3", 50)
    asked.let_go("b1")
    assert asked.waited == ["e2", "f2"], "a has its part already"
    asked.let_go("a1")
    assert asked.waited == ["e2", "f2", "a2", "e3"]
    asked.let_go("c1", "d1")
    assert sorted(asked.waited[4:]) == ["a3", "f3"]
    asked.let_go(*list(asked.rooms))
    assert asked.empty()


def test_who_holds_nothing_may_send_any_size_and_so_all_goes_on() -> None:
    asked = Asked(400)
    assert asked.ask("a1", 1_000)
    assert not asked.ask("a2", 1)
    assert not asked.ask("b1", 1_000)
    asked.let_go("a1")
    assert asked.waited == ["a2"]
    asked.let_go("a2")
    assert asked.waited == ["a2", "b1"]
    asked.let_go("b1")
    assert asked.empty()


def test_who_goes_away_while_it_waits_leaves_its_place() -> None:
    asked = Asked(400)
    assert asked.ask("a1", 100)
    assert not asked.ask("a2", 100)
    assert not asked.ask("a3", 100)
    asked.let_go("a2", "a1")
    assert asked.waited == ["a3"]
    asked.let_go("a3")
    assert asked.empty()


def test_who_goes_away_while_it_waits_lets_in_a_smaller_one_behind_it() -> None:
    asked = Asked(400)
    assert asked.ask("a1", 90)
    assert not asked.ask("a2", 50)
    assert not asked.ask("a3", 10)
    asked.let_go("a2")
    assert asked.waited == ["a3"]
    asked.let_go("a1", "a3")
    assert asked.empty()
