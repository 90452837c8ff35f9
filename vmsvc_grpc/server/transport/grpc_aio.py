"""The calls on grpc.aio: the reference transport.

Bytes pass through unchanged, and the session decides what a call may do; here are only tasks, and
gRPC's types. A stream has one pump, which asks for a message only once the one before has been
taken, so that nothing piles up here for a client that does not read.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import traceback
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, ClassVar, NoReturn, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # it has no types
from grpc_channelz.v1 import channelz

from vmsvc_grpc.server.access.caller import Caller
from vmsvc_grpc.server.call import (
    HELD,
    LATER,
    Code,
    Held,
    Later,
    Method,
    RpcError,
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
    not_one_request,
    request_too_late,
)
from vmsvc_grpc.server.transport import Listener
from vmsvc_grpc.server.transport.grpc_wake_ups import waking_once_for_many
from vmsvc_grpc.server.transport.turns import Line, Turns

# In quotes, as these are generic in the stubs only. Requests are bytes, or EOF.
_CallContext: TypeAlias = "grpc.aio.ServicerContext[Any, bytes]"
_Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Behavior: TypeAlias = "Callable[[_Request, _CallContext], Coroutine[Any, Any, _Response]]"

_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}

# Of gRPC's algorithms, by bit: 0 is identity.
_IDENTITY_ONLY = 1 << 0

_WINDOW_BYTES = 65_535  # HTTP/2's initial value; for a request that is being read there is more.

# What grpc.aio raises if the client of a call is gone, or the server has stopped meanwhile.
_OVER = (grpc.aio.InternalError, cygrpc._ServerStoppedError)  # noqa: SLF001 - it has no other name

# How long streams may take to notice that the server has stopped; they wait for nothing else.
_LEAVING_S = 5.0


class GrpcAio:
    """A server of grpc.aio, as `transport.Transport` describes it."""

    name: ClassVar[str] = "grpcio"

    def __init__(self, sessions: Sessions, limits: Limits) -> None:
        """Must be made on the event loop that will run it."""
        self._sessions = sessions
        self._turns = Turns()
        self._request_s = limits.request_s
        self._pumps: dict[_Pump, None] = {}  # In the order in which they were opened.
        logging.getLogger(cygrpc.__name__).addFilter(_is_about_us)
        with waking_once_for_many():
            self._server = _Server(sessions, _options(limits))

    def channelz(self, method: str, request: Message) -> Message:
        """The answer of gRPC's core about its connections. Raises RpcError."""
        context = _ChannelzRefusal()
        answer: Message | None = getattr(channelz.ChannelzServicer, method)(request, context)
        if answer is None:
            raise RpcError(context.code, context.details)
        return answer

    def serve(self, methods: Iterable[Method]) -> None:
        """Set the methods. Once, before `start`."""
        self._server.add_registered_method_handlers(
            {method.path: self._handler(method) for method in methods}
        )

    def bind(self, listener: Listener) -> int:
        """Bind a listener's address; returns the port, a free one for 0. Raises OSError."""
        assert listener.tls is None, "Config allows no TLS with it"
        assert not listener.guarded, "nor anything but loopback"
        _try_bind(listener.address)
        port: int = self._server.add_insecure_port(listener.address.encode())
        if not port:
            raise OSError("gRPC does not say why")
        return port

    async def start(self) -> None:
        """Accept calls from now on."""
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Accept no more calls, and end those that have not ended after `grace_s`."""
        await self._server.shutdown(grace_s)
        # So far gRPC has only notified the streams. A stream that the end of the event loop cancels
        # would be logged as a fault.
        if left := [pump.task for pump in self._pumps]:
            await asyncio.wait(left, timeout=_LEAVING_S)

    def taken(self) -> Mapping[str, int]:
        """Nothing, as gRPC's core does not say."""
        return {}

    @property
    def line(self) -> None:
        """None: gRPC's library sends for itself."""
        return

    @property
    def streams_open(self) -> int:
        """How many streams neither side has ended yet."""
        return len(self._pumps)

    def end_streams(self, count: int, error: RpcError) -> None:
        """End so many streams with `error`, the oldest first; stalled ones too."""
        for pump in list(self._pumps)[:count]:
            del self._pumps[pump]
            pump.end(error)

    def _handler(self, method: Method) -> _Handler:
        # For gRPC, all clients send a stream of requests. Where it takes one only, it never answers
        # a call that ends without a request, and waits for one as long as the connection lasts.
        if isinstance(method, UnaryMethod):
            return grpc.stream_unary_rpc_method_handler(_forgetful(partial(self._unary, method)))
        run = self._both_ways if method.client_streaming else self._one_way
        return grpc.stream_stream_rpc_method_handler(_forgetful(partial(run, method)))

    async def _unary(self, method: UnaryMethod, _requests: Any, context: _CallContext) -> bytes:
        request = await self._only_request(method, context)
        answer = await self._turns.run(
            Line.ANSWERS,
            partial(self._sessions.unary, method, request, _caller(context), _nothing_changes),
        )
        assert not isinstance(answer, WaitingCall), "everything is allowed to its callers"
        if isinstance(answer, LongAnswer):
            answer = await self._made(answer)
        if isinstance(answer, Status):
            await _abort(context, answer)
        return answer

    async def _made(self, long: LongAnswer) -> bytes | Status:
        """An answer that is made in pieces, each in its turn."""
        try:
            while (answer := await self._turns.run_later(Line.SLICES, long.answer)) is LATER:
                pass
        finally:
            long.close()
        return answer

    async def _both_ways(self, method: StreamMethod, _requests: Any, context: _CallContext) -> None:
        await self._stream(method, None, context)

    async def _one_way(self, method: StreamMethod, _requests: Any, context: _CallContext) -> None:
        request = await self._only_request(method, context)
        await self._stream(method, request, context)

    async def _only_request(self, method: Method, context: _CallContext) -> bytes:
        """The request of a method that takes one; ends the call if it does not come."""
        error: RpcError
        try:
            async with asyncio.timeout(self._request_s):
                request: Any = await _read(context)
            if request is not grpc.aio.EOF:
                return bytes(request)
            await _read(context)  # As in `_read_all`.
            error = not_one_request()
        except TimeoutError:
            error = request_too_late(self._request_s)
        return await _abort(context, self._sessions.refuse(method.path, error))

    async def _stream(
        self, method: StreamMethod, request: bytes | None, context: _CallContext
    ) -> None:
        """Run one stream to its end. `request` is the only one, or None: the client streams."""
        pump = _Pump(context, self._turns)
        opened = self._sessions.open(method, _caller(context), pump.wake)
        if isinstance(opened, Status):
            await _abort(context, opened)
        self._pumps[pump] = None
        try:
            ending = await pump.run(opened, request)
        finally:
            self._pumps.pop(pump, None)
            pump.close()
            opened.close()
        if ending is not OK:
            await _abort(context, ending)


