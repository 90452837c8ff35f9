"""Writing on a real API server: what is refused, who else writes, where it may be broken off."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.integration.kube_replica import (
    DIRECT,
    FAST,
    GROUP,
    RULES,
    Desk,
    Replica,
    access,
    replica,
    until,
)
from tests.kube.apiserver import Cluster
from tests.kube.plugin import StartVMOperator
from tests.kube.vm_operator import VMOperator
from tests.reconciling import attempts
from vmsvc_grpc.kube.client import ApiServer
from vmsvc_grpc.kube.credentials import Credentials
from vmsvc_grpc.model.objects import IPFamily, Key
from vmsvc_grpc.reconciler.counts import Attempt
from vmsvc_grpc.reconciler.events import EventBounds, EventRecorder
from vmsvc_grpc.reconciler.held import Failure
from vmsvc_grpc.reconciler.kube import KubeStore
from vmsvc_grpc.reconciler.notice import Notice
from vmsvc_grpc.reconciler.plan import Change
from vmsvc_grpc.reconciler.rules import Rules
from vmsvc_grpc.reconciler.store import ChangeError, Conflict, Gone, NotWriting

FINALIZER = "vmoperator.vmware.com/virtualmachineservice"
ACCEPTED = "VirtualMachineServiceAccepted"
WRITES = frozenset({"POST", "PATCH", "DELETE"})


@pytest.fixture
def desk(kube: Cluster) -> Desk:
    return Desk(kube)


# -- What the store does with what somebody else has done --


async def test_what_was_changed_meanwhile_is_not_overwritten(desk: Desk, tmp_path: Path) -> None:
    await desk.vmservice()
    async with replica(desk, tmp_path) as one:
        await desk.holds()
        await one.settled()
        service = one.cache.stored_services[desk.key()]
        endpoints = one.cache.stored_endpoints[desk.key()]
        vmservice = one.cache.services[desk.key()].object
    await desk.patch("services", "web", {"metadata": {"labels": {"theirs": "yes"}}})
    balanced = replace(service, type="LoadBalancer")
    async with access(desk, tmp_path) as api:
        store = KubeStore(api)
        with pytest.raises(Conflict):
            await store.apply(Change(service, balanced))
        # The API server says only that the address is not free.
        for unknown in (service, replace(service, cluster_ip="", cluster_ips=())):
            with pytest.raises(Conflict) as conflict:
                await store.apply(Change(None, unknown))
            assert conflict.value.found is not None
            assert conflict.value.found.meta.labels == {"theirs": "yes"}
        with pytest.raises(Conflict) as conflict:
            await store.apply(Change(service, None))
        # Its VMService lives; so it is not deleted, whatever was thought.
        assert conflict.value.found == vmservice
        await desk.patch("virtualmachineservices", "web", {"metadata": {"finalizers": None}})
        await desk.delete("virtualmachineservices")
        with pytest.raises(Conflict) as conflict:
            await store.apply(Change(service, None))
        assert conflict.value.found is None  # What was changed may be somebody else's by now.
        assert await store.apply(Change(endpoints, None)) is None
        with pytest.raises(Gone):
            await store.apply(Change(endpoints, None))
        with pytest.raises(Gone):
            await store.apply(Change(endpoints, replace(endpoints, subsets=())))
        marked = replace(vmservice, meta=replace(vmservice.meta, finalizers=("a/b",)))
        with pytest.raises(Conflict):
            await store.apply(Change(vmservice, marked))


async def test_an_object_with_finalizers_stays_and_is_known_to_be_going(
    desk: Desk, tmp_path: Path
) -> None:
    await desk.vmservice(type="LoadBalancer")
    async with replica(desk, tmp_path) as one:
        await desk.holds()
        cleanup = {"finalizers": ["service.kubernetes.io/load-balancer-cleanup"]}
        await desk.patch("services", "web", {"metadata": cleanup})
        await one.settled()
        await desk.delete("virtualmachineservices")
        await desk.gone("virtualmachineservices")
        await one.settled()
        assert one.cache.stored_services[desk.key()].meta.deleting
        # One that takes the name waits until the former one's Service is gone.
        await desk.vmservice()
        await one.settled()
        await desk.patch("services", "web", {"metadata": {"finalizers": None}})

        async def is_new() -> bool:
            found = await desk.get("services")
            return found is not None and found["spec"]["type"] == "ClusterIP"

        await until(is_new)
        await one.settled()


async def test_nothing_is_written_by_who_may_not(desk: Desk, tmp_path: Path) -> None:
    await desk.vmservice()
    async with replica(desk, tmp_path, may_write=lambda: False) as one:
        await until(lambda: one.cache.synced)
        vmservice = one.cache.services[desk.key()].object
        with pytest.raises(NotWriting):
            await one.store.apply(Change(vmservice, vmservice))
        one.recorder.record(vmservice, Notice(True, "Try", "Tried", "nothing"))
        await until(lambda: one.recorder.counts["dropped"])
        assert await desk.listed("events") == []


async def test_nothing_is_sent_by_who_may_not_any_more_once_there_is_a_connection(
    desk: Desk, tmp_path: Path
) -> None:
    """As a leader that sleeps past its lease while it connects."""
    await desk.vmservice()
    async with replica(desk, tmp_path, may_write=lambda: False) as one:
        await until(lambda: one.cache.synced)
        vmservice = one.cache.services[desk.key()].object
    marked = replace(vmservice, meta=replace(vmservice.meta, finalizers=("a.example.com/b",)))
    asked = 0

    def may_write() -> bool:
        nonlocal asked
        asked += 1
        return asked == 1

    async with access(desk, tmp_path) as api:
        store = KubeStore(api, may_write=may_write)
        await store.apply(Change(vmservice, marked))
        with pytest.raises(NotWriting):
            await store.apply(Change(vmservice, vmservice))
    stored = await desk.get("virtualmachineservices")
    assert stored is not None
    assert stored["metadata"]["finalizers"] == ["a.example.com/b"]
    assert asked == 2


async def test_without_an_answer_a_write_is_tried_again(desk: Desk, tmp_path: Path) -> None:
    await desk.vmservice()
    async with replica(desk, tmp_path, may_write=lambda: False) as one:
        await until(lambda: one.cache.synced)
        vmservice = one.cache.services[desk.key()].object
        store = KubeStore(one.api, write_s=1e-6)
        with pytest.raises(ChangeError, match="no answer within") as error:
            await store.apply(Change(vmservice, replace(vmservice, ingress=())))
        assert error.value.passing


# What no API server says: no JSON, no text, more levels or digits than Python reads, nulls.
GARBAGE = (
    b"<html>",
    b'{"metadata":{"name":"\xff"}}',
    b"[" * 9_000,
    b'{"metadata":{"generation":' + b"9" * 5_000 + b"}}",
    b'{"metadata":{"finalizers":[null]}}',
    b"null",
)


class GarblingApi(ApiServer):
    """Somebody on the way spoils every other answer but those to lists, by chance."""

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(credentials)
        self._random = Random(1)

    async def request(self, method: str, path: str, **options: Any) -> bytes:
        answer = await super().request(method, path, **options)
        one = method in WRITES or path.endswith("/web")
        spoilt = one and self._random.random() < 0.5
        return self._random.choice(GARBAGE) if spoilt else answer


async def test_answers_that_cannot_be_read_end_nothing(desk: Desk, tmp_path: Path) -> None:
    """It may have been done all the same: the watch tells, or it is tried again."""
    await desk.vm("a", "10.20.0.11")
    async with replica(desk, tmp_path, api=GarblingApi, rules=DIRECT) as one:
        for _ in range(2):
            await desk.vmservice()
            await desk.holds("10.20.0.11")
            await desk.delete("virtualmachineservices")
            await desk.gone("virtualmachineservices")
        await one.settled()
        assert await desk.versions() == {}


# -- Rights --


async def test_a_right_that_is_missing_is_told_and_used_once_it_is_given(
    desk: Desk, tmp_path: Path
) -> None:
    await desk.vm("a", "10.20.0.11")
    await desk.vmservice()
    user = await asyncio.to_thread(desk.kube.service_account, desk.namespace, "writer")
    everything = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}
    own = {
        "apiGroups": ["vmoperator.vmware.com", "events.k8s.io"],
        "resources": ["*"],
        "verbs": ["create", "patch", "update"],
    }
    objects = {
        "apiGroups": [""],
        "resources": ["services", "endpoints"],
        "verbs": ["create", "patch", "delete"],
    }
    subject = {"kind": "ServiceAccount", "name": "writer", "namespace": desk.namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "writer"}
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{desk.namespace}"
    role = {"metadata": {"name": "writer"}, "rules": [everything, own]}
    await desk.request("POST", f"{rbac}/roles", role)
    binding = {"metadata": {"name": "writer"}, "subjects": [subject], "roleRef": reference}
    await desk.request("POST", f"{rbac}/rolebindings", binding)
    async with replica(desk, tmp_path, user=user) as one:

        async def told() -> bool:
            condition = await desk.condition(ACCEPTED)
            return condition is not None and condition["status"] == "False"

        await until(told)
        condition = await desk.condition(ACCEPTED)
        assert condition is not None
        assert condition["reason"] == "CreateServiceFailed"
        assert "forbidden" in condition["message"]
        role["rules"] = [everything, own, objects]
        await desk.request("PUT", f"{rbac}/roles/writer", role)
        await desk.holds("10.20.0.11")
        await one.settled()
        condition = await desk.condition(ACCEPTED)
        assert condition is not None
        assert condition["status"] == "True"


async def test_what_a_namespace_that_is_going_refuses_is_nobodys_fault(
    desk: Desk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No condition, no event and no line of the log says that something were wrong."""
    caplog.set_level(logging.INFO, logger="vmsvc_grpc")
    await desk.vm("a", "10.20.0.11")
    await desk.vmservice()
    # However long it takes; what is reported once it takes too long has a test of its own.
    patient = replace(FAST, retries_max=1_000_000)
    async with replica(desk, tmp_path, bounds=patient) as one:
        await desk.holds("10.20.0.11")
        await one.settled()
        await desk.request("DELETE", f"/api/v1/namespaces/{desk.namespace}")
        # The namespace's content is deleted kind by kind.
        await desk.delete("endpoints")
        await desk.delete("services")
        await until(lambda: attempts(one.reconciler.counts, Attempt.CONFLICT).total() > 1)
        about = one.cache.services[desk.key()].object
        one.recorder.record(about, Notice(False, "Say", "Said", "done"))
        await until(lambda: one.recorder.counts["dropped"])
        assert one.failures == []
        assert await desk.condition(ACCEPTED) is None
        await desk.delete("virtualmachineservices")
        await desk.gone("virtualmachineservices")
        await one.settled()
    assert one.failures == []
    assert caplog.messages == []


