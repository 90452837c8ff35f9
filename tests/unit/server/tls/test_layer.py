"""TLS between a socket that is not one and a protocol that notes what it is handed."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmsvc_grpc.server.tls.files import context, read_client_ca, read_pair
from vmsvc_grpc.server.tls.layer import AT_ONCE_BYTES, TlsLayer

_FOLDER = Path(__file__).parents[3] / "integration" / "tls"
_CERTIFICATE, _KEY = _FOLDER / "certificate.pem", _FOLDER / "key.pem"


class Raw(asyncio.Transport):
    """A socket's transport: what was written to it, and whether it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.reads = True
        self.pauses = 0
        self.over = ""

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def take(self) -> bytes:
        taken, self.written = self.written, b""
        return taken

    def pause_reading(self) -> None:
        assert self.reads
        self.reads = False
        self.pauses += 1

    def resume_reading(self) -> None:
        assert not self.reads
        self.reads = True

    def is_closing(self) -> bool:
        return bool(self.over)

    def close(self) -> None:
        self.over = self.over or "closed"

    def abort(self) -> None:
        self.over = "aborted"


class Told(asyncio.BufferedProtocol):
    """Notes what it is handed; wants no more after `most` reads until it is asked to go on."""

    def __init__(self, owner: Owner, most: int) -> None:
        self._owner = owner
        self._most = most
        self.reads = 0
        self.transport: Any = None
        self.came = b""
        self.ended: list[str] = []

    def began(self) -> bool:
        return self.transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def buffer_updated(self, nbytes: int) -> None:
        self.came += bytes(self._owner.read_buffer[:nbytes])
        self.reads += 1
        if self.reads == self._most:
            self.transport.pause_reading()

    def go_on(self) -> None:
        if self.reads >= self._most:
            self.reads = 0
            self.transport.resume_reading()

    def eof_received(self) -> None:
        self.ended.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.append("lost")


class Owner:
    """Accepts, and gives turns only when it is asked to."""

    def __init__(self, handshake_s: float = 60.0) -> None:
        self.handshake_s = handshake_s
        self.read_buffer = memoryview(bytearray(4096))
        self.line: list[TlsLayer] = []
        self.late = self.over = 0

    def line_up(self, layer: TlsLayer) -> None:
        self.line.append(layer)

    def plain_answer(self, begun: bytes) -> bytes:
        return b"plain: " + begun

    def is_late(self) -> None:
        self.late += 1

    def is_over(self, layer: TlsLayer) -> None:
        self.over += 1

    def turn(self) -> None:
        line, self.line = self.line, []
        for layer in line:
            layer.step()


class Pair:
    """A layer, and a client of TLS, of which each piece goes where it belongs by hand."""

    def __init__(
        self,
        ours: ssl.SSLContext,
        *,
        handshake_s: float = 60.0,
        most: int = 1_000_000,
        theirs: ssl.SSLContext | None = None,
    ) -> None:
        self.owner = Owner(handshake_s)
        self.told = Told(self.owner, most)
        self.layer = TlsLayer(self.owner, "ipv4:192.0.2.1", lambda: ours, self.told)
        self.raw = Raw()
        self.layer.connection_made(self.raw)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = (theirs or trusting()).wrap_bio(
            self._in, self._out, server_hostname="127.0.0.1"
        )

    def shake(self) -> bool:
        """Have the client go on; whether its part of the handshake is done."""
        self._in.write(self.raw.take())
        try:
            self.client.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def said(self) -> bytes:
        """What the client has to say."""
        return self._out.read()

    def send(self, data: bytes) -> None:
        """Hand the layer what the socket has read, at most so much as its buffer takes."""
        buffer = self.layer.get_buffer(65536)
        while data:
            piece, data = data[: len(buffer)], data[len(buffer) :]
            buffer[: len(piece)] = piece
            self.layer.buffer_updated(len(piece))

    def agree(self) -> None:
        done = False
        while not done:
            done = self.shake()
            self.send(self.said())
            self.owner.turn()
        assert self.told.transport is self.layer

    def read(self) -> bytes:
        """What the client is sent."""
        self._in.write(self.raw.take())
        read = b""
        while True:
            try:
                piece = self.client.read()
            except ssl.SSLWantReadError:
                return read
            if not piece:
                return read + b"<goodbye>"
            read += piece


def trusting() -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=_CERTIFICATE)
    made.set_alpn_protocols(["h2"])
    return made


@pytest.fixture(scope="module")
def ours() -> ssl.SSLContext:
    return context(read_pair(_CERTIFICATE, _KEY, time.time()), None, "h2")


@pytest.fixture
def pair(ours: ssl.SSLContext) -> Iterator[Pair]:
    """In a loop that only counts time."""
    with asyncio.Runner() as runner:

        async def made() -> Pair:
            return Pair(ours)

        yield runner.run(made())


