"""Checks of vmsvc-grpc, and the real peers that they run."""
