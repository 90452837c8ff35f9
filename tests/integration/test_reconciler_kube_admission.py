"""Writing where an admission policy, or somebody's object, is in the way: on a real API server.

Each is one service's trouble: it is reported, nothing is written for ever, and the others go on.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.integration.kube_replica import DIRECT, FAST, HTTP, RULES, Desk, Replica, replica, until
from tests.kube.apiserver import Cluster
from tests.kube.webhook import ALLOWED, Decide, configuration, listening, mutated, refused
from tests.reconciling import attempts
from vmsvc_grpc.kube.times import time_text
from vmsvc_grpc.reconciler.counts import Attempt

ACCEPTED = "VirtualMachineServiceAccepted"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
TLS = Path(__file__).parent / "tls"
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"

# A transient refusal is reported after three attempts.
BOUNDS = replace(FAST, retries_max=3)


@pytest.fixture
def desk(kube: Cluster) -> Desk:
    return Desk(kube)


@asynccontextmanager
async def policy(desk: Desk, decide: Decide) -> AsyncIterator[None]:
    """Every write of an object named `web` in the namespace is decided on, once this begins."""
    asked = False

    def decided(request: dict[str, Any]) -> dict[str, Any]:
        nonlocal asked
        asked = True
        return decide(request) if request["name"].startswith("web") else ALLOWED

    async def is_asked() -> bool:
        await desk.patch("services", "probe", {"metadata": {"labels": {"a": str(next(turns))}}})
        return asked

    turns, certificate = count(), TLS / "certificate.pem"
    await desk.create("services", {"metadata": {"name": "probe"}, "spec": {"ports": [{"port": 1}]}})
    async with listening(decided, certificate, TLS / "key.pem") as url:
        made = configuration(desk.namespace, desk.namespace, url, certificate)
        response = await desk.request("POST", CONFIGURATIONS, made)
        assert response.status == 201, response
        try:
            await until(is_asked)
            yield
        finally:
            await desk.request("DELETE", f"{CONFIGURATIONS}/{desk.namespace}")


async def refusal(desk: Desk) -> tuple[str, str]:
    """Reason and message of our condition, once it is False."""

    async def is_false() -> bool:
        condition = await desk.condition(ACCEPTED)
        return condition is not None and condition["status"] == "False"

    await until(is_false)
    condition = await desk.condition(ACCEPTED)
    assert condition is not None
    return condition["reason"], condition["message"]


async def others_go_on(desk: Desk, one: Replica) -> None:
    """The service beside it gets a VM's address."""
    await desk.vmservice("calm", selector={"app": "calm"})
    await desk.vm("calm", "10.99.0.1", labels={"app": "calm"})
    await desk.holds("10.99.0.1", name="calm")


@pytest.mark.parametrize(
    ("verb", "resource", "code", "reason"),
    [
        pytest.param("CREATE", "services", 403, "Forbidden", id="forbidden"),
        pytest.param("CREATE", "endpoints", 409, "AlreadyExists", id="there, it says"),
        pytest.param("UPDATE", "endpoints", 409, "Conflict", id="a conflict, it says"),
        pytest.param("UPDATE", "services", 422, "Invalid", id="invalid"),
        pytest.param("UPDATE", "virtualmachineservices", 429, "TooManyRequests", id="too many"),
        pytest.param("DELETE", "services", 404, "NotFound", id="gone, it says"),
        pytest.param("DELETE", "endpoints", 500, "InternalError", id="broken"),
    ],
)
async def test_what_a_policy_refuses_is_reported_and_done_once_it_is_admitted(
    verb: str, resource: str, code: int, reason: str, desk: Desk, tmp_path: Path
) -> None:
    refuses = verb == "CREATE" or resource == "virtualmachineservices"

    def decide(request: dict[str, Any]) -> dict[str, Any]:
        asked = request["operation"], request["resource"]["resource"], request.get("subResource")
        ours = refuses and asked == (verb, resource, None)
        return refused(code, reason, "no such luck") if ours else ALLOWED

    await desk.vm("a", "10.20.0.1")
    await desk.vmservice()
    async with (
        policy(desk, decide),
        replica(desk, tmp_path, bounds=BOUNDS) as one,
    ):
        if not refuses:
            await desk.holds("10.20.0.1")
            await one.settled()
            refuses = True
            if verb == "DELETE":
                await desk.delete("virtualmachineservices")
            else:
                ports = {"spec": {"ports": [{**HTTP, "port": 81, "targetPort": 8081}]}}
                await desk.patch("virtualmachineservices", "web", ports)
        word, message = await refusal(desk)
        assert word.startswith(verb.title())
        assert word.endswith("Failed")
        assert message.startswith(f"cannot {verb.lower()} ")
        assert "no such luck" in message
        assert (await desk.told())["Warning", word, message] == 1
        await others_go_on(desk, one)
        refuses = False
        if verb == "DELETE":
            await desk.gone("virtualmachineservices")
        else:
            await desk.holds("10.20.0.1")
        await one.settled()
        assert [failure for _, failure in one.failures][-1] is None


async def test_many_services_whose_writes_hang_leave_the_others_their_turn(
    desk: Desk, tmp_path: Path
) -> None:
    """They took all workers at their first attempt, and again and again (points 3 and 18)."""
    answered, asked = threading.Event(), set[str]()

    def decide(request: dict[str, Any]) -> dict[str, Any]:
        asked.add(request["name"])
        answered.wait()
        return ALLOWED

    names = [f"web-{number}" for number in range(12)]
    for name in names:
        await desk.vmservice(name, selector={"app": "web"})
    bounds = replace(FAST, hang_s=0.3)
    async with policy(desk, decide), replica(desk, tmp_path, bounds=bounds) as one:
        try:
            await until(lambda: len(asked) >= 4)
            await others_go_on(desk, one)
            assert not [name for name in names if await desk.get("endpoints", name)]
            told = {failure.message for _, failure in one.failures if failure}
            assert "no answer within 0.3 s; others have their turn first" in told
        finally:
            answered.set()
        await desk.vm("a", "10.20.0.1")
        for name in names:
            await desk.holds("10.20.0.1", name=name)
        await one.settled()


