"""The handlers on grpc.aio: the reference transport.

Bytes go through as they are. A stream has one pump, which asks it for a message only
when the one before has been taken, so that nothing waits here for a client that does
not read.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, NoReturn, TypeAlias

import grpc
from google.rpc import status_pb2
from grpc_channelz.v1 import channelz, channelz_pb2

from vmsvc_grpc.server.admission import Admission
from vmsvc_grpc.server.call import (
    Call,
    Code,
    EndOfStream,
    Method,
    RpcError,
    Stream,
    StreamMethod,
    UnaryMethod,
)
from vmsvc_grpc.server.counts import Counts
from vmsvc_grpc.server.limits import Limits

CHANNELZ = channelz_pb2.DESCRIPTOR
"""The file of the service that this transport adds: what gRPC knows of its sockets."""

# In quotes, as only the stubs know that they are generic. Requests are bytes, or EOF.
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, bytes]"
_Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"

_LOGGER = logging.getLogger(__name__)
_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}

# How long streams may take to notice that the server has stopped: they have nothing to wait for.
_LEAVING_S = 5.0

# It travels as a header, and clients refuse headers of more than 8 KiB.
_MESSAGE_MAX = 1000


class GrpcAio:
    """A server of grpc.aio. Life: `bind`, `start`, then `stop`, which may come twice."""

    def __init__(
        self, methods: Iterable[Method], admission: Admission, limits: Limits, counts: Counts
    ) -> None:
        """Must be made on the event loop that is to run it."""
        self._counts = counts
        self._admission = admission
        self._pumps: dict[_Pump, None] = {}  # In the order in which they were opened.
        self._server = grpc.aio.server(options=_options(limits))
        handlers = {method.path: self._handler(method) for method in methods}
        self._server.add_generic_rpc_handlers((_Handlers(handlers),))
        channelz.add_channelz_servicer(self._server)  # type: ignore[no-untyped-call] # has no types

    def bind(self, address: str) -> int:
        """Take `address` (`host:port`); the port, also where 0 was asked for. Raises OSError."""
        _try_bind(address)
        try:
            return self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(str(error)) from error

    async def start(self) -> None:
        """Take calls from now on."""
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, and end those that have not ended within `grace_s`."""
        await self._server.stop(grace_s)
        # gRPC has only told them so by now. What the end of the event loop would cancel, it
        # logs as a fault.
        if left := [pump.task for pump in self._pumps]:
            await asyncio.wait(left, timeout=_LEAVING_S)

    @property
    def streams_open(self) -> int:
        """How many streams have not been ended yet, by either side."""
        return len(self._pumps)

    def end_streams(self, count: int, error: RpcError) -> None:
        """End that many streams with `error`, the oldest first; also those that are stalled."""
        for pump in list(self._pumps)[:count]:
            del self._pumps[pump]
            pump.end(error)

    def _handler(self, method: Method) -> _Handler:
        if isinstance(method, UnaryMethod):
            return grpc.unary_unary_rpc_method_handler(partial(self._unary, method))
        if method.client_streaming:
            return grpc.stream_stream_rpc_method_handler(partial(self._both_ways, method))
        return grpc.unary_stream_rpc_method_handler(partial(self._stream, method))

    async def _unary(self, method: UnaryMethod, request: bytes, context: _Context) -> bytes:
        try:
            self._admission.check(method.path)
            response = method.handle(request, _call(context))
        except Exception as error:  # noqa: BLE001 - a fault of one call must not end others.
            ending = _ending(method.path, error)
            self._counts.calls[method.path, ending.code] += 1
            await _abort(context, ending)
        self._counts.calls[method.path, Code.OK] += 1
        return response

    async def _both_ways(self, method: StreamMethod, _requests: Any, context: _Context) -> None:
        await self._stream(method, None, context)

    async def _stream(self, method: StreamMethod, request: bytes | None, context: _Context) -> None:
        """Run one stream to its end. `request` is the only one, or None: the client streams."""
        pump = _Pump(context, method)
        code = Code.CANCELLED
        ending: RpcError | None
        try:
            client = self._admission.enter(method.path, context.peer())
            try:
                stream = method.open(_call(context), pump.wake)
                self._pumps[pump] = None
                try:
                    ending = await pump.run(stream, request)
                finally:
                    self._pumps.pop(pump, None)
                    pump.close()
                    stream.close()
            finally:
                self._admission.leave(method.path, client)
            code = Code.OK if ending is None else ending.code
        except Exception as error:  # noqa: BLE001 - a fault of one call must not end others.
            ending = _ending(method.path, error)
            code = ending.code
        finally:
            self._counts.calls[method.path, code] += 1
        if ending is not None:
            await _abort(context, ending)


