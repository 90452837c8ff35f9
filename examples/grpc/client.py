"""Asks a VM of shop/web for its health, whichever is next."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

with grpc.insecure_channel("xds:///web.shop:80") as channel:
    health = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest()
    print(health.Check(request, wait_for_ready=True, timeout=10))
