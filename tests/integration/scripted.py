"""A server that does what a test says: what the real one cannot be made to do on request."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Self, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2
from google.rpc.status_pb2 import Status

from tests.program import PATIENCE_S
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc.v1.endpoint_service_pb2_grpc import (
    EndpointServiceServicer,
    add_EndpointServiceServicer_to_server,
)
from vmsvc.v1.server_service_pb2 import GetVersionRequest, GetVersionResponse
from vmsvc.v1.server_service_pb2_grpc import (
    ServerServiceServicer,
    add_ServerServiceServicer_to_server,
)

_Response = TypeVar("_Response", bound=Message)


class Failure(NamedTuple):
    """How a call is to end."""

    code: grpc.StatusCode
    message: str = ""
    details: tuple[Message, ...] = ()


class Stream:
    """One call of WatchEndpoints, as the server sees it.

    `taken` counts the messages that the transport has taken.
    """

    def __init__(self, request: pb.WatchEndpointsRequest, context: grpc.ServicerContext) -> None:
        self.request = request
        self.over = threading.Event()
        self.taken = 0
        self._to_send: queue.SimpleQueue[pb.WatchEndpointsResponse | Failure | None] = (
            queue.SimpleQueue()
        )
        self._context = context
        if not context.add_callback(self._end):
            self._end()

    @property
    def revisions(self) -> dict[str, str]:
        """The services named, each with the revision sent."""
        return {s.service: s.revision for s in self.request.services}

    def send(self, *messages: pb.WatchEndpointsResponse) -> None:
        for message in messages:
            self._to_send.put(message)

    def fail(self, code: grpc.StatusCode, message: str = "", *details: Message) -> None:
        self._to_send.put(Failure(code, message, details))

    def finish(self) -> None:
        """End with OK."""
        self._to_send.put(None)

    def responses(self) -> Iterator[pb.WatchEndpointsResponse]:
        while (message := self._to_send.get()) is not None:
            if isinstance(message, Failure):
                abort(self._context, message)
            else:
                yield message
                self.taken += 1

    def _end(self) -> None:
        self.over.set()
        self._to_send.put(None)


class ScriptedServer(EndpointServiceServicer, ServerServiceServicer):
    """Serves on a free port of loopback, or on the one given, until the block ends."""

    def __init__(self, port: int = 0) -> None:
        self.unary: dict[str, Message | Failure] = {}
        self.answers: dict[str, Callable[[], Message | Failure]] = {}
        """What makes an answer for each request, instead of a fixed one."""
        self.requests: list[Message] = []
        self.accepted = ""
        self.shown: list[str] = []
        """What calls had as `authorization`; if `accepted` is set, it has to be that token."""
        self._streams: queue.SimpleQueue[Stream] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(thread_name_prefix="scripted-server")
        self._server = grpc.server(self._threads, options=[("grpc.so_reuseport", 0)])
        add_EndpointServiceServicer_to_server(self, self._server)
        add_ServerServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Break every connection off, and listen no more."""
        self._server.stop(None).wait()
        self._threads.shutdown()

    def accept(self) -> Stream:
        """The next stream that a client opens."""
        return self._streams.get(timeout=PATIENCE_S)

    def WatchEndpoints(  # noqa: N802 - the method's name in the proto
        self, request: pb.WatchEndpointsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchEndpointsResponse]:
        self._check(context)
        stream = Stream(request, context)
        self._streams.put(stream)
        return stream.responses()

    def ResolveEndpoints(  # noqa: N802 - the method's name in the proto
        self, request: pb.ResolveEndpointsRequest, context: grpc.ServicerContext
    ) -> pb.ResolveEndpointsResponse:
        return self._answer(request, context, pb.ResolveEndpointsResponse)

    def ListServices(  # noqa: N802 - the method's name in the proto
        self, request: pb.ListServicesRequest, context: grpc.ServicerContext
    ) -> pb.ListServicesResponse:
        return self._answer(request, context, pb.ListServicesResponse)

    def ExplainEndpoints(  # noqa: N802 - the method's name in the proto
        self, request: pb.ExplainEndpointsRequest, context: grpc.ServicerContext
    ) -> pb.ExplainEndpointsResponse:
        return self._answer(request, context, pb.ExplainEndpointsResponse)

    def GetVersion(  # noqa: N802 - the method's name in the proto
        self, request: GetVersionRequest, context: grpc.ServicerContext
    ) -> GetVersionResponse:
        return self._answer(request, context, GetVersionResponse)

    def _check(self, context: grpc.ServicerContext) -> None:
        fields = dict(iter(context.invocation_metadata()))
        shown = str(fields.get("authorization", ""))
        self.shown.append(shown)
        if self.accepted and shown != f"Bearer {self.accepted}":
            abort(context, Failure(grpc.StatusCode.UNAUTHENTICATED, "who are you?"))

    def _answer(
        self, request: Message, context: grpc.ServicerContext, kind: type[_Response]
    ) -> _Response:
        self._check(context)
        self.requests.append(request)
        name = type(request).__name__
        answer = self.answers[name]() if name in self.answers else self.unary[name]
        if isinstance(answer, Failure):
            abort(context, answer)
        assert isinstance(answer, kind)
        return answer


def abort(context: grpc.ServicerContext, failure: Failure) -> None:
    """End a call as `failure` says. Raises, as grpc's own does."""
    number = code_pb2.Code.Value(failure.code.name)
    status = Status(code=number, message=failure.message)
    for detail in failure.details:
        status.details.add().Pack(detail)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(failure.code, failure.message)
