"""What the program tells by gRPC: one stream since the start, and calls as needed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc

from tests.conformance.told import (
    ContractError,
    Fold,
    NotTold,
    Told,
    content,
    ready_only,
    told,
)
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc.v1 import endpoint_service_pb2_grpc as api

_CALL_S = 10.0


class Asker:
    """Watches all services of a program, endpoints that are not ready included.

    A thread of its own folds the stream; whoever asks may do so from another.
    """

    def __init__(self, address: str) -> None:
        """Watch the program that listens there."""
        self._channel = grpc.insecure_channel(address)
        self._stub = api.EndpointServiceStub(self._channel)
        self._fold = Fold()
        self._lock = threading.Lock()
        self._failure: str | None = None
        request = pb.WatchEndpointsRequest(all_services=True, readiness=pb.READINESS_ALL)
        self._stream = self._stub.WatchEndpoints(request, wait_for_ready=True)
        self._thread = threading.Thread(target=self._run, name="watch")
        self._thread.start()

    def _run(self) -> None:
        try:
            for message in self._stream:
                with self._lock:
                    self._fold.take(message)
        except (ContractError, grpc.RpcError) as error:
            # An iterator ended by `close` raises too, but nobody asks any more then.
            self._failure = f"the watch failed: {error}"

    def close(self) -> None:
        """End the stream."""
        self._stream.cancel()
        self._thread.join()
        self._channel.close()

    def failure(self) -> str | None:
        """What went wrong with the stream, if something did."""
        return self._failure

    def watched(self) -> dict[str, Told | NotTold]:
        """What the stream has told of each service, by "namespace/name"."""
        with self._lock:
            return dict(self._fold.services)

    def resolved(self, service: str, readiness: pb.Readiness) -> Told | NotTold:
        """What a look-up tells of a service."""
        request = pb.ResolveEndpointsRequest(service=service, readiness=readiness)
        try:
            response = self._stub.ResolveEndpoints(request, timeout=_CALL_S)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return NotTold(None)
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                return NotTold((error.details() or "").removeprefix(f"{service} is refused: "))
            raise
        return told(response.endpoint_set)

    def contradictions(self, service: str, state: Told | NotTold) -> Iterator[str]:
        """Where look-ups do not say what the stream has told of a service: `state`."""
        everything = self.resolved(service, pb.READINESS_ALL)
        if everything != state:
            yield f"{service}: the stream tells {state}, a look-up {everything}"
        ready = self.resolved(service, pb.READINESS_READY_ONLY)
        if content(ready) != content(ready_only(state)):
            yield f"{service}: the stream tells {state}, a look-up of ready ones {ready}"

    def listed(self, namespace: str = "") -> Iterator[pb.ServiceSummary]:
        """Every service, of one namespace or of all, page by page."""
        token = ""
        while True:
            request = pb.ListServicesRequest(namespace=namespace, page_size=2, page_token=token)
            response = self._stub.ListServices(request, timeout=_CALL_S)
            yield from response.services
            if not (token := response.next_page_token):
                return
