"""Calls as HTTP/2 streams: the part of a request that has arrived, and the messages to be sent.

Knows sessions and messages, but no sockets and no frames: a connection feeds its calls and asks
them for messages, which they hand to its engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from vmsvc_grpc.server.access.caller import Caller
from vmsvc_grpc.server.call import (
    HELD,
    LATER,
    Code,
    Later,
    Method,
    RpcError,
    Shared,
    StreamMethod,
    UnaryMethod,
)
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.session import (
    OK,
    LongAnswer,
    Session,
    Sessions,
    Status,
    WaitingCall,
    request_too_late,
)
from vmsvc_grpc.server.transport import grpc_wire
from vmsvc_grpc.server.transport.grpc_wire import (
    PREFIX_BYTES,
    HeaderField,
    Messages,
    RequestHead,
)
from vmsvc_grpc.server.transport.http2_groups import Group
from vmsvc_grpc.server.transport.sockets import Traffic
from vmsvc_grpc.server.transport.uploads import Room, Uploads


class Engine(Protocol):
    """What a call uses of a connection's engine. It sends as soon as flow control allows."""

    def send_response(self, stream_id: int, headers: Iterable[HeaderField]) -> None:
        """Send the header fields that an answer begins with."""

    def send_data(self, stream_id: int, data: bytes) -> None:
        """Send more of the answer's body."""


class CallServer(Protocol):
    """What the calls of one server share."""

    loop: asyncio.AbstractEventLoop
    limits: Limits
    sessions: Sessions
    uploads: Uploads
    streams: dict[StreamCall, None]

    def framed(self, message: bytes) -> bytes:
        """A message with its prefix; made once for all streams that are sent it at once."""


class CallConnection(Protocol):
    """What a call uses of its connection."""

    client: str
    traffic: Traffic

    @property
    def server(self) -> CallServer:
        """The server that the connection belongs to."""

    def want(self, call: HttpCall) -> None:
        """Ask a call soon: it has something to send."""

    def want_later(self, call: HttpCall) -> None:
        """Ask a call in another turn of the event loop: it has more to work out."""

    def free(self, call: HttpCall, size: int) -> None:
        """Let the client send `size` bytes more: so many of the call's are no longer kept."""

    def end_call(self, call: HttpCall, status: Status, *, headers_sent: bool) -> None:
        """Send the status of a call; `headers_sent`: the answer has begun."""

    def join(self, call: StreamCall) -> None:
        """Have a call share its messages with others, if it can now."""


class HttpCall:
    """One HTTP/2 stream that carries a call.

    A call whose answer is its own, and not shared, `waits_for_room`: so answers do not pile up for
    a client that asks and does not read.
    """

    waits_for_room = False

    due = False
    """Whether it has requests to hand to its method, which may take long."""

    __slots__ = ("answered", "connection", "half_closed", "id", "server", "timers")

    def __init__(self, connection: CallConnection, id_: int) -> None:
        self.connection = connection
        self.server = connection.server
        self.id = id_
        self.half_closed = False
        self.answered = False
        self.timers: list[asyncio.TimerHandle] = []

    def receive(self, data: bytes) -> None:
        """Take in more of the request's body. A call that keeps nothing gives it back at once."""
        self.connection.free(self, len(data))

    def half_close(self) -> None:
        """The client sends no more. May be called twice."""
        self.half_closed = True

    def ask(self, engine: Engine) -> int:
        """Hand the engine what is to be sent now; how many bytes."""
        raise NotImplementedError

    def stall(self) -> None:
        """Its message waits for the client, here or in the engine."""

    def taken(self) -> None:
        """The engine has sent its message, if there was one."""

    def finish(self, status: Status, *, headers_sent: bool) -> None:
        """End the call. Messages before the status may still wait for the client for a while."""
        if not self.answered:
            self.connection.end_call(self, status, headers_sent=headers_sent)
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
        """Release everything: it is over, or has been answered. May be called twice."""
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()


