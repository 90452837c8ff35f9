"""One client's connection on libnghttp2: its engine, its streams, and the bytes that wait for it.

The only module that knows the engine, `ngh2`, which does frames, header compression, flow control
and validation. Received data go to the calls; when the server flushes this connection, its calls
are asked for their messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, ClassVar, Protocol, cast

from ngh2 import (
    Configuration,
    Connection,
    ErrorCode,
    NGH2Error,
    Role,
    Setting,
    StreamProtocolError,
    events,
)

from vmsvc_grpc.logs.about import about
from vmsvc_grpc.server.access.caller import Caller
from vmsvc_grpc.server.admission import client_of
from vmsvc_grpc.server.call import Code, Method, RpcError, UnaryMethod
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.session import Status
from vmsvc_grpc.server.transport import grpc_wire
from vmsvc_grpc.server.transport.grpc_wire import HttpRefusal, RequestHead
from vmsvc_grpc.server.transport.http2_accept import Begun, speaks_h2
from vmsvc_grpc.server.transport.http2_bounds import (
    FRAMES_S,
    Entrance,
    Floods,
    Frames,
    Life,
    Unread,
)
from vmsvc_grpc.server.transport.http2_calls import (
    CallServer,
    HttpCall,
    RefusedCall,
    StreamCall,
    UnaryCall,
    deadline_passed,
)
from vmsvc_grpc.server.transport.http2_farewell import (
    PREFACE,
    calm,
    farewell,
    may_be_http1,
    stranger_answer,
)
from vmsvc_grpc.server.transport.http2_groups import CohortServer, Group, Groups, join
from vmsvc_grpc.server.transport.sockets import (
    Address,
    Sockets,
    Tls,
    Traffic,
    certificate_of,
    ends_of,
    peer_of,
    tls_of,
)
from vmsvc_grpc.server.transport.windows import FIRST_BYTES, Window, Windows

_log = logging.getLogger(__name__)

# How long the last bytes of a closed connection may take to reach the client.
_CLOSING_S = 1.0

# A flush writes about so many bytes to one connection; the rest waits for the next flush.
_CONNECTION_FLUSH_BYTES = 256 * 1024

# So much is little to take in: a look-up with its header fields, a token among them.
_LITTLE_BYTES = 2 * 1024

# So many calls asked, and messages handed over, lie between two looks at the clock: some 50 µs.
_STEPS_A_LOOK = 64

_PING = b"vmsvc-ka"
_AGE_PING = b"vmsvc-ag"

# By these words gRPC's clients know that they ping too often.
_WORDS = {"client_ping_interval_min_s": b"too_many_pings"}

# A PING frame (RFC 9113, 6.7) that is no answer, and one that is, but for their eight bytes.
_PING_HEAD = b"\0\0\x08\x06\0\0\0\0\0"
_PONG_HEAD = b"\0\0\x08\x06\x01\0\0\0\0"
_PING_PAYLOAD_BYTES = 8
_PING_BYTES = len(_PING_HEAD) + _PING_PAYLOAD_BYTES

# A WINDOW_UPDATE frame (RFC 9113, 6.9) for the connection, but for its four bytes.
_UPDATE_HEAD = b"\0\0\x04\x08\0\0\0\0\0"
_UPDATE_BYTES = len(_UPDATE_HEAD) + 4

# So much of its window is kept from the engine at most: a quarter of the first one.
_KEPT_WINDOW_BYTES = FIRST_BYTES // 4

# RFC 9113, 10.5.1: a call with more header fields than our settings allow is refused. With so many
# times as many, the engine fails, and the connection is lost.
_HEADERS_PART = 4

# RFC 9113, 6.5.2: a header field counts so many bytes more than it has.
_FIELD_BYTES = 32

# A call that has no more time has none left when its header fields have been read.
_PASSED_S = 1e-6

# The engine's own bounds are so many times ours, so that ours, which have names, are met first.
_BEHIND = 2

# Bounds that only the engine checks: words in its errors, and the names in `Limits`.
_ENGINE_BOUNDS = {
    b"header list": "header_list_bytes_max",
    b"Too many CONTINUATION": "continuations_max",
    b"setting entries": "settings_max",
    b"max concurrent streams": "calls_per_connection_max",
}


Party = tuple[str, bool]
"""Connections that are taken in one after the other: a client's, by whether they sent much."""


