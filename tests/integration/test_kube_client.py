"""Requests and watches over a real connection, to a server that answers as each test says.

What a real API server does is in `test_kube_source`; here stand the answers that it gives
rarely, or that somebody between us and it gives.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pytest

from vmsvc_grpc.kube.client import MERGE_PATCH, ApiServer, RequestBounds
from vmsvc_grpc.kube.connector import NotSent
from vmsvc_grpc.kube.credentials import Access, NoApiServer
from vmsvc_grpc.kube.errors import ApiServerError

DEADLINE_S = 20
QUICK = RequestBounds(silence_s=0.3, reload_s=0.0)
TLS = ssl.create_default_context()


class Asked(NamedTuple):
    """One request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Served:
    """A server that answers each request by `answer`, and remembers what was asked."""

    answer: Answer
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    open: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                pairs = (line.partition(": ") for line in head[1:] if line)
                headers = {name.lower(): value for name, _, value in pairs}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.asked.append(Asked(head[0], headers, body))
                await self.answer(self.asked[-1], writer)
                await writer.drain()
                if writer.is_closing():
                    break
        self.open -= 1
        writer.close()

    async def left(self) -> None:
        """Returns once no connection is open."""
        while self.open:  # noqa: ASYNC110 - a poll with a deadline
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def served(answer: Answer) -> AsyncIterator[Served]:
    server = Served(answer)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    async with asyncio.timeout(DEADLINE_S), listening:
        yield server
        await server.left()


@dataclass
class Rotating:
    """Credentials that are others each time they are read, until the last."""

    accesses: list[Access]
    loads: int = 0

    async def load(self) -> Access:
        self.loads += 1
        if not self.accesses:
            raise NoApiServer("no file")
        return self.accesses.pop(0) if len(self.accesses) > 1 else self.accesses[0]


def access(server: Served, token: str = "one") -> Access:
    return Access(host=f"http://127.0.0.1:{server.port}", tls=TLS, authorization=f"Bearer {token}")


def api(server: Served, bounds: RequestBounds = QUICK) -> ApiServer:
    return ApiServer(Rotating([access(server)]), bounds)


def response(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def says(raw: bytes) -> Answer:
    async def answer(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)

    return answer


def chunk(raw: bytes) -> bytes:
    return f"{len(raw):x}\r\n".encode() + raw + b"\r\n"


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


async def test_a_request_is_made_as_it_is_asked_for() -> None:
    async with served(says(response(b'{"a": 1}'))) as server, api(server) as kube:
        answer = await kube.request(
            "PATCH",
            "/api/v1/x",
            query={"fieldManager": "a b"},
            body={"b": [1]},
            content_type=MERGE_PATCH,
        )
        assert answer == b'{"a": 1}'
        asked = server.asked[0]
        assert asked.line == "PATCH /api/v1/x?fieldManager=a+b HTTP/1.1"
        assert asked.body == b'{"b":[1]}'
        assert asked.headers["content-type"] == MERGE_PATCH
        assert asked.headers["authorization"] == "Bearer one"
        assert asked.headers["accept"] == "application/json"
        assert asked.headers["accept-encoding"] == "identity"
        assert asked.headers["user-agent"].startswith("vmsvc-grpc/")


@pytest.mark.parametrize(
    ("raw", "expected", "reason", "retry_after_s"),
    [
        pytest.param(
            response(
                json.dumps({"reason": "AlreadyExists", "message": 'x "y" exists'}).encode(),
                "409 Conflict",
            ),
            '409 x "y" exists',
            "AlreadyExists",
            0.0,
            id="the API server's own words",
        ),
        pytest.param(
            response(b"{}", "429 Too Many Requests", Retry_After="7"),
            "429 Too Many Requests",
            "",
            7.0,
            id="it says when to come again",
        ),
        pytest.param(
            response(b'{"details": {"retryAfterSeconds": 5}}', "429 Too Many Requests"),
            "429 Too Many Requests",
            "",
            5.0,
            id="it says so in the answer itself",
        ),
        pytest.param(
            response(b"", "503 Unavailable", Retry_After="Fri, 31 Dec 1999 23:59:59 GMT"),
            "503 Unavailable",
            "",
            0.0,
            id="a date is no number of seconds",
        ),
        pytest.param(
            response(b"<html>Bad gateway\n", "502 Bad Gateway"),
            "502 <html>Bad gateway",
            "",
            0.0,
            id="somebody else's words",
        ),
        pytest.param(
            response(b"", "302 Found", Location="http://127.0.0.1:1/elsewhere"),
            "302 Found",
            "",
            0.0,
            id="nobody is followed elsewhere",
        ),
    ],
)
async def test_an_answer_that_is_an_error(
    raw: bytes, expected: str, reason: str, retry_after_s: float
) -> None:
    async with served(says(raw)) as server, api(server) as kube:
        with pytest.raises(ApiServerError) as caught:
            await kube.request("GET", "/x")
        error = caught.value
        assert str(error) == expected
        assert (error.status, error.reason) == (int(raw[9:12]), reason)
        assert error.retry_after_s == retry_after_s
        assert len(server.asked) == 1


async def test_the_causes_of_a_refusal_are_told_by_their_reasons() -> None:
    """A namespace that is going refuses what is made in it, as 403 Forbidden."""
    causes = [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}, {}]
    for details, expected in (({"causes": causes}, {"NamespaceTerminating", ""}), (None, set())):
        raw = response(json.dumps({"details": details}).encode(), "403 Forbidden")
        async with served(says(raw)) as server, api(server) as kube:
            with pytest.raises(ApiServerError) as caught:
                await kube.request("GET", "/x")
            assert caught.value.causes == expected


