"""Model objects for tests: only what a test says differs from the plainest one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vmsvc_grpc.model.objects import (
    IPFamily,
    Key,
    ObjectMeta,
    Probe,
    Readiness,
    ReportedAddress,
    ServicePort,
    ServiceSpec,
    VirtualMachine,
    VirtualMachineService,
)

HTTP = ServicePort("http", "TCP", 80, 9376)
WEB = Key("shop", "web")
APP_WEB = {"app": "web"}


def vm(
    name: str,
    *addresses: str,
    namespace: str = "shop",
    uid: str = "",
    labels: Mapping[str, str] = APP_WEB,
    deleting: bool = False,
    probe: Probe | None = None,
    ready: Readiness | None = None,
    zone: str = "",
) -> VirtualMachine:
    """A VM that reports `addresses`, in the field of the family that each looks like."""
    return VirtualMachine(
        key=Key(namespace, name),
        uid=uid or f"uid-{name}",
        labels=labels,
        deleting=deleting,
        addresses=tuple(_report(text) for text in addresses),
        zone=zone,
        probe=probe,
        ready=ready,
    )


def _report(text: str) -> ReportedAddress:
    if ":" in text:
        return ReportedAddress("status.network.primaryIP6", text, IPFamily.IPV6)
    return ReportedAddress("status.network.primaryIP4", text, IPFamily.IPV4)


def spec(selector: Mapping[str, str] = APP_WEB, **fields: Any) -> ServiceSpec:
    """A valid spec with one port, unless told otherwise."""
    return ServiceSpec(selector=selector, **{"ports": (HTTP,), **fields})


def service(
    key: Key = WEB,
    given: ServiceSpec | None = None,
    *,
    uid: str = "",
    deleting: bool = False,
    **fields: Any,
) -> VirtualMachineService:
    """A VMService of that spec; refused if the fields say why (`problems`)."""
    if given is None and "problems" not in fields:
        given = spec()
    meta = ObjectMeta(key=key, uid=uid or f"uid-{key.name}", deleting=deleting)
    return VirtualMachineService(meta=meta, spec=given, **fields)