class _ChannelzRefusal:
    """Takes the place of gRPC's own context for the package's channelz."""

    def __init__(self) -> None:
        self.code = Code.INTERNAL
        self.details = ""

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = Code(code.value[0])

    def set_details(self, details: str) -> None:
        self.details = details


class _Server(cygrpc.AioServer):  # type: ignore[misc]  # it has no types
    """gRPC's own server, except for calls of unknown methods.

    gRPC reads the path of such a call as UTF-8, in the task that accepts all calls: one path that
    is not UTF-8, from anybody, ends that task, and every call with it. Here such calls are answered
    without a look at their path. Known methods are registered with gRPC's core, which
    compares bytes.
    """

    def __init__(self, sessions: Sessions, options: list[tuple[str, int]]) -> None:
        self._loop = asyncio.get_running_loop()
        super().__init__(self._loop, None, (), (), options, None)
        self._sessions = sessions
        self._answering: set[asyncio.Task[None]] = set()

    async def _request_call(self) -> NoReturn:
        """Called to wait for a call of no registered method; ends with the server."""
        while True:
            task = self._loop.create_task(self._answer(await super()._request_call()))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(self, call: object) -> None:
        status = self._sessions.unknown()
        context = cygrpc._ServicerContext(call, None, None, self._loop)  # noqa: SLF001 - as above
        try:
            await context.abort(_STATUS_CODES[status.code], status.message)
        except (grpc.aio.AbortError, *_OVER) as ended:
            ended.__traceback__ = None  # As in `_forgetful`.