def test_nothing_of_a_handshake_is_done_before_its_turn(pair: Pair) -> None:
    assert not pair.shake()
    pair.send(pair.said())
    assert (pair.raw.written, pair.owner.line) == (b"", [pair.layer])
    pair.owner.turn()
    assert pair.shake()
    pair.send(pair.said())
    assert not pair.told.began(), "its end waits, too"
    pair.owner.turn()
    assert pair.told.began()
    assert pair.owner.over == 1


def test_a_client_that_sends_on_before_its_turn_is_read_no_more(pair: Pair) -> None:
    pair.shake()
    said = pair.said()
    pair.send(said[:100])
    pauses = pair.raw.pauses
    pair.send(said[100:])
    assert (pauses, pair.raw.pauses, pair.raw.reads) == (0, 1, False)
    assert len(pair.owner.line) == 1
    pair.owner.turn()
    assert pair.shake()
    pair.send(pair.said())
    assert pair.raw.pauses == 1, "it was read again"


@pytest.mark.parametrize("waits_for_us", [True, False])
async def test_time_in_which_a_client_waits_for_us_does_not_count(
    ours: ssl.SSLContext, waits_for_us: bool
) -> None:
    pair = Pair(ours, handshake_s=0.01)
    pair.shake()
    if waits_for_us:
        pair.send(pair.said())
    await asyncio.sleep(0.05)
    assert pair.owner.late == (not waits_for_us)
    assert pair.raw.over == ("" if waits_for_us else "aborted")
    if waits_for_us:
        pair.owner.turn()
        assert pair.shake()
        await asyncio.sleep(0.05)  # Now it is its turn again.
        assert (pair.owner.late, pair.owner.over, pair.raw.over) == (1, 1, "aborted")


_PIECES = st.lists(st.integers(1, 3000), min_size=1)


@given(
    st.lists(st.binary(min_size=1, max_size=20_000), min_size=1, max_size=5),
    _PIECES,
    st.integers(1, 4),
)
def test_whatever_comes_is_handed_on_in_whatever_pieces(
    messages: list[bytes], pieces: list[int], most: int
) -> None:
    async def run() -> None:
        pair = Pair(context(read_pair(_CERTIFICATE, _KEY, time.time()), None, "h2"), most=most)
        pair.shake()
        pair.send(pair.said())
        pair.owner.turn()
        assert pair.shake()
        for message in messages:
            pair.client.write(message)
        said = pair.said()  # The last of the handshake comes with them.
        turn = 0
        while said:
            size = pieces[turn % len(pieces)]
            if pair.raw.reads:
                pair.send(said[:size])
                said = said[size:]
            pair.owner.turn()
            await _go_on(pair)
            turn += 1
        while len(pair.told.came) < sum(map(len, messages)):
            await _go_on(pair)
        assert pair.told.came == b"".join(messages)
        assert not pair.told.ended

    asyncio.run(run())


async def _go_on(pair: Pair) -> None:
    if pair.told.transport is not None:
        pair.told.go_on()
    pair.owner.turn()
    await asyncio.sleep(0)


def test_what_is_written_arrives_and_a_goodbye_after_it(pair: Pair) -> None:
    pair.agree()
    pair.layer.write(b"x" * 100_000)
    pair.layer.write(memoryview(b"end"))
    pair.layer.write(b"")
    pair.layer.close()
    pair.layer.write(b"too late")
    assert pair.read() == b"x" * 100_000 + b"end<goodbye>"
    assert pair.raw.over == "closed"


@pytest.mark.parametrize("at", ["context", "protocol"])
def test_a_fault_of_ours_ends_the_connection(
    pair: Pair, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object) -> None:
        raise ZeroDivisionError

    if at == "context":
        pair.layer._context = fault  # type: ignore[assignment]
    else:
        monkeypatch.setattr(Told, "connection_made", fault)
    with pytest.raises(ZeroDivisionError):
        pair.agree()
    assert (pair.raw.over, pair.owner.over) == ("aborted", 1)


def test_small_records_come_together(pair: Pair) -> None:
    """A client may send one for each frame."""
    pair.agree()
    for _ in range(50):
        pair.client.write(b"frame")
    pair.send(pair.said())
    pair.owner.turn()
    assert (pair.told.reads, pair.told.came) == (1, b"frame" * 50)


