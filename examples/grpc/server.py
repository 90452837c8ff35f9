"""Stands for a VM: `server.py NAME HOST:PORT FILE` tells its health, and writes who was asked."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

NAME, ADDRESS, FILE = sys.argv[1:]


class Health(health_pb2_grpc.HealthServicer):
    """Always well."""

    def Check(self, request, context):  # noqa: N802, ARG002 - the names are gRPC's
        """Note who was asked, and say that all is well."""
        with Path(FILE).open("a") as file:
            file.write(f"{NAME}\n")
        return health_pb2.HealthCheckResponse(status="SERVING")


server = grpc.server(ThreadPoolExecutor())
health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
server.add_insecure_port(ADDRESS)
server.start()
server.wait_for_termination()
