"""Values and pure functions: objects, endpoints, and how one follows from the other.

Knows no I/O, no clock, no event loop, and neither gRPC nor Kubernetes' client.
"""
