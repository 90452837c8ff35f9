"""Messages of vmsvc.v1, in the short form that tests read well in."""

from __future__ import annotations

from collections.abc import Iterable

from vmsvc.v1 import endpoint_service_pb2 as pb

WEB = "shop/web"
DB = "shop/db"
HTTP = pb.Port(name="http", port=80, target_port=8080, protocol="TCP")
METRICS = pb.Port(name="metrics", port=9100, target_port=9100, protocol="TCP")


def endpoint(address: str, uid: str = "", *, ready: bool = True) -> pb.Endpoint:
    """An endpoint whose VM's uid and name follow from its address, unless given."""
    uid = uid or f"uid-{address}"
    return pb.Endpoint(address=address, ready=ready, vm_name=f"vm-{uid}", vm_uid=uid, zone="z")


def endpoint_set(
    service: str, version: int, *addresses: str, revision: str = "", ports: Iterable[pb.Port] = ()
) -> pb.EndpointSet:
    return pb.EndpointSet(
        service=service,
        version=version,
        revision=revision or ",".join(addresses),
        ports=ports or [HTTP],
        endpoints=[endpoint(address) for address in addresses],
    )


def snapshot(
    service: str, version: int, *addresses: str, revision: str = "", ports: Iterable[pb.Port] = ()
) -> pb.WatchEndpointsResponse:
    """A snapshot, whose revision is the list of its addresses, unless given."""
    whole = endpoint_set(service, version, *addresses, revision=revision, ports=ports)
    return pb.WatchEndpointsResponse(snapshot=whole)


def delta(
    service: str,
    version: int,
    *,
    removed: Iterable[str] = (),
    upserted: Iterable[pb.Endpoint] = (),
    ports: Iterable[pb.Port] | None = None,
    revision: str = "after",
) -> pb.WatchEndpointsResponse:
    return pb.WatchEndpointsResponse(
        delta=pb.Delta(
            service=service,
            version=version,
            revision=revision,
            removed=[pb.EndpointKey(address=a, vm_uid=f"uid-{a}") for a in removed],
            upserted=upserted,
            ports_changed=ports is not None,
            ports=ports or (),
        )
    )


def current(service: str, version: int, revision: str) -> pb.WatchEndpointsResponse:
    return pb.WatchEndpointsResponse(
        current=pb.Current(service=service, version=version, revision=revision)
    )


def not_found(service: str, message: str = "there is none") -> pb.WatchEndpointsResponse:
    reason = pb.Absent.REASON_NOT_FOUND
    return pb.WatchEndpointsResponse(
        absent=pb.Absent(service=service, reason=reason, message=message)
    )


def refused(service: str, message: str = "spec.type: NodePort") -> pb.WatchEndpointsResponse:
    reason = pb.Absent.REASON_REFUSED
    return pb.WatchEndpointsResponse(
        absent=pb.Absent(service=service, reason=reason, message=message)
    )


SYNCED = pb.WatchEndpointsResponse(synced=pb.Synced())
