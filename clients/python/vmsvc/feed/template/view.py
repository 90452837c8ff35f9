"""What a template sees of services: plain values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vmsvc.model import Endpoint, Port, ServiceState


def context(states: Mapping[str, ServiceState], variables: Mapping[str, str]) -> dict[str, Any]:
    """The names that a template knows: `services`, by full name in order, and `vars`."""
    return {
        "services": {name: _service(states[name]) for name in sorted(states)},
        "vars": dict(variables),
    }


def _service(state: ServiceState) -> dict[str, Any]:
    namespace, _, name = state.service.partition("/")
    absence = state.absence
    return {
        "service": state.service,
        "namespace": namespace,
        "name": name,
        "present": state.present,
        "absence": absence and {"reason": absence.reason.value, "message": absence.message},
        "ports": [_port(port) for port in state.ports],
        "endpoints": [_endpoint(endpoint) for endpoint in state.endpoints],
    }


def _port(port: Port) -> dict[str, Any]:
    return {
        "name": port.name,
        "port": port.port,
        "target_port": port.target_port,
        "protocol": port.protocol,
    }


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "address": endpoint.address,
        "ready": endpoint.ready,
        "vm_name": endpoint.vm_name,
        "vm_uid": endpoint.vm_uid,
        "zone": endpoint.zone,
    }