async def test_a_namespace_that_goes_on_going_is_named_as_what_is_in_the_way(
    desk: Desk, tmp_path: Path
) -> None:
    """It may hang for ever: something in it has a finalizer that nobody takes off."""
    await desk.vm("a", "10.20.0.11")
    await desk.vmservice()
    async with replica(desk, tmp_path, bounds=replace(FAST, retries_max=3)) as one:
        await desk.holds("10.20.0.11")
        await one.settled()
        await desk.request("DELETE", f"/api/v1/namespaces/{desk.namespace}")
        # Its Endpoints go with it, perhaps seen before it.
        await desk.delete("services")
        message = (
            f"cannot create Service {desk.key()}, tried 3 times in a row: namespace "
            f"{desk.namespace} is being deleted; see what keeps it"
        )
        reported = desk.key(), Failure("CreateServiceConflicts", message)
        await until(lambda: one.failures and one.failures[-1] == reported)
        condition = await desk.condition(ACCEPTED)
        assert condition is not None
        assert (condition["status"], condition["message"]) == ("False", message)


async def test_a_version_that_is_served_no_more_is_said_to_be_none(
    desk: Desk, tmp_path: Path
) -> None:
    await desk.vmservice()
    async with replica(desk, tmp_path) as one:
        await desk.holds()
        await one.settled()
        vmservice = one.cache.services[desk.key()].object
    former = replace(vmservice, api_version=f"{GROUP}/v1alpha0")
    marked = replace(former, meta=replace(former.meta, finalizers=("a/b",)))
    async with access(desk, tmp_path) as api:
        with pytest.raises(Conflict) as conflict:
            await KubeStore(api).apply(Change(former, marked))
    assert conflict.value.cause == (
        "it is not served as v1alpha0 (404 page not found); see which versions its CRD serves"
    )


