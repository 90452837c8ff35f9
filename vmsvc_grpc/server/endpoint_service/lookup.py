"""The unary methods of vmsvc.v1.EndpointService: answered from the cache as it is now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import islice

from google.rpc import error_details_pb2

from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.membership import CachedService
from vmsvc_grpc.cache.topic import Absence, Absent, Publication
from vmsvc_grpc.model.objects import Key, Kind, ServiceType, StoredService
from vmsvc_grpc.model.ownership import is_controlled_by
from vmsvc_grpc.model.problem import escaped
from vmsvc_grpc.model.validate import SUBDOMAIN_MAX
from vmsvc_grpc.server.access.gate import Verdict
from vmsvc_grpc.server.access.needs import AUTHENTICATED, Needs
from vmsvc_grpc.server.call import (
    LATER,
    Call,
    Code,
    Later,
    Making,
    Method,
    RequestBound,
    RpcError,
    UnaryMethod,
    unavailable,
)
from vmsvc_grpc.server.endpoint_service import needs, requests
from vmsvc_grpc.server.endpoint_service.encode import Encoder, port_message
from vmsvc_grpc.server.endpoint_service.explain import Explainer, Remarks, no_remarks
from vmsvc_grpc.server.fields import shape_of
from vmsvc_grpc.server.limits import Limits

SERVICE: str = pb.DESCRIPTOR.services_by_name["EndpointService"].full_name


def _now() -> datetime:
    return datetime.now(UTC)


_ADDRESSES_MAX = 100  # The contract in the proto names it.


class Lookup:
    """ResolveEndpoints, ListServices and ExplainEndpoints.

    Each raises RpcError: INVALID_ARGUMENT, and UNAVAILABLE until the cache is synced.
    """

    def __init__(
        self,
        cache: Cache,
        encoder: Encoder,
        limits: Limits,
        remarks: Remarks = no_remarks,
        now: Callable[[], datetime] = _now,
    ) -> None:
        """Only reads `cache`. `now` is in UTC."""
        self._cache = cache
        self._encoder = encoder
        self._limits = limits
        self._explainer = Explainer(cache, limits.page_bytes_max, remarks)
        self._now = now

    def methods(self) -> tuple[Method, ...]:
        """The three methods."""
        one = RequestBound.ONE_NAME
        return tuple(
            UnaryMethod(
                f"/{SERVICE}/{method}",
                handle,
                one,
                shape_of(request.DESCRIPTOR),
                needed,
            )
            for method, handle, request, needed in (
                (
                    "ResolveEndpoints",
                    self.resolve_endpoints,
                    pb.ResolveEndpointsRequest,
                    Needs(AUTHENTICATED, needs.of_resolve),
                ),
                (
                    "ListServices",
                    self.list_services,
                    pb.ListServicesRequest,
                    Needs(AUTHENTICATED, needs.of_list),
                ),
                (
                    "ExplainEndpoints",
                    self.explain_endpoints,
                    pb.ExplainEndpointsRequest,
                    Needs(AUTHENTICATED, needs.of_explain, wishes=(needs.VMS_EVERYWHERE,)),
                ),
            )
        )

    def resolve_endpoints(self, request: bytes, _call: Call) -> bytes | Making:
        """A ResolveEndpointsResponse; of a large service, how to make it, as it is now.

        Also raises RpcError NOT_FOUND, and FAILED_PRECONDITION for a refused service that has never
        been valid.
        """
        asked = requests.resolve(request)
        self._check_synced()
        publication = self._cache.state(asked.service, asked.filter_class)
        match publication.state:
            case Absent(service, Absence.NOT_FOUND, message):
                raise _not_found(Kind.VIRTUAL_MACHINE_SERVICE, service, message)
            case Absent(service, Absence.REFUSED, message):
                raise RpcError(Code.FAILED_PRECONDITION, f"{service} is refused: {message}")
        answer = self._snapshot(publication)
        return partial(self._snapshot, publication) if answer is LATER else answer

    def _snapshot(self, publication: Publication) -> bytes | Later:
        """A piece of the work on a snapshot; the snapshot once that was the last."""
        ready = self._encoder.prepare(publication, whole=True)
        return self._encoder.snapshot(publication) if ready else LATER

    def list_services(self, request: bytes, _call: Call) -> bytes:
        """A ListServicesResponse. O(page), however many services and VMs there are."""
        page = requests.list_page(request)
        self._check_synced()
        keys = self._cache.collection.page(page.namespace, page.after, page.size + 1)
        response = pb.ListServicesResponse()
        size = 0
        for count, key in enumerate(keys):
            summary = self.summary(key)
            size += summary.ByteSize()
            full = count == page.size or size > self._limits.page_bytes_max
            if full and count:
                token = requests.services_token(page.namespace, keys[count - 1])
                response.next_page_token = token
                break
            response.services.append(summary)
        return response.SerializeToString()

    def explain_endpoints(self, request: bytes, call: Call) -> bytes:
        """An ExplainEndpointsResponse. Also raises RpcError NOT_FOUND. O(VMs of the page).

        VMs of other namespaces are named only to callers who may get those of all.
        """
        query = requests.explain(request)
        self._check_synced()
        elsewhere = call.access.check(needs.VMS_EVERYWHERE) is Verdict.ALLOWED
        response = self._explainer.page(query, self._now(), elsewhere=elsewhere)
        if response is not None:
            return response.SerializeToString()
        if query.vm_name and query.service in self._cache.services:
            vm = Key(query.service.namespace, query.vm_name)
            raise _not_found(Kind.VIRTUAL_MACHINE, vm)
        raise _not_found(Kind.VIRTUAL_MACHINE_SERVICE, query.service)

    def _check_synced(self) -> None:
        if self._cache.synced:
            return
        missing = ", ".join(sorted(kind.value for kind in self._cache.unlisted))
        raise unavailable(
            f"the cache is not filled yet: {missing} have not been listed; try again soon",
            self._limits.retry_delay_s,
        )

    def summary(self, key: Key) -> pb.ServiceSummary:
        """A service that exists, as `list_services` shows it."""
        service = self._cache.services[key]
        spec = service.spec
        problems = self._cache.problems.get((Kind.VIRTUAL_MACHINE_SERVICE, key), ())
        return pb.ServiceSummary(
            service=str(key),
            type=service.object.declared_type,
            matching=len(service.members),
            ready=service.ready,
            not_ready=service.not_ready,
            cluster_ips=_shown(self._cluster_ips(service)),
            load_balancer_ingress=_shown(self._load_balancer_ingress(service)),
            ports=map(port_message, spec.ports if spec else ()),
            refused=bool(problems),
            refused_reason="; ".join(map(str, problems)),
        )

    def _stored(self, service: CachedService) -> StoredService | None:
        """The Service that belongs to a VMService; None for one of another owner."""
        stored = self._cache.stored_services.get(service.object.key)
        ours = stored is not None and is_controlled_by(stored.meta, service.object.meta.uid)
        return stored if ours else None

    def _cluster_ips(self, service: CachedService) -> tuple[str, ...]:
        stored, spec = self._stored(service), service.spec
        if stored is not None and stored.cluster_ip:
            return stored.cluster_ips or (stored.cluster_ip,)
        return (spec.cluster_ip,) if spec and spec.cluster_ip else ()

    def _load_balancer_ingress(self, service: CachedService) -> tuple[str, ...]:
        if service.spec is None or service.spec.type is not ServiceType.LOAD_BALANCER:
            return ()
        stored = self._stored(service)
        # A Service held in a directory has none: no controller gives it one.
        ingress = (stored.ingress if stored else ()) or service.object.ingress
        return tuple(entry.ip or entry.hostname for entry in ingress)


def _shown(texts: Iterable[str]) -> Iterator[str]:
    """The addresses or names that a summary shows: the first ones, each cut to its longest."""
    return (escaped(text, SUBDOMAIN_MAX) for text in islice(texts, _ADDRESSES_MAX))


def _not_found(kind: Kind, key: Key, message: str = "") -> RpcError:
    text = message or f"there is no {kind.value} {key}"
    resource = error_details_pb2.ResourceInfo(
        resource_type=kind.value, resource_name=str(key), description=text
    )
    return RpcError(Code.NOT_FOUND, text, [resource])
