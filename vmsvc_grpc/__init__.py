"""Endpoint resolution for VM Operator's VirtualMachineServices, over gRPC."""

__version__ = "0.1.0"
