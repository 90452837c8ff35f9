"""Several replicas on one API server: every one serves, one writes, whatever becomes of it.

Clocks that jump are not here: nobody compares wall clocks, and the property of the election
(`tests/unit/reconciler/test_election.py`) has every candidate on a clock of its own.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from http import HTTPStatus

import pytest
import yaml

from tests.integration.cluster import (
    DEPLOY,
    INSTALLED,
    LEASE_S,
    VARIANT,
    Replica,
    Site,
    World,
    churn,
    eventually,
    path,
    within,
    world,
)
from tests.kube.plugin import StartVMOperator
from tests.program import PATIENCE_S, ProgramError, awaited

__all__ = ["world"]

LEASE = f"{INSTALLED}/vmsvc-grpc"
LEASE_PATH = f"/apis/coordination.k8s.io/v1/namespaces/{INSTALLED}/leases/vmsvc-grpc"
# How much later than it might a busy machine does something.
SLACK_S = PATIENCE_S


def leader_of(*replicas: Replica) -> Replica | None:
    leading = [replica for replica in replicas if replica.leads]
    assert len(leading) < 2, "two lead at once"
    return leading[0] if leading else None


def test_two_that_start_at_once(world: World) -> None:
    """Each object is created once, by the one that leads."""
    site = world.site()
    start = world.mark()
    with (
        world.replica(steady=[site.steady]) as one,
        world.replica(steady=[site.steady]) as other,
    ):
        world.agrees(one, other)
        created = [w for w in world.writes(start) if w.verb == "create" and w.resource != "events"]
        assert {w.by for w in created} == {one.token_id if one.leads else other.token_id}
        assert sorted(w.code for w in created) == [201] * 10, created
        assert len({(w.resource, w.name) for w in created}) == 10
        with churn(site):
            eventually(lambda: min(r.listener.messages for r in (one, other)) > 100, "told")
        world.agrees(one, other)
        writers = {w.by for w in world.writes(start)}
        assert len(writers) == 1
        first, second = (one, other) if one.leads else (other, one)
        holder = re.search(rf"leading: Lease {LEASE} is held as (\S+)\n", first.program.said())
        assert holder is not None
        assert f"not leading: Lease {LEASE} is held by {holder[1]}\n" in second.program.said()


def test_one_that_may_not_hold_the_lease_serves_and_says_why_it_does_not_write(
    world: World,
) -> None:
    """Its rights are for the Lease in the namespace of the Pods, and it is told another one."""
    site = world.site()
    start = world.mark()
    with world.replica(namespace=site.namespace) as replica:
        eventually(lambda: replica.listener.addresses(site.steady), "serving")
        trouble = f"Lease {site.namespace}/vmsvc-grpc cannot be held: 403"
        eventually(lambda: trouble in replica.program.said(), "told why nothing is written")
        assert replica.program.said().count("403") == 1
        assert not replica.leads
    assert world.writes(start) == []


def test_a_leader_that_is_killed(world: World) -> None:
    """Changes made while nobody led are not lost (linkerd2 #12021)."""
    site = world.site()
    with doomed(world) as first:
        eventually(lambda: first.leads, "leading")
        with world.replica(steady=[site.steady]) as second:
            world.agrees(first, second)
            with churn(site):
                assert not second.leads
                kill(first)
                within(LEASE_S + SLACK_S, lambda: second.leads, "led by the other")
            world.agrees(second)


@contextmanager
def doomed(world: World) -> Iterator[Replica]:
    """A replica that is killed before the block ends."""
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(ProgramError, match="ended with -9"))
        yield stack.enter_context(world.replica())


def kill(replica: Replica) -> None:
    replica.program.process.kill()
    replica.program.process.wait()


def test_a_leader_that_is_paused_past_its_lease_starts_no_write_until_it_leads_again(
    world: World,
) -> None:
    """It is paused at rest: what it was about to send would be sent when it wakes.

    Then it has much to do at once, and believes for no moment that it may.
    """
    site = world.site()
    with world.replica(steady=[site.steady]) as one, world.replica(steady=[site.steady]) as other:
        eventually(lambda: leader_of(one, other), "led by one")
        first, second = (one, other) if one.leads else (other, one)
        world.agrees(one, other)
        eventually(partial(at_rest, world), "at rest")
        with paused(first), churn(site):
            within(LEASE_S + SLACK_S, lambda: second.leads, "led by the other")
            after = world.mark()
            first.program.process.send_signal(signal.SIGCONT)
            count = len(world.writes(after))
            eventually(lambda: len(world.writes(after)) > count + 30, "at work again")
            assert writers(world, after) == {second.token_id}
            assert not first.leads
        world.agrees(one, other)


