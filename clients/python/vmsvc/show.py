"""Values as text for a person, and as JSON for a program. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from vmsvc.model import (
    Explanation,
    Port,
    ServiceState,
    ServiceSummary,
    Verdict,
    VirtualMachineExplanation,
)
from vmsvc.state import Disconnected, Event, Synced

_GAP = "   "
_NONE = "<none>"

_VERDICTS: Mapping[Verdict, str] = {
    Verdict.READY: "Ready",
    Verdict.NOT_READY: "NotReady",
    Verdict.NO_ADDRESS: "NoAddress",
    Verdict.LABELS_DIFFER: "LabelsDiffer",
    Verdict.DELETING: "Deleting",
    Verdict.INVALID: "Invalid",
    Verdict.SERVICE_REFUSED: "ServiceRefused",
    Verdict.UNKNOWN: "Unknown",
}


def printable(text: str) -> str:
    """`text` on one line, without anything that a terminal would take for a command.

    Anybody may write anything into conditions and probes.
    """
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


def services_table(services: Iterable[ServiceSummary]) -> str:
    """Services as kubectl would list them, a line each."""
    rows = [
        (
            service.service,
            service.type or _NONE,
            ",".join(service.cluster_ips) or _NONE,
            ",".join(service.load_balancer_ingress) or _NONE,
            ",".join(f"{p.port}/{p.protocol}" for p in service.ports) or _NONE,
            str(service.matching),
            f"{service.ready}/{service.matching}",
            f"Refused: {service.refused_reason}" if service.refused else "OK",
        )
        for service in services
    ]
    header = ("SERVICE", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "VMS", "READY", "STATUS")
    return _table(header, rows)


def endpoints_table(state: ServiceState) -> str:
    """The endpoints of a service, a line each, with the ports to connect to."""
    ports = ",".join(map(target, state.ports)) or _NONE
    rows = [
        (e.address, ports, "yes" if e.ready else "no", e.vm_name, e.zone or _NONE)
        for e in state.endpoints
    ]
    return _table(("ADDRESS", "PORT(S)", "READY", "VM", "ZONE"), rows)


def target(port: Port) -> str:
    """The port to connect to on an endpoint, such as `8080/TCP(http)`."""
    name = f"({port.name})" if port.name else ""
    return f"{port.target_port}/{port.protocol}{name}"


def explanation_text(explanation: Explanation) -> str:
    """Problems of the service, its number of VMs, and the verdict on each VM with the reasons."""
    selector = ",".join(f"{key}={value}" for key, value in explanation.selector.items())
    lines = [f"Service:   {explanation.service}"]
    lines += [f"Problem:   {problem.field}: {problem.message}" for problem in explanation.problems]
    if explanation.serving_last_valid:
        lines.append("Serving:   its last valid specification, not the one that stands now")
    # For a service that cannot be read, the server says only why.
    if selector or not explanation.problems or explanation.serving_last_valid:
        lines.append(f"Selector:  {selector or '<none>, so it selects no VM'}")
        lines.append(f"Families:  {','.join(explanation.ip_families) or _NONE}")
        lines.append(f"VMs:       {_counts(explanation)}")
        if not explanation.virtual_machines:
            lines += ("", "No VM of the namespace has any of the selector's labels.")
    text = "\n".join(map(printable, lines)) + "\n"
    if not explanation.virtual_machines:
        return text
    rows = [row for vm in explanation.virtual_machines for row in _vm_rows(vm)]
    return f"{text}\n{_table(('VM', 'VERDICT', 'ADDRESS', 'WHY'), rows)}"


_NEAR = frozenset({Verdict.LABELS_DIFFER, Verdict.DELETING})


def _counts(explanation: Explanation) -> str:
    """How many VMs are in the service, and how many of the others."""
    vms = explanation.virtual_machines
    near = sum(vm.verdict in _NEAR for vm in vms)
    unread = sum(vm.verdict is Verdict.INVALID for vm in vms)
    text = f"{explanation.matching} selected"
    if explanation.matching:
        text += f" ({explanation.ready} ready, {explanation.not_ready} not ready)"
    text += _others(explanation.near_misses, near, explanation.near_misses_incomplete, "nearly")
    return text + _others(explanation.unreadable, unread, False, "unreadable")


def _others(count: int, shown: int, more: bool, what: str) -> str:
    if not count:
        return ""
    return f", {'at least ' if more else ''}{count} {what}" + (
        f" ({shown} of them below)" if shown < count else ""
    )


def _vm_rows(vm: VirtualMachineExplanation) -> Iterable[tuple[str, ...]]:
    addresses = [endpoint.address for endpoint in vm.endpoints]
    for line in range(max(1, len(addresses), len(vm.reasons))):
        yield (
            "" if line else vm.vm_name,
            "" if line else _VERDICTS[vm.verdict],
            addresses[line] if line < len(addresses) else "",
            vm.reasons[line] if line < len(vm.reasons) else "",
        )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [header, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
    return "".join(f"{line}\n" for line in lines)


def json_text(value: object, *, indent: int | None = None) -> str:
    """A value of the model, or several, as JSON: its fields by name."""
    return json.dumps(_plain(value), indent=indent)


def event_text(event: Event, at: datetime) -> str:
    """What a watch tells, as an object on one line: when, what, and a state's own fields."""
    told: dict[str, Any] = {"time": at.astimezone(UTC).isoformat(timespec="milliseconds")}
    match event:
        case Synced():
            told["event"] = "synced"
        case Disconnected(error, retry_in_s):
            told |= {
                "event": "disconnected",
                "code": error.code.name,
                "error": str(error),
                "retry_in_s": round(retry_in_s, 3),
            }
        case ServiceState():
            told["event"] = "state"
            told |= _state(event)
    return json.dumps(told)


def _state(state: ServiceState) -> dict[str, object]:
    names = ("service", "present", "absence", "ports", "endpoints", "version", "revision")
    return {name: _plain(getattr(state, name)) for name in names}


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, ServiceState):
        return _state(value)
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return value
