"""Messages of vmsvc.v1 as values of the model, and back; those of a watch from bytes. Pure.

An enum number that this client does not know comes from a newer server. It becomes UNKNOWN, so that
an old client goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from vmsvc.errors import ProtocolError, VmsvcError
from vmsvc.model import (
    Absence,
    AbsenceReason,
    Condition,
    Endpoint,
    Explanation,
    Port,
    Problem,
    Readiness,
    ServerVersion,
    ServiceState,
    ServiceSummary,
    Verdict,
    VirtualMachineExplanation,
)
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc.v1.server_service_pb2 import GetVersionResponse

_READINESS: Mapping[Readiness, pb.Readiness] = {
    Readiness.READY_ONLY: pb.READINESS_READY_ONLY,
    Readiness.ALL: pb.READINESS_ALL,
}
_ABSENCE: Mapping[int, AbsenceReason] = {
    pb.Absent.REASON_NOT_FOUND: AbsenceReason.NOT_FOUND,
    pb.Absent.REASON_REFUSED: AbsenceReason.REFUSED,
}
_VERDICT: Mapping[int, Verdict] = {
    pb.VirtualMachineExplanation.VERDICT_READY: Verdict.READY,
    pb.VirtualMachineExplanation.VERDICT_NOT_READY: Verdict.NOT_READY,
    pb.VirtualMachineExplanation.VERDICT_NO_ADDRESS: Verdict.NO_ADDRESS,
    pb.VirtualMachineExplanation.VERDICT_LABELS_DIFFER: Verdict.LABELS_DIFFER,
    pb.VirtualMachineExplanation.VERDICT_DELETING: Verdict.DELETING,
    pb.VirtualMachineExplanation.VERDICT_INVALID: Verdict.INVALID,
    pb.VirtualMachineExplanation.VERDICT_SERVICE_REFUSED: Verdict.SERVICE_REFUSED,
}


WATCH = "/vmsvc.v1.EndpointService/WatchEndpoints"
"""The method by its path: its messages are decoded here, as gRPC has no good end for bad ones."""


def watched(data: bytes) -> pb.WatchEndpointsResponse:
    """A message of a watch. Raises VmsvcError if the bytes are none."""
    try:
        return pb.WatchEndpointsResponse.FromString(data)
    except DecodeError as error:
        raise VmsvcError(
            "the server sent bytes that are no message of vmsvc.v1", code=grpc.StatusCode.INTERNAL
        ) from error


def readiness_number(readiness: Readiness) -> pb.Readiness:
    """The number of a readiness on the wire."""
    return _READINESS[readiness]


def ports(messages: Iterable[pb.Port]) -> tuple[Port, ...]:
    """Ports, in the order of the messages."""
    return tuple(Port(m.name, m.port, m.target_port, m.protocol) for m in messages)


def endpoints(messages: Iterable[pb.Endpoint]) -> tuple[Endpoint, ...]:
    """Endpoints, in the order of the messages."""
    return tuple(Endpoint(m.address, m.ready, m.vm_name, m.vm_uid, m.zone) for m in messages)


def resolved(response: pb.ResolveEndpointsResponse, service: str) -> ServiceState:
    """The answer of a look-up. Raises ProtocolError if it is about another service."""
    check_about(service, response.endpoint_set.service)
    return present(response.endpoint_set)


def check_about(asked: str, answered: str) -> None:
    """Raises ProtocolError if an answer is about another service than was asked for."""
    if answered != asked:
        raise _broken(f"the server was asked about {asked}, and answers about {answered[:300]!r}")


def has_next_page(
    request: pb.ListServicesRequest | pb.ExplainEndpointsRequest,
    page: pb.ListServicesResponse | pb.ExplainEndpointsResponse,
) -> bool:
    """Whether another page follows; `request` then asks for it.

    Raises ProtocolError if that is the same again, as it would be for ever.
    """
    if page.next_page_token and page.next_page_token == request.page_token:
        raise _broken("the server gives the same page again and again")
    request.page_token = page.next_page_token
    return bool(page.next_page_token)


def _broken(what: str) -> ProtocolError:
    return ProtocolError(what, code=grpc.StatusCode.INTERNAL)


def present(message: pb.EndpointSet) -> ServiceState:
    """The state of a service that is served."""
    return ServiceState(
        message.service,
        ports(message.ports),
        endpoints(message.endpoints),
        version=message.version,
        revision=message.revision,
    )


def absent(message: pb.Absent) -> ServiceState:
    """The state of a service that is absent."""
    reason = _ABSENCE.get(message.reason, AbsenceReason.UNKNOWN)
    return ServiceState(message.service, absence=Absence(reason, message.message))


def summary(message: pb.ServiceSummary) -> ServiceSummary:
    """A service in a list."""
    return ServiceSummary(
        service=message.service,
        type=message.type,
        matching=message.matching,
        ready=message.ready,
        not_ready=message.not_ready,
        cluster_ips=tuple(message.cluster_ips),
        load_balancer_ingress=tuple(message.load_balancer_ingress),
        ports=ports(message.ports),
        refused=message.refused,
        refused_reason=message.refused_reason,
    )


def version(message: GetVersionResponse) -> ServerVersion:
    """What a server says of itself. Raises ProtocolError for a time that cannot be."""
    return ServerVersion(
        message.version,
        tuple(message.packages),
        message.python_version,
        message.transport,
        _moment(message.started_at),
    )


def explanation(pages: Sequence[pb.ExplainEndpointsResponse]) -> Explanation:
    """Why each VM is in a service or is not: all pages, of which the last is the newest.

    Raises ProtocolError for a time that cannot be.
    """
    newest = pages[-1]
    return Explanation(
        service=newest.service,
        selector=MappingProxyType(dict(sorted(newest.selector.items()))),
        ip_families=tuple(newest.ip_families),
        problems=tuple(Problem(p.field, p.message) for p in newest.problems),
        virtual_machines=tuple(_explained(vm) for page in pages for vm in page.virtual_machines),
        serving_last_valid=newest.serving_last_valid,
        matching=newest.matching,
        ready=newest.ready,
        not_ready=newest.not_ready,
        near_misses=newest.near_misses,
        near_misses_incomplete=newest.near_misses_incomplete,
        unreadable=newest.unreadable,
    )


def _explained(vm: pb.VirtualMachineExplanation) -> VirtualMachineExplanation:
    said = vm.HasField("ready_condition")
    return VirtualMachineExplanation(
        vm_name=vm.vm_name,
        vm_uid=vm.vm_uid,
        verdict=_VERDICT.get(vm.verdict, Verdict.UNKNOWN),
        reasons=tuple(vm.reasons),
        endpoints=endpoints(vm.endpoints),
        ready_condition=_condition(vm.ready_condition) if said else None,
    )


def _condition(message: pb.Condition) -> Condition:
    timed = message.HasField("last_transition_time")
    time = _moment(message.last_transition_time) if timed else None
    return Condition(message.status, message.reason, message.message, time)


def _moment(message: Timestamp) -> datetime:
    """A moment, in UTC. Raises ProtocolError where the numbers are none."""
    try:
        return message.ToDatetime(UTC)
    except ValueError:
        raise _broken(
            f"the server gives a time that cannot be: {message.seconds} s and {message.nanos} ns"
        ) from None
