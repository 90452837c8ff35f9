"""What goes wrong around replicas on an API server; each fault is over when its act returns."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from soak.acting import Act
from tests.certificates import Authority, Secret
from tests.integration.cluster import INSTALLED, LEASE_S, VARIANT, Replica, World, eventually
from tests.kube.proxy import Network

_LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{INSTALLED}/leases/vmsvc-grpc"
_READER = "vmsvc-grpc-reader"

# How long a network is broken, and the account without rights.
_BROKEN_S = 3.0
# An API server that stops waits for its watches to end; this one does not.
_GRACE_S = 2.0


def faults(
    world: World, replicas: Sequence[Replica], authority: Authority, secret: Secret
) -> dict[str, Act]:
    """All of them, by what the report calls them. `secret` has the replicas' certificate."""
    return {
        "API server restarts": partial(_restart, world),
        "API server crashes": partial(_crash, world),
        "connections cut": partial(_cut, replicas),
        "networks down": partial(_broken, replicas, Network.DOWN),
        "black holes": partial(_broken, replicas, Network.BLACK_HOLE),
        "leaders paused past their lease": partial(_pause, replicas),
        "Leases deleted": partial(_delete_lease, world, replicas),
        "certificates rotated": partial(_rotate, replicas, authority, secret),
        "rights taken away and given back": partial(_forbid, world, replicas),
    }


def leader(replicas: Sequence[Replica]) -> Replica | None:
    """The replica that writes; fails if two do."""
    leading = [replica for replica in replicas if replica.leads]
    assert len(leading) <= 1, "two lead at once"
    return leading[0] if leading else None


def _restart(world: World) -> None:
    world.cluster.server.process.stop(grace_s=_GRACE_S)
    world.cluster.server.start()


def _crash(world: World) -> None:
    world.cluster.server.kill()
    world.cluster.server.start()


def _cut(replicas: Sequence[Replica]) -> None:
    for replica in replicas:
        replica.wire.do(replica.wire.proxy.cut())


def _broken(replicas: Sequence[Replica], how: Network) -> None:
    """The network of one that leads, if one does."""
    broken = leader(replicas) or replicas[0]
    broken.wire.do(broken.wire.proxy.break_off(how))
    time.sleep(_BROKEN_S)
    broken.wire.do(broken.wire.proxy.mend())
    # What went into a black hole stays there.
    broken.wire.do(broken.wire.proxy.cut())


def _pause(replicas: Sequence[Replica]) -> None:
    eventually(lambda: leader(replicas), "led by one")
    first = leader(replicas)
    if first is None:  # Just now it has lost its Lease, as it may.
        return
    others = [replica for replica in replicas if replica is not first]
    with _stopped(first):
        eventually(lambda: leader(others), "led by another")
    eventually(lambda: not first.leads, "not leading any more")


@contextmanager
def _stopped(replica: Replica) -> Iterator[None]:
    replica.program.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        replica.program.process.send_signal(signal.SIGCONT)


def _delete_lease(world: World, replicas: Sequence[Replica]) -> None:
    world.hands.ask("DELETE", _LEASE)
    time.sleep(LEASE_S)
    eventually(lambda: leader(replicas), "led by one again")


def _rotate(replicas: Sequence[Replica], authority: Authority, secret: Secret) -> None:
    loads: Callable[[], list[float]]
    loads = lambda: [r.metric("vmsvc_tls_loads_total", file="certificate") for r in replicas]  # noqa: E731
    before = loads()
    certificate, key = authority.issue()
    secret.put(tls_crt=certificate, tls_key=key)
    eventually(lambda: all(a > b for a, b in zip(loads(), before, strict=True)), "taken")


def _forbid(world: World, replicas: Sequence[Replica]) -> None:
    world.cluster.kubectl("delete", "clusterrolebinding", _READER)
    # An API server asks for rights only when a watch begins.
    _cut(replicas)
    time.sleep(_BROKEN_S)
    world.cluster.kubectl("apply", "--server-side", "--kustomize", str(VARIANT))