# -- Events --


async def test_events_are_cut_to_what_is_admitted_and_lost_where_there_is_no_place(
    desk: Desk, tmp_path: Path
) -> None:
    await desk.vmservice()
    async with replica(desk, tmp_path, may_write=lambda: False) as one:
        await until(lambda: one.cache.synced)
        about = one.cache.services[desk.key()].object
    nowhere = replace(about, meta=replace(about.meta, key=Key("no-such-namespace", "web")))
    async with access(desk, tmp_path) as api:
        recorder = EventRecorder(api, instance="test", bounds=EventBounds(waiting_max=3))
        task = asyncio.create_task(recorder.run())
        recorder.record(about, Notice(True, "Drop", "Dropped", "there is no room for it"))
        recorder.record(nowhere, Notice(True, "Lose", "Lost", "there is no such place"))
        recorder.record(about, Notice(True, "Cut", "Cut", "é" * 1000))
        recorder.record(about, Notice(False, "Say", "Said", "done"))
        await until(lambda: not recorder._waiting)
        assert recorder.counts == {"written": 2, "dropped": 2}
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    told = await desk.told()
    assert [(type_, reason) for type_, reason, _ in sorted(told)] == [
        ("Normal", "Said"),
        ("Warning", "Cut"),
    ]
    assert [len(note.encode()) for _, reason, note in told if reason == "Cut"] == [1023]
    described = await asyncio.to_thread(
        desk.kube.kubectl, "describe", "vmservice", "web", "-n", desk.namespace
    )
    assert "done" in described


