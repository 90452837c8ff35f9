"""grpc.health.v1: whether the server and each of its services serve.

SERVING from when the cache is synced until the server drains.
"""

from __future__ import annotations

from collections.abc import Iterable

from grpc_health.v1 import health_pb2 as pb

from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.problem import quoted
from vmsvc_grpc.server.access.needs import OPEN, Needs
from vmsvc_grpc.server.call import (
    Call,
    Code,
    Method,
    RequestBound,
    RpcError,
    Stream,
    StreamMethod,
    UnaryMethod,
    Wake,
    parsed,
)
from vmsvc_grpc.server.fields import shape_of

SERVICE: str = pb.DESCRIPTOR.services_by_name["Health"].full_name

CHECK_PATH = f"/{SERVICE}/Check"
LIST_PATH = f"/{SERVICE}/List"
_WATCH_PATH = f"/{SERVICE}/Watch"

# A probe and a load balancer have no credentials. The names are those of gRPC's services, which are
# the same on every server of this kind.
_OPEN = Needs(OPEN)

_SERVING = pb.HealthCheckResponse.SERVING
_NOT_SERVING = pb.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN = pb.HealthCheckResponse.SERVICE_UNKNOWN

_UNKNOWN_NAME = "?"  # No service has this name.


class Health:
    """The health of `services`, and of "", the server as a whole."""

    def __init__(self, cache: Cache, services: Iterable[str]) -> None:
        """`services` are full names: `package.Service`."""
        self._cache = cache
        self._services = ("", *services)
        self._draining = False
        self._watches: dict[_HealthWatch, None] = {}

    def drain(self) -> None:
        """Report NOT_SERVING from now on, also to every watch."""
        self._draining = True
        for watch in self._watches:
            watch.wake()

    def methods(self) -> tuple[Method, ...]:
        """Check, List and Watch."""
        one = RequestBound.ONE_NAME
        asked = shape_of(pb.HealthCheckRequest.DESCRIPTOR)
        return (
            UnaryMethod(CHECK_PATH, self._check, one, asked, _OPEN),
            UnaryMethod(
                LIST_PATH, self._list, one, shape_of(pb.HealthListRequest.DESCRIPTOR), _OPEN
            ),
            StreamMethod(_WATCH_PATH, self._open, one, asked, _OPEN, client_streaming=False),
        )

    def status(self, service: str) -> pb.HealthCheckResponse:
        """The health of one service, SERVICE_UNKNOWN if it is none of ours."""
        if not self.knows(service):
            return pb.HealthCheckResponse(status=_SERVICE_UNKNOWN)
        serving = self._cache.synced and not self._draining
        return pb.HealthCheckResponse(status=_SERVING if serving else _NOT_SERVING)

    def _check(self, request: bytes, _call: Call) -> bytes:
        service = parsed(pb.HealthCheckRequest, request).service
        if not self.knows(service):
            raise RpcError(Code.NOT_FOUND, f"this server has no service {quoted(service)}")
        return self.status(service).SerializeToString()

    def knows(self, service: str) -> bool:
        """Whether it is one of our services, or the server as a whole."""
        return service in self._services

    def _list(self, request: bytes, _call: Call) -> bytes:
        parsed(pb.HealthListRequest, request)
        statuses = {service: self.status(service) for service in self._services}
        return pb.HealthListResponse(statuses=statuses).SerializeToString()

    def _open(self, _call: Call, wake: Wake) -> Stream:
        return _HealthWatch(self, self._cache, self._watches, wake)


class _HealthWatch:
    """One Watch call: sends the status at once, and again after each change."""

    quiet = False
    shared = None

    def __init__(
        self, health: Health, cache: Cache, watches: dict[_HealthWatch, None], wake: Wake
    ) -> None:
        self._health = health
        self._cache = cache
        self._watches = watches
        self.wake = wake
        self._service: str | None = None
        self._sent: pb.HealthCheckResponse | None = None

    def receive(self, request: bytes) -> None:
        asked = parsed(pb.HealthCheckRequest, request).service
        if not self._health.knows(asked):
            # It stays unknown, so there is nothing to wait for; and the name may be long.
            self._service = _UNKNOWN_NAME
            return
        self._service = asked
        self._watches[self] = None
        self._cache.await_synced(self.wake)

    def half_close(self) -> None:
        pass

    def next_message(self) -> bytes | None:
        if self._service is None:
            return None
        status = self._health.status(self._service)
        if status == self._sent:
            return None
        self._sent = status
        return status.SerializeToString()

    def close(self) -> None:
        self._watches.pop(self, None)
        self._cache.forget(self.wake)
