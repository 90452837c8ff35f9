"""A gRPC status as an error of ours: its class, its sentence, its details."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, DebugInfo, RetryInfo
from google.rpc.status_pb2 import Status

from vmsvc import (
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    RefusedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    VmsvcError,
)
from vmsvc.errors import from_status

SERVER = "10.0.0.1:50051"
Code = grpc.StatusCode


def trailers(*details: Message) -> list[tuple[str, str | bytes]]:
    status = Status()
    for detail in details:
        status.details.add().Pack(detail)
    return [("x-other", "text"), ("grpc-status-details-bin", status.SerializeToString())]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (Code.INVALID_ARGUMENT, InvalidArgumentError),
        (Code.NOT_FOUND, NotFoundError),
        (Code.FAILED_PRECONDITION, RefusedError),
        (Code.UNAVAILABLE, UnavailableError),
        (Code.DEADLINE_EXCEEDED, UnavailableError),
        (Code.CANCELLED, UnavailableError),
        (Code.RESOURCE_EXHAUSTED, ResourceExhaustedError),
        (Code.UNAUTHENTICATED, UnauthenticatedError),
        (Code.PERMISSION_DENIED, PermissionDeniedError),
        (Code.UNIMPLEMENTED, UnimplementedError),
        (Code.INTERNAL, VmsvcError),
    ],
    ids=lambda value: getattr(value, "name", None) or value.__name__,
)
def test_class(code: Code, expected: type[VmsvcError]) -> None:
    error = from_status(SERVER, code, "no", [])
    assert type(error) is expected
    assert error.code is code


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        pytest.param(
            Code.NOT_FOUND,
            "there is no VirtualMachineService shop/web",
            "there is no VirtualMachineService shop/web",
            id="about the request: the server's own sentence",
        ),
        pytest.param(
            Code.UNAVAILABLE,
            "the server is about to stop",
            f"server {SERVER}: the server is about to stop",
            id="about the server: with its name",
        ),
        pytest.param(
            Code.UNAVAILABLE,
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.1:50051: "
            "Failed to connect to remote host: Connection refused",
            f"server {SERVER} cannot be reached: Connection refused",
            id="nobody listens",
        ),
        pytest.param(
            Code.UNAVAILABLE,
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:8080: Failed "
            "parsing HTTP/2 (Expected SETTINGS frame as the first frame, got frame type 80) "
            "(Trying to connect an http1.x server (HTTP status 400))",
            f"server {SERVER} speaks HTTP/1.1, not gRPC; is that its port for HTTP, "
            "or does it take only TLS?",
            id="the other port",
        ),
        pytest.param(
            Code.UNAVAILABLE,
            "errors resolving nohost:1: [field:hostname lookup error:address lookup failed for "
            "nohost:1: Domain name not found]",
            f"server {SERVER} cannot be reached: Domain name not found",
            id="there is no such host",
        ),
        pytest.param(
            Code.DEADLINE_EXCEEDED,
            "Deadline Exceeded",
            f"server {SERVER} did not answer in time",
            id="too slow",
        ),
        pytest.param(Code.UNKNOWN, "", f"server {SERVER}: UNKNOWN", id="no text at all"),
    ],
)
def test_sentence(code: Code, message: str, expected: str) -> None:
    assert str(from_status(SERVER, code, message, [])) == expected


def test_a_proxy_is_named_where_the_fault_may_be_its() -> None:
    failed = "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.9:3128: Refused"
    error = from_status(SERVER, Code.UNAVAILABLE, failed, [], "https_proxy")
    assert (
        str(error)
        == f"server {SERVER} cannot be reached (through the proxy of $https_proxy): Refused"
    )
    late = from_status(SERVER, Code.DEADLINE_EXCEEDED, "", [], "https_proxy")
    assert (
        str(late) == f"server {SERVER} did not answer in time (through the proxy of $https_proxy)"
    )
    assert str(from_status(SERVER, Code.NOT_FOUND, "no such", [], "https_proxy")) == "no such"


def test_field_violations_and_retry_info_come_from_the_details() -> None:
    violation = BadRequest.FieldViolation(field="service", description="has no namespace")
    retry = RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000))
    details = trailers(DebugInfo(detail="other"), BadRequest(field_violations=[violation]), retry)
    error = from_status(SERVER, Code.INVALID_ARGUMENT, "no", details)
    assert error.violations == (FieldViolation("service", "has no namespace"),)
    assert error.retry_after_s == 1.5


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param([("grpc-status-details-bin", b"\xff\xff")], id="not a Status"),
        pytest.param([("grpc-status-details-bin", "text")], id="not bytes"),
        pytest.param(
            [
                (
                    "grpc-status-details-bin",
                    Status(
                        details=[
                            Any(type_url="type.googleapis.com/google.rpc.BadRequest", value=b"\xff")
                        ]
                    ).SerializeToString(),
                )
            ],
            id="a detail that is not what it says",
        ),
    ],
)
def test_broken_details_leave_the_status(metadata: list[tuple[str, str | bytes]]) -> None:
    error = from_status(SERVER, Code.NOT_FOUND, "no such service", metadata)
    assert (str(error), error.violations, error.retry_after_s) == ("no such service", (), None)
