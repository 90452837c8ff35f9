"""Endpoints are counted by namespace and by service, some services in a step."""

from __future__ import annotations

import pytest
from prometheus_client import parser as prometheus
from prometheus_client.openmetrics import parser as openmetrics

from tests.unit.counting import counted_lines
from tests.unit.objects import service, spec, vm
from vmsvc_grpc.bindings import SERVICES_A_STEP, bind_services
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.metrics import Metrics
from vmsvc_grpc.model.events import Apply, Init, InitDone
from vmsvc_grpc.model.objects import (
    Key,
    Kind,
    Probe,
    Readiness,
    VirtualMachine,
    VirtualMachineService,
)
from vmsvc_grpc.model.problem import Problem
from vmsvc_grpc.model.resolve import AddressRules

KINDS = (Kind.VIRTUAL_MACHINE_SERVICE, Kind.VIRTUAL_MACHINE)


def filled(*objects: VirtualMachineService | VirtualMachine) -> Cache:
    cache = Cache(AddressRules())
    for kind in KINDS:
        cache.apply(Init(kind))
    for each in objects:
        cache.apply(Apply(each))
    for kind in KINDS:
        cache.apply(InitDone(kind))
    return cache


def samples(cache: Cache, *, each: bool, open_metrics: bool = False) -> dict[str, float]:
    """The values of what is said of services, by their names with labels."""
    metrics = Metrics()
    bind_services(metrics, cache, each=each)
    page = b"".join(metrics.page(open_metrics)).decode()
    parse = (openmetrics if open_metrics else prometheus).text_string_to_metric_families
    return {
        f"{sample.name.removeprefix('vmsvc_')} {' '.join(sample.labels.values())}": sample.value
        for family in parse(page)
        for sample in family.samples
        if sample.name.startswith("vmsvc_")
    }


CACHE_OBJECTS = (
    service(),
    vm("a", "10.0.0.1"),
    vm("b", "10.0.0.2"),
    vm("c", "10.0.0.3", probe=Probe.TCP_SOCKET, ready=Readiness.FALSE),
    service(Key("shop", "empty"), spec({"app": "nothing"})),
    service(Key("shop", "others"), spec({})),
    service(Key("lab", "odd"), problems=(Problem("spec.type", "is odd"),)),
)


@pytest.mark.parametrize("open_metrics", [False, True], ids=["text", "OpenMetrics"])
def test_each_service_and_its_namespace(open_metrics: bool) -> None:
    assert samples(filled(*CACHE_OBJECTS), each=True, open_metrics=open_metrics) == {
        "namespace_services lab ready": 0,
        "namespace_services lab empty": 0,
        "namespace_services lab no_selector": 0,
        "namespace_services lab refused": 1,
        "namespace_services shop ready": 1,
        "namespace_services shop empty": 1,
        "namespace_services shop no_selector": 1,
        "namespace_services shop refused": 0,
        "namespace_endpoints lab true": 0,
        "namespace_endpoints lab false": 0,
        "namespace_endpoints shop true": 2,
        "namespace_endpoints shop false": 1,
        "service_endpoints shop empty true": 0,
        "service_endpoints shop empty false": 0,
        "service_endpoints shop others true": 0,
        "service_endpoints shop others false": 0,
        "service_endpoints shop web true": 2,
        "service_endpoints shop web false": 1,
    }


def test_by_namespace_alone() -> None:
    found = samples(filled(*CACHE_OBJECTS), each=False)
    assert not [name for name in found if name.startswith("service_endpoints")]
    assert found["namespace_services shop ready"] == 1


def test_many_services_take_many_steps() -> None:
    """At design size there are 10,000; nobody waits for more than a step of a scrape."""
    count = 3 * SERVICES_A_STEP
    cache = filled(*(service(Key(f"ns-{n % 7}", f"s-{n}")) for n in range(count)))
    metrics = Metrics()
    bind_services(metrics, cache, each=True)
    most, parts, page = 0, 0, metrics.page(False)
    while True:
        with counted_lines() as counted:
            part = next(page, None)
        if part is None:
            break
        parts, most = parts + 1, max(most, counted[0])
    assert parts > count / SERVICES_A_STEP
    assert most < 60 * SERVICES_A_STEP
    assert len(samples(cache, each=True)) == 2 * count + 6 * 7


def test_services_may_go_between_two_steps() -> None:
    cache = filled(*(service(Key("shop", f"s-{n:05}")) for n in range(SERVICES_A_STEP + 10)))
    metrics = Metrics()
    bind_services(metrics, cache, each=True)
    parts = []
    for part in metrics.page(False):
        parts.append(part)
        for kind in KINDS:
            cache.apply(Init(kind))
        for kind in KINDS:
            cache.apply(InitDone(kind))
    text = b"".join(parts).decode()
    assert text.count("vmsvc_service_endpoints{") <= 2 * SERVICES_A_STEP


def test_names_are_escaped() -> None:
    cache = filled(service(Key('a"b\\', "c\nd")))
    assert samples(cache, each=True)['namespace_services a"b\\ empty'] == 1
