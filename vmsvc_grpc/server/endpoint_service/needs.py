"""The rights that requests of vmsvc.v1 need: those to read endpoints in the namespaces they name.

A right is to a namespace, so it is asked for before anything is looked up, and a refusal says
nothing of what exists. Each function raises RpcError (INVALID_ARGUMENT) for a request that is not
valid, but `of_watch`, which yields nothing for names that are not.
"""

from __future__ import annotations

from collections.abc import Iterator

from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.model.validate import is_dns_1123_label
from vmsvc_grpc.server.access.needs import (
    Need,
    ResourceNeed,
    endpoints_everywhere,
    endpoints_in,
)
from vmsvc_grpc.server.call import parsed
from vmsvc_grpc.server.endpoint_service import requests


def of_resolve(raw: bytes) -> Iterator[Need]:
    """A ResolveEndpointsRequest."""
    yield endpoints_in("get", requests.resolve(raw).service.namespace)


def of_list(raw: bytes) -> Iterator[Need]:
    """A ListServicesRequest."""
    namespace = requests.list_page(raw).namespace
    yield endpoints_everywhere("list") if namespace is None else endpoints_in("list", namespace)


def of_explain(raw: bytes) -> Iterator[Need]:
    """An ExplainEndpointsRequest: it shows VMs that are no endpoints, too."""
    namespace = requests.explain(raw).service.namespace
    yield endpoints_in("get", namespace)
    yield vms_in(namespace)


def vms_in(namespace: str) -> ResourceNeed:
    """The right to get the VMs of a namespace; "": of all."""
    return ResourceNeed("get", "vmoperator.vmware.com", "virtualmachines", namespace)


VMS_EVERYWHERE = vms_in("")
"""The right without which an explanation names no VMs of other namespaces."""


def of_watch(raw: bytes) -> Iterator[Need]:
    """A WatchEndpointsRequest, a name at a time.

    The stream checks the request itself, and ends at any name that is not valid.
    """
    request = parsed(pb.WatchEndpointsRequest, raw)
    if request.all_services:
        yield endpoints_everywhere("watch")
    for watched in request.services:
        namespace, _, _ = watched.service.partition("/")
        if is_dns_1123_label(namespace):
            yield endpoints_in("watch", namespace)
    for namespace in request.namespaces:
        if is_dns_1123_label(namespace):
            yield endpoints_in("watch", namespace)