async def test_events_about_one_vmservice_are_bounded_and_leave_the_others_theirs(
    desk: Desk, tmp_path: Path
) -> None:
    about = [await desk.vmservice(name) for name in ("web", "db")]
    async with replica(desk, tmp_path, may_write=lambda: False) as one:
        await until(lambda: len(one.cache.services) == len(about))
        web, db = (one.cache.services[desk.key(name)].object for name in ("web", "db"))
    async with access(desk, tmp_path) as api:
        recorder = EventRecorder(api, instance="test", bounds=EventBounds(burst=3))
        task = asyncio.create_task(recorder.run())
        for number in range(20):
            recorder.record(web, Notice(True, "Try", "Failed", f"try {number}"))
        recorder.record(db, Notice(True, "Try", "Failed", "its own"))
        await until(lambda: not recorder._waiting)
        assert recorder.counts == {"written": 4, "dropped": 17}
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert sorted(note for _, _, note in await desk.told()) == ["try 0", "try 1", "try 2"]
    assert [note for _, _, note in await desk.told("db")] == ["its own"]


# -- Slices --


async def sliced(desk: Desk) -> dict[str, list[str]]:
    """The addresses in each EndpointSlice of the namespace, by who manages it and its name."""
    managed_by = "endpointslice.kubernetes.io/managed-by"
    return {
        f"{item['metadata']['labels'][managed_by]}/{item['metadata']['name']}": sorted(
            a for endpoint in item["endpoints"] or [] for a in endpoint["addresses"]
        )
        for item in await desk.listed("endpointslices")
    }


async def unmarked(desk: Desk) -> None:
    """Fails if Service or Endpoints have marks of ours."""
    for resource in ("services", "endpoints"):
        found = await desk.get(resource)
        assert found is not None
        assert not {"labels", "annotations"} & set(found["metadata"])


