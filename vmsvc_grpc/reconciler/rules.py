"""The settings that decide what should be held."""

from __future__ import annotations

from dataclasses import dataclass, field

from vmsvc_grpc.reconciler.copying import Copying

NSX_T_LB = "nsx-t-lb"
"""The load balancer provider that wants marks of its own on a Service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is held beside Service and Endpoints, for whom, and with which marks.

    `load_balancer_provider` is whose marks are put on Services, none if empty. With
    `direct_slices`, EndpointSlices are held, and the Endpoints are marked not to be
    mirrored to others. `vmservices_held`: finalizers and status of VMServices are written,
    too, as on an API server; there they are read by the newest version that is served.
    """

    copying: Copying = field(default_factory=Copying)
    load_balancer_provider: str = ""
    direct_slices: bool = False
    vmservices_held: bool = False
