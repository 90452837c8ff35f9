"""Whatever is done for a service is linear in its ports (issue 10, point 3)."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.counting import counted_lines, is_linear
from tests.unit.objects import WEB, vm
from tests.unit.server.endpoint_service.watching import synced_cache
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.model.objects import Kind, VirtualMachineService
from vmsvc_grpc.model.parse import parse
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.model.validate import PORTS_MAX
from vmsvc_grpc.reconciler.desired import desired
from vmsvc_grpc.reconciler.fields import body
from vmsvc_grpc.reconciler.held import HeldObjects
from vmsvc_grpc.reconciler.patch import merge_patch
from vmsvc_grpc.reconciler.plan import plan
from vmsvc_grpc.reconciler.rules import Rules
from vmsvc_grpc.render import render
from vmsvc_grpc.server.call import Call
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.endpoint_service.encode import Encoder
from vmsvc_grpc.server.endpoint_service.lookup import Lookup
from vmsvc_grpc.server.limits import Limits

COUNTS = (250, 500, 1000)
ADDRESS_RULES = AddressRules()


def ports(count: int) -> list[dict[str, Any]]:
    return [{"name": f"p{n}", "port": 1 + n, "targetPort": 9000 + n} for n in range(count)]


def untyped(given: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "vmoperator.vmware.com/v1alpha5",
        "kind": "VirtualMachineService",
        "metadata": {"namespace": WEB.namespace, "name": WEB.name},
        "spec": {"type": "ClusterIP", "selector": {"app": "web"}, "ports": given},
    }


def parsed(given: list[dict[str, Any]]) -> VirtualMachineService:
    found = parse(Kind.VIRTUAL_MACHINE_SERVICE, untyped(given))
    assert isinstance(found, VirtualMachineService)
    return found


def served(count: int) -> Cache:
    return synced_cache(parsed(ports(count)), vm("a", "10.0.0.1"))


Work = Callable[[], object]


def reading(count: int) -> Work:
    given = untyped(ports(count))
    return lambda: parse(Kind.VIRTUAL_MACHINE_SERVICE, given)


def reading_what_is_all_wrong(count: int) -> Work:
    """Each has the name and the number of the first, and one of another's below it."""
    given = untyped([{"name": "p", "port": 80, "targetPort": 70_000}] * count)
    return lambda: parse(Kind.VIRTUAL_MACHINE_SERVICE, given)


def publishing(count: int) -> Work:
    cache, service = served(count), parsed(ports(count - 1))
    return lambda: cache.apply(Apply(service))


def one_vm(count: int) -> Work:
    """The change of one VM, and what the own API makes of it for its readers."""
    cache, encoder = served(count), Encoder(ServerCounts())
    encoder.snapshot(cache.state(WEB, FilterClass.ALL))

    def change() -> None:
        cache.apply(Apply(vm("a", "10.0.0.2")))
        encoder.delta(cache.state(WEB, FilterClass.ALL))
        encoder.snapshot(cache.state(WEB, FilterClass.ALL))

    return change


def looking_up(count: int) -> Work:
    lookup = Lookup(served(count), Encoder(ServerCounts()), Limits())

    def ask() -> None:
        lookup.list_services(b"", Call("peer"))
        lookup.explain_endpoints(b"\n\x08shop/web", Call("peer"))

    return ask


def reconciling(count: int) -> Work:
    """All that is held of it, from nothing, and again beside what is stored in another order."""
    service = served(count).services[WEB]

    def reconcile() -> None:
        rules, now = Rules(vmservices_held=False), "2026-01-01T00:00:00Z"
        observed = HeldObjects(vmservice=service.object)
        wanted = desired(observed, service.spec, service.endpoints, rules, now=now).objects
        assert plan(wanted, observed)
        assert wanted.service is not None
        assert wanted.endpoints is not None
        (subset,) = wanted.endpoints.subsets
        turned = subset._replace(ports=tuple(reversed(subset.ports)))
        stored = replace(wanted, endpoints=replace(wanted.endpoints, subsets=(turned,)))
        again = desired(stored, service.spec, service.endpoints, rules, now=now).objects
        assert not plan(again, stored)
        fewer = replace(wanted.service, ports=wanted.service.ports[1:])
        assert merge_patch(fewer, wanted.service)
        body(wanted.service)

    return reconcile


@pytest.mark.parametrize(
    "work",
    [reading, reading_what_is_all_wrong, publishing, one_vm, looking_up, reconciling],
)
def test_work_for_a_service_is_linear_in_its_ports(work: Callable[[int], Work]) -> None:
    lines = []
    for count in COUNTS:
        run = work(count)
        with counted_lines() as counted:
            run()
        lines.append(counted[0])
    assert is_linear(lines), lines


def test_rendering_is_linear_in_ports(tmp_path: Path) -> None:
    lines = []
    for count in COUNTS:
        file = tmp_path / "web.yaml"
        entries = "".join(f"  - {{name: p{n}, port: {n + 1}}}\n" for n in range(count))
        file.write_text(
            "apiVersion: vmoperator.vmware.com/v1alpha5\nkind: VirtualMachineService\n"
            f"metadata: {{name: web, namespace: shop}}\nspec:\n  type: ClusterIP\n"
            f"  selector: {{app: web}}\n  ports:\n{entries}"
        )
        out, err = io.StringIO(), io.StringIO()
        with counted_lines() as counted:
            status = render(str(file), rules=ADDRESS_RULES, held=Rules(), out=out, err=err)
        assert (status, err.getvalue()) == (0, "")
        lines.append(counted[0])
    assert is_linear(lines), lines


@pytest.mark.parametrize("count", [PORTS_MAX + 1, 12_000])
def test_a_service_with_too_many_ports_is_refused(count: int) -> None:
    service = parsed(ports(count))
    assert service.spec is None
    assert len(service.problems) == 1