@asynccontextmanager
async def without_a_gap(desk: Desk, api: ApiServer) -> AsyncIterator[None]:
    """Fails if at any moment in the block no EndpointSlice of the namespace has an endpoint."""
    sizes: dict[str, int] = {}

    async def follow() -> None:
        query = {"watch": "1"}
        async with api.watch(desk.path("endpointslices"), query, silence_s=60.0) as lines:
            async for line in lines:
                event = json.loads(line)
                gone = event["type"] == "DELETED"
                name = event["object"]["metadata"]["name"]
                sizes[name] = 0 if gone else len(event["object"]["endpoints"] or ())
                assert any(sizes.values()), event

    task = asyncio.create_task(follow())
    await until(lambda: task.done() or sizes)
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_slices_are_written_instead_of_mirrored_and_go_again(
    desk: Desk, tmp_path: Path
) -> None:
    controllers = await asyncio.to_thread(
        desk.kube.start_controllers, "endpointslice-mirroring-controller"
    )
    try:
        await desk.vm("a", "10.20.0.11", labels={"app": "web", "topology.kubernetes.io/zone": "z"})
        await desk.vmservice()
        mirrored = {"endpointslicemirroring-controller.k8s.io": ["10.20.0.11"]}

        async def by_manager() -> dict[str, list[str]]:
            return {name.partition("/")[0]: held for name, held in (await sliced(desk)).items()}

        async def holds(wanted: dict[str, list[str]]) -> None:
            async def held() -> bool:
                return await by_manager() == wanted

            await until(held)

        async with replica(desk, tmp_path):
            await holds(mirrored)
        async with replica(desk, tmp_path, rules=DIRECT) as one:
            await holds({"vmsvc-grpc": ["10.20.0.11"]})
            await one.settled()
            (slice_,) = await desk.listed("endpointslices")
            (endpoint,) = slice_["endpoints"]
            assert endpoint["zone"] == "z"
            assert endpoint["conditions"] == {"ready": True, "serving": True, "terminating": False}
            assert endpoint["targetRef"]["name"] == "a"
            assert slice_["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
            assert await desk.addresses() == ["10.20.0.11"]
        async with replica(desk, tmp_path) as one, without_a_gap(desk, one.api):
            await holds(mirrored)
            await one.settled()
            await unmarked(desk)
        async with replica(desk, tmp_path, rules=DIRECT) as one:
            await holds({"vmsvc-grpc": ["10.20.0.11"]})
            await one.settled()
            async with without_a_gap(desk, one.api):
                # The Endpoints stay, and are the user's; so Kubernetes mirrors them.
                none = {"spec": {"selector": None}}
                await desk.patch("virtualmachineservices", "web", none)
                await holds(mirrored)
                await one.settled()
                await unmarked(desk)
                assert await desk.addresses() == ["10.20.0.11"]
    finally:
        await asyncio.to_thread(controllers.kill)


async def test_slices_take_whatever_addresses_endpoints_take(
    kube_dual_stack: Cluster, tmp_path: Path
) -> None:
    """One that is refused would keep all others of its service from being written."""
    desk = Desk(kube_dual_stack)
    odd = ["255.255.255.254", "0.0.0.1", "240.0.0.1", "10.20.0.1"]
    odd += [
        "2001:DB8:0:0::1",
        "2001:db8:0:1:1:1:1:1",
        "::2",
        "::10.1.2.3",
        "64:ff9b::10.1.2.3",
        "fc00::",
    ]
    for number, address in enumerate(odd):
        await desk.vm(f"vm-{number}", address)
    await desk.vm("again", "10.20.0.1")
    await desk.vmservice(ipFamilyPolicy="RequireDualStack")
    families = (IPFamily.IPV4, IPFamily.IPV6)
    async with replica(desk, tmp_path, rules=DIRECT, families=families) as one:
        await desk.holds(*odd, "10.20.0.1")
        await one.settled()
        assert one.failures == []
        held = [ip_address(a) for addresses in (await sliced(desk)).values() for a in addresses]
        assert Counter(held) == Counter(map(ip_address, [*odd, "10.20.0.1"]))


async def test_a_small_change_of_many_endpoints_writes_one_slice(
    desk: Desk, tmp_path: Path
) -> None:
    await desk.vmservice()
    async with replica(desk, tmp_path, rules=DIRECT) as one:

        async def make(number: int) -> None:
            await one.api.request(
                "POST", desk.path("virtualmachines"), body=desk.vm_body(f"vm-{number}")
            )
            await one.move(f"vm-{number}", f"10.30.0.{number + 1}")

        for first in range(0, 150, 25):
            await asyncio.gather(*(make(number) for number in range(first, first + 25)))

        async def held() -> int:
            return sum(map(len, (await sliced(desk)).values()))

        async def all_held() -> bool:
            return await held() == 150 and len(await desk.addresses() or ()) == 150

        await until(all_held)
        await one.settled()
        before = await desk.versions("endpointslices", "endpoints", "services")
        assert len(await sliced(desk)) == 2
        await one.move("vm-7", "10.40.0.1")

        async def moved() -> bool:
            return any("10.40.0.1" in held for held in (await sliced(desk)).values())

        await until(moved)
        await one.settled()
        after = await desk.versions("endpointslices", "endpoints", "services")
        changed = [name for (_, name), version in after.items() if before[_, name] != version]
        assert len(changed) == 2  # One slice, and the Endpoints.
        slice_name = next(name for name in changed if name != "web")
        await desk.patch("endpointslices", slice_name, {"endpoints": []})
        await desk.delete("endpointslices", "web-ipv4-0")
        await until(all_held)
        await desk.delete("virtualmachineservices")
        await desk.gone("virtualmachineservices")
        assert await desk.listed("endpointslices") == []


# -- Beside VM Operator --


@pytest.mark.parametrize("ours_first", [True, False], ids=["we came first", "it came first"])
async def test_beside_vm_operator_neither_undoes_what_the_other_writes(
    ours_first: bool, desk: Desk, tmp_path: Path, start_vm_operator: StartVMOperator
) -> None:
    for number in range(4):
        await desk.vm(f"vm-{number}", f"10.20.0.{number + 1}")
    second_port = {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 5353}
    http = {"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}
    meta = {"labels": {"team": "blue"}}
    await desk.vmservice(ports=[http, second_port], type="LoadBalancer", meta=meta)
    ready = [f"10.20.0.{number + 1}" for number in range(4)]

    if ours_first:
        async with replica(desk, tmp_path) as one:
            await desk.holds(*ready)
            await one.settled()
    double: VMOperator = await asyncio.to_thread(
        start_vm_operator, desk.kube, namespace=desk.namespace
    )
    await desk.holds(*ready)
    await told(desk)
    async with replica(desk, tmp_path) as one:
        await one.settled()
        assert one.writes == 0
        await at_rest(desk, double, one)
        if ours_first:
            # It may sort the ports by its hash, once.
            theirs = {w.resource: n for w, n in double.writes().items() if w.name == "web"}
            assert theirs in ({}, {"endpoints": 1})

        made = one.writes
        for turn in range(1, 11):
            await one.move("vm-0", f"10.20.{turn}.1")
            await desk.holds(f"10.20.{turn}.1", *ready[1:])
            assert one.writes - made <= turn
        probe = {"spec": {"readinessProbe": {"tcpSocket": {"port": 22}}}}
        await desk.patch("virtualmachines", "vm-1", probe)
        ingress = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
        await desk.patch("services", "web", ingress, "/status")
        await desk.patch("services", "web", {"metadata": {"labels": {"theirs": "yes"}}})
        await desk.patch("virtualmachineservices", "web", {"spec": {"type": "ClusterIP"}})
        await at_rest(desk, double, one)
        assert one.failures == []
        await desk.delete("virtualmachineservices")
        await desk.gone("virtualmachineservices")
        assert await desk.get("services") is None
        assert await desk.get("endpoints") is None
    assert double.process.running


TRAFFIC = "virtualmachineservice.vmoperator.vmware.com/service.externalTrafficPolicy"
HEALTH_CHECK = "virtualmachineservice.vmoperator.vmware.com/service.healthCheckNodePort"
LOCAL = {"annotations": {TRAFFIC: "Local"}}


@pytest.mark.parametrize(
    ("ip", "given", "theirs"),
    [
        pytest.param(
            "10.20.0.1",
            {"type": "LoadBalancer", "loadBalancerSourceRanges": [" 10.0.0.0/8 "]},
            "",
            id="blanks in source ranges",
        ),
        pytest.param("10.20.0.1", {"externalName": "a.example"}, "", id="an externalName"),
        pytest.param("2001:db8::1", {}, "", id="an IPv6 address in primaryIP4"),
        pytest.param("010.020.0.1", {}, "", id="leading zeros"),
        pytest.param("::ffff:10.20.0.1", {}, "", id="an IPv4 address written as IPv6"),
        pytest.param("239.1.2.3", {}, "", id="a multicast address"),
        pytest.param(
            "10.20.0.1", {"type": "LoadBalancer", "meta": LOCAL}, "nsx-t-lb", id="their provider"
        ),
    ],
)
async def test_what_vm_operator_writes_of_odd_input_is_what_we_would(
    ip: str, given: Any, theirs: str, desk: Desk, tmp_path: Path, start_vm_operator: StartVMOperator
) -> None:
    """One write a second each, for ever, in silence (issue 9, point 19)."""
    await desk.vm("a", "10.20.9.9")
    await desk.patch("virtualmachines", "a", {"status": {"network": {"primaryIP4": ip}}}, "/status")
    await desk.vmservice(**given)
    double = await asyncio.to_thread(
        start_vm_operator, desk.kube, namespace=desk.namespace, provider=theirs
    )
    await desk.holds(ip)
    async with replica(desk, tmp_path) as one:
        await one.settled()
        await at_rest(desk, double, one)
        if theirs:
            # Nobody asks for the marks any more: they are taken off the Service alone.
            patch = {"metadata": {"annotations": {TRAFFIC: None}}}
            await desk.patch("virtualmachineservices", "web", patch)
            await at_rest(desk, double, one)
        assert one.failures == []
        assert await desk.addresses() == [ip]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        pytest.param(
            {"spec": {"type": "ExternalName", "externalName": "a.example"}},
            ("Service", "spec.type"),
            id="a type that we refuse",
        ),
        pytest.param({"spec": {"type": "NodePort"}}, ("Service", "spec.type"), id="a NodePort"),
        pytest.param(
            {"spec": {"selector": {"app": "no label!"}}},
            ("Endpoints", "subsets"),
            id="a selector that is no labels",
        ),
    ],
)
async def test_where_vm_operator_writes_what_we_refuse_we_yield_and_say_so(
    edit: Any,
    words: tuple[str, ...],
    desk: Desk,
    tmp_path: Path,
    start_vm_operator: StartVMOperator,
) -> None:
    await desk.vm("a", "10.20.0.1")
    await desk.vmservice()
    await asyncio.to_thread(start_vm_operator, desk.kube, namespace=desk.namespace)
    await desk.holds("10.20.0.1")
    async with replica(desk, tmp_path) as one:
        await one.settled()
        await desk.patch("virtualmachineservices", "web", edit)

        async def yielded() -> bool:
            return bool(one.failures)

        await until(yielded)
        ((_, failure),) = one.failures
        assert failure is not None
        assert failure.reason == "ChangesDoNotStay"
        for word in (*words, "by 'vmoperator"):
            assert word in failure.message

        async def told_of() -> bool:
            accepted = await desk.condition("VirtualMachineServiceAccepted")
            refused = accepted is not None and accepted["status"] == "False"
            said = accepted["message"] if accepted else ""
            notes = [note for _, reason, note in await desk.told() if reason == failure.reason]
            return refused and all(word in said for word in words) and bool(notes)

        await until(told_of)
        writes = one.writes
        await asyncio.sleep(3)  # A fight was a write for each rest of 0.05 s.
        assert one.writes - writes <= 1
        await desk.patch(
            "virtualmachineservices",
            "web",
            {"spec": {"type": "ClusterIP", "externalName": None, "selector": {"app": "web"}}},
        )
        await desk.holds("10.20.0.1")