def at_rest(world: World) -> bool:
    """Whether nothing is written for a second."""
    start = world.mark()
    return not awaited(lambda: world.writes(start), 1.0)


@contextmanager
def paused(replica: Replica) -> Iterator[None]:
    """The replica is stopped, until it is woken, at the latest when the block ends."""
    replica.program.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        replica.program.process.send_signal(signal.SIGCONT)


def writers(world: World, since: int) -> set[str]:
    return {write.by for write in world.writes(since)}


def test_a_leader_that_ends_hands_over_at_once(world: World) -> None:
    site = world.site()
    with world.replica("--lease-duration-s", "60", steady=[site.steady]) as second:
        eventually(lambda: second.leads, "leading")
        with world.replica("--lease-duration-s", "60", steady=[site.steady]) as third:
            with churn(site):
                second.listener.close()
                second.program.process.send_signal(signal.SIGTERM)
                assert second.program.process.wait(30) == 0
                # It looks every 8 s, and need not wait for a lease of 60 s to end.
                within(8 + SLACK_S, lambda: third.leads, "led by the other")
            world.agrees(third)


def test_a_lease_that_is_deleted_has_a_holder_still(world: World) -> None:
    """Its holder believes in it until it looks; nobody writes beside it, and it leads on."""
    site = world.site()
    with world.replica(steady=[site.steady]) as one, world.replica(steady=[site.steady]) as other:
        eventually(lambda: leader_of(one, other), "led by one")
        first, second = (one, other) if one.leads else (other, one)
        world.agrees(one, other)
        with churn(site):
            for _ in range(3):
                start = world.mark()
                delete_lease(world)
                within(LEASE_S, lambda: not leader_of(one, other), "led by none")
                eventually(lambda: leader_of(one, other), "led by one again")
                assert first.leads
                eventually(partial(wrote, world, start, first, 5), "written")
                assert writers(world, start) == {first.token_id}
        assert not second.leads
        world.agrees(one, other)


def test_a_lease_that_is_deleted_with_its_holder_is_taken_as_if_it_were_there(
    world: World,
) -> None:
    with doomed(world) as first:
        eventually(lambda: first.leads, "leading")
        with world.replica() as second:
            eventually(lambda: "not leading: Lease" in second.program.said(), "seen")
            kill(first)
            delete_lease(world)
            within(LEASE_S + SLACK_S, lambda: second.leads, "led by the other")


def test_a_lease_that_says_it_lasts_68_years_lasts_as_long_as_its_holder_says(
    world: World,
) -> None:
    with doomed(world) as first:
        eventually(lambda: first.leads, "leading")
        with world.replica() as second:
            eventually(lambda: "not leading: Lease" in second.program.said(), "seen")
            world.hands.patch(LEASE_PATH, {"spec": {"leaseDurationSeconds": 2**31 - 1}})
            eventually(lambda: duration_of_lease(world) == LEASE_S, "put right")
            kill(first)
            within(LEASE_S + SLACK_S, lambda: second.leads, "led by the other")


def delete_lease(world: World) -> None:
    assert world.hands.ask("DELETE", LEASE_PATH).status == HTTPStatus.OK


def duration_of_lease(world: World) -> float:
    lease = world.hands.ask("GET", LEASE_PATH).body
    return float(lease["spec"]["leaseDurationSeconds"])