def deadline_passed() -> RpcError:
    """The error of a call that is not answered by its deadline."""
    return RpcError(Code.DEADLINE_EXCEEDED, "the deadline has passed")


class RefusedCall(HttpCall):
    """A call that is refused before its method is asked."""

    __slots__ = ()

    def __init__(self, connection: CallConnection, id_: int, status: Status) -> None:
        super().__init__(connection, id_)
        self.finish(status, headers_sent=False)


class AskingCall(HttpCall):
    """A call of one of our methods, whose requests come in pieces.

    The client's window (RFC 9113, 5.2) opens again by the bytes of a message when the method has
    taken it. For a message that does not fit the window, it opens as soon as there is room for the
    whole message.
    """

    __slots__ = ("_freed", "_messages", "_room", "_tarrying")

    def __init__(
        self, connection: CallConnection, id_: int, head: RequestHead, method: Method
    ) -> None:
        super().__init__(connection, id_)
        check_length = partial(self.server.sessions.check_length, method)
        many = isinstance(method, StreamMethod) and method.client_streaming
        self._messages = Messages(head.encoding, check_length, many=many)
        self._freed = 0  # Of the bytes kept, those for which the window is open again.
        self._room: Room | None = None
        self._tarrying: asyncio.TimerHandle | None = None
        if head.timeout_s is not None:
            self.later(head.timeout_s, self._expire)

    def receive(self, data: bytes) -> None:
        """Keep the data, unless they begin a message that cannot be taken."""
        if self.answered:
            super().receive(data)
            return
        self._free(self._messages.feed(data))
        # The first bytes show whether a message is too long, or compressed.
        if (fault := self._fault()) is not None:
            self._fail(fault)
        else:
            self._make_room()

    def expect_request(self) -> None:
        """Give the client `request_s`, from now, for the next request or the rest of it."""
        if self._tarrying is None:
            request_s = self.server.limits.request_s
            self._tarrying = self.server.loop.call_later(request_s, self._tarry)

    def taken_in(self, take: Callable[[], bytes | None]) -> bytes | None:
        """The request that `take` takes of the bytes kept, if it is complete. Raises RpcError."""
        held = self._messages.held
        request = take()
        if request is not None:
            self._free(held - self._messages.held - self._freed)
            self._freed = 0
            self._leave_room()
            if self._messages.held:
                self._fault()  # If the next one is to be dropped, that needs no room.
            self._make_room()
        return request

    def _fault(self) -> RpcError | None:
        """Why the next message cannot be taken, once those that are to be dropped have been."""
        fault = self._messages.fault()
        while fault is not None and fault.limit and self._drops(fault.limit):
            self._free(self._messages.drop())
            fault = self._messages.fault()
        return fault

    def _drops(self, limit: str) -> bool:  # noqa: ARG002 - a call with one message fails with it.
        """Whether a message beyond a limit is dropped, and the call goes on."""
        return False

    def _make_room(self) -> None:
        """Have the client send the rest of an incomplete message, as soon as there is room."""
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
        """There is room for the whole message: open the window by what has arrived."""
        # It may have come whole meanwhile, with more after it.
        arrived = min(self._messages.held, self._messages.first_bytes)
        self._free(arrived - self._freed)
        self._freed = arrived

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
        self._fail(deadline_passed())

    def _tarry(self) -> None:
        """Fail, if the request has not come within its time."""
        if not self.half_closed:
            self._fail(request_too_late(self.server.limits.request_s))

    def _fail(self, error: RpcError) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Release the bytes that are kept, too."""
        self._free(self._messages.held - self._freed)
        self._freed = 0
        self._messages.clear()
        self._leave_room()
        super().close()


class UnaryCall(AskingCall):
    """A call with one request and one response."""

    waits_for_room = True

    __slots__ = ("_caller", "_method", "_waiting")

    def __init__(
        self,
        connection: CallConnection,
        id_: int,
        head: RequestHead,
        method: UnaryMethod,
        caller: Caller,
    ) -> None:
        super().__init__(connection, id_, head, method)
        self._method = method
        self._caller: Caller | None = caller
        self._waiting: WaitingCall | LongAnswer | None = None
        self.expect_request()

    def half_close(self) -> None:
        """The request is complete: answer it in its turn."""
        if not self.half_closed and not self.answered:
            self.connection.want(self)
        super().half_close()

    def ask(self, engine: Engine) -> int:
        """Answer."""
        if self.answered:
            return 0
        answer = self._next_answer()
        if answer is LATER:
            self.connection.want_later(self)
            return 0
        if answer is None:
            return 0
        if isinstance(answer, Status):
            self.finish(answer, headers_sent=False)
            return 0
        engine.send_response(self.id, grpc_wire.RESPONSE)
        engine.send_data(self.id, grpc_wire.framed(answer))
        self.connection.traffic.messages_sent += 1
        self.finish(OK, headers_sent=True)
        return len(answer)

    def _next_answer(self) -> bytes | Status | Later | None:
        """The answer; LATER if it takes longer, None if it waits to be woken, or has failed."""
        answer = self._answer() if self._waiting is None else self._waiting.answer()
        if isinstance(answer, WaitingCall):
            self._waiting = answer
            return None
        if isinstance(answer, LongAnswer):
            self._waiting = answer
            return LATER
        return answer

    def _answer(self) -> bytes | Status | WaitingCall | LongAnswer | None:
        try:
            request = self.taken_in(self._messages.only)
        except RpcError as error:
            self._fail(error)
            return None
        assert request is not None, "there is exactly one"
        self.connection.traffic.messages_received += 1
        caller, self._caller = self._caller, None
        assert caller is not None, "it is asked for once"
        return self.server.sessions.unary(self._method, request, caller, self._wake)

    def _wake(self) -> None:
        """It is known what the caller may do, or known better."""
        self.connection.want(self)

    def close(self) -> None:
        """Wait for no verdict, and make no answer, either."""
        if self._waiting is not None:
            self._waiting.close()
        super().close()

    def _fail(self, error: RpcError) -> None:
        if not self.answered:
            if self._waiting is not None:
                failed = self._waiting.fail(error)
            else:
                failed = self.server.sessions.refuse(self._method.path, error)
            self.finish(failed, headers_sent=False)


class StreamCall(AskingCall):
    """A call with a stream of responses. Moves one message at a time."""

    __slots__ = (
        "_ended",
        "_headers_sent",
        "_looking",
        "_method",
        "_more",
        "_session",
        "_stalled",
        "_waiting",
        "_wanted",
        "due",
        "group",
    )

    _session: Session

    def __init__(
        self, connection: CallConnection, id_: int, head: RequestHead, method: StreamMethod
    ) -> None:
        """`begin` comes next, or `finish`."""
        super().__init__(connection, id_, head, method)
        self._method = method
        self._headers_sent = False
        self._wanted = False  # Whether the connection is going to ask it.
        self._waiting = False  # Whether its last message is still in the engine.
        self._more = False  # Whether it is to be asked when that has left.
        self._stalled = False  # Whether it waits for its client to take something.
        self._looking: asyncio.TimerHandle | None = None  # When its client is looked at next.
        self._ended = False  # Whether the session knows that the client sends no more.
        self.due = False
        self.group: Group | None = None

    def begin(self, session: Session) -> None:
        """Its session is open: begin to receive and send."""
        self._session = session
        self.server.streams[self] = None
        if self._method.client_streaming:
            self.wake()
        else:
            self.expect_request()

    def _drops(self, limit: str) -> bool:
        return self._session.drops(limit)

    def wake(self) -> None:
        """There may be something to send: ask once the last message has left the engine."""
        if self.group is not None:  # Nobody in a group listens: it is something of its own.
            self._part()
        if self._waiting:
            self._more = True
        elif not self._wanted and not self.answered:
            self._wanted = True
            self.connection.want(self)

    def receive(self, data: bytes) -> None:
        """Take in more of the body; complete requests are handed in, in turn, if it is a stream."""
        super().receive(data)
        self._part()
        if not self.answered and self._method.client_streaming:
            self.due = True
            self.wake()

    def half_close(self) -> None:
        """The client sends no more: hand in the only request, or the end of them, in turn."""
        super().half_close()
        self._part()
        if not self.answered:
            self.due = True
            self.wake()

    def _take(self) -> None:
        """Hand the session the next request, unless it has one in hand; then the end of them."""
        session = self._session
        if session.in_hand or session.ending or self._ended:
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
            # There may be another, or the end of them. Mostly there is neither: then it would be
            # asked once more for nothing.
            self.due = self._messages.held > 0 or self.half_closed
        if self.half_closed and (request is None or not self._method.client_streaming):
            self._ended, self.due = True, False
            session.half_close()

    def ask(self, engine: Engine) -> int:
        """Hand in a request that is due, and send what is newest.

        Not asked while the last message waits in the engine.
        """
        self._wanted = False
        if self.due and not self.answered:
            self._take()
        return 0 if self.answered else self._send_next(engine)

    def _send_next(self, engine: Engine) -> int:
        if self._stalled:
            self._go_on()
        message = self._session.next()
        if isinstance(message, Status):
            self.finish(message, headers_sent=self._headers_sent)
            return 0
        if message is HELD:
            return 0  # Not even a request that is due may be handed in.
        if not self._headers_sent:
            # So the client learns that its call was accepted, even if no message comes for long.
            self._headers_sent = True
            engine.send_response(self.id, grpc_wire.RESPONSE)
        bytes_ = 0
        if message is LATER:
            self._wanted = True
            self.connection.want_later(self)
        elif message is not None:
            framed = self.server.framed(message)
            bytes_ = len(framed)
            engine.send_data(self.id, framed)
            self.connection.traffic.messages_sent += 1
            self._waiting = True
            self._more = not self._session.quiet
        if self.due:
            self.wake()
        return bytes_

    def taken(self) -> None:
        """Ask again if there may be more to send; else share what is to come with others."""
        if self._waiting:
            self._waiting = False
            if self._stalled:
                self._go_on()
            if self._more:
                self._more = False
                self.wake()
                return
        if self.group is None:
            self.connection.join(self)

    @property
    def shared(self) -> Shared | None:
        """What it shares with others now; None if it has news, or nothing to share."""
        busy = self._waiting or self._wanted or self.answered
        return None if busy else self._session.shared

    def _part(self) -> None:
        """Share nothing, as it has something of its own."""
        if self.group is not None:
            self.group.leave(self, over=False)

    def stall(self) -> None:
        """Give the client `write_s` to take something. It leaves its group."""
        if self.answered or self._stalled:
            return
        if self.group is not None:
            self._waiting = True
            self._part()
        self._stalled = True
        self._session.write_began(self.server.loop.time())
        if self._looking is None and self._method.write_s is not None:
            self._looking = self.server.loop.call_later(self._method.write_s, self._look)

    def _go_on(self) -> None:
        """Its client has taken something."""
        self._stalled = False
        self._session.write_ended()

    def _look(self) -> None:
        """End a stream whose client has taken nothing for too long, or look again when it may.

        One timer does for all stalls of a stream: those that are short would leave one each.
        """
        self._looking = None
        left_s = self._session.write_left_s(self.server.loop.time())
        if left_s:
            self._looking = self.server.loop.call_later(left_s, self._look)
        elif left_s is not None:
            self._leave()

    def _fail(self, error: RpcError) -> None:
        self.end(self.server.sessions.ending_of(self._method.path, error))

    def end(self, error: RpcError) -> None:
        """End it with `error` now, even if the client is stalled."""
        if not self.answered:
            self._session.end(error)
            self._leave()

    def _leave(self) -> None:
        status = self._session.next()
        assert isinstance(status, Status), "it is ending"
        self.finish(status, headers_sent=self._headers_sent)

    def close(self) -> None:
        """End the session, too."""
        if self.group is not None:
            self.group.leave(self, over=True)
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if self.server.streams.pop(self, self) is None:
            self._session.close()
        super().close()