async def test_of_a_long_error_the_beginning_is_enough() -> None:
    async def answer(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED.replace(b"200 OK", b"500 Oh"))
        while not writer.is_closing():
            writer.write(chunk(b"x" * 65536))
            await writer.drain()

    async with served(answer) as server, api(server) as kube:
        with pytest.raises(ApiServerError, match=r"^500 x{200}$"):
            await kube.request("GET", "/x")


async def test_nobody_there() -> None:
    async with served(says(b"")) as server:
        port = server.port
    async with api(server) as kube:
        with pytest.raises(
            ApiServerError, match=f"^cannot connect to 127.0.0.1:{port}: "
        ) as caught:
            await kube.request("GET", "/x")
        assert caught.value.status == 0
        assert not caught.value.silent


@contextlib.contextmanager
def resetting() -> Iterator[str]:
    """A server that resets each connection at once, as a load balancer without servers may."""
    linger_s = struct.pack("ii", 1, 0)

    def reset_all() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_s)
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=reset_all, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


async def test_connections_that_are_reset_at_once_leave_no_socket_behind() -> None:
    """On uvloop, such sockets closed other connections later, or ended the process."""

    async def ask(kube: ApiServer) -> None:
        for _ in range(100):
            with pytest.raises(ApiServerError):
                await kube.request("GET", "/x")

    with resetting() as host:
        async with ApiServer(Rotating([Access(host=host, tls=TLS)]), QUICK) as kube:
            await asyncio.gather(*(ask(kube) for _ in range(8)))
            # What was left behind would be found, and warned of, now.
            gc.collect()


async def test_no_answer_in_time() -> None:
    async def nothing(_: Asked, writer: asyncio.StreamWriter) -> None:
        return

    async with served(nothing) as server, api(server) as kube:
        with pytest.raises(ApiServerError, match="nothing came") as caught:
            await kube.request("GET", "/x")
        assert caught.value.silent


