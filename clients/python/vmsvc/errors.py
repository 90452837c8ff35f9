"""How a call fails: one class for each reaction of a caller. No I/O."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

_STATUS_DETAILS = "grpc-status-details-bin"

# gRPC's message for an address that it cannot connect to. The last clause is the reason.
_CONNECT_FAILED = re.compile(r"failed to connect to all addresses; last error: .*?([^:]+)$")
_NOT_RESOLVED = re.compile(r"errors resolving .*?([^:\]]+)\]?$")
_NOT_READ = "Exception deserializing response!"
_HTTP1 = "(Trying to connect an http1.x server"

# What TLS reports of gRPC's core, and what it means for the server. The first that is there counts.
_TLS_FAILURES = (
    ("WRONG_VERSION_NUMBER", "does not use TLS"),
    ("certificate has expired", "shows a certificate that has expired"),
    ("certificate is not yet valid", "shows a certificate that is not valid yet"),
    ("CERTIFICATE_VERIFY_FAILED", "shows a certificate of a CA that is not trusted here"),
    (
        "Hostname Verification Check failed",
        "shows a certificate for another name; if that is meant, name it as the authority",
    ),
    ("ALERT_UNKNOWN_CA", "does not trust the CA of our certificate"),
    ("ALERT_CERTIFICATE_EXPIRED", "refuses our certificate, as it has expired"),
    ("ALERT_BAD_CERTIFICATE", "refuses our certificate"),
    ("ALERT_PROTOCOL_VERSION", "speaks no version of TLS that we do"),
    ("Cannot check peer: missing selected ALPN", "uses TLS, but speaks no gRPC there"),
)


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """What is wrong with one field of a request."""

    field: str
    description: str


class VmsvcError(Exception):
    """A call failed. Its text is one sentence for a person.

    `violations` are those of the request's fields; `retry_after_s` is how long the server asks to
    wait before the next attempt, None if it does not say.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        violations: Iterable[FieldViolation] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s


class InvalidArgumentError(VmsvcError):
    """The request is wrong; `violations` name the fields."""


class NotFoundError(VmsvcError):
    """There is no such service."""


class RefusedError(VmsvcError):
    """The service exists, but its specification is refused."""


class UnavailableError(VmsvcError):
    """No answer now: the server is unreachable, not ready, about to stop, or slow. Try again."""


class ResourceExhaustedError(VmsvcError):
    """A limit of the server is reached; the text names its setting."""


class UnauthenticatedError(VmsvcError):
    """The server does not know who calls."""


class PermissionDeniedError(VmsvcError):
    """The caller may not ask for this."""


class UnimplementedError(VmsvcError):
    """The server does not serve vmsvc.v1, or not this method."""


class ProtocolError(VmsvcError):
    """The server broke its contract. A watch starts afresh after it."""


_CLASSES: dict[grpc.StatusCode, type[VmsvcError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.FAILED_PRECONDITION: RefusedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: UnavailableError,
    grpc.StatusCode.CANCELLED: UnavailableError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.UNIMPLEMENTED: UnimplementedError,
}


def from_status(
    server: str,
    code: grpc.StatusCode,
    message: str,
    metadata: Iterable[tuple[str, bytes | str]],
    proxy: str = "",
) -> VmsvcError:
    """The error for a gRPC status, with its details. Never raises.

    `metadata` is the call's trailing metadata. If the fault may lie in the way to the server, and
    not in the request, the text names the server, and the variable of the `proxy` on the way.
    """
    violations, retry_after_s = _details(metadata)
    return _CLASSES.get(code, VmsvcError)(
        _sentence(server, code, message, f" (through the proxy of ${proxy})" if proxy else ""),
        code=code,
        violations=violations,
        retry_after_s=retry_after_s,
    )


def _details(
    metadata: Iterable[tuple[str, bytes | str]],
) -> tuple[list[FieldViolation], float | None]:
    violations: list[FieldViolation] = []
    retry_after_s: float | None = None
    # The status is complete without the details.
    with contextlib.suppress(DecodeError):
        for key, value in metadata:
            if key != _STATUS_DETAILS or not isinstance(value, bytes):
                continue
            for detail in Status.FromString(value).details:
                bad_request, retry_info = BadRequest(), RetryInfo()
                if detail.Unpack(bad_request):
                    violations += (
                        FieldViolation(v.field, v.description) for v in bad_request.field_violations
                    )
                elif detail.Unpack(retry_info):
                    delay = retry_info.retry_delay
                    retry_after_s = delay.seconds + delay.nanos / 1e9
    return violations, retry_after_s


_ABOUT_THE_REQUEST = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
    }
)


def _sentence(server: str, code: grpc.StatusCode, message: str, way: str) -> str:
    if code in _ABOUT_THE_REQUEST and message:
        return message
    if _HTTP1 in message:
        return (
            f"server {server} speaks HTTP/1.1, not gRPC; is that its port for HTTP, "
            f"or does it take only TLS?{way}"
        )
    for failure, meaning in _TLS_FAILURES:
        if failure in message:
            return f"server {server} {meaning}{way}"
    if unreachable := _CONNECT_FAILED.match(message) or _NOT_RESOLVED.match(message):
        return f"server {server} cannot be reached{way}: {unreachable[1].strip()}"
    if message == _NOT_READ:
        return f"server {server}: its answer cannot be read"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"server {server} did not answer in time{way}"
    return f"server {server}: {message or code.name}"
