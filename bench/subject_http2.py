"""Ours, under test, on libnghttp2."""

from __future__ import annotations

from bench.subject import run
from vmsvc_grpc.server.transport.http2 import Http2

if __name__ == "__main__":
    run(Http2)