def test_two_for_different_namespaces_write_both_and_two_for_the_same_do_not(
    world: World,
) -> None:
    kubectl = partial(world.cluster.kubectl, "--namespace", INSTALLED)
    kubectl("create", "role", "leases", "--verb=get,create,update", "--resource=leases")
    subject = f"--serviceaccount={INSTALLED}:{INSTALLED}"
    kubectl("create", "rolebinding", "leases", "--role=leases", subject)
    site, other = world.site(), world.site()
    with (
        world.replica("--namespace", site.namespace) as one,
        world.replica("--namespace", other.namespace) as another,
        world.replica("--namespace", site.namespace) as same,
    ):
        eventually(lambda: leader_of(one, same) and another.leads, "led by two")
        for served, replica in ((site, one), (other, another), (site, same)):
            world.agrees(replica, namespace=served.namespace)
        start = world.mark()
        with churn(site), churn(other):
            for leading in (leader_of(one, same), another):
                assert leading is not None
                eventually(partial(wrote, world, start, leading, 10), "written")
        assert len(writers(world, start)) == 2
        assert f"Lease {INSTALLED}/vmsvc-grpc.{other.namespace} " in another.program.said()
    kubectl("delete", "role,rolebinding", "leases")


def test_one_that_is_killed_again_and_again_while_things_are_deleted_and_created(
    world: World,
) -> None:
    """Wherever it was in writing or deleting several objects, the next one finishes it."""
    site = world.site()
    with churn(site):
        for writes in (1, 4, 9, 15):
            with doomed(world) as replica:
                start = world.mark()
                eventually(partial(wrote, world, start, replica, writes), "writing")
                kill(replica)
    with world.replica(steady=[site.steady]) as last:
        world.agrees(last)


def wrote(world: World, since: int, replica: Replica, count: int) -> bool:
    return len([w for w in world.writes(since) if w.by == replica.token_id]) >= count


def test_one_namespace_needs_rights_there_and_nowhere_else(world: World) -> None:
    """With the very rules of the overlay, for an account that has no others."""
    site, other = world.site(), world.site()
    account = world.cluster.service_account(site.namespace, "narrow")
    overlay = DEPLOY / "overlays" / "one-namespace"
    manifests = yaml.safe_load_all(world.cluster.kubectl("kustomize", str(overlay)))
    for manifest in manifests:
        if manifest["kind"] in ("Role", "RoleBinding"):
            manifest["metadata"]["namespace"] = site.namespace
            for subject in manifest.get("subjects", ()):
                subject |= {"name": "narrow", "namespace": site.namespace}
            world.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    # The overlay's Role is for the Lease of its own namespace.
    flags = ["--namespace", site.namespace, "--lease-name", "vmsvc-grpc.shop"]
    with world.replica(
        *flags, steady=[site.steady], user=account, namespace=site.namespace
    ) as replica:
        world.agrees(replica, namespace=site.namespace)
        with churn(site), churn(other):
            replica.wire.do(replica.wire.proxy.cut())
            seen = replica.listener.messages
            eventually(partial(more_messages, replica, seen + 50), "told")
        world.agrees(replica, namespace=site.namespace)
        assert {name.split("/")[0] for name in replica.listener.told()} == {site.namespace}
        assert "forbidden" not in replica.program.said()
    assert world.hands.listed("endpoints", other.namespace) == []


def test_every_right_to_write_is_used(world: World) -> None:
    """In the life of a service with slices: deploy/base grants nothing that is not needed."""
    role = yaml.safe_load((DEPLOY / "base" / "writer.cluster-role.yaml").read_text())
    granted = {
        (resource, verb)
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        # Reading is not in the log; an admission plugin asks for the finalizers' right.
        if verb not in ("get", "list", "watch") and not resource.endswith("/finalizers")
    }
    start = world.mark()
    with world.replica("--endpoint-slices", "direct") as replica:
        site = world.site()
        world.agrees(replica)
        with churn(site):
            eventually(partial(more_messages, replica, 50), "told")
        where = path("virtualmachineservices", site.namespace, "steady")
        world.hands.patch(where, {"spec": {"type": "LoadBalancer"}})
        world.agrees(replica)
        world.hands.ask("DELETE", where)
        eventually(lambda: world.hands.ask("GET", where).status == HTTPStatus.NOT_FOUND, "gone")
        written = [w for w in world.writes(start) if w.by == replica.token_id]
    assert {(f"{w.resource}/{w.part}".rstrip("/"), w.verb) for w in written} == granted


def more_messages(replica: Replica, than: int) -> bool:
    return replica.listener.messages > than


