"""The settings that decide what should be held."""

from __future__ import annotations

from dataclasses import dataclass, field

from vmsvc_grpc.model.objects import IPFamily
from vmsvc_grpc.reconciler.copying import Copying

NSX_T_LB = "nsx-t-lb"
"""The load balancer provider that wants labels and annotations of its own on a Service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Which objects are held, and with which labels and annotations.

    `load_balancer_provider` says whose labels and annotations Services get; none if empty. With
    `direct_slices`, EndpointSlices are held, and the Endpoints are marked not to be
    mirrored to others. `vmservices_held`: finalizers and status of VMServices are written too, as
    on an API server, where VMServices are read in the newest version served. `cluster_families`
    complete the families of a Service, as an API server does, where there is none; the default one
    comes first.
    """

    copying: Copying = field(default_factory=Copying)
    load_balancer_provider: str = ""
    direct_slices: bool = False
    vmservices_held: bool = False
    cluster_families: tuple[IPFamily, ...] = ()
