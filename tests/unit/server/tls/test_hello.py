from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator

import pytest

from tests.program import PATIENCE_S
from vmsvc_grpc.server.tls.hello import HANDSHAKES_A_TURN, Handshakes


def client_hello() -> bytes:
    out = ssl.MemoryBIO()
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    return out.read()


HELLO = client_hello()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's end of a connection, and ours."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0] as ours,
    ):
        ours.setblocking(False)
        yield client, ours


async def test_a_handshake_begins_once_its_first_message_is_whole(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    client, ours = ends
    ready = asyncio.create_task(Handshakes(asyncio.get_running_loop()).ready(ours))
    for piece in (HELLO[:1], HELLO[1:7], HELLO[7:-1]):
        client.sendall(piece)
        for _ in range(50):
            await asyncio.sleep(0)
        assert not ready.done()
    client.sendall(HELLO[-1:])
    async with asyncio.timeout(PATIENCE_S):
        assert await ready == HELLO
    assert ours.recv(len(HELLO)) == HELLO, "nothing was taken out"
    client.sendall(b"x")
    async with asyncio.timeout(PATIENCE_S):
        assert await asyncio.get_running_loop().sock_recv(ours, 2) == b"x"


def in_records(size: int) -> bytes:
    """The same message, in records of so many bytes."""
    message = HELLO[5:]
    pieces = (message[at : at + size] for at in range(0, len(message), size))
    return b"".join(HELLO[:3] + len(piece).to_bytes(2, "big") + piece for piece in pieces)


@pytest.mark.parametrize("size", [100, 200, len(HELLO) - 6])
async def test_a_first_message_of_several_records_is_waited_for(
    ends: tuple[socket.socket, socket.socket], size: int
) -> None:
    client, ours = ends
    sent = in_records(size)
    ready = asyncio.create_task(Handshakes(asyncio.get_running_loop()).ready(ours))
    for piece in (sent[: size + 5], sent[size + 5 : -1]):
        client.sendall(piece)
        for _ in range(50):
            await asyncio.sleep(0)
        assert not ready.done()
    client.sendall(sent[-1:])
    async with asyncio.timeout(PATIENCE_S):
        assert await ready == sent


async def test_records_without_end_are_not_waited_for(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    client, ours = ends
    ready = asyncio.create_task(Handshakes(asyncio.get_running_loop()).ready(ours))
    client.sendall(in_records(1))
    async with asyncio.timeout(PATIENCE_S):
        assert in_records(1).startswith(await ready)


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\n", b"\x15\x03\x01\0\2"]
)
async def test_what_is_not_tls_waits_for_no_more(
    ends: tuple[socket.socket, socket.socket], sent: bytes
) -> None:
    client, ours = ends
    client.sendall(sent)
    async with asyncio.timeout(PATIENCE_S):
        first = await Handshakes(asyncio.get_running_loop()).ready(ours)
    assert sent.startswith(first)
    assert first


@pytest.mark.parametrize("sent", [b"", b"\x16", HELLO[:5], HELLO[:-1]])
async def test_a_client_that_goes_is_not_waited_for(
    ends: tuple[socket.socket, socket.socket], sent: bytes
) -> None:
    client, ours = ends
    client.sendall(sent)
    client.shutdown(socket.SHUT_WR)
    async with asyncio.timeout(PATIENCE_S):
        assert await Handshakes(asyncio.get_running_loop()).ready(ours) == sent


async def test_few_begin_in_a_turn_and_those_who_left_hold_up_nobody() -> None:
    loop = asyncio.get_running_loop()
    handshakes = Handshakes(loop)
    begun: list[int] = []
    turns: list[int] = [0]

    async def begin(ours: socket.socket) -> None:
        await handshakes.ready(ours)
        begun.append(turns[0])

    def turn() -> None:
        turns[0] += 1
        loop.call_soon(turn)

    with socket.create_server(("127.0.0.1", 0)) as server:
        clients = [socket.create_connection(server.getsockname()) for _ in range(40)]
        accepted = [server.accept()[0] for _ in clients]
        for ours in accepted:
            ours.setblocking(False)
        tasks = [asyncio.create_task(begin(ours)) for ours in accepted]
        for client in clients:
            client.sendall(HELLO)
        await asyncio.sleep(0)
        for task in tasks[::5]:
            task.cancel()
        loop.call_soon(turn)
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait(tasks)
        for end in (*clients, *accepted):
            end.close()
    assert len(begun) == 32
    assert max(begun.count(each) for each in begun) <= HANDSHAKES_A_TURN