class _Handlers(grpc.GenericRpcHandler):
    """The handlers by path."""

    def __init__(self, handlers: Mapping[str, _Handler]) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> _Handler | None:
        return self._handlers.get(handler_call_details.method)


class _Pump:
    """Moves one stream's messages to its client, each when the one before has been taken."""

    __slots__ = (
        "_asked",
        "_context",
        "_error",
        "_idle",
        "_loop",
        "_method",
        "_said",
        "_silent",
        "_timer",
        "_writing_since",
        "task",
    )

    def __init__(self, context: _Context, method: StreamMethod) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._context = context
        self._method = method
        self.task = task
        self._loop = asyncio.get_running_loop()
        self._silent = True
        self._writing_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._error: RpcError | None = None
        self._idle: asyncio.Future[None] | None = None
        self._asked: asyncio.Future[None] | None = None
        self._said: bytes | RpcError | EndOfStream | None = None

    def wake(self) -> None:
        """Ask the stream again, if it had nothing to say."""
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def end(self, error: RpcError) -> None:
        """Make `run` return `error` soon, also if the client does not read."""
        self._error = error
        self.wake()
        if self._writing_since is not None:
            self.task.cancel()

    def run(self, stream: Stream, request: bytes | None) -> Coroutine[Any, Any, RpcError | None]:
        """Bring the stream to its end, and tell which; None is OK."""
        if request is None:
            return self._both(stream)
        stream.receive(request)
        stream.half_close()
        return self._send_all(stream)

    def close(self) -> None:
        """Let go of the timer."""
        if self._timer is not None:
            self._timer.cancel()

    async def _both(self, stream: Stream) -> RpcError | None:
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(self._read_all(stream))
            ending = await self._send_all(stream)
            reader.cancel()
        return ending

    async def _send_all(self, stream: Stream) -> RpcError | None:
        while self._error is None:
            said, self._said = self._said, None
            if said is None:
                said = self._ask(stream)
            if isinstance(said, Exception):
                return said if isinstance(said, RpcError) else None
            if self._asked is not None and not self._asked.done():
                self._asked.set_result(None)
            if self._silent:
                await self._greet()
                if said is None:
                    continue  # Something may have come meanwhile.
            if said is None:
                self._idle = self._loop.create_future()
                await self._idle
            else:
                await self._write(said)
        return self._error

    def _ask(self, stream: Stream) -> bytes | RpcError | EndOfStream | None:
        """What the stream says now: a message, nothing, or how it ends."""
        try:
            return stream.next_message()
        except (EndOfStream, RpcError) as ending:
            return ending

    async def _read_all(self, stream: Stream) -> None:
        while (request := await self._context.read()) is not grpc.aio.EOF:
            try:
                stream.receive(request)
            except Exception as error:  # noqa: BLE001 - a fault of one call must not end others.
                # Raised here, it would cancel who sends, perhaps in the midst of the headers;
                # and gRPC cannot send a status after half of those.
                self.end(_ending(self._method.path, error))
                return
            if self._idle is not None and not self._idle.done():
                # Most requests only acknowledge. For those, to wake who sends would cost more
                # than all else about them.
                self._said = self._ask(stream)
                if self._said is None:
                    continue
            # The next request waits until this one's answer has been asked for, so that a
            # client which asks and does not read has nothing piled up for it.
            self._asked = self._loop.create_future()
            self.wake()
            await self._asked
        stream.half_close()
        self.wake()

    async def _greet(self) -> None:
        """Send the headers: the client learns that it is heard, and has but to wait.

        By themselves, and to the end: after a first write that was interrupted, gRPC
        would send them once more with the status, and fail.
        """
        self._silent = False
        try:
            await self._context.send_initial_metadata(())
        except grpc.aio.InternalError:
            raise _gone() from None

    async def _write(self, message: bytes) -> None:
        self._writing_since = self._loop.time()
        write_s = self._method.write_s
        if self._timer is None and write_s is not None:
            self._timer = self._loop.call_later(write_s, self._check_write, write_s)
        try:
            await self._context.write(message)
        except asyncio.CancelledError:
            if self._error is None:
                raise
            self.task.uncancel()  # It was `end`, not the client who went away.
        except grpc.aio.InternalError:
            raise _gone() from None
        finally:
            self._writing_since = None

    def _check_write(self, write_s: float) -> None:
        """End a stream whose client has taken in nothing for `write_s`.

        A stream has one timer in all that time, as one for each message would cost more than
        the message.
        """
        self._timer = None
        if self._writing_since is None:
            return
        left_s = self._writing_since + write_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._check_write, write_s)
            return
        text = f"the client has taken in nothing for {write_s:g} s; connect again"
        self.end(RpcError(Code.UNAVAILABLE, text))


