"""The client for threads, on grpc. No event loop inside."""

from __future__ import annotations

import contextlib
import queue
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Self, TypeVar

import grpc

from vmsvc import wire
from vmsvc.access import Access, Credentials, Token
from vmsvc.channel import DEFAULT_SERVER, Channels, Held, options, target
from vmsvc.closing import Closing
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
    # This name exists in the types of grpc only; at run time it is both a Call and an iterator.
    from grpc import _CallIterator

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class Client(Closing):
    """Asks one server which VMs serve a service. Use it as `with Client(...)`.

    Connects when first asked. A call that fails raises VmsvcError or a subclass; after `close`,
    RuntimeError. Threads may share it.
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
        self._lock = threading.Lock()
        self._watches: weakref.WeakSet[Watch] = weakref.WeakSet()
        self._closed = False

    def close(self) -> None:
        """End every watch of this client, in any thread, and close its connection."""
        with self._lock:
            watches = list(self._watches)
        # First, so that a thread that opens a stream finds its watch closed.
        for watch in watches:
            watch.close()
        self._closed = True
        with self._lock:
            channels = self._channels.take_all()
        for channel in channels:
            channel.close()

    def resolve(self, service: str, *, readiness: Readiness = Readiness.READY_ONLY) -> ServiceState:
        """The endpoints of "namespace/name" as they are now.

        Raises NotFoundError, or RefusedError if its specification is not valid.
        """
        request = pb.ResolveEndpointsRequest(
            service=service, readiness=wire.readiness_number(readiness)
        )
        response = self._answer(self._stub().ResolveEndpoints, request)
        return wire.resolved(response, service)

    def list(self, namespace: str | None = None) -> Iterator[ServiceSummary]:
        """The services of a namespace, or of all, by name; fetched page by page."""
        request = pb.ListServicesRequest(namespace=namespace or "")
        while True:
            page = self._answer(self._stub().ListServices, request)
            yield from map(wire.summary, page.services)
            if not wire.has_next_page(request, page):
                return

    def explain(self, service: str, *, vm_name: str = "") -> Explanation:
        """Why each VM is in "namespace/name", or is not; or one VM of its namespace alone.

        Fetched page by page. Raises NotFoundError, also for a VM that does not exist.
        """
        request = pb.ExplainEndpointsRequest(service=service, vm_name=vm_name)
        pages = []
        while True:
            pages.append(self._answer(self._stub().ExplainEndpoints, request))
            wire.check_about(service, pages[-1].service)
            if not wire.has_next_page(request, pages[-1]):
                return wire.explanation(pages)

    def version(self) -> ServerVersion:
        """What the server says of itself. Raises UnimplementedError if it is older than 0.2."""
        stub = ServerServiceStub(self._newest().channel)
        return wire.version(self._answer(stub.GetVersion, GetVersionRequest()))

    def watch(
        self,
        *services: str,
        namespaces: str | Iterable[str] = (),
        all_services: bool = False,
        readiness: Readiness = Readiness.READY_ONLY,
    ) -> Watch:
        """The states of services by name, of namespaces, or of all, now and after each change.

        Iterate over what it returns. Nothing is sent before that.
        """
        scope = Scope.of(services, namespaces, all_services, readiness)
        watch = Watch(
            self._open,
            Session(self.server, scope, self._retry, self._access.renewable, self._access.proxy),
        )
        with self._lock:
            self._watches.add(watch)
        return watch

    def _open(self, request: pb.WatchEndpointsRequest) -> _CallIterator[bytes]:
        held = self._newest()
        method: grpc.UnaryStreamMultiCallable[pb.WatchEndpointsRequest, bytes]
        method = held.channel.unary_stream(
            wire.WATCH, request_serializer=pb.WatchEndpointsRequest.SerializeToString
        )
        stream = method(request, metadata=self._access.sent())
        with self._lock:
            held.streams += 1

        def ended() -> None:
            with self._lock:
                held.streams -= 1

        if not stream.add_callback(ended):
            ended()
        return stream

    def _stub(self) -> EndpointServiceStub:
        return EndpointServiceStub(self._newest().channel)

    def _newest(self) -> Held[grpc.Channel]:
        if self._closed:
            raise RuntimeError("the client is closed")
        credentials = self._access.protection()
        with self._lock:
            held = self._channels.newest(credentials)
            outdated = self._channels.take_idle()
        for each in outdated:
            each.close()
        return held

    def _connected(self, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
        settings = (*options(self._retry), *self._access.options())
        if credentials is None:
            return grpc.insecure_channel(self.server, settings)
        return grpc.secure_channel(self.server, credentials, settings)

    def _answer(
        self, method: grpc.UnaryUnaryMultiCallable[_Request, _Response], request: _Request
    ) -> _Response:
        try:
            return self._answer_once(method, request)
        except UnauthenticatedError:
            if not self._access.renewable:
                raise
        return self._answer_once(method, request)  # With the token that is there by now.

    def _answer_once(
        self, method: grpc.UnaryUnaryMultiCallable[_Request, _Response], request: _Request
    ) -> _Response:
        try:
            return method(request, timeout=self._timeout_s, metadata=self._access.sent())
        except grpc.RpcError as failure:
            if self._closed:
                raise RuntimeError("the client was closed") from None
            raise _error(self.server, failure, self._access.proxy) from failure


class Watch(Closing):
    """An iterator over services' states, that reconnects for ever.

    Yields a service's state when it is first known and after each change, but not after a reconnect
    that changed nothing. A slow reader gets the newest state and not each one in between. Ends when
    it or its client is closed; raises VmsvcError if trying again cannot help (the request is not
    valid, or not allowed).

    One thread reads it; any may close it.
    """

    def __init__(
        self,
        open_stream: Callable[[pb.WatchEndpointsRequest], _CallIterator[bytes]],
        session: Session,
    ) -> None:
        """Made by `Client.watch`."""
        self._open_stream = open_stream
        self._session = session
        self._stream: _CallIterator[bytes] | None = None
        self._closed = False
        # Not an Event: an interrupt (Ctrl-C) while waiting for one can leave it locked.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()

    @property
    def states(self) -> Mapping[str, ServiceState]:
        """The newest state of each service, by name; kept while there is no connection."""
        return self._session.state.states

    @property
    def synced(self) -> bool:
        """Whether `states` is complete and up to date, as far as it has been read."""
        return self._session.state.synced

    def close(self) -> None:
        """End the stream and the iteration. May be called twice, and while a thread reads."""
        self._closed = True
        self._wake.put(None)
        self._cancel()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ServiceState:
        while (event := self._next()) is not None:
            if isinstance(event, ServiceState):
                return event
        raise StopIteration

    def events(self) -> Iterator[Event]:
        """The same states, and between them `Synced` and `Disconnected`."""
        while (event := self._next()) is not None:
            yield event

    def _next(self) -> Event | None:
        while not self._closed:
            if self._session.pending:
                return self._session.pending.popleft()
            if self._stream is None:
                if self._closed_within(self._session.retry_at - time.monotonic()):
                    break
                try:
                    self._stream = self._open_stream(self._session.begin())
                except VmsvcError:
                    self.close()
                    raise
                except (RuntimeError, ValueError):
                    # Both we and gRPC raise this for a closed client.
                    if not self._closed:
                        raise
                # `close` may have been called before it could find the stream.
                continue
            self._read(self._stream)
        self._session.state.lost()
        self._cancel()
        return None

    def _cancel(self) -> None:
        stream = self._stream
        if stream is not None:
            stream.cancel()

    def _closed_within(self, delay_s: float) -> bool:
        if delay_s > 0:
            with contextlib.suppress(queue.Empty):
                self._wake.get(timeout=delay_s)
        return self._closed

    def _read(self, stream: _CallIterator[bytes]) -> None:
        try:
            data = next(stream)
        except StopIteration:
            self._ended(None)
        except grpc.RpcError as failure:
            if not self._closed:
                self._ended(_error(self._session.server, failure, self._session.proxy))
        else:
            try:
                self._session.receive(wire.watched(data), time.monotonic())
            except VmsvcError as error:
                stream.cancel()
                self._ended(error)

    def _ended(self, error: VmsvcError | None) -> None:
        self._stream = None
        try:
            self._session.ended(error, time.monotonic(), random.random())  # noqa: S311 - jitter
        except VmsvcError:
            self.close()
            raise


def _error(server: str, failure: grpc.RpcError, proxy: str) -> VmsvcError:
    metadata = [(m.key, m.value) for m in failure.trailing_metadata() or ()]
    return from_status(server, failure.code(), failure.details() or "", metadata, proxy)