class _Pump:
    """Moves one stream's messages to its client, each once the one before has been taken."""

    __slots__ = (
        "_answered",
        "_context",
        "_idle",
        "_line",
        "_loop",
        "_said",
        "_session",
        "_silent",
        "_timer",
        "_turns",
        "_woken",
        "task",
    )

    _session: Session

    def __init__(self, context: _CallContext, turns: Turns) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._context = context
        self._turns = turns
        self._line = Line.NEWS
        self.task = task
        self._loop = asyncio.get_running_loop()
        self._silent = True
        self._timer: asyncio.TimerHandle | None = None
        self._idle: asyncio.Future[None] | None = None
        self._answered: asyncio.Future[None] | None = None
        self._said: bytes | Status | Later | Held | None = None
        self._woken = False

    def wake(self) -> None:
        """Ask the session again, if it had no message."""
        self._woken = True
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def end(self, error: RpcError) -> None:
        """Make `run` return the status for `error` soon, even if the client is stalled."""
        self._session.end(error)
        self._leave()

    def _leave(self) -> None:
        """Let the session be asked for its final status."""
        self.wake()
        if self._session.writing:
            self.task.cancel()

    def run(self, session: Session, request: bytes | None) -> Coroutine[Any, Any, Status]:
        """Run the stream to its end; its status."""
        self._session = session
        return self._both() if request is None else self._answer(request)

    def close(self) -> None:
        """Release everything: objects in a reference cycle would wait long for the collector."""
        if self._timer is not None:
            self._timer.cancel()
        del self._session, self.task

    async def _answer(self, request: bytes) -> Status:
        await self._turns.run(self._line, partial(self._session.receive, request))
        self._session.half_close()
        return await self._send_all()

    async def _both(self) -> Status:
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(self._read_all())
            ending = await self._send_all()
            reader.cancel()
        return ending

    async def _send_all(self) -> Status:
        session, turns = self._session, self._turns
        said: bytes | Status | Later | Held | None = None
        while True:
            at_once = said is not LATER and turns.free(self._line)
            said, self._said = self._said, None
            if said is None or session.ending:
                # Most of the time at once, which needs no coroutine.
                said = turns.do(self._line, self._ask) if at_once else await self._ask_later()
            if isinstance(said, Status):
                return said
            assert said is not HELD, "everything is allowed to its callers"
            if not (session.in_hand or self._answered is None or self._answered.done()):
                self._answered.set_result(None)
            if self._silent:
                await self._greet()
                if said is None:
                    continue  # There may be news meanwhile.
            if said is None:
                await self._rest()
            elif said is not LATER and not session.ending:
                # `end` would not break off a write that begins after it.
                await self._write(said)
                if session.quiet:
                    await self._rest()

    async def _ask_later(self) -> bytes | Status | Later | Held | None:
        return await self._turns.run_later(self._line, self._ask)

    async def _rest(self) -> None:
        """Wait until there is something to ask the session for."""
        self._line = Line.NEWS
        # Since it was asked, it may have been woken, or handed a request.
        if not self._woken and not self._session.in_hand:
            self._idle = self._loop.create_future()
            await self._idle

    def _ask(self) -> bytes | Status | Later | Held | None:
        self._woken = False
        said = self._session.next()
        if said is LATER:
            self._line = Line.SLICES
        return said

    async def _read_all(self) -> None:
        session = self._session
        while (request := await _read(self._context)) is not grpc.aio.EOF:
            await self._turns.run(self._line, partial(self._take, request))
            if session.ending:
                self._leave()
                return
            if session.in_hand:
                # The next request waits until the stream is done with this one.
                self._answered = self._loop.create_future()
                self.wake()
                await self._answered
        # grpc.aio reads the end of the requests even if the client has cancelled the call, and
        # cancels this task a moment later: no later than it answers another read.
        await _read(self._context)
        session.half_close()
        self.wake()

    def _take(self, request: bytes) -> None:
        """Hand in a request, and ask for the answer unless somebody else is about to."""
        session = self._session
        session.receive(request)
        if self._idle is not None and not self._idle.done() and not session.ending:
            # Most requests only acknowledge. For those, waking the sending task would cost more
            # than all the rest.
            self._said = self._ask()
            if self._said is not None:
                self.wake()

    async def _greet(self) -> None:
        """Send the headers, so that the client learns that its call was accepted.

        Separately, and to the end: after an interrupted first write, gRPC would send them once more
        with the status, and fail.
        """
        self._silent = False
        try:
            await self._context.send_initial_metadata(())
        except _OVER:
            raise _gone() from None

    async def _write(self, message: bytes) -> None:
        session = self._session
        session.write_began(self._loop.time())
        if self._timer is None and session.write_limited:
            self._watch_write()
        try:
            await self._context.write(message)
        except asyncio.CancelledError:
            if not session.ending:
                raise
            self.task.uncancel()  # `end` did this, not a client that went away.
        except _OVER:
            raise _gone() from None
        finally:
            session.write_ended()

    def _watch_write(self) -> None:
        """End a stream whose client reads nothing for too long; look again when that may be so.

        A stream has one timer for that, as a timer for each message would cost more than the
        message.
        """
        self._timer = None
        left_s = self._session.write_left_s(self._loop.time())
        if left_s:
            self._timer = self._loop.call_later(left_s, self._watch_write)
        elif left_s is not None:
            self._leave()


