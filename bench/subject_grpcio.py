"""Ours, under test, on gRPC's own library."""

from __future__ import annotations

from bench.serving import flags
from bench.subject import run
from vmsvc_grpc.server.transport.grpc_aio import GrpcAio

if __name__ == "__main__":
    run(flags(__doc__ or ""), GrpcAio)
