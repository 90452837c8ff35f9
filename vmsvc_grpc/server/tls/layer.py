"""TLS between a socket and a protocol, where what may be much work waits for its turn.

asyncio's own works out at once whatever has come, for thousands of connections. A client that fails
its handshake is told why, too, by an alert.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Any, Protocol, cast

from vmsvc_grpc.server.tls.hello import HEADER_BYTES, begins_tls

AT_ONCE_BYTES = 512
"""So much is decrypted as soon as it has come: a look-up or two. In more there may be hundreds of
records that say nothing: a KeyUpdate (RFC 8446, 4.6.3) has 27 bytes, and takes 6 us."""


class LayerOwner(Protocol):
    """What accepts connections, for their layers. It must outlive them."""

    handshake_s: float
    """How long a client may take for its part of a handshake. Its waiting for us does not count:
    else all whose turn comes late would come again, and find as many before them."""

    read_buffer: memoryview
    """What all connections are read into; none is while another is."""

    def line_up(self, layer: TlsLayer) -> None:
        """Have a layer take its `step` soon; once until then."""

    def plain_answer(self, begun: bytes) -> bytes:
        """The last bytes for a client that uses no TLS, and has begun so."""

    def is_late(self) -> None:
        """A handshake has taken too long."""

    def is_over(self, layer: TlsLayer) -> None:
        """A handshake has come to an end, good or bad."""


class TlsLayer(asyncio.BufferedProtocol, asyncio.Transport):
    """The protocol of a socket, and the transport of a protocol, which begins after the handshake.

    As asyncio's, it reads what it has been sent before a client closes. It does not wait for the
    client's goodbye after its own: HTTP/2 has one.
    """

    __slots__ = (
        "_broken",
        "_closing",
        "_context",
        "_ended",
        "_first",
        "_held",
        "_incoming",
        "_left_s",
        "_lines_up",
        "_loop",
        "_outgoing",
        "_owner",
        "_paused",
        "_protocol",
        "_raw",
        "_said_goodbye",
        "_shaking",
        "_timer",
        "_tls",
        "_waits_since",
        "client",
    )

    _loop: asyncio.AbstractEventLoop
    _raw: asyncio.Transport
    _tls: ssl.SSLObject
    _waits_since: float

    def __init__(
        self,
        owner: LayerOwner,
        client: str,
        context: Callable[[], ssl.SSLContext],
        protocol: asyncio.BufferedProtocol,
    ) -> None:
        """`context` gives the one for a handshake that begins now, a server's."""
        self.client = client
        self._owner = owner
        self._context: Callable[[], ssl.SSLContext] | None = context  # None: it has begun.
        self._protocol: asyncio.BufferedProtocol | None = protocol
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._first: bytes | None = b""  # Until it is known that the client uses TLS.
        self._shaking = True
        self._left_s = owner.handshake_s
        self._timer: asyncio.TimerHandle | None = None  # There is one while we wait for the client.
        self._lines_up = False
        self._held = self._paused = False  # The socket is not read; the protocol wants no more.
        self._ended = False  # The socket has no more, whether TLS has said goodbye or not.
        self._said_goodbye = self._broken = self._closing = False

    # As the protocol of its socket.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake may begin."""
        self._raw = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        self._wait()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio says it
        """The buffer that the event loop reads into."""
        return self._owner.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take in what has come; if it may be much work, at most two reads before its turn."""
        if self._closing or self._said_goodbye:
            return
        came = self._owner.read_buffer[:nbytes]
        self._incoming.write(came)
        if self._shaking and self._first is not None and not self._is_tls(came):
            return
        if self._lines_up:
            if not self._held:
                self._held = True
                self._raw.pause_reading()
        elif self._shaking or nbytes > AT_ONCE_BYTES:
            self._line_up()
        else:
            self._read()

    def eof_received(self) -> bool:
        """The client sends no more; whether what has come is to be looked at before it closes."""
        if self._shaking and not self._lines_up:
            if self._first and not begins_tls(self._first):
                self._refuse_plain(self._first)
            return False
        self._ended = True
        self._line_up()
        return True

    def pause_writing(self) -> None:
        """The socket is full."""
        if not self._shaking and self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """The socket has room again."""
        if not self._shaking and self._protocol is not None:
            self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed."""
        self._closing = True
        self._end_handshake()
        # It refers to this: together they would be a cycle.
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connection_lost(exc)

    # The handshake.

    @property
    def begun(self) -> bool:
        """Whether the handshake has begun."""
        return self._context is None

    def step(self) -> None:
        """Go on with what has come. Of a handshake: 0.2 ms of work, a signature above all."""
        self._lines_up = False
        if self._closing:
            return
        try:
            if self._shaking:
                self._go_on()
            elif self._ended or self._said_goodbye:
                self._take_leave()
            else:
                self._read()
        except Exception:  # A fault of ours must not leave it without a timer.
            self.abort()
            raise

    def _go_on(self) -> None:
        if self._context is not None:
            begun = self._context().wrap_bio(self._incoming, self._outgoing, server_side=True)
            self._tls, self._context = begun, None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
            if self._ended:
                self.close()
            else:
                self._wait()
                self._read_on()
        except ssl.SSLError:
            self.close()
        else:
            self._send()
            self._begin()

    def _is_tls(self, came: memoryview) -> bool:
        """Whether a client's first bytes are TLS; answers them if they are not."""
        assert self._first is not None, "it is not known yet"
        self._first += came[:HEADER_BYTES]
        if len(self._first) < HEADER_BYTES:
            return False
        if begins_tls(self._first):
            self._first = None
            return True
        self._refuse_plain(self._first)
        return False

    def _refuse_plain(self, begun: bytes) -> None:
        if answer := self._owner.plain_answer(begun):
            self._raw.write(answer)
        self.close()

    def _begin(self) -> None:
        self._shaking = False
        assert self._protocol is not None, "it goes when the connection is lost"
        try:
            self._protocol.connection_made(self)
        finally:
            self._owner.is_over(self)
        self._read()
        if self._ended:
            self._line_up()

    def _line_up(self) -> None:
        if not (self._lines_up or self._closing):
            self._lines_up = True
            self._stop_waiting()
            self._owner.line_up(self)

    def _wait(self) -> None:
        """Wait for the client, as long as it may still take."""
        self._waits_since = self._loop.time()
        self._timer = self._loop.call_later(self._left_s, self._be_late)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._left_s = max(0.0, self._left_s - (self._loop.time() - self._waits_since))

    def _be_late(self) -> None:
        self._owner.is_late()
        self.abort()

    def _end_handshake(self) -> None:
        """Nothing comes of the handshake, unless it is over."""
        if self._shaking:
            self._shaking = False
            self._stop_waiting()
            self._protocol = None
            self._owner.is_over(self)

    # Records.

    def _read(self) -> None:
        """Hand the protocol what has come, until it wants no more."""
        while self._wants_more() and (count := self._decrypted()):
            assert self._protocol is not None, "it goes when the connection is lost"
            self._protocol.buffer_updated(count)
        if self._broken:
            self.close()
        elif not self._closing:
            self._send()
        if self._wants_more():
            self._read_on()

    def _take_leave(self) -> None:
        """Hand the protocol all that has come before the client's end, and close."""
        self._read()
        if self._lines_up or self._closing:  # TLS has said goodbye, too; or is broken.
            return
        assert self._protocol is not None, "it goes when the connection is lost"
        self._protocol.eof_received()
        if not self._lines_up:  # Else it has made room for the rest.
            self.close()

    def _decrypted(self) -> int:
        """Fill the buffer with what has come; how many bytes that are.

        Of as many records as fit: the client may send a record for each frame.
        """
        buffer, filled = self._owner.read_buffer, 0
        try:
            while filled < len(buffer) and (self._incoming.pending or self._tls.pending()):
                count = cast(int, self._tls.read(len(buffer) - filled, buffer[filled:]))
                if not count:  # Its goodbye. Ours takes a turn, as thousands may come at once.
                    self._said_goodbye = True
                    self._line_up()
                    break
                filled += count
        except ssl.SSLWantReadError:
            pass  # The rest of a record is to come.
        except ssl.SSLError:
            self._broken = True
        return filled

    def _wants_more(self) -> bool:
        """Whether the protocol takes in what comes, and anything comes."""
        over = self._closing or self._said_goodbye or self._broken
        return not (over or self._paused)

    def _read_on(self) -> None:
        """Have the socket read again, unless it is."""
        if self._held and not self._closing:
            self._held = False
            self._raw.resume_reading()

    def _send(self) -> None:
        """Write what TLS has to say, some of which it says by itself."""
        if self._outgoing.pending:
            self._raw.write(self._outgoing.read())

    # As the transport of the protocol.

    def write(self, data: Any) -> None:
        """Write bytes; nothing once it is closing."""
        if self._closing:
            return
        try:
            while data:
                data = memoryview(data)[self._tls.write(data) :]
        except ssl.SSLError:
            self.abort()
        else:
            self._send()

    def pause_reading(self) -> None:
        """Hand the protocol no more."""
        self._paused = True
        if not self._held and not self._closing:
            self._held = True
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Hand the protocol more, in its turn."""
        self._paused = False
        self._line_up()

    def get_write_buffer_size(self) -> int:
        """How many bytes the socket has not taken yet, encrypted."""
        return self._raw.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As the socket's transport, and `ssl_object`."""
        return self._tls if name == "ssl_object" else self._raw.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Whether nothing can be written any more."""
        return self._closing or self._raw.is_closing()

    def close(self) -> None:
        """Close it once all written bytes are sent; say goodbye, or what is wrong."""
        if self._closing:
            return
        self._closing = True
        if not self._shaking:
            with contextlib.suppress(ssl.SSLError):  # There is no answer to it yet.
                self._tls.unwrap()
        self._send()
        self._raw.close()
        self._end_handshake()

    def abort(self) -> None:
        """Close it now."""
        self._closing = True
        self._raw.abort()
        self._end_handshake()