async def test_where_we_alone_have_a_provider_neither_goes_on_for_ever(
    desk: Desk, tmp_path: Path, start_vm_operator: StartVMOperator
) -> None:
    """Six writes a second, for ever, with a condition that flapped (issue 9, point 19)."""
    await desk.vm("a", "10.20.0.1")
    marked = {TRAFFIC: "Local", HEALTH_CHECK: "30500"}
    await desk.vmservice(type="LoadBalancer", meta={"annotations": marked})
    double = await asyncio.to_thread(start_vm_operator, desk.kube, namespace=desk.namespace)
    await desk.holds("10.20.0.1")
    rules = replace(RULES, load_balancer_provider="nsx-t-lb")
    async with replica(desk, tmp_path, rules=rules) as one:
        await one.settled()
        await at_rest(desk, double, one)
        assert one.failures == []
        # The marks stay on the VMService, where the other one copies from.
        gone = {"metadata": {"annotations": dict.fromkeys(marked)}}
        await desk.patch("virtualmachineservices", "web", gone)
        told: list[str] = []
        while told.count("False") < 30:
            accepted = await desk.condition(ACCEPTED)
            told.append(accepted["status"] if accepted else "")
            await asyncio.sleep(0.1)
        # From the first on: it changes back only after a quiet minute.
        assert told == [""] * told.index("False") + ["False"] * 30
        _, failure = one.failures[-1]
        assert failure is not None
        assert failure.reason == "ChangesDoNotStay"
        for word in ("Service", "Endpoints", "metadata.labels", "by 'vmoperator"):
            assert word in failure.message
        # Now and then one attempt for each of the two: it was one for each rest of 0.05 s.
        writes, theirs = one.writes, double.writes().total()
        await asyncio.sleep(3)
        assert one.writes - writes <= 2
        assert double.writes().total() - theirs <= 2