class ConnectionServer(CallServer, CohortServer, Protocol):
    """What connections use of their server."""

    methods: dict[str, Method]
    connections: dict[ClientConnection, None]
    entrance: Entrance
    unread: Unread
    windows: Windows
    sockets: Sockets
    flush_until: float
    left_over: int
    read_buffer: memoryview
    """What all connections are read into; none is while another is."""

    def received(self, connection: ClientConnection) -> None:
        """Have a connection take in what has come, in its turn."""

    def lost(self, connection: ClientConnection) -> None:
        """Have a connection that is closed lose its calls, some in each turn."""

    def mark(self, connection: ClientConnection) -> None:
        """Have a connection flushed soon."""

    def mark_first(self, connection: ClientConnection) -> None:
        """Have a connection flushed before those that are only marked."""


class ClientConnection(Begun):
    """One client's connection, as the event loop, its server and its calls see it."""

    __slots__ = (
        "_answers",
        "_blocked",
        "_caller",
        "_calls",
        "_came",
        "_due",
        "_ending",
        "_engine",
        "_floods",
        "_frames",
        "_full",
        "_greeting",
        "_groups",
        "_guarded",
        "_id",
        "_kept_window",
        "_last_stream",
        "_later",
        "_leaving",
        "_left",
        "_life",
        "_limits",
        "_paused",
        "_speaks_h2",
        "_waiting_bytes",
        "_wanting",
        "_window",
        "_writable",
        "begun",
        "client",
        "gone",
        "local",
        "marked",
        "peer",
        "remote",
        "server",
        "traffic",
        "transport",
    )

    local: Address
    remote: Address
    transport: asyncio.Transport
    _engine: Connection

    def __init__(self, server: ConnectionServer, *, guarded: bool = False) -> None:
        """The entrance has counted it already. `guarded`: not everything is allowed to anybody."""
        self._guarded = guarded
        self.begun = False
        self._waiting_bytes = 0
        self._full = False  # As `Life` was told last.
        self.traffic = Traffic()
        self.marked = False
        self._answers = False  # It is marked to be flushed first.
        self.client = self.peer = ""
        self.gone: asyncio.Future[None] = server.loop.create_future()
        self.server = server
        self._limits = server.limits
        self._floods = Floods(server.limits)
        self._calls: dict[int, HttpCall] = {}
        self._wanting: dict[HttpCall, None] = {}
        self._later: dict[HttpCall, None] = {}
        self._ending: dict[HttpCall, asyncio.TimerHandle | None] = {}
        self._blocked: dict[HttpCall, None] = {}
        self._groups: Groups = {}
        # Those that have yet to be sent a message, and are due, unless all their streams have gone.
        self._due: list[Group] = []
        self._kept_window = 0  # By so much the client has opened its window, unknown to the engine.
        self._came: deque[bytes] = deque()  # Received, and not handed to the engine yet.
        self._paused = False
        self._writable = True
        self._greeting: bytes | None = b""  # Its beginning, as received; None: there is an engine.
        # Leaving: the client was asked to begin no more calls. Left: those it began have arrived.
        self._leaving = self._left = False
        self._last_stream = 0

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self.transport = cast(asyncio.Transport, transport)
        self._life = Life(self, self._limits, self.server.loop)
        ends = ends_of(transport)
        if ends is None:
            self.transport.abort()
            return
        self.local, self.remote = ends
        self.peer = peer_of(self.remote)
        self.client = client_of(self.peer)
        self._caller = self._caller_of(transport)
        self._speaks_h2 = speaks_h2(transport)
        self.begun = True
        self._id = self.server.sockets.connect(self)
        self.server.connections[self] = None

    def _caller_of(self, transport: asyncio.BaseTransport) -> Caller:
        """The caller of its calls, as far as their header fields say nothing."""
        if not self._guarded:
            return Caller(self.peer)
        return Caller(self.peer, guarded=True, certificate=certificate_of(transport))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio says it
        """The buffer that the event loop reads into."""
        return self.server.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Keep the bytes read for this connection's turn; until then, at most two reads."""
        self._life.heard(self.server.loop.time())
        self._came.append(bytes(self.server.read_buffer[:nbytes]))
        if len(self._came) == 1:
            self.server.received(self)
        else:
            self._paused = True
            self.transport.pause_reading()

    def eof_received(self) -> None:
        """The client sends no more, and the connection closes: take in all that has come."""
        while self.came:
            self.take_in()

    @property
    def came(self) -> bool:
        """Whether received bytes have yet to be handed to the engine."""
        return bool(self._came)

    @property
    def party(self) -> Party:
        """With whom it takes turns in being taken in: its client's others that sent as much.

        Little is a look-up or two, on a connection that has begun. So those of a client do not wait
        for all of its streams that begin at the same time, be they thousands.
        """
        much = self._greeting is not None or (self.came and len(self._came[0]) > _LITTLE_BYTES)
        return self.client, bool(much)

    def take_in(self) -> int:
        """Hand the engine the next piece of the received bytes; how many bytes it had."""
        if self.transport.is_closing():
            self._came.clear()
        if not self._came:
            return 0
        piece = self._came.popleft()
        if len(piece) <= _UPDATE_BYTES + _PING_BYTES and self._is_quick(piece):
            self._answer_ping(piece)
        elif data := self._greeted(piece):
            self._frames.take(data)
            try:
                self._open_window()
                self._engine.receive_data(data)
                self._handle()
            except NGH2Error as error:
                self._end_by_engine(str(error).encode(), ErrorCode.PROTOCOL_ERROR)
            if not self.transport.is_closing():
                self.mark()
        if self._paused and not self._came and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()
        return len(piece)

    def _is_quick(self, piece: bytes) -> bool:
        """Whether it is a ping, perhaps after an update of the window, to be answered at once.

        Not before what waits to be written: our SETTINGS, perhaps, which come first. Nor if the
        engine may wait for the update.
        """
        at = len(piece) - _PING_BYTES
        if self.marked or self._greeting is not None or not piece.startswith(_PING_HEAD, at):
            return False
        if at and not (at == _UPDATE_BYTES and self._is_kept(piece)):
            return False
        return self._writable and self._frames.any_next

    def _is_kept(self, update: bytes) -> bool:
        """Whether an update of the window is to be kept from the engine, for which it is nothing.

        Not one that opens it by nothing, or far: what is wrong with those, the engine knows.
        """
        if self._waiting_bytes or self._blocked or not update.startswith(_UPDATE_HEAD):
            return False
        return 0 < _opened_by(update) <= _KEPT_WINDOW_BYTES - self._kept_window

    def _answer_ping(self, piece: bytes) -> None:
        """Answer without the engine, for which there is nothing else to do.

        The clients of grpc-go and of gRPC's core ping once for each message or two, and those of
        grpc-go open the window before that: half of what those cost was the engine's way, and a
        flush.
        """
        if len(piece) > _PING_BYTES:
            self._kept_window += _opened_by(piece)
        self._bound(self._floods.pinged)
        if not self.transport.is_closing():
            self._write(_PONG_HEAD + piece[-_PING_PAYLOAD_BYTES:])

    def _open_window(self) -> None:
        """Hand the engine the updates that were kept from it, as one."""
        if self._kept_window:
            more, self._kept_window = self._kept_window, 0
            self._engine.receive_data(_UPDATE_HEAD + more.to_bytes(4, "big"))

    def _greet(self) -> None:
        """The client speaks HTTP/2: send it our settings."""
        self._greeting = None
        now = self.server.loop.time()
        self._window = Window(
            self.server.windows, self.client, self._limits.connection_window_bytes, now
        )
        self._frames = Frames(len(PREFACE))
        self._engine = Connection(Role.SERVER, _configuration(self._limits))
        self._engine.initiate_connection(
            {
                Setting.MAX_CONCURRENT_STREAMS: self._limits.calls_per_connection_max,
                Setting.INITIAL_WINDOW_SIZE: self._window.of_call,
                Setting.MAX_HEADER_LIST_SIZE: self._limits.header_list_bytes_max,
                Setting.ENABLE_CONNECT_PROTOCOL: 0,
            }
        )
        self._engine.set_local_window_size(self._window.size)

    def _resize(self) -> None:
        """Announce to the client the sizes of its window and of its calls' windows."""
        with contextlib.suppress(NGH2Error):
            self._engine.set_local_window_size(self._window.size)
            self._engine.update_settings({Setting.INITIAL_WINDOW_SIZE: self._window.of_call})

    def pause_writing(self) -> None:
        """The socket is full."""
        self._writable = False

    def resume_writing(self) -> None:
        """The socket has room again."""
        self._writable = True
        if self._greeting is None:
            self.mark()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio says it
        """It is closed: it loses every call that is on it, in its turns."""
        self._life.end()
        if not self.begun:
            return  # It was gone at once.
        self._came.clear()
        self._drop_due()
        del self.server.connections[self]
        self.server.entrance.leave(self.client)
        self.server.unread.wait_no_more(self)
        self.server.unread.count(self, 0)
        self.server.sockets.disconnect(self._id)
        self.server.lost(self)

    def lose_calls(self, until: float) -> bool:
        """Lose calls of a connection that is closed until the time is over; whether any is left."""
        while self._calls:
            _, call = self._calls.popitem()
            call.lose()
            if self.server.loop.time() > until:
                break
        return bool(self._calls)

    def finish(self) -> None:
        """It is closed, and has lost all its calls."""
        self._blocked.clear()
        for call in list(self._ending):
            self._drop_ending(call)
        self._wanting.clear()
        self._later.clear()
        if self._greeting is None:
            self._window.close()  # Last, as calls give back what they have kept.
        self.gone.set_result(None)

    # What the transport, the streams and channelz call.

    def tls(self) -> Tls | None:
        """The TLS that protects it; None if there is none."""
        return tls_of(self.transport)

    def windows(self) -> tuple[int, int]:
        """How many bytes it may be sent now, and how many it may send."""
        if self._greeting is not None:
            return FIRST_BYTES, FIRST_BYTES
        sent_now = self._engine.remote_window_size + self._kept_window
        return sent_now, self._engine.local_window_size

    def mark(self) -> None:
        """Have this connection flushed soon."""
        if not self.marked:
            self.marked = True
            self.server.mark(self)

    def want(self, call: HttpCall) -> None:
        """A call has something to send."""
        self._wanting[call] = None
        if call.waits_for_room:
            self._mark_first()
        if not self.marked:  # As `mark` does: a change wakes thousands.
            self.marked = True
            self.server.mark(self)

    def _mark_first(self) -> None:
        if not self._answers:
            self._answers = self.marked = True
            self.server.mark_first(self)

    def send_soon(self, group: Group) -> None:
        """A group of its streams has a message to be sent."""
        self._due.append(group)
        if not self.marked:
            self.marked = True
            self.server.mark(self)

    def want_later(self, call: HttpCall) -> None:
        """A call has more to work out, in another turn of the event loop."""
        self._later[call] = None

    def fail(self) -> None:
        """End it, as a fault of ours has left it in an unknown state. Call it from an `except`."""
        extra = about(reason="Fault", client=self.peer)
        _log.exception("a fault of ours ends the connection of %s", self.peer, extra=extra)
        self._came.clear()
        self.cut()

    def _close(self) -> None:
        """Close it once all written bytes are sent, but wait only briefly for a slow client."""
        self.transport.close()
        self._life.close_within(_CLOSING_S)

    # What `Life` and the bounds call.

    def ping(self) -> None:
        """Ask the client whether it is there."""
        if self._greeting is not None:
            return
        with contextlib.suppress(NGH2Error):
            self._engine.ping(_PING)
            self.traffic.keepalives_sent += 1
        self.mark()

    def unwritten(self) -> int:
        """Bytes that its socket has not taken yet."""
        return self.transport.get_write_buffer_size()

    def refuse(self, limit: str) -> None:
        """Send the client away for exceeding `limit`, a name in `Limits`. May be called twice."""
        if self.transport.is_closing():
            return
        self.server.sessions.count_refusal(limit)
        if self._greeting is None:
            self._write_what_is_left()
            # Made by hand, as an engine that has failed makes no more frames.
            self.transport.write(calm(self._last_stream, _WORDS.get(limit, limit.encode())))
        elif self._speaks_h2:
            self.transport.write(farewell(limit))
        self._close()

    def stay_full(self) -> None:
        """It has had no room for long: send away the client that has left it none for longest."""
        if self._is_full():
            self.server.unread.slowest(self).refuse("unread_bytes_max")
        self.mark()

    def go_away(self) -> None:
        """Ask the client to begin no more calls, and close once those under way have ended."""
        if self._greeting is not None:
            self._close()
        elif not self._leaving and not self.transport.is_closing():
            self._leaving = True
            with contextlib.suppress(NGH2Error):
                self._engine.send_shutdown_notice()
                self._engine.ping(_AGE_PING)
            self.mark()

    def count(self, limit: str) -> None:
        """Count that the client is at a bound, by its name in `Limits`."""
        self.server.sessions.count_refusal(limit)

    def cut(self) -> None:
        """Drop the connection without a goodbye."""
        self.transport.abort()

    def abort(self) -> None:
        """End it now, with all calls on it."""
        self.go_away()
        if self._greeting is None:
            with contextlib.suppress(NGH2Error):
                self._engine.terminate_connection(ErrorCode.NO_ERROR)
            self._write_what_is_left()
        self._close()

    def flush(self) -> None:
        """Ask the marked streams for their messages and write them, some bytes at a time."""
        self._answers = False
        if self.transport.is_closing():
            self._drop_due()
            return
        if not self._writable:
            self._scatter_due()
            self._stall_wanting()
            if self._waiting_bytes:  # Streams may have been reset.
                self._count_unread(self._engine.queued_body_size())
            return
        try:
            waiting = self._write_shared() if self._only_due() else self._write_rounds()
            # Nearly always all of these are false.
            full = self._wanting or self._full or self.server.unread.crowded
            if waiting or self._waiting_bytes or full:
                self._count_unread(waiting)
        except NGH2Error:
            self._close()
            self._drop_due()
        if self._later:
            later, self._later = self._later, {}
            for call in later:
                self.want(call)

    # Sending.

    def _only_due(self) -> bool:
        """Whether groups have a message to be sent, and nothing else is to be done."""
        else_ = self._wanting or self._ending or self._blocked or self._left
        return bool(self._due) and not (else_ or self._waiting_bytes or self.server.unread.in_all)

    def _write_shared(self) -> int:
        """Write the messages of groups: a change of what thousands of streams follow costs this.

        Returns how many bytes of messages wait for the client then.
        """
        messages_before = self.traffic.messages_sent
        sent: list[Group] = []
        self._send_due(sent, _CONNECTION_FLUSH_BYTES)
        if data := self._engine.data_to_send():
            self._write(data)
        self._floods.sent(self.traffic.messages_sent - messages_before, len(data))
        if waiting := self._engine.queued_body_size():
            self._settle(self._members(sent), waiting)
        if self._due or self._wanting:
            self.server.left_over += 1
            self.mark()
        elif waiting and self._kept_window:
            self.mark()
        return waiting

    def _write_rounds(self) -> int:
        """Ask and write until no call has anything to send that the client would take now.

        Returns how many bytes of messages wait for the client then.
        """
        self._open_window()
        engine, traffic = self._engine, self.traffic
        left, waiting = _CONNECTION_FLUSH_BYTES, self._waiting_bytes
        while self._writable:
            sent = traffic.messages_sent
            asked: list[HttpCall] = []
            due: list[Group] = []
            left -= self._hand_over(due, asked, left, waiting)
            queued = 0 if asked or due else engine.queued_body_size()
            if data := engine.data_to_send():
                self._write(data)
                left -= len(data)
            waiting = engine.queued_body_size()
            if asked or due or waiting < queued:
                self._floods.sent(traffic.messages_sent - sent, len(data))
            self._handle()
            self._settle([*asked, *self._members(due)] if due and waiting else asked, waiting)
            if not self._wanting and not self._due and not engine.want_write:
                break
            if left <= 0:
                if any(call.waits_for_room for call in self._wanting):
                    self._mark_first()
                self.server.left_over += 1
                self.mark()
                return waiting
            if not data and not asked and not due:
                break
        if self._left and not self._calls and not self.transport.is_closing():
            self._close()
        return waiting

    def _hand_over(self, due: list[Group], asked: list[HttpCall], most: int, waiting: int) -> int:
        """Hand the engine what groups and calls have to send; as `_send_due` and `_ask_each` do."""
        handed = 0
        if self._due:
            handed = self._send_due(due, self._most(most, waiting))
        if self._wanting:
            handed += self._ask_each(asked, most - handed, waiting)
        return handed

    def _write(self, data: bytes) -> None:
        self.transport.write(data)
        self._life.wrote(len(data))

    def _ask_each(self, asked: list[HttpCall], most: int, waiting: int) -> int:
        """Have each call that wants it hand the engine its message; how many bytes they have.

        Those that were asked come into `asked`; `waiting` bytes wait for the client. A call is left
        for later after about `most` bytes, if it has to wait for room, or if the time of this flush
        is over. In the last case the number returned is that of a whole flush.
        """
        engine, traffic = self._engine, self.traffic
        most = self._most(most, waiting)
        if not most and waiting:
            self._stall_wanting()
        wanting, self._wanting = self._wanting, {}
        handed = 0
        look_at = traffic.messages_sent + _STEPS_A_LOOK
        for call in wanting:
            steps = len(asked) + traffic.messages_sent
            if self._later or call.waits_for_room or call.due or steps >= look_at:
                look_at = steps + _STEPS_A_LOOK
                if self._is_late():
                    handed = max(handed, _CONNECTION_FLUSH_BYTES)
            if handed >= most or (call.waits_for_room and not self._has_room()):
                self._wanting[call] = None
                continue
            try:
                handed += call.ask(engine)
            except StreamProtocolError:  # Its stream is gone; the other calls go on.
                call.lose()
            asked.append(call)
        return handed

    def _stall_wanting(self) -> None:
        """Nothing is taken from the calls that want to send something, and wait for room."""
        for call in self._wanting:
            call.stall()

    def join(self, call: StreamCall) -> None:
        """Have a call share its messages with others, if it can now."""
        join(self.server, self, self._groups, call)

    def _send_due(self, sent: list[Group], most: int) -> int:
        """Hand the engine the message of each group for all its streams; how many bytes in all.

        Those that were handed it come into `sent`. A group scatters if it is more than `most`: its
        streams are asked in their turns. Groups are left for later once it has been about as much,
        or the time is over; in the last case the number returned is that of a whole flush.
        """
        handed = 0
        while self._due:
            if sent and handed >= most:
                break
            if sent and self._is_late():
                return max(handed, _CONNECTION_FLUSH_BYTES)
            group = self._due[0]
            size = len(group.cohort.framed) * len(group.members)
            if group.due and size > most:
                group.scatter()
            elif group.due:
                handed += size
                self._send_to(group)
                sent.append(group)
            del self._due[0]  # Last: a fault in between leaves it to `_drop_due`.
        return handed

    def _send_to(self, group: Group) -> None:
        framed, send = group.cohort.framed, self._engine.send_data
        count, gone = len(group.members), []
        for stream_id in group.members:
            try:
                send(stream_id, framed)
            except StreamProtocolError:
                gone.append(stream_id)
        count -= len(gone)
        self.traffic.messages_sent += count
        group.sent(count)
        for stream_id in gone:
            self._calls[stream_id].lose()

    def _scatter_due(self) -> None:
        """Nothing may be written: the streams of groups wait each for itself."""
        due, self._due = self._due, []
        for group in due:
            if group.due:
                group.scatter()

    def _drop_due(self) -> None:
        """The connection is closed: others are not to wait for its groups."""
        due, self._due = self._due, []
        for group in due:
            if group.due:
                group.sent(0)

    def _members(self, groups: Iterable[Group]) -> list[HttpCall]:
        """The calls of these groups that are open."""
        ids = (id_ for group in groups for id_ in group.members)
        return [self._calls[id_] for id_ in ids if id_ in self._calls]

    def _most(self, most: int, waiting: int) -> int:
        """How many bytes may be handed to the engine, `most` of them; `waiting` wait there."""
        unread = self.server.unread
        room = self._room() if waiting or unread.in_all else unread.room_for_one
        return min(most, room)

    def _is_late(self) -> bool:
        return self.server.loop.time() > self.server.flush_until

    def _room(self) -> int:
        """How many bytes more may wait for the client."""
        return self.server.unread.room(self.client, self._engine.queued_body_size())

    def _count_unread(self, waiting: int) -> None:
        """Count the bytes that wait for the client now."""
        unread = self.server.unread
        unread.count(self, waiting)
        self._waiting_bytes = waiting
        self._full = self._is_full()
        if self._full and not waiting:
            unread.wait(self)  # For others: nothing of its own could mark it.
        self._life.full(full=self._full)

    def _is_full(self) -> bool:
        """Whether calls have something to send that may not wait for the client any more."""
        return bool(self._wanting) and not self._room()

    def _has_room(self) -> bool:
        """Whether the engine may be handed another answer, if its bytes are not shared."""
        return self._engine.queued_body_size() < _CONNECTION_FLUSH_BYTES

    def _settle(self, asked: list[HttpCall], waiting: int) -> None:
        """Find the calls whose messages the engine has sent, and let them go on.

        `waiting` is how many bytes of messages it has not. No stream is reset within a frame that
        the client sends: the engine would forget what has come of that frame, and the client's
        window would stay smaller by so much for ever.
        """
        if not waiting and not self._blocked and not self._ending:
            for call in asked:
                call.taken()
            return
        engine = self._engine
        for call in dict.fromkeys((*self._blocked, *asked)):
            if waiting and engine.queued_body_size(call.id):
                self._blocked[call] = None
                call.stall()
            else:
                self._blocked.pop(call, None)
                call.taken()
        for call, timer in list(self._ending.items()):
            if waiting and engine.queued_body_size(call.id):
                if timer is None:
                    patience_s = self._limits.keepalive_timeout_s
                    later = self.server.loop.call_later(patience_s, self._cut, call)
                    self._ending[call] = later
                continue
            more = call.id in self._calls and not call.half_closed
            if more and self._frames.cut:
                continue
            self._drop_ending(call)
            if more:
                # RFC 9113, 8.1: after a complete answer, no more of the request is wanted.
                engine.reset_stream(call.id, ErrorCode.NO_ERROR)

    def _drop_ending(self, call: HttpCall) -> None:
        timer = self._ending.pop(call, None)
        if timer is not None:
            timer.cancel()

    def _cut(self, call: HttpCall) -> None:
        """Reset a call whose client takes neither its last messages nor its status."""
        if self._frames.cut:
            self._ending[call] = None  # It is given as long again.
        else:
            del self._ending[call]
            with contextlib.suppress(NGH2Error):
                self._engine.reset_stream(call.id, ErrorCode.CANCEL)
        self.mark()

    def free(self, call: HttpCall, size: int) -> None:
        """Let the client send `size` bytes more: so many of the call's are no longer kept."""
        self._free(call.id, size)
        self.mark()

    def _free(self, stream_id: int, size: int) -> None:
        with contextlib.suppress(NGH2Error):
            self._engine.acknowledge_received_data(size, stream_id)
        if self._window.give_back(size, self.server.loop.time()):
            self._resize()

    def end_call(self, call: HttpCall, status: Status, *, headers_sent: bool) -> None:
        """Send the status of a call."""
        if status.code is Code.OK:
            self.traffic.streams_succeeded += 1
        else:
            self.traffic.streams_failed += 1
        with contextlib.suppress(NGH2Error):
            fields = grpc_wire.trailers(status)
            if headers_sent:
                self._engine.send_trailers(call.id, fields)
            else:
                self._engine.send_response(call.id, [*grpc_wire.RESPONSE, *fields], end_stream=True)
        self._ending[call] = None
        self.mark()

    def _write_what_is_left(self) -> None:
        with contextlib.suppress(NGH2Error):
            if data := self._engine.data_to_send():
                self.transport.write(data)

    # Receiving.

    def _bound(self, took: Callable[[float], str | None]) -> None:
        """Send the client away if this was one frame too many."""
        if (limit := took(self.server.loop.time())) is not None:
            self.refuse(limit)

    def _carries_nothing(self, _event: events.Event) -> None:
        self._bound(self._floods.empty)

    def _reset(self, _event: events.StreamReset) -> None:
        self._bound(self._floods.reset)

    def _pinged(self, _event: events.PingReceived) -> None:
        self._bound(self._floods.pinged)

    def _set(self, _event: events.SettingsReceived) -> None:
        self._life.greeted()
        self._bound(self._floods.settings)

    def _ended(self, event: events.ConnectionClosed) -> None:
        self._end_by_engine(event.debug_data, event.error_code)

    def _end_by_engine(self, said: bytes, code: int) -> None:
        """Close: the engine has met a bound of its own, or bytes that are not HTTP/2."""
        limit = next((name for text, name in _ENGINE_BOUNDS.items() if text in said), None)
        if limit is None and code == ErrorCode.ENHANCE_YOUR_CALM:
            limit = "empty_frames_max"  # Of types for which it has no events.
        if limit is not None:
            self.refuse(limit)
        elif not self.transport.is_closing():
            self._write_what_is_left()
            self._close()

    def _greeted(self, data: bytes) -> bytes:
        """Received data, once it is known that the client speaks HTTP/2; nothing before."""
        if self._greeting is None:
            return data
        begun = self._greeting + data
        if self._speaks_h2 and PREFACE.startswith(begun[: len(PREFACE)]):
            if len(begun) < len(PREFACE):
                self._greeting = begun
                return b""
            self._greet()
            return begun
        under_tls = tls_of(self.transport) is not None
        if may_be_http1(begun):
            self._greeting = begun
            return b""
        self.transport.write(stranger_answer(begun, under_tls=under_tls))
        self._close()
        return b""

    def _handle(self) -> None:
        for event in self._engine.events():
            if self.transport.is_closing():
                return
            handler = self._HANDLERS.get(type(event))
            if handler is not None:
                handler(self, event)

    def _request(self, event: events.RequestReceived) -> None:
        self._last_stream = event.stream_id
        head = grpc_wire.request(event.headers)
        if isinstance(head, HttpRefusal):
            # The client may have reset the stream in the same data.
            with contextlib.suppress(NGH2Error):
                self._engine.send_response(event.stream_id, head.fields)
                self._engine.send_data(event.stream_id, head.body, end_stream=True)
            return
        self.traffic.streams_started += 1
        call = self._call(event, head)
        if not self._calls:
            self._life.busy(calls=True)
        self._calls[event.stream_id] = call
        if event.end_stream:
            call.half_close()

    def _call(self, event: events.RequestReceived, head: RequestHead | Status) -> HttpCall:
        id_ = event.stream_id
        if isinstance(head, Status):
            return RefusedCall(self, id_, head)
        method = self.server.methods.get(head.path)
        if method is None:
            return RefusedCall(self, id_, self.server.sessions.unknown())
        size = sum(len(name) + len(value) + _FIELD_BYTES for name, value in event.headers)
        if size > self._limits.header_list_bytes_max:
            error = RpcError(
                Code.RESOURCE_EXHAUSTED,
                f"the header fields take {size} bytes; the server's limit "
                f"(header_list_bytes_max) is {self._limits.header_list_bytes_max}",
                limit="header_list_bytes_max",
            )
            return RefusedCall(self, id_, self.server.sessions.refuse(head.path, error))
        if head.timeout_s is not None and head.timeout_s <= _PASSED_S:
            return RefusedCall(self, id_, self.server.sessions.refuse(head.path, deadline_passed()))
        caller = self._caller
        if caller.guarded:
            caller = caller.showing(grpc_wire.authorization(event.headers))
        if isinstance(method, UnaryMethod):
            return UnaryCall(self, id_, head, method, caller)
        stream = StreamCall(self, id_, head, method)
        opened = self.server.sessions.open(method, caller, stream.wake)
        if isinstance(opened, Status):
            stream.finish(opened, headers_sent=False)
        else:
            stream.begin(opened)
        return stream

    def _data(self, event: events.DataReceived) -> None:
        call = self._calls.get(event.stream_id)
        if event.data:
            if call is not None:
                call.receive(event.data)
            else:
                self._free(event.stream_id, len(event.data))
            if self._window.stand(self._engine.local_window_size):
                self._resize()
            if self._window.take_refusal():
                self.server.sessions.count_refusal("window_bytes_max")
        elif not event.end_stream:
            self._carries_nothing(event)
        if event.end_stream and call is not None:
            call.half_close()

    def _trailers(self, event: events.TrailersReceived) -> None:
        if (call := self._calls.get(event.stream_id)) is not None:
            call.half_close()

    def _closed(self, event: events.StreamClosed) -> None:
        call = self._calls.pop(event.stream_id, None)
        if call is not None:
            if not self._calls:
                self._life.busy(calls=False)
            for kept in (self._blocked, self._wanting, self._later):
                kept.pop(call, None)
            self._drop_ending(call)
            if not call.answered:
                self.traffic.streams_failed += 1
            call.lose()

    def _ping_answered(self, event: events.PingAcknowledged) -> None:
        """The client is alive. After a GOAWAY: all calls begun before it have arrived."""
        if event.opaque_data == _PING:
            self._life.answered()
        elif event.opaque_data == _AGE_PING and self._leaving and not self._left:
            self._left = True
            with contextlib.suppress(NGH2Error):
                self._engine.send_goaway(
                    ErrorCode.NO_ERROR, last_stream_id=max(self._calls, default=0)
                )
            self.mark()
        else:
            self._carries_nothing(event)

    # Functions, not bound methods: a connection that held those would be a reference cycle.
    _HANDLERS: ClassVar[Mapping[type[events.Event], Callable[[ClientConnection, Any], None]]] = {
        events.RequestReceived: _request,
        events.DataReceived: _data,
        events.TrailersReceived: _trailers,
        events.StreamReset: _reset,
        events.StreamClosed: _closed,
        events.SettingsReceived: _set,
        events.PingReceived: _pinged,
        events.PingAcknowledged: _ping_answered,
        events.WindowUpdated: _carries_nothing,
        events.GoAwayReceived: _carries_nothing,
        events.ConnectionClosed: _ended,
    }


def _opened_by(update: bytes) -> int:
    """By how many bytes a WINDOW_UPDATE, which comes first, opens a window."""
    return int.from_bytes(update[len(_UPDATE_HEAD) : _UPDATE_BYTES], "big") & 0x7FFFFFFF


@cache
def _configuration(limits: Limits) -> Configuration:
    """The configuration of every engine of a server."""
    return Configuration(
        auto_window_update=False,
        max_inbound_header_list_size=limits.header_list_bytes_max * _HEADERS_PART,
        max_continuations=limits.continuations_max,
        stream_reset_rate_limit=_behind(limits.resets_max),
        glitch_rate_limit=_behind(limits.empty_frames_max),
    )


def _behind(most: int) -> tuple[int, int]:
    return most * _BEHIND, math.ceil(most * _BEHIND / FRAMES_S)
