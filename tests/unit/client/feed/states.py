"""States of services as a feed gets them, in the short form that tests read well in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

import pytest

from vmsvc.feed.output import Applied, Output, OutputError
from vmsvc.model import Absence, AbsenceReason, Endpoint, Port, ServiceState

Kept = TypeVar("Kept", bound=Output)

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


def by_name(*states: ServiceState) -> Mapping[str, ServiceState]:
    return {each.service: each for each in states}


class ByHand(Generic[Kept]):
    """An output that a test gives states by itself, in the place of a keeper.

    Its seconds pass as the test says.
    """

    output: Kept
    now_s = 0.0

    async def apply(self, *states: ServiceState) -> Applied:
        return await self.output.apply(by_name(*states))

    async def fault(self, *states: ServiceState) -> str:
        """Why it cannot follow these."""
        with pytest.raises(OutputError) as caught:
            await self.apply(*states)
        return str(caught.value)