def test_beside_vm_operator(world: World, start_vm_operator: StartVMOperator) -> None:
    """Under changes both write; at rest neither does, whoever wrote last."""
    site, other = world.site(), world.site()
    operator = start_vm_operator(world.cluster, namespace=site.namespace)
    with world.replica(steady=[site.steady]) as replica:
        with churn(site):
            eventually(partial(more_messages, replica, 150), "told")
        world.agrees(replica)
        # While others change, what was left to do here is done.
        pass_by(replica, other)
        before, writes = world.versions(site.namespace), operator.writes()
        pass_by(replica, other)
        assert world.versions(site.namespace) == before
        assert operator.writes() == writes
        world.agrees(replica)


def pass_by(replica: Replica, site: Site) -> None:
    """Have changes happen at a site, until the replica has told of a good many."""
    with churn(site):
        eventually(partial(more_messages, replica, replica.listener.messages + 100), "told")


def test_endpoint_slices_are_there_while_the_option_changes_replica_by_replica(
    world: World,
) -> None:
    """As in a rollout, and in one that is rolled back: of two with unlike settings, one writes."""
    site = world.site()
    world.cluster.start_controllers("endpointslice-mirroring-controller")
    with ExitStack() as rollout:
        running = leading(world, rollout, "mirror")
        eventually(lambda: managers(world, site) == {MIRRORING}, "mirrored")
        with churn(site), never(lambda: not managers(world, site)):
            for option, manager in (("direct", OURS), ("mirror", MIRRORING), ("direct", OURS)):
                following = leading(world, rollout, option)
                running.listener.close()
                running.program.process.send_signal(signal.SIGTERM)
                assert running.program.process.wait(30) == 0
                eventually(partial(held_by, world, site, manager), f"held by {manager}")
                running = following
        world.agrees(running)


MIRRORING, OURS = "endpointslicemirroring-controller.k8s.io", "vmsvc-grpc"


def leading(world: World, rollout: ExitStack, option: str) -> Replica:
    """One more replica; it writes once no other does."""
    return rollout.enter_context(world.replica("--endpoint-slices", option))


def managers(world: World, site: Site) -> set[str]:
    """Who holds the slices of the steady service that have an endpoint."""
    where = f"/apis/discovery.k8s.io/v1/namespaces/{site.namespace}/endpointslices"
    slices = world.hands.ask("GET", f"{where}?labelSelector=kubernetes.io/service-name=steady")
    return {
        each["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"]
        for each in slices.body["items"]
        if each["endpoints"]
    }


def held_by(world: World, site: Site, manager: str) -> bool:
    """Whether it holds them, and nobody else does."""
    return managers(world, site) == {manager}


@contextmanager
def never(condition: Callable[[], bool]) -> Iterator[None]:
    """Fails if the condition is found to hold while the block runs."""
    end = threading.Event()
    looks: list[bool] = []

    def look() -> None:
        while not end.wait(0.02):
            looks.append(condition())

    with ThreadPoolExecutor(1, "never") as thread:
        looking = thread.submit(look)
        try:
            yield
        finally:
            end.set()
        looking.result()
    assert looks
    assert not any(looks)


def test_an_uninstall_leaves_nothing_that_blocks_a_deletion(world: World) -> None:
    """As deploy/README.md says it, where VM Operator does not run and VMServices stay."""
    site = world.site()
    # They note who owns what while they run; later nobody could tell them.
    world.cluster.start_controllers("garbage-collector-controller", "namespace-controller")
    with world.replica() as one, world.replica() as other:
        world.agrees(one, other)
    kubectl = world.cluster.kubectl
    command = [sys.executable, "-m", "vmsvc_grpc", "release", "--yes"]
    admin = world.kubeconfig(world.cluster.admin)
    done = subprocess.run(
        [*command, "--kubeconfig", str(admin)], capture_output=True, text=True, check=True
    )
    assert re.search(r"^released \d+ VirtualMachineServices\n\Z", done.stdout, re.MULTILINE)
    kubectl("delete", "--kustomize", str(VARIANT), "--wait=false")
    kubectl("delete", "vmservice", "--all", "--all-namespaces", "--timeout=30s")
    eventually(lambda: not world.hands.listed("endpoints", site.namespace), "collected")
    eventually(lambda: not world.hands.listed("services", site.namespace), "collected")
    for kind in ("virtualmachines", "virtualmachineservices"):
        kubectl("delete", "crd", f"{kind}.vmoperator.vmware.com", "--timeout=60s")
    namespace = f"/api/v1/namespaces/{INSTALLED}"
    eventually(lambda: world.hands.ask("GET", namespace).status == 404, "gone")
