"""Calls as HTTP/2 streams carry them: what has come of a request, and what waits to be told.

Knows sessions and messages, and no socket and no frame: a connection feeds its calls and asks
them, and they hand what they say to its engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from vmsvc_grpc.server.call import LATER, Call, Code, Method, RpcError, StreamMethod, UnaryMethod
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.session import OK, Session, Sessions, Status
from vmsvc_grpc.server.transport import grpc_wire
from vmsvc_grpc.server.transport.grpc_wire import (
    PREFIX_BYTES,
    HeaderField,
    Messages,
    RequestHead,
)
from vmsvc_grpc.server.transport.sockets import Traffic
from vmsvc_grpc.server.transport.uploads import Room, Uploads


class Engine(Protocol):
    """What HTTP/2 sends for a call, once it can."""

    def send_response(self, stream_id: int, headers: Iterable[HeaderField]) -> None:
        """The header fields that an answer begins with."""

    def send_data(self, stream_id: int, data: bytes) -> None:
        """More of its body."""


class CallServer(Protocol):
    """What the calls of one server share."""

    loop: asyncio.AbstractEventLoop
    limits: Limits
    sessions: Sessions
    uploads: Uploads
    streams: dict[StreamCall, None]

    def framed(self, message: bytes) -> bytes:
        """A message with its prefix, made once for all who are told it at the same time."""


class CallConnection(Protocol):
    """The connection that a call came by."""

    client: str
    peer: str
    traffic: Traffic

    @property
    def server(self) -> CallServer:
        """Whose it is."""

    def want(self, call: HttpCall) -> None:
        """Ask a call soon, as it has something to say."""

    def want_later(self, call: HttpCall) -> None:
        """Ask a call in another turn of the event loop, as it has more to work out."""

    def free(self, call: HttpCall, size: int) -> None:
        """The client may send so many bytes more: as many of the call's are not kept any more."""

    def end_call(self, call: HttpCall, status: Status, *, greeted: bool) -> None:
        """Send how a call ends; `greeted`: its answer has begun."""


