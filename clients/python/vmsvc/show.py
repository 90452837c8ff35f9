"""Values as text for a person, and as JSON for a program. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from vmsvc.model import (
    Condition,
    Explanation,
    Port,
    ServiceState,
    ServiceSummary,
    Verdict,
    VirtualMachineExplanation,
)
from vmsvc.state import Disconnected, Event, Synced
from vmsvc.versions import Versions

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


def services_table(services: Iterable[ServiceSummary], *, wide: bool = False) -> str:
    """Services as kubectl would list them, a line each.

    Wide: with the ports' names and target ports, and how many VMs are not ready or have no address.
    """
    header = ("SERVICE", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "VMS", "READY")
    more = ("NOT-READY", "NO-ADDRESS") if wide else ()
    rows = [
        (
            service.service,
            service.type or _NONE,
            ",".join(service.cluster_ips) or _NONE,
            ",".join(service.load_balancer_ingress) or _NONE,
            ",".join(map(_forwarded if wide else _served, service.ports)) or _NONE,
            str(service.matching),
            f"{service.ready}/{service.matching}",
            *(_unready(service) if wide else ()),
            f"Refused: {service.refused_reason}" if service.refused else "OK",
        )
        for service in services
    ]
    return _table((*header, *more, "STATUS"), rows)


def _served(port: Port) -> str:
    return f"{port.port}/{port.protocol}"


def _forwarded(port: Port) -> str:
    return f"{port.port}:{target(port)}"


def _unready(service: ServiceSummary) -> tuple[str, str]:
    without_address = service.matching - service.ready - service.not_ready
    return str(service.not_ready), str(max(0, without_address))


def endpoints_table(
    states: Iterable[ServiceState], *, several: bool = False, wide: bool = False
) -> str:
    """The endpoints of services, a line each, with the ports to connect to.

    Of several services: with the service. Wide: with the VM's uid.
    """
    header = ("ADDRESS", "PORT(S)", "READY", "VM", "ZONE")
    rows = [
        (
            *((state.service,) if several else ()),
            e.address,
            ",".join(map(target, state.ports)) or _NONE,
            "yes" if e.ready else "no",
            e.vm_name,
            e.zone or _NONE,
            *((e.vm_uid or _NONE,) if wide else ()),
        )
        for state in states
        for e in state.endpoints
    ]
    return _table((*(("SERVICE",) if several else ()), *header, *(("UID",) if wide else ())), rows)


def vm_names(states: Iterable[ServiceState]) -> Sequence[str]:
    """The VMs that serve, "namespace/name" each, each once."""
    return list(
        dict.fromkeys(
            _beside(state.service, endpoint.vm_name)
            for state in states
            for endpoint in state.endpoints
        )
    )


def explained_names(explanation: Explanation) -> Sequence[str]:
    """The VMs that a service selects, "namespace/name" each."""
    return [
        _beside(explanation.service, vm.vm_name)
        for vm in explanation.virtual_machines
        if vm.verdict not in _NEAR and vm.verdict is not Verdict.INVALID
    ]


def _beside(service: str, vm_name: str) -> str:
    """A VM's full name: a service has only VMs of its namespace."""
    return f"{service.partition('/')[0]}/{vm_name}"


def lines(names: Iterable[str]) -> str:
    """Names, a line each."""
    return "".join(f"{printable(name)}\n" for name in names)


def target(port: Port) -> str:
    """The port to connect to on an endpoint, such as `8080/TCP(http)`."""
    name = f"({port.name})" if port.name else ""
    return f"{port.target_port}/{port.protocol}{name}"


def explanation_text(explanation: Explanation, *, wide: bool = False) -> str:
    """Problems of the service, its number of VMs, and the verdict on each VM with the reasons.

    Wide: with each VM's condition "Ready", since when it stands, and its uid.
    """
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
    more = ("CONDITION", "SINCE", "UID") if wide else ()
    rows = [row for vm in explanation.virtual_machines for row in _vm_rows(vm, wide)]
    return f"{text}\n{_table(('VM', 'VERDICT', 'ADDRESS', *more, 'WHY'), rows)}"


def versions_text(versions: Versions, *, wide: bool = False) -> str:
    """The releases of client and server, a line each. Wide: with what else the server tells."""
    server = versions.server
    rows = [("Client:", f"vmsvc {versions.client.version}")]
    if server:
        rows.append(("Server:", f"vmsvc-grpc {server.version}"))
    if server and wide:
        rows += [
            ("Started:", server.started_at.isoformat(timespec="seconds")),
            ("Transport:", server.transport),
            ("Python:", server.python_version),
            ("Packages:", ",".join(server.packages)),
        ]
    return _columns(rows)


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


def _vm_rows(vm: VirtualMachineExplanation, wide: bool) -> Iterable[tuple[str, ...]]:
    addresses = [endpoint.address for endpoint in vm.endpoints]
    first = (vm.vm_name, _VERDICTS[vm.verdict])
    more = (*_condition(vm.ready_condition), vm.vm_uid or _NONE) if wide else ()
    for line in range(max(1, len(addresses), len(vm.reasons))):
        yield (
            *(("",) * len(first) if line else first),
            addresses[line] if line < len(addresses) else "",
            *(("",) * len(more) if line else more),
            vm.reasons[line] if line < len(vm.reasons) else "",
        )


def _condition(condition: Condition | None) -> tuple[str, str]:
    """What a condition says, and since when."""
    if condition is None:
        return _NONE, _NONE
    reason = f" ({condition.reason})" if condition.reason else ""
    since = condition.last_transition_time
    return f"{condition.status}{reason}", since.isoformat() if since else _NONE


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return _columns([header, *rows])


def _columns(rows: Iterable[Sequence[str]]) -> str:
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
    return "".join(f"{line}\n" for line in lines)


def json_text(value: object) -> str:
    """A value of the model, or several, as JSON: its fields by name."""
    return f"{json.dumps(_plain(value), indent=2)}\n"


def yaml_text(value: object) -> str:
    """The same as YAML."""
    from vmsvc.as_yaml import dumped  # noqa: PLC0415 - who asks for no YAML need not wait for it

    return dumped(_plain(value))


def event_json(event: Event, at: datetime) -> str:
    """What a watch tells, as an object on one line: when, what, and a state's own fields."""
    return f"{json.dumps(_told(event, at))}\n"


def event_yaml(event: Event, at: datetime) -> str:
    """The same as a document of a stream of YAML."""
    return f"---\n{yaml_text(_told(event, at))}"


def _told(event: Event, at: datetime) -> dict[str, Any]:
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
    return told


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