def _call(context: _Context) -> Call:
    return Call(context.peer(), dict(context.invocation_metadata() or ()))


def _ending(path: str, error: Exception) -> RpcError:
    """How a call ends that `error` came out of."""
    if isinstance(error, RpcError):
        return error
    _LOGGER.error("a fault of ours in %s", path, exc_info=error)
    return RpcError(Code.INTERNAL, "a fault of the server; its log tells more")


async def _abort(context: _Context, error: RpcError) -> NoReturn:
    trailing = []
    if error.details:
        status = status_pb2.Status(code=error.code, message=error.message)
        for detail in error.details:
            status.details.add().Pack(detail)
        trailing.append(("grpc-status-details-bin", status.SerializeToString()))
    message = error.message[:_MESSAGE_MAX]
    try:
        await context.abort(_STATUS_CODES[error.code], message, tuple(trailing))
    except grpc.aio.InternalError:
        raise _gone() from None


def _gone() -> asyncio.CancelledError:
    """What grpc.aio itself raises, and passes over, where it learns of it in another way."""
    return asyncio.CancelledError("the client went away")


def _try_bind(address: str) -> None:
    """Raise OSError, with its reason, if nobody can listen there: gRPC's own error has none."""
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
        # Two servers on one port would share its calls, and nobody would notice.
        ("grpc.so_reuseport", 0),
        ("grpc.enable_channelz", 1),
        ("grpc.max_receive_message_length", limits.message_bytes_max),
        ("grpc.max_concurrent_streams", limits.calls_per_connection_max),
        ("grpc.server.max_pending_requests", limits.pending_calls_max),
        ("grpc.server.max_pending_requests_hard_limit", limits.pending_calls_max),
        ("grpc.keepalive_time_ms", ms(limits.keepalive_s)),
        ("grpc.keepalive_timeout_ms", ms(limits.keepalive_timeout_s)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", ms(limits.client_ping_interval_min_s)),
        # The default, 2, would stop our own pings on a stream that has nothing to tell.
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_connection_age_ms", ms(limits.connection_age_s)),
        ("grpc.max_connection_age_grace_ms", ms(limits.connection_age_grace_s)),
    ]