def _is_about_us(record: logging.LogRecord) -> bool:
    """Whether a log line of grpc.aio is about anything but a client's metadata not being UTF-8.

    It reads those as Latin-1, and logs a traceback each time.
    """
    return record.msg != "Invalid encoding on %s"


def _forgetful(run: _Behavior[_Request, _Response]) -> _Behavior[_Request, _Response]:
    """The same, but an exception that it raises does not refer to the call any more.

    gRPC keeps the exception with the call, and so does a cancelled task. It refers to its
    traceback, that to all frames, and these to the call: a cycle, which the collector visits so
    seldom that the memory of all clients that come and go would pile up.
    """

    async def handle(request: _Request, context: _CallContext) -> _Response:
        call = run(request, context)
        del request, context
        try:
            return await call
        except (asyncio.CancelledError, grpc.aio.AbortError) as ending:
            traceback.clear_frames(ending.__traceback__)
            ending.__context__ = None
            raise ending.with_traceback(None)  # noqa: B904 - it is the same

    return handle


def _caller(context: _CallContext) -> Caller:
    return Caller(context.peer())


def _nothing_changes() -> None:
    """Wakes nobody: verdicts are known at once where everything is allowed."""


async def _read(context: _CallContext) -> Any:
    """The next request of a call, or EOF."""
    try:
        return await context.read()
    except _OVER:
        raise _gone() from None


async def _abort(context: _CallContext, status: Status) -> NoReturn:
    details = (("grpc-status-details-bin", status.details),) if status.details else ()
    try:
        await context.abort(_STATUS_CODES[status.code], status.message, details)
    except _OVER:
        raise _gone() from None


def _gone() -> asyncio.CancelledError:
    """The error that grpc.aio itself raises, and ignores, when it learns that a client is gone."""
    return asyncio.CancelledError("the client went away")


def _try_bind(address: str) -> None:
    """Raise OSError, with its reason, if the address cannot be bound: gRPC's own error has none."""
    host, _, port = address.rpartition(":")
    family, kind, protocol, _, where = socket.getaddrinfo(
        host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(where)


def _options(limits: Limits) -> list[tuple[str, int]]:
    def ms(seconds: float) -> int:
        return round(seconds * 1000)

    return [
        # Otherwise two servers on one port would share its calls, and nobody would notice.
        ("grpc.so_reuseport", 0),
        ("grpc.enable_channelz", 1),
        ("grpc.max_receive_message_length", limits.message_bytes_max),
        # A call with compressed requests is answered UNIMPLEMENTED, as a small one can expand to
        # gigabytes. And a request that got past that would not be decompressed.
        ("grpc.compression_enabled_algorithms_bitset", _IDENTITY_ONLY),
        ("grpc.per_message_decompression", 0),
        # Without these two, a client could send megabytes for each call that nobody has read yet.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", _WINDOW_BYTES),
        ("grpc.max_allowed_incoming_connections", limits.connections_max),
        ("grpc.server_handshake_timeout_ms", ms(limits.handshake_s)),
        ("grpc.max_concurrent_streams", limits.calls_per_connection_max),
        ("grpc.server.max_pending_requests", limits.pending_calls_max),
        ("grpc.server.max_pending_requests_hard_limit", limits.pending_calls_max),
        # Between the two, gRPC refuses at random.
        ("grpc.max_metadata_size", limits.header_list_bytes_max),
        ("grpc.absolute_max_metadata_size", limits.header_list_bytes_max),
        ("grpc.max_connection_idle_ms", ms(limits.connection_idle_s)),
        ("grpc.keepalive_time_ms", ms(limits.keepalive_s)),
        ("grpc.keepalive_timeout_ms", ms(limits.keepalive_timeout_s)),
        # What ends the connection in fact, after a minute by itself.
        ("grpc.http2.ping_timeout_ms", ms(limits.keepalive_timeout_s)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", ms(limits.client_ping_interval_min_s)),
        # The default, 2, would stop our own pings on a stream without messages.
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_connection_age_ms", ms(limits.connection_age_s)),
        ("grpc.max_connection_age_grace_ms", ms(limits.connection_age_grace_s)),
    ]
