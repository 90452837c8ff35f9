"""Which addresses a client takes."""

from __future__ import annotations

import pytest

from vmsvc.channel import DEFAULT_SERVER, target


@pytest.mark.parametrize(
    "server",
    [
        DEFAULT_SERVER,
        "localhost:1",
        "[::1]:50051",
        "vmsvc-grpc.vmsvc-system.svc:50051",
        "dns:///vmsvc-grpc:50051",
        "ipv4:10.0.0.1:50051,10.0.0.2:50051",
        "unix:/run/vmsvc.sock",
    ],
)
def test_taken(server: str) -> None:
    assert target(server) == server


@pytest.mark.parametrize(
    "server",
    [
        "",
        "localhost",
        "localhost:",
        ":50051",
        "::1:50051",
        "http://h:1",
        "h:1/path",
        "h: 1",
        "h:grpc",
    ],
)
def test_refused(server: str) -> None:
    with pytest.raises(
        ValueError, match=r"is not HOST:PORT; write for instance 127\.0\.0\.1:50051"
    ):
        target(server)