def test_what_may_be_many_records_has_its_turn(pair: Pair) -> None:
    """Those may say nothing, as a KeyUpdate: 5 s went by with 20 MB of them on 100 connections."""
    pair.agree()
    pair.client.write(b"little")
    pair.send(pair.said())
    assert pair.told.came == b"little"
    pair.client.write(bytes(AT_ONCE_BYTES))
    pair.send(pair.said())
    assert (pair.told.came, pair.owner.line, pair.raw.reads) == (b"little", [pair.layer], True)
    pair.client.write(b"more")
    pair.send(pair.said())
    assert (pair.told.came, pair.owner.line, pair.raw.reads) == (b"little", [pair.layer], False)
    pair.owner.turn()
    assert pair.told.came == b"little" + bytes(AT_ONCE_BYTES) + b"more"
    assert pair.raw.reads


@pytest.mark.parametrize("at", ["its end of the handshake", "much"])
def test_what_came_before_the_end_of_a_connection_is_handed_on(pair: Pair, at: str) -> None:
    """As a client that has no more to say may close its half without TLS' goodbye."""
    message = b"x" * (2 * AT_ONCE_BYTES)
    if at == "much":
        pair.agree()
    else:
        while not pair.shake():
            pair.send(pair.said())
            pair.owner.turn()
    pair.client.write(message)
    pair.send(pair.said())
    assert pair.layer.eof_received(), "it stays open for that"
    assert pair.told.came == b""
    pair.owner.turn()
    pair.owner.turn()
    assert (pair.told.came, pair.told.ended) == (message, ["eof"])
    assert (pair.raw.over, pair.owner.line) == ("closed", [])


def test_an_end_and_a_goodbye_are_one(pair: Pair) -> None:
    pair.agree()
    pair.client.write(b"x" * AT_ONCE_BYTES)
    with pytest.raises(ssl.SSLWantReadError):
        pair.client.unwrap()
    pair.send(pair.said())
    assert pair.layer.eof_received()
    pair.owner.turn()
    pair.owner.turn()
    assert (pair.told.came, pair.told.ended) == (b"x" * AT_ONCE_BYTES, ["eof"])
    assert (pair.raw.over, pair.owner.line) == ("closed", [])


def test_who_ends_in_mid_handshake_is_gone(pair: Pair) -> None:
    pair.shake()
    pair.send(pair.said()[:100])
    assert pair.layer.eof_received()
    pair.owner.turn()
    assert (pair.raw.over, pair.owner.over, pair.told.ended) == ("closed", 1, [])


def test_a_clients_goodbye_has_its_turn(pair: Pair) -> None:
    pair.agree()
    pair.client.write(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        pair.client.unwrap()
    pair.send(pair.said())
    assert (pair.told.came, pair.told.ended, pair.raw.over) == (b"last", [], "")
    pair.owner.turn()
    assert (pair.told.ended, pair.raw.over) == (["eof"], "closed")
    pair.layer.connection_lost(None)
    assert pair.told.ended == ["eof", "lost"]


def test_a_client_that_goes_before_its_turn_leaves_nothing(pair: Pair) -> None:
    pair.shake()
    pair.send(pair.said())
    assert pair.layer.eof_received()
    pair.layer.connection_lost(None)
    pair.owner.turn()
    assert pair.owner.over == 1
    assert not pair.told.ended, "it has not begun"


@pytest.mark.parametrize("begun", [b"PRI * HTTP/2.0\r\n", b"GET / HTTP/1.1\r\n"])
def test_who_uses_no_tls_is_answered_in_the_plain(pair: Pair, begun: bytes) -> None:
    for byte in begun:
        pair.send(bytes((byte,)))
    assert pair.raw.written == b"plain: " + begun[:5]
    assert (pair.raw.over, pair.owner.over, pair.owner.line) == ("closed", 1, [])


def test_who_shows_a_certificate_of_another_ca_is_told_so(tmp_path: Path) -> None:
    other, key = str(tmp_path / "other.pem"), str(tmp_path / "other.key")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=other", "-keyout", key, "-out", other]
    subprocess.run(command, check=True, capture_output=True)
    now = time.time()
    ours = context(read_pair(_CERTIFICATE, _KEY, now), read_client_ca(_CERTIFICATE, now), "h2")
    theirs = trusting()
    theirs.load_cert_chain(other, key)
    with asyncio.Runner() as runner:

        async def made() -> Pair:
            return Pair(ours, theirs=theirs)

        pair = runner.run(made())
        pair.shake()
        pair.send(pair.said())
        pair.owner.turn()
        assert pair.shake()
        pair.send(pair.said())
        pair.owner.turn()
        assert (pair.told.transport, pair.raw.over) == (None, "closed")
        with pytest.raises(ssl.SSLError, match=r"(?i)alert.*(unknown ca|decrypt error)"):
            pair.read()


def test_records_that_are_none_close_the_connection(pair: Pair) -> None:
    pair.agree()
    pair.send(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert pair.raw.over == "closed"
    pair.layer.connection_lost(None)
    assert pair.told.ended == ["lost"]