@pytest.mark.parametrize("rules", [RULES, DIRECT], ids=["mirrored", "direct slices"])
async def test_two_of_ours_that_both_write_come_to_rest_with_the_same(
    rules: Rules, desk: Desk, tmp_path: Path
) -> None:
    """As where one deployment is for all namespaces, and another for one of them."""
    for number in range(3):
        await desk.vm(f"vm-{number}", f"10.20.0.{number + 1}")
    async with (
        replica(desk, tmp_path, rules=rules) as one,
        replica(desk, tmp_path, rules=rules) as other,
    ):
        await desk.vmservice(type="LoadBalancer")
        for turn in range(1, 13):
            await one.move("vm-0", f"10.20.{turn}.1")
            port = {"name": "http", "protocol": "TCP", "port": 80 + turn, "targetPort": 8080}
            if turn % 4 == 0:
                await desk.patch("virtualmachineservices", "web", {"spec": {"ports": [port]}})
                await desk.made("services")  # On a slow machine not yet, or not yet again.
                await desk.delete("services")
        await desk.holds("10.20.0.2", "10.20.0.3", "10.20.12.1")
        for each in (one, other):
            await each.settled()
            assert each.failures == []
        writes, held = one.writes + other.writes, await desk.versions()
        one.reconciler.enqueue_all()
        other.reconciler.enqueue_all()
        for each in (one, other):
            await each.settled()
        assert (one.writes + other.writes, await desk.versions()) == (writes, held)
        await desk.delete("virtualmachineservices")
        await desk.gone("virtualmachineservices")
        for each in (one, other):
            await each.settled()
            assert each.failures == []
        assert await desk.versions() == {}


async def test_slices_in_the_place_of_ours_stay_and_ours_have_the_next_names(
    desk: Desk, tmp_path: Path
) -> None:
    """Created and conflicted for ever in silence, or relabelled and overwritten (point 18)."""
    await desk.vm("a", "10.20.0.1")
    for number, manager in enumerate(("someone", "vmsvc-grpc")):
        labels = {
            "kubernetes.io/service-name": "web",
            "endpointslice.kubernetes.io/managed-by": manager,
        }
        body = {
            "metadata": {"name": f"web-ipv4-{number}", "labels": labels},
            "addressType": "IPv4",
            "endpoints": [],
        }
        await desk.create("endpointslices", body)
    theirs = [await desk.get("endpointslices", f"web-ipv4-{number}") for number in range(2)]
    await desk.vmservice()
    async with replica(desk, tmp_path, rules=DIRECT) as one:
        await desk.holds("10.20.0.1")

        async def told_of() -> bool:
            accepted = await desk.condition("VirtualMachineServiceAccepted")
            return accepted is not None and all(
                f"web-ipv4-{number}" in accepted["message"] for number in range(2)
            )

        await until(told_of)
        ours = await desk.get("endpointslices", "web-ipv4-2")
        assert ours is not None
        assert [e["addresses"] for e in ours["endpoints"]] == [["10.20.0.1"]]
        assert attempts(one.reconciler.counts, Attempt.CONFLICT).total() == 2
    assert [await desk.get("endpointslices", f"web-ipv4-{n}") for n in range(2)] == theirs


