"""A service with many ports, under clients that follow everything: work linear in the ports.

Issue 10, point 3: one VMService with 12,000 ports stood everybody still for 18.8 s.
"""

from __future__ import annotations

from tests.unit.counting import counted_lines, is_linear
from tests.unit.objects import WEB, service, spec, vm
from tests.unit.server.endpoint_service.watching import synced_cache
from tests.unit.server.xds.client import CDS, EDS, XdsClient
from tests.unit.server.xds.world import BOTH, ENVOY, E, move
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.model.objects import ServicePort
from vmsvc_grpc.server.xds.shared import Form

COUNTS = (250, 500, 1000)
VMS = 20


def with_ports(count: int) -> Apply:
    ports = tuple(ServicePort(f"p{n}", "TCP", 1 + n, 9000 + n) for n in range(count))
    return Apply(service(WEB, spec(ports=ports)))


def envoy(served: Cache, form: Form) -> XdsClient:
    """An Envoy that follows every cluster, and the endpoints of each."""
    client = XdsClient(served, form, who=ENVOY)
    for type_url in (CDS, EDS):
        if form is Form.SOTW:
            client.ask(type_url, "*")
        else:
            client.change(type_url, ("*",))
    client.read_all()
    return client


def world(form: Form) -> tuple[Cache, XdsClient]:
    vms = (vm(f"vm-{n:02}", f"10.0.0.{n}") for n in range(1, VMS))
    served = synced_cache(service(), vm("a", "10.0.0.100"), *vms)
    return served, envoy(served, form)


@BOTH
def test_a_service_of_many_ports_appears_under_wildcards(form: Form) -> None:
    works = []
    for count in COUNTS:
        served, client = world(form)
        # Once before, so that what is remembered of names is the same for all counts.
        envoy(synced_cache(with_ports(count).object), form)
        with counted_lines() as lines:
            served.apply(with_ports(count))
            client.read_all()
        works.append(lines[0])
        assert client.counts.xds_encodings[E] == count + 1
        assert len(client.held(CDS)) == len(client.held(EDS)) == count
    assert is_linear(works), works


@BOTH
def test_one_vm_changes_under_a_service_of_many_ports_and_wildcards(form: Form) -> None:
    works = []
    for count in COUNTS:
        served, client = world(form)
        served.apply(with_ports(count))
        client.read_all()
        before = client.counts.xds_encodings.copy()
        with counted_lines() as lines:
            move(served, "10.0.0.101")
            client.read_all()
        works.append(lines[0])
        made = client.counts.xds_encodings - before
        assert made == {E: count}, "every load assignment anew, no cluster"
    assert is_linear(works), works