class HttpCall:
    """One HTTP/2 stream that carries a call.

    What it says is its own, and not shared, where it `waits_for_room`: a client that asks and
    does not read has no answers piled up for it.
    """

    waits_for_room = False

    due = False
    """Whether it is to take in what its client has sent, which may take long."""

    __slots__ = ("answered", "connection", "half_closed", "id", "server", "timers")

    def __init__(self, connection: CallConnection, id_: int) -> None:
        self.connection = connection
        self.server = connection.server
        self.id = id_
        self.half_closed = False
        self.answered = False
        self.timers: list[asyncio.TimerHandle] = []

    def receive(self, data: bytes) -> None:
        """More of the request's body."""

    def half_close(self) -> None:
        """The client sends no more. May come twice."""
        self.half_closed = True

    def ask(self, engine: Engine) -> int:
        """Hand the engine what is to be said now: how many bytes."""
        raise NotImplementedError

    def stall(self) -> None:
        """Its message waits for the client, here or in the engine."""

    def taken(self) -> None:
        """Its message, if there was one, has been taken."""

    def finish(self, status: Status, *, greeted: bool) -> None:
        """End the call. What the client has not taken before it may wait a while yet."""
        if not self.answered:
            self.connection.end_call(self, status, greeted=greeted)
        self.answered = True
        self.close()

    def lose(self) -> None:
        """Its stream is gone: nothing can be answered any more."""
        self.answered = True
        self.close()

    def later(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Call back after `delay_s`, unless the call is over by then."""
        self.timers.append(self.server.loop.call_later(delay_s, callback))

    def close(self) -> None:
        """It is over, or has been answered: let go of everything. May come twice."""
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()


class RefusedCall(HttpCall):
    """A call that is none of ours: it ends as it begins."""

    __slots__ = ()

    def __init__(self, connection: CallConnection, id_: int, status: Status) -> None:
        super().__init__(connection, id_)
        self.finish(status, greeted=False)


class AskingCall(HttpCall):
    """A call of one of our methods, whose requests come in pieces.

    Of what it keeps, the client may send as much again (RFC 9113, 5.2) when a method has taken
    it; or before, where a message does not fit the window, once there is room for it whole.
    """

    __slots__ = ("_freed", "_messages", "_room", "_tarrying")

    def __init__(
        self, connection: CallConnection, id_: int, said: RequestHead, method: Method
    ) -> None:
        super().__init__(connection, id_)
        check_length = partial(self.server.sessions.check_length, method)
        many = isinstance(method, StreamMethod) and method.client_streaming
        self._messages = Messages(said.encoding, check_length, many=many)
        self._freed = 0  # Bytes of those kept that the client may send again.
        self._room: Room | None = None
        self._tarrying: asyncio.TimerHandle | None = None
        if said.timeout_s is not None:
            self.later(said.timeout_s, self._expire)

    def receive(self, data: bytes) -> None:
        """Keep what has come, unless it cannot be taken."""
        if self.answered:
            self.connection.free(self, len(data))
            return
        self._messages.feed(data)
        # What is too long, or compressed, is known by its first bytes.
        if (fault := self._messages.fault()) is not None:
            self._fail(fault)
        else:
            self._make_room()

    def expect_request(self) -> None:
        """From now on the client has `request_s` for the request that is to come, or is coming."""
        if self._tarrying is None:
            request_s = self.server.limits.request_s
            self._tarrying = self.server.loop.call_later(request_s, self._tarry)

    def taken_in(self, take: Callable[[], bytes | None]) -> bytes | None:
        """What a method gets of what is kept, if it is there. Raises RpcError."""
        held = self._messages.held
        request = take()
        if request is not None:
            self._free(held - self._messages.held - self._freed)
            self._freed = 0
            self._leave_room()
            self._make_room()
        return request

    def _make_room(self) -> None:
        """Have the client send the rest of a message that has begun, as soon as there is room."""
        messages = self._messages
        if not messages.missing:
            return
        self.expect_request()
        if messages.held < PREFIX_BYTES:
            return
        if self._room is None:
            self._room = Room(self.connection.client, messages.first_bytes, self._send_rest)
            self.server.uploads.ask(self._room)
            if not self._room.granted:
                self.server.sessions.count_refusal("upload_bytes_max")
        if self._room.granted:
            self._send_rest()

    def _send_rest(self) -> None:
        """There is room for the message: its bytes may be sent on, as they come."""
        self._free(self._messages.held - self._freed)
        self._freed = self._messages.held

    def _free(self, size: int) -> None:
        if size:
            self.connection.free(self, size)

    def _leave_room(self) -> None:
        if self._tarrying is not None:
            self._tarrying.cancel()
            self._tarrying = None
        if self._room is not None:
            room, self._room = self._room, None
            self.server.uploads.let_go(room)

    def _expire(self) -> None:
        self._fail(RpcError(Code.DEADLINE_EXCEEDED, "the deadline has passed"))

    def _tarry(self) -> None:
        """A client has had long enough."""
        if not self.half_closed:
            text = f"the request has not come whole within {self.server.limits.request_s:g} s"
            self._fail(RpcError(Code.DEADLINE_EXCEEDED, f"{text} (request_s)", limit="request_s"))

    def _fail(self, error: RpcError) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what has come, too."""
        self._free(self._messages.held - self._freed)
        self._freed = 0
        self._messages.clear()
        self._leave_room()
        super().close()


class UnaryCall(AskingCall):
    """A call with one request and one response."""

    waits_for_room = True

    __slots__ = ("_method",)

    def __init__(
        self, connection: CallConnection, id_: int, said: RequestHead, method: UnaryMethod
    ) -> None:
        super().__init__(connection, id_, said, method)
        self._method = method
        self.expect_request()

    def half_close(self) -> None:
        """The request is whole: answer it in its turn."""
        if not self.half_closed and not self.answered:
            self.connection.want(self)
        super().half_close()

    def ask(self, engine: Engine) -> int:
        """Answer."""
        if self.answered:
            return 0
        try:
            request = self.taken_in(self._messages.only)
        except RpcError as error:
            self._fail(error)
            return 0
        assert request is not None, "there is exactly one"
        self.connection.traffic.messages_received += 1
        call = Call(self.connection.peer)
        answer = self.server.sessions.unary(self._method, request, call)
        if isinstance(answer, Status):
            self.finish(answer, greeted=False)
            return 0
        engine.send_response(self.id, grpc_wire.RESPONSE)
        engine.send_data(self.id, grpc_wire.framed(answer))
        self.connection.traffic.messages_sent += 1
        self.finish(OK, greeted=True)
        return len(answer)

    def _fail(self, error: RpcError) -> None:
        if not self.answered:
            refused = self.server.sessions.refuse(self._method.path, error)
            self.finish(refused, greeted=False)


class StreamCall(AskingCall):
    """A call with a stream of responses. Moves one message at a time, when it is wanted."""

    __slots__ = ("_greeted", "_method", "_session", "_told", "_waiting", "_wanted", "due")

    _session: Session

    def __init__(
        self, connection: CallConnection, id_: int, said: RequestHead, method: StreamMethod
    ) -> None:
        """`begin` comes next."""
        super().__init__(connection, id_, said, method)
        self._method = method
        self._greeted = False
        self._wanted = False  # The connection knows that it is to be asked.
        self._waiting = False  # For the client to take the last message from the engine.
        self._told = False  # That the client sends no more.
        self.due = False

    def begin(self, session: Session) -> None:
        """It has been let in."""
        self._session = session
        self.server.streams[self] = None
        if self._method.client_streaming:
            self.wake()
        else:
            self.expect_request()

    def wake(self) -> None:
        """There may be something to say: ask once the last message has been taken."""
        if not self._wanted and not self._waiting and not self.answered:
            self._wanted = True
            self.connection.want(self)

    def receive(self, data: bytes) -> None:
        """Hand in what has come whole in its turn, if the client sends a stream."""
        super().receive(data)
        if not self.answered and self._method.client_streaming:
            self.due = True
            self.wake()

    def half_close(self) -> None:
        """Hand in the one request, or tell that there are no more, in its turn."""
        super().half_close()
        if not self.answered:
            self.due = True
            self.wake()

    def _take(self) -> None:
        """Hand in the next request, unless one is in hand; then the end of them."""
        session = self._session
        if session.in_hand or session.ending or self._told:
            return
        self.due = False
        try:
            if self._method.client_streaming:
                request = self.taken_in(self._messages.take)
            else:
                request = self.taken_in(self._messages.only) if self.half_closed else None
        except RpcError as error:
            self._fail(error)
            return
        if request is not None:
            self.connection.traffic.messages_received += 1
            session.receive(request)
            self.due = True  # There may be another, or the end of them.
        if self.half_closed and (request is None or not self._method.client_streaming):
            self._told, self.due = True, False
            session.half_close()

    def ask(self, engine: Engine) -> int:
        """Take in what is due, and say what is newest.

        Not asked while the last message waits in the engine.
        """
        self._wanted = False
        if self.due and not self.answered:
            self._take()
        if self.answered:
            return 0
        session = self._session
        if session.writing:
            session.write_ended()
        said = session.next()
        if isinstance(said, Status):
            self.finish(said, greeted=self._greeted)
            return 0
        if not self._greeted:
            # The client learns that it is heard, and has but to wait.
            self._greeted = True
            engine.send_response(self.id, grpc_wire.RESPONSE)
        bytes_ = 0
        if said is LATER:
            self._wanted = True
            self.connection.want_later(self)
        elif said is not None:
            framed = self.server.framed(said)
            engine.send_data(self.id, framed)
            self.connection.traffic.messages_sent += 1
            self._waiting = True
            bytes_ = len(framed)
        if self.due:
            self.wake()
        return bytes_

    def taken(self) -> None:
        """Ask again: there may be more to say."""
        if self._waiting:
            self._waiting = False
            if not self.answered:
                if self._session.writing:
                    self._session.write_ended()
                self.wake()

    def stall(self) -> None:
        """Give the client until `write_s`."""
        if self.answered or self._session.writing:
            return
        self._session.write_began(self.server.loop.time())
        if self._method.write_s is not None:
            self.later(self._method.write_s, self._look)

    def _look(self) -> None:
        """Whether the client has taken in nothing for too long; look again when that may be."""
        left_s = self._session.write_left_s(self.server.loop.time())
        if left_s:
            self.later(left_s, self._look)
        elif left_s is not None:
            self._leave()

    def _fail(self, error: RpcError) -> None:
        self.end(self.server.sessions.ending_of(self._method.path, error))

    def end(self, error: RpcError) -> None:
        """End it with `error` soon, be the client stalled."""
        if not self.answered:
            self._session.end(error)
            self._leave()

    def _leave(self) -> None:
        status = self._session.next()
        assert isinstance(status, Status), "it is ending"
        self.finish(status, greeted=self._greeted)

    def close(self) -> None:
        """End the session, too."""
        if self.server.streams.pop(self, self) is None:
            self._session.close()
        super().close()