async def told(desk: Desk, name: str = "web") -> None:
    """Return once a VMService's status has been written."""

    async def has_status() -> bool:
        found = await desk.get("virtualmachineservices", name)
        return bool(found and found.get("status"))

    await until(has_status)


async def at_rest(desk: Desk, double: VMOperator, one: Replica) -> None:
    """Return once both have done what there was; and neither finds more to do."""
    before: dict[tuple[str, str], str] = {}

    async def quiet() -> bool:
        nonlocal before
        # VM Operator takes key by key, so it has seen what was there before this.
        name = f"barrier-{len(await desk.listed('virtualmachineservices'))}"
        await desk.vmservice(name, selector={"app": name})
        await told(desk, name)
        await one.settled()
        stored = await desk.versions("virtualmachineservices", "services", "endpoints")
        now = {at: version for at, version in stored.items() if at[1] == "web"}
        same, before = now == before, now
        return same

    await until(quiet)
    writes, theirs = one.writes, double.writes()
    one.reconciler.enqueue_all()
    await one.settled()
    assert one.writes == writes
    assert double.writes() == theirs


# -- Killed --


class Crash(BaseException):
    """The process is killed here."""


class MortalApi(ApiServer):
    """Dies before, or after, one of its writes of objects."""

    def __init__(self, credentials: Credentials, *, at: int, after: bool) -> None:
        super().__init__(credentials)
        self.writes = 0
        self._at = at
        self._after = after

    async def request(self, method: str, path: str, **options: Any) -> bytes:
        if method not in WRITES or "/events" in path:
            return await super().request(method, path, **options)
        self.writes += 1
        if self.writes == self._at and not self._after:
            raise Crash
        answer = await super().request(method, path, **options)
        if self.writes == self._at:
            raise Crash
        return answer


async def dies(desk: Desk, folder: Path, at: int, *, after: bool) -> bool:
    """Whether a replica is killed at a write, or comes to rest before it."""

    def mortal(credentials: Credentials) -> ApiServer:
        return MortalApi(credentials, at=at, after=after)

    dead = False
    try:
        async with replica(desk, folder, api=mortal, rules=DIRECT) as one:
            await one.rested_or_dead()
    except* Crash:
        dead = True
    return dead


async def killed(desk: Desk, folder: Path, at: int, *, after: bool) -> bool:
    """Run a replica that is killed at a write, and another one then; whether the first was."""
    dead = await dies(desk, folder, at, after=after)
    async with replica(desk, folder, rules=DIRECT) as one:
        await one.settled()
        writes = one.writes
        one.reconciler.enqueue_all()
        await one.settled()
        assert one.writes == writes
    return dead


@pytest.mark.parametrize("after", [False, True], ids=["before a write", "after a write"])
async def test_killed_at_any_write_and_started_again_it_converges(
    after: bool, kube: Cluster, tmp_path: Path
) -> None:
    died = Counter(created=0, changed=0, deleted=0)
    for at in range(1, 6):
        desk = Desk(kube)
        await desk.vm("a", "10.20.0.11")
        await desk.vmservice(type="LoadBalancer")
        died["created"] += await killed(desk, tmp_path, at, after=after)
        assert await desk.addresses() == ["10.20.0.11"]
        assert await sliced(desk) == {"vmsvc-grpc/web-ipv4-0": ["10.20.0.11"]}

        ports = [{"name": "x", "protocol": "TCP", "port": 1, "targetPort": 2}]
        spec = {"type": "ClusterIP", "ports": ports}
        await desk.patch("virtualmachineservices", "web", {"spec": spec})
        died["changed"] += await killed(desk, tmp_path, at, after=after)
        service, endpoints = await desk.get("services"), await desk.get("endpoints")
        assert service is not None
        assert endpoints is not None
        assert (service["spec"]["type"], service["spec"]["ports"][0]["port"]) == ("ClusterIP", 1)
        assert endpoints["subsets"][0]["ports"][0]["port"] == 2

        await desk.delete("virtualmachineservices")
        died["deleted"] += await killed(desk, tmp_path, at, after=after)
        assert await desk.versions() == {}
        assert await sliced(desk) == {}
    # Finalizer, Service, slice, Endpoints, status; Service, slice, Endpoints; Endpoints,
    # slice, Service, finalizer.
    assert died == {"created": 5, "changed": 3, "deleted": 4}
