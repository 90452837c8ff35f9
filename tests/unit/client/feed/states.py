"""States of services as a feed gets them, in the short form that tests read well in."""

from __future__ import annotations

from vmsvc.model import Absence, AbsenceReason, Endpoint, Port, ServiceState

WEB = "shop/web"
DB = "data/db"

HTTP = Port("http", 80, 8080, "TCP")
METRICS = Port("metrics", 9100, 9100, "TCP")


def endpoint(
    address: str, *, ready: bool = True, zone: str = "", vm_name: str = "", vm_uid: str = ""
) -> Endpoint:
    """An endpoint whose VM's uid and name follow from its address, unless given."""
    return Endpoint(address, ready, vm_name or f"vm-{address}", vm_uid or f"uid-{address}", zone)


def state(
    service: str, *endpoints: str | Endpoint, ports: tuple[Port, ...] = (HTTP,)
) -> ServiceState:
    """A service with these endpoints; a text is the address of a ready one."""
    made = [endpoint(each) if isinstance(each, str) else each for each in endpoints]
    return ServiceState(service, ports, tuple(made))


def absent(service: str, reason: AbsenceReason = AbsenceReason.NOT_FOUND) -> ServiceState:
    return ServiceState(service, absence=Absence(reason, "there is none"))