async def test_a_policy_that_takes_our_condition_off_is_yielded_to(
    desk: Desk, tmp_path: Path
) -> None:
    """Its time differed each time, so it was never the same again (point 19)."""

    def decide(request: dict[str, Any]) -> dict[str, Any]:
        is_status = request.get("subResource") == "status"
        return mutated("/status/conditions", []) if is_status else ALLOWED

    begin = datetime(2026, 1, 1, tzinfo=UTC)
    seconds = count()
    await desk.vmservice()
    async with (
        policy(desk, decide),
        replica(
            desk,
            tmp_path,
            bounds=BOUNDS,
            now=lambda: time_text(begin + timedelta(seconds=next(seconds))),
        ) as one,
    ):
        await until(lambda: one.failures)
        ((_, failure),) = one.failures
        assert failure is not None
        assert failure.reason == "ChangesDoNotStay"
        assert f"the status of VirtualMachineService {desk.key()}: status.conditions" in (
            failure.message
        )
        # That it does not stay is something else to report, once.
        await others_go_on(desk, one)
        assert attempts(one.reconciler.counts, Attempt.WRITTEN).total() < 20


@pytest.mark.parametrize("at", ["CREATE", "UPDATE"])
async def test_a_policy_that_takes_our_slices_gets_three_of_them(
    at: str, desk: Desk, tmp_path: Path
) -> None:
    """There was one more after each rest, for ever, and no condition said so (point 18)."""

    def decide(request: dict[str, Any]) -> dict[str, Any]:
        is_slice = request["resource"]["resource"] == "endpointslices"
        if is_slice and request["operation"] == at:
            return mutated(f"/metadata/labels/{MANAGED_BY.replace('/', '~1')}", "policy")
        return ALLOWED

    await desk.vm("a", "10.20.0.1")
    await desk.vmservice()
    async with (
        policy(desk, decide),
        replica(desk, tmp_path, bounds=BOUNDS, rules=DIRECT) as one,
    ):
        await desk.holds("10.20.0.1")
        turn = 1

        async def moved() -> list[str]:
            """The slices that were taken, after one more change."""
            nonlocal turn
            turn += 1
            await one.move("a", f"10.20.0.{turn}")
            await desk.holds(f"10.20.0.{turn}")
            return [
                slice_["metadata"]["name"]
                for slice_ in await desk.listed("endpointslices")
                if slice_["metadata"]["labels"][MANAGED_BY] == "policy"
            ]

        async def are_three() -> bool:
            return len(await moved()) == 3

        async def are_named() -> bool:
            word, message = await refusal(desk)
            return word == "EndpointSliceTaken" and all(f"{name} was" in message for name in names)

        names = [f"web-ipv4-{number}" for number in range(3)]
        await until(are_three)
        await until(are_named)
        for _ in range(3):
            assert sorted(await moved()) == names
        await others_go_on(desk, one)


@pytest.mark.parametrize("resource", ["services", "endpoints", "endpointslices"])
async def test_what_a_finalizer_keeps_after_its_deletion_is_reported(
    resource: str, desk: Desk, tmp_path: Path
) -> None:
    """It may be kept for ever, and is not made anew before; that was so in silence (point 18)."""
    await desk.vm("a", "10.20.0.1")
    await desk.vmservice()
    rules = DIRECT if resource == "endpointslices" else RULES
    async with replica(desk, tmp_path, bounds=BOUNDS, rules=rules) as one:
        await desk.holds("10.20.0.1")
        await one.settled()
        name = "web-ipv4-0" if resource == "endpointslices" else "web"
        held = {"metadata": {"finalizers": ["example.com/hold"]}}
        made = await desk.patch(resource, name, held)
        await desk.delete(resource, name)
        word, message = await refusal(desk)
        assert word.endswith("BeingDeleted")
        for part in (f"{desk.namespace}/{name}", "metadata.finalizers (example.com/hold)"):
            assert part in message
        assert (await desk.told())["Warning", word, message] == 1
        await others_go_on(desk, one)
        await desk.patch(resource, name, {"metadata": {"finalizers": None}})

        async def is_new() -> bool:
            found = await desk.get(resource, name)
            return found is not None and found["metadata"]["uid"] != made["metadata"]["uid"]

        await until(is_new)
        await one.settled()
        assert [failure for _, failure in one.failures][-1] is None


async def test_many_slices_in_the_place_of_ours_are_passed_without_a_pause(
    desk: Desk, tmp_path: Path
) -> None:
    for number in range(7):
        labels = {"kubernetes.io/service-name": "web", MANAGED_BY: "someone"}
        body = {"metadata": {"name": f"web-ipv4-{number}", "labels": labels}}
        await desk.create("endpointslices", {**body, "addressType": "IPv4", "endpoints": []})
    await desk.vm("a", "10.20.0.1")
    await desk.vmservice()
    async with replica(desk, tmp_path, bounds=BOUNDS, rules=DIRECT):
        await desk.made("endpointslices", "web-ipv4-7")

        async def all_are_named() -> bool:
            _, message = await refusal(desk)
            return all(f"web-ipv4-{number} " in message for number in range(7))

        await until(all_are_named)