async def test_an_answer_that_is_never_whole_is_bounded() -> None:
    async def trickle(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        while not writer.is_closing():
            writer.write(chunk(b" "))
            await writer.drain()
            await asyncio.sleep(0.01)

    bounds = replace(QUICK, request_s=0.3)
    async with served(trickle) as server, api(server, bounds) as kube:
        with pytest.raises(ApiServerError) as caught:
            await kube.request("GET", "/x")
        assert caught.value.status == 0


async def test_a_request_that_is_cancelled_leaves_no_connection() -> None:
    asked = asyncio.Event()

    async def hold(_: Asked, writer: asyncio.StreamWriter) -> None:
        asked.set()

    async with served(hold) as server, api(server, RequestBounds()) as kube:
        task = asyncio.create_task(kube.request("GET", "/x"))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.left()


async def test_a_request_that_may_not_be_sent_any_more_is_not() -> None:
    """It is asked when there is a connection, however long that took: we may have slept."""
    async with served(says(response(b"ok"))) as server, api(server) as kube:
        for first_connection in (True, False):
            with pytest.raises(NotSent):
                await kube.request("GET", "/not", may_send=lambda: False)
            if first_connection:
                await server.left()
            assert await kube.request("GET", "/x", may_send=lambda: True) == b"ok"
        assert [asked.line for asked in server.asked] == ["GET /x HTTP/1.1"] * 2


# -- Credentials. --


def unless(token: str) -> Answer:
    """Refuses whoever does not come with this token."""

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        allowed = asked.headers["authorization"] == f"Bearer {token}"
        writer.write(response(b"ok") if allowed else response(b"", "401 Unauthorized"))

    return answer


async def test_a_token_that_was_rotated_is_read_again() -> None:
    async with served(unless("two")) as server:
        credentials = Rotating([access(server), access(server, "two")])
        async with ApiServer(credentials, QUICK) as kube:
            assert await kube.request("GET", "/x") == b"ok"
            assert len(server.asked) == 2
            assert await kube.request("GET", "/x") == b"ok"
            assert len(server.asked) == 3
        assert credentials.loads == 2


async def test_credentials_that_stay_the_same_are_not_tried_again() -> None:
    async with served(unless("two")) as server, api(server) as kube:
        with pytest.raises(ApiServerError) as caught:
            await kube.request("GET", "/x")
        assert caught.value.status == 401
        assert len(server.asked) == 1


async def test_credentials_that_cannot_be_read_now_are_kept() -> None:
    async with served(unless("two")) as server:
        credentials = Rotating([access(server)])
        async with ApiServer(credentials, QUICK) as kube:
            credentials.accesses.clear()
            with pytest.raises(ApiServerError):
                await kube.request("GET", "/x")
            credentials.accesses.append(access(server, "two"))
            assert await kube.request("GET", "/x") == b"ok"


async def test_many_who_are_refused_at_once_read_once() -> None:
    async with served(unless("two")) as server:
        credentials = Rotating([access(server), access(server, "two")])
        async with ApiServer(credentials, QUICK) as kube:
            answers = await asyncio.gather(*(kube.request("GET", "/x") for _ in range(20)))
            assert answers == [b"ok"] * 20
        assert credentials.loads == 2


async def test_credentials_are_not_read_over_and_over() -> None:
    async with served(unless("never")) as server:
        credentials = Rotating([access(server)])
        async with ApiServer(credentials, replace(QUICK, reload_s=60.0)) as kube:
            for _ in range(5):
                with pytest.raises(ApiServerError):
                    await kube.request("GET", "/x")
        assert credentials.loads == 1


async def test_a_pods_token_is_read_again_before_it_is_refused() -> None:
    async with served(unless("two")) as server:
        first = replace(access(server), fresh_s=0.0)
        async with ApiServer(Rotating([first, access(server, "two")]), QUICK) as kube:
            assert await kube.request("GET", "/x") == b"ok"
        assert len(server.asked) == 1


class Flaky:
    """Credentials that cannot be had for as long as it says why."""

    def __init__(self, access: Access, why: str = "") -> None:
        self.access = access
        self.why = why
        self.loads = 0
        self.held_up = asyncio.Event()
        self.held_up.set()

    async def load(self) -> Access:
        self.loads += 1
        await self.held_up.wait()
        if self.why:
            raise NoApiServer(self.why, may_pass=True)
        return self.access


async def test_a_plugin_that_fails_at_first_is_asked_again_and_told_meanwhile(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served(unless("two")) as server:
        credentials = Flaky(access(server, "two"), why="the plugin failed")
        async with ApiServer(credentials, QUICK) as kube:
            with pytest.raises(ApiServerError, match=r"^the plugin failed$"):
                await kube.request("GET", "/x")
            assert server.asked == []  # Never as nobody.
            credentials.why = ""
            assert await kube.request("GET", "/x") == b"ok"
    # Whoever asked has the reason, and tells of it: once is enough.
    assert "the plugin failed" not in caplog.text


async def test_a_plugin_that_fails_once_its_token_is_refused_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served(unless("two")) as server:
        credentials = Flaky(access(server, "one"))
        async with ApiServer(credentials, QUICK) as kube:
            credentials.why = "the plugin failed"
            for _ in range(3):
                with pytest.raises(ApiServerError, match=r"no new credentials: the plugin failed$"):
                    await kube.request("GET", "/x")
            assert credentials.loads == 4
            credentials.why, credentials.access = "", access(server, "two")
            assert await kube.request("GET", "/x") == b"ok"
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warned == ["cannot get new credentials, trying again: the plugin failed"]


async def test_a_refusal_that_has_passed_does_not_count_when_credentials_are_renewed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, allowed = 0.0, "two"
    monkeypatch.setattr("vmsvc_grpc.kube.client._now_s", lambda: now)

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await unless(allowed)(asked, writer)

    async with served(answer) as server:
        credentials = Flaky(replace(access(server, "one"), fresh_s=100.0))
        async with ApiServer(credentials, replace(QUICK, reload_s=10.0)) as kube:
            with pytest.raises(ApiServerError):
                await kube.request("GET", "/x")
            allowed = "one"
            assert await kube.request("GET", "/x") == b"ok"
            assert credentials.loads == 1
            now = 100.0
            assert await kube.request("GET", "/x") == b"ok"
            assert credentials.loads == 2
            allowed, now = "two", 110.0
            with pytest.raises(ApiServerError):
                await kube.request("GET", "/x")
            # After 10 s, and not after twice that.
            assert credentials.loads == 3


async def test_a_plugin_that_fails_is_asked_ever_more_seldom() -> None:
    async with served(unless("two")) as server:
        credentials = Flaky(access(server, "one"), why="no")
        often = replace(QUICK, reload_s=0.01, reload_max_s=0.04)
        async with ApiServer(credentials, often) as kube:
            began = asyncio.get_running_loop().time()
            while credentials.loads < 8:
                with pytest.raises(ApiServerError):
                    await kube.request("GET", "/x")
                await asyncio.sleep(0.001)
            # The first at once, then after 0.02 s, and each 0.04 s.
            assert asyncio.get_running_loop().time() - began > 0.2


async def test_a_plugin_that_gives_what_was_refused_is_asked_ever_more_seldom() -> None:
    async with served(unless("two")) as server:
        credentials = Flaky(access(server, "one"))
        often = replace(QUICK, reload_s=0.01, reload_max_s=0.04)
        async with ApiServer(credentials, often) as kube:
            began = asyncio.get_running_loop().time()
            while credentials.loads < 8:
                with pytest.raises(ApiServerError):
                    await kube.request("GET", "/x")
                await asyncio.sleep(0.001)
            assert asyncio.get_running_loop().time() - began > 0.2


async def test_a_plugin_that_hangs_holds_up_nobody_whose_token_still_does() -> None:
    async with served(unless("one")) as server:
        credentials = Flaky(replace(access(server, "one"), fresh_s=0.0))
        async with ApiServer(credentials, replace(QUICK, renewal_s=0.05)) as kube:
            credentials.held_up.clear()
            assert await kube.request("GET", "/x") == b"ok"
            assert await kube.request("GET", "/x") == b"ok"
            assert credentials.loads == 2


async def test_who_cannot_wait_for_a_plugin_does_not_end_it_for_the_others() -> None:
    async with served(unless("two")) as server:
        credentials = Flaky(access(server, "one"))
        async with ApiServer(credentials, QUICK) as kube:
            credentials.held_up.clear()
            credentials.access = access(server, "two")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await kube.request("GET", "/x")
            patient = asyncio.create_task(kube.request("GET", "/x"))
            await asyncio.sleep(0)
            credentials.held_up.set()
            assert await patient == b"ok"
            assert credentials.loads == 2


async def test_without_credentials_there_is_no_beginning() -> None:
    with pytest.raises(NoApiServer):
        async with ApiServer(Rotating([])):
            pass


# -- Watches. --


async def read_into(got: list[bytes], kube: ApiServer, silence_s: float = 5.0) -> None:
    async with kube.watch("/w", {"watch": "1"}, silence_s=silence_s) as lines:
        async for line in lines:
            got.append(line)  # noqa: PERF401 - also those before a failure


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        pytest.param([b"one\n", b"two\n"], [b"one", b"two"], id="a line a chunk"),
        pytest.param([b"one\ntwo\nth", b"ree\n"], [b"one", b"two", b"three"], id="a line in two"),
        pytest.param([b"o", b"n", b"e", b"\n"], [b"one"], id="byte by byte"),
        pytest.param([b"one\n\n\n", b"\ntwo\n"], [b"one", b"two"], id="empty lines"),
        pytest.param([b"one\ntw"], [b"one"], id="the last is not whole"),
        pytest.param([], [], id="nothing"),
        pytest.param(
            [b"x" * 100_000] * 80 + [b"\n"], [b"x" * 8_000_000], id="8 MB: Chunk too big, elsewhere"
        ),
    ],
)
async def test_a_watch_comes_in_lines(chunks: list[bytes], lines: list[bytes]) -> None:
    async def answer(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        for raw in chunks:
            writer.write(chunk(raw))
            await writer.drain()
        writer.write(END)

    async with served(answer) as server, api(server) as kube:
        got: list[bytes] = []
        await read_into(got, kube)
        assert got == lines
        assert server.asked[0].line == "GET /w?watch=1 HTTP/1.1"


async def test_what_is_cut_off_is_no_line() -> None:
    async def answer(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + chunk(b'one\n{"type": "ADDED"}'))
        await writer.drain()
        writer.close()

    got: list[bytes] = []
    async with served(answer) as server, api(server) as kube:
        with pytest.raises(ApiServerError) as caught:
            await read_into(got, kube)
        assert got == [b"one"]
        assert (caught.value.status, caught.value.silent) == (0, False)


async def test_a_watch_over_which_nothing_comes_is_given_up() -> None:
    async with served(says(CHUNKED + chunk(b"one\n"))) as server, api(server) as kube:
        got: list[bytes] = []
        with pytest.raises(ApiServerError, match="nothing came") as caught:
            await read_into(got, kube, silence_s=0.2)
        assert got == [b"one"]
        assert caught.value.silent


async def test_a_line_without_end_is_given_up() -> None:
    async def answer(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        while not writer.is_closing():
            writer.write(chunk(b"x" * 65536))
            await writer.drain()

    bounds = replace(QUICK, line_bytes_max=1_000_000)
    async with served(answer) as server, api(server, bounds) as kube:
        with pytest.raises(ApiServerError, match="longer than 1000000 bytes"):
            await read_into([], kube)


async def test_an_answer_without_end_is_given_up() -> None:
    async def answer(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        while not writer.is_closing():
            writer.write(chunk(b"x" * 65536))
            await writer.drain()

    bounds = replace(QUICK, answer_bytes_max=1_000_000)
    async with served(answer) as server, api(server, bounds) as kube:
        with pytest.raises(ApiServerError, match="the answer is longer than 1000000 bytes"):
            await kube.request("GET", "/version")


async def test_a_watch_that_is_refused() -> None:
    async with served(says(response(b"{}", "410 Gone"))) as server, api(server) as kube:
        with pytest.raises(ApiServerError) as caught:
            await read_into([], kube)
        assert caught.value.status == 410


async def test_a_mistake_of_who_reads_is_no_failure_of_the_server() -> None:
    async def read_badly(kube: ApiServer) -> None:
        async with kube.watch("/w", {}, silence_s=5.0) as lines:
            async for _ in lines:
                raise OSError("mine")

    async with served(says(CHUNKED + chunk(b"one\n"))) as server, api(server) as kube:
        with pytest.raises(OSError, match="mine"):
            await read_badly(kube)


async def test_a_watch_that_is_left_leaves_no_connection() -> None:
    async with served(says(CHUNKED + chunk(b"one\ntwo\n"))) as server, api(server) as kube:
        async with kube.watch("/w", {}, silence_s=5.0) as lines:
            assert await anext(lines) == b"one"
        await server.left()
