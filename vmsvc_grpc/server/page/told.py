"""What the page is told: the API's messages as JSON.

Texts stay as they are: the page shows each as text, whatever is in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import msgspec

from vmsvc.v1 import endpoint_service_pb2 as pb

# What a person reads of a service with many ports; the API has all.
_PORTS_MAX = 20

encoded = msgspec.json.Encoder().encode
"""A value as JSON."""


def event(name: str, data: bytes) -> bytes:
    """A server-sent event; `data` is JSON, which has no line end."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


def refused(text: str) -> bytes:
    """The only event of a page that is refused, with a sentence for a person."""
    return event("refused", encoded({"text": text}))


def summary(service: pb.ServiceSummary) -> dict[str, Any]:
    """A service in a list."""
    ports = [_port(port) for port in islice(service.ports, _PORTS_MAX)]
    return {
        "service": service.service,
        "type": service.type,
        "matching": service.matching,
        "ready": service.ready,
        "not_ready": service.not_ready,
        "ports": ports,
        "ports_more": len(service.ports) - len(ports),
        "cluster_ips": list(service.cluster_ips),
        "ingress": list(service.load_balancer_ingress),
        "refused": service.refused,
        "reason": service.refused_reason,
    }


def gone(service: str) -> dict[str, Any]:
    """A service that has left the list."""
    return {"service": service, "gone": True}


def explanation(response: pb.ExplainEndpointsResponse) -> dict[str, Any]:
    """A page of the explanation of a service."""
    return {
        "service": response.service,
        "selector": dict(sorted(response.selector.items())),
        "families": list(response.ip_families),
        "problems": [[problem.field, problem.message] for problem in response.problems],
        "serving_last_valid": response.serving_last_valid,
        "matching": response.matching,
        "ready": response.ready,
        "not_ready": response.not_ready,
        "near_misses": response.near_misses,
        "near_misses_incomplete": response.near_misses_incomplete,
        "unreadable": response.unreadable,
        "next": response.next_page_token,
        "vms": list(map(_vm, response.virtual_machines)),
    }


def absent(service: str, message: str) -> dict[str, Any]:
    """A service, or a VM of it, that is not there, with a sentence for a person."""
    return {"service": service, "absent": message}


def problems(found: Iterable[tuple[str, str, Iterable[str]]], count: int) -> dict[str, Any]:
    """Objects with problems (kind, name, sentences); `count` of them in all."""
    return {"count": count, "objects": [[kind, name, list(texts)] for kind, name, texts in found]}


def _port(port: pb.Port) -> str:
    """A port as kubectl shows it, and where it leads."""
    name = f"{port.name} " if port.name else ""
    protocol = "" if port.protocol == "TCP" else f"/{port.protocol}"
    target = f"→{port.target_port}" if port.target_port != port.port else ""
    return f"{name}{port.port}{target}{protocol}"


def _vm(explained: pb.VirtualMachineExplanation) -> dict[str, Any]:
    verdict = pb.VirtualMachineExplanation.Verdict.Name(explained.verdict)
    return {
        "name": explained.vm_name,
        "verdict": verdict.removeprefix("VERDICT_"),
        "reasons": list(explained.reasons),
        "addresses": [endpoint.address for endpoint in explained.endpoints],
        "zone": next((endpoint.zone for endpoint in explained.endpoints), ""),
    }
