"""The client for asyncio, on grpc.aio. One event loop owns each client and its watches."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Self, TypeVar

import grpc

from vmsvc import wire
from vmsvc.access import Access, Credentials, Token
from vmsvc.channel import DEFAULT_SERVER, Channels, Held, options, target
from vmsvc.closing import AsyncClosing
from vmsvc.errors import UnauthenticatedError, VmsvcError, from_status
from vmsvc.model import (
    Explanation,
    Readiness,
    ServerVersion,
    ServiceState,
    ServiceSummary,
)
from vmsvc.retry import RetryPolicy
from vmsvc.session import Session
from vmsvc.state import Event, Scope
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc.v1.endpoint_service_pb2_grpc import EndpointServiceStub
from vmsvc.v1.server_service_pb2 import GetVersionRequest
from vmsvc.v1.server_service_pb2_grpc import ServerServiceStub

if TYPE_CHECKING:
    from vmsvc.v1.endpoint_service_pb2_grpc import EndpointServiceAsyncStub
    from vmsvc.v1.server_service_pb2_grpc import ServerServiceAsyncStub

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Stream = grpc.aio.UnaryStreamCall[pb.WatchEndpointsRequest, bytes]


class AsyncClient(AsyncClosing):
    """Asks one server which VMs serve a service. Use it as `async with AsyncClient(...)`.

    Connects when first asked. A call that fails raises VmsvcError or a subclass; after `aclose`,
    RuntimeError. Cancelling a call is safe.
    """

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        *,
        credentials: Credentials | None = None,
        token: Token | None = None,
        metadata: Iterable[tuple[str, str]] = (),
        authority: str = "",
        timeout_s: float = 10.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
    ) -> None:
        """Raises ValueError unless `server` is HOST:PORT or a gRPC name.

        With `credentials`, such as `vmsvc.tls.TlsFiles()`, TLS is used; the server has to prove the
        name `authority`, or else that of its address. If they are a function, it is asked at each
        call, and the client connects anew when they are others. `token` is sent with each call, as
        is `metadata`; if it is a function, such as `TokenFile(path)`, it is asked anew at each
        call, and once more if the server does not take it. A token without TLS is sent to this
        machine only (ValueError).

        `timeout_s` bounds every call but a watch; `retry` says how watches reconnect.
        """
        self.server = target(server)
        self._access = Access.of(self.server, credentials, token, metadata, authority)
        self._timeout_s = timeout_s
        self._retry = retry
        self._channels = Channels(self._connected)
        self._closing: set[asyncio.Task[None]] = set()
        self._watches: weakref.WeakSet[AsyncWatch] = weakref.WeakSet()
        self._closed = False

    async def aclose(self) -> None:
        """End every watch of this client and close its connection. May be called twice."""
        self._closed = True
        for watch in list(self._watches):
            await watch.aclose()
        for channel in self._channels.take_all():
            await channel.close()
        await asyncio.gather(*self._closing)

    async def resolve(
        self, service: str, *, readiness: Readiness = Readiness.READY_ONLY
    ) -> ServiceState:
        """The endpoints of "namespace/name" as they are now.

        Raises NotFoundError, or RefusedError if its specification is not valid.
        """
        request = pb.ResolveEndpointsRequest(
            service=service, readiness=wire.readiness_number(readiness)
        )
        response = await self._answer(self._stub().ResolveEndpoints, request)
        return wire.resolved(response, service)

    async def list(self, namespace: str | None = None) -> AsyncIterator[ServiceSummary]:
        """The services of a namespace, or of all, by name; fetched page by page."""
        request = pb.ListServicesRequest(namespace=namespace or "")
        while True:
            page = await self._answer(self._stub().ListServices, request)
            for service in page.services:
                yield wire.summary(service)
            if not wire.has_next_page(request, page):
                return

    async def explain(self, service: str, *, vm_name: str = "") -> Explanation:
        """Why each VM is in "namespace/name", or is not; or one VM of its namespace alone.

        Fetched page by page. Raises NotFoundError, also for a VM that does not exist.
        """
        request = pb.ExplainEndpointsRequest(service=service, vm_name=vm_name)
        pages = []
        while True:
            pages.append(await self._answer(self._stub().ExplainEndpoints, request))
            wire.check_about(service, pages[-1].service)
            if not wire.has_next_page(request, pages[-1]):
                return wire.explanation(pages)

    async def version(self) -> ServerVersion:
        """What the server says of itself. Raises UnimplementedError if it is older than 0.2."""
        stub: ServerServiceAsyncStub = ServerServiceStub(self._newest().channel)
        return wire.version(await self._answer(stub.GetVersion, GetVersionRequest()))

    def watch(
        self,
        *services: str,
        namespaces: str | Iterable[str] = (),
        all_services: bool = False,
        readiness: Readiness = Readiness.READY_ONLY,
    ) -> AsyncWatch:
        """The states of services by name, of namespaces, or of all, now and after each change.

        Iterate over what it returns. Nothing is sent before that.
        """
        scope = Scope.of(services, namespaces, all_services, readiness)
        watch = AsyncWatch(
            self._open,
            Session(self.server, scope, self._retry, self._access.renewable, self._access.proxy),
        )
        self._watches.add(watch)
        return watch

    def _open(self, request: pb.WatchEndpointsRequest) -> _Stream:
        held = self._newest()
        method: grpc.aio.UnaryStreamMultiCallable[pb.WatchEndpointsRequest, bytes]
        method = held.channel.unary_stream(
            wire.WATCH, request_serializer=pb.WatchEndpointsRequest.SerializeToString
        )
        stream = method(request, metadata=self._access.sent())
        held.streams += 1

        def ended(_stream: object) -> None:
            held.streams -= 1

        stream.add_done_callback(ended)
        return stream

    def _stub(self) -> EndpointServiceAsyncStub:
        return EndpointServiceStub(self._newest().channel)

    def _newest(self) -> Held[grpc.aio.Channel]:
        if self._closed:
            raise RuntimeError("the client is closed")
        # Made here, as a channel belongs to the event loop that is running.
        held = self._channels.newest(self._access.protection())
        for outdated in self._channels.take_idle():
            task = asyncio.get_running_loop().create_task(outdated.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        return held

    def _connected(self, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
        settings = (*options(self._retry), *self._access.options())
        if credentials is None:
            return grpc.aio.insecure_channel(self.server, settings)
        return grpc.aio.secure_channel(self.server, credentials, settings)

    async def _answer(
        self, method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response], request: _Request
    ) -> _Response:
        try:
            return await self._answer_once(method, request)
        except UnauthenticatedError:
            if not self._access.renewable:
                raise
        return await self._answer_once(method, request)  # With the token that is there by now.

    async def _answer_once(
        self, method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response], request: _Request
    ) -> _Response:
        try:
            response = await method(request, timeout=self._timeout_s, metadata=self._access.sent())
        except grpc.aio.AioRpcError as failure:
            raise _error(self.server, failure, self._access.proxy) from failure
        except asyncio.CancelledError:
            if self._closed and not _being_cancelled():
                raise RuntimeError("the client was closed") from None
            raise
        if response is None:
            # What grpc.aio gives for bytes that are no message; the sync one fails.
            raise VmsvcError(
                f"server {self.server}: its answer cannot be read", code=grpc.StatusCode.INTERNAL
            )
        return response


class AsyncWatch(AsyncClosing):
    """An async iterator over services' states, that reconnects for ever.

    Yields a service's state when it is first known and after each change, but not after a reconnect
    that changed nothing. A slow reader gets the newest state and not each one in between. Ends when
    it or its client is closed; raises VmsvcError if trying again cannot help (the request is not
    valid, or not allowed).

    One reader at a time. Cancelling it ends the stream; reading on resumes it.
    """

    def __init__(
        self, open_stream: Callable[[pb.WatchEndpointsRequest], _Stream], session: Session
    ) -> None:
        """Made by `AsyncClient.watch`."""
        self._stream: _Stream | None = None
        self._open_stream = open_stream
        self._session = session
        self._closed = asyncio.Event()

    @property
    def states(self) -> Mapping[str, ServiceState]:
        """The newest state of each service, by name; kept while there is no connection."""
        return self._session.state.states

    @property
    def synced(self) -> bool:
        """Whether `states` is complete and up to date, as far as it has been read."""
        return self._session.state.synced

    async def aclose(self) -> None:
        """End the stream and the iteration. May be called twice, and while another task reads."""
        self._closed.set()
        self._session.state.lost()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()

    def __del__(self) -> None:
        # The reader left its loop over the watch: grpc.aio would keep the stream open.
        if self._stream is not None:
            self._stream.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ServiceState:
        while (event := await self._next()) is not None:
            if isinstance(event, ServiceState):
                return event
        raise StopAsyncIteration

    async def events(self) -> AsyncIterator[Event]:
        """The same states, and between them `Synced` and `Disconnected`."""
        while (event := await self._next()) is not None:
            yield event

    async def _next(self) -> Event | None:
        while not self._closed.is_set():
            if self._session.pending:
                return self._session.pending.popleft()
            if self._stream is None:
                if await self._closed_within(self._session.retry_at - time.monotonic()):
                    break
                try:
                    self._stream = self._open_stream(self._session.begin())
                except VmsvcError:
                    await self.aclose()
                    raise
            await self._read(self._stream)
        return None

    async def _closed_within(self, delay_s: float) -> bool:
        if delay_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._closed.wait()
        return self._closed.is_set()

    async def _read(self, stream: _Stream) -> None:
        try:
            data = await stream.read()
        except grpc.aio.AioRpcError as failure:
            await self._ended(_error(self._session.server, failure, self._session.proxy))
        except asyncio.CancelledError:
            # grpc.aio cancels the call of a cancelled reader, and the reader of a cancelled call.
            self._stream = None
            self._session.interrupted()
            if not self._closed.is_set() or _being_cancelled():
                raise
        else:
            if not isinstance(data, bytes):
                await self._ended(None)
                return
            try:
                self._session.receive(wire.watched(data), time.monotonic())
            except VmsvcError as error:
                stream.cancel()
                await self._ended(error)

    async def _ended(self, error: VmsvcError | None) -> None:
        self._stream = None
        try:
            self._session.ended(error, time.monotonic(), random.random())  # noqa: S311 - jitter
        except VmsvcError:
            await self.aclose()
            raise


def _error(server: str, failure: grpc.aio.AioRpcError, proxy: str) -> VmsvcError:
    metadata = failure.trailing_metadata() or ()
    return from_status(server, failure.code(), failure.details() or "", tuple(metadata), proxy)


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
