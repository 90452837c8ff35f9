"""Clients take turns, however many connections each has."""

from __future__ import annotations

from dataclasses import dataclass

from vmsvc_grpc.server.transport.round_robin import RoundRobin


@dataclass(frozen=True)
class Connection:
    client: str
    number: int


def test_clients_take_turns_and_their_connections_keep_their_order() -> None:
    waiting: RoundRobin[str, Connection] = RoundRobin()
    for client, count in (("a", 4), ("b", 1), ("c", 2)):
        for number in range(count):
            waiting.append(Connection(client, number), client)
    assert len(waiting) == 7
    order = [waiting.popleft() for _ in range(4)]
    waiting.append(Connection("b", 1), "b")
    while waiting:
        order.append(waiting.popleft())
    assert [f"{one.client}{one.number}" for one in order] == [
        *("a0", "b0", "c0", "a1"),
        *("c1", "a2", "b1", "a3"),
    ]
    assert not waiting


def test_one_connection_may_wait_twice() -> None:
    waiting: RoundRobin[str, Connection] = RoundRobin()
    one, other = Connection("a", 0), Connection("a", 1)
    for connection in (one, one, other):
        waiting.append(connection, connection.client)
    assert [waiting.popleft() for _ in range(3)] == [one, one, other]


def test_a_party_that_is_passed_over_keeps_its_order_and_comes_after_the_others() -> None:
    waiting: RoundRobin[str, Connection] = RoundRobin()
    for client, number in (("a", 0), ("a", 1), ("b", 0)):
        waiting.append(Connection(client, number), client)
    assert (waiting.next_party, waiting.parties) == ("a", 2)
    waiting.pass_over()
    assert waiting.next_party == "b"
    order = [waiting.popleft() for _ in range(3)]
    assert [(one.client, one.number) for one in order] == [("b", 0), ("a", 0), ("a", 1)]
    assert not waiting.parties
