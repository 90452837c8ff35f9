"""The Lease on a real API server: what it takes, what it refuses, and what stays of others'."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.kube_replica import until
from tests.kube.apiserver import Cluster
from vmsvc_grpc.kube.client import ApiServer
from vmsvc_grpc.kube.credentials import Kubeconfig
from vmsvc_grpc.kube.errors import ApiServerError
from vmsvc_grpc.reconciler.election import LeaseSettings
from vmsvc_grpc.reconciler.leader import Leader, Standing

SETTINGS = LeaseSettings(duration_s=3.0, margin_s=1.0, renew_s=0.4)
NAME = "vmsvc-grpc.shop"
UNREACHABLE = """\
apiVersion: v1
kind: Config
current-context: c
clusters: [{name: c, cluster: {server: "http://127.0.0.1:9"}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: {}}]
"""
MERGE = "application/merge-patch+json"


class Losing(ApiServer):
    """An API server whose answers to as many writes as it says are lost.

    Somebody on the way answers in its place with what is in `spoilt`, to one look each.
    """

    losing = 0
    spoilt: tuple[bytes, ...] = ()

    async def request(self, method: str, *arguments: Any, **options: Any) -> bytes:
        answer = await super().request(method, *arguments, **options)
        if method == "GET" and self.spoilt:
            first, *rest = self.spoilt
            self.spoilt = tuple(rest)
            return first
        if method != "GET" and self.losing:
            self.losing -= 1
            raise ApiServerError(0, "the connection was lost")
        return answer


class Candidate:
    """A Leader of its own, on a cluster, and how it has stood."""

    def __init__(self, cluster: Cluster, api: Losing, namespace: str, identity: str) -> None:
        self.path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self.stood: list[Standing] = []
        self.api = api
        self._cluster = cluster
        self.leader = Leader(
            api,
            namespace=namespace,
            name=NAME,
            identity=identity,
            settings=SETTINGS,
            on_change=self.stood.append,
        )

    def lease(self) -> dict[str, Any] | None:
        answer = self._cluster.request("GET", f"{self.path}/{NAME}")
        return answer.body if answer.status == 200 else None

    def patch(self, patch: object) -> None:
        answer = self._cluster.request("PATCH", f"{self.path}/{NAME}", patch, content_type=MERGE)
        assert answer.status == 200, answer

    def delete(self) -> None:
        assert self._cluster.request("DELETE", f"{self.path}/{NAME}").status == 200

    def create(self, **spec: Any) -> None:
        body = {"metadata": {"name": NAME}, "spec": spec}
        assert self._cluster.request("POST", self.path, body).status == 201


@asynccontextmanager
async def candidate(
    cluster: Cluster, folder: Path, namespace: str, identity: str = "me"
) -> AsyncIterator[Candidate]:
    """It is not running yet."""
    file = cluster.kubeconfig(folder / f"{identity}.kubeconfig", namespace=namespace)
    async with Losing(Kubeconfig(str(file))) as api:
        yield Candidate(cluster, api, namespace, identity)


@asynccontextmanager
async def running(one: Candidate) -> AsyncIterator[Candidate]:
    task = asyncio.create_task(one.leader.run())
    try:
        yield one
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await one.leader.release()


@pytest.fixture
def namespace(kube: Cluster) -> str:
    return kube.create_namespace("lease")


async def test_a_renewal_makes_no_lease_of_one_that_was_deleted_meanwhile(
    kube: Cluster, namespace: str, tmp_path: Path
) -> None:
    """An API server creates a Lease by PUT; another may have led and gone since we looked."""
    async with candidate(kube, tmp_path, namespace) as one:
        one.create(holderIdentity="me", leaseDurationSeconds=3)
        read = await one.leader._lease.read()
        one.delete()
        with pytest.raises(ApiServerError) as caught:
            await one.leader._lease.write(read)
        assert caught.value.status == 409
        assert one.lease() is None
        one.create(holderIdentity="me", leaseDurationSeconds=3)
        with pytest.raises(ApiServerError) as caught:
            await one.leader._lease.write(read)
        assert caught.value.status == 409


async def test_what_others_put_there_stays(kube: Cluster, namespace: str, tmp_path: Path) -> None:
    async with candidate(kube, tmp_path, namespace) as one:
        one.create(leaseDurationSeconds=1, leaseTransitions=2**31 - 1)
        marks = {"labels": {"team": "blue"}, "annotations": {"why": "by hand"}}
        one.patch({"metadata": marks})
        async with running(one):
            await until(lambda: one.leader.leads)
            held = one.lease()
            assert held is not None
            assert held["spec"]["holderIdentity"] == "me"
            assert held["spec"]["leaseDurationSeconds"] == 3
            # Kubernetes counts no further; it would refuse the Lease.
            assert held["spec"]["leaseTransitions"] == 2**31 - 1
            assert {key: held["metadata"][key] for key in marks} == marks
        given_back = one.lease()
        assert given_back is not None
        assert given_back["spec"]["holderIdentity"] == ""
        assert {key: given_back["metadata"][key] for key in marks} == marks


async def test_a_holder_puts_its_duration_right_whatever_somebody_made_of_it(
    kube: Cluster, namespace: str, tmp_path: Path
) -> None:
    async with candidate(kube, tmp_path, namespace) as one:
        one.create(leaseDurationSeconds=1)
        async with running(one):
            await until(lambda: one.leader.leads)
            one.patch({"spec": {"leaseDurationSeconds": 2**31 - 1}})
            await until(lambda: (one.lease() or {})["spec"]["leaseDurationSeconds"] == 3)
            assert one.leader.leads


def spoilt(spec: bytes) -> bytes:
    return b'{"metadata":{"name":"vmsvc-grpc.shop","resourceVersion":"1"},"spec":{%s}}' % spec


SPOILT = (
    b"<html>",
    b"null",
    b"[" * 9_000,
    spoilt(b'"holderIdentity":"\xff"'),
    spoilt(b'"other":' + b"[" * 9_000 + b"]" * 9_000),
    *(
        spoilt(b'"leaseDurationSeconds":%s,"leaseTransitions":%s' % (number, number))
        for number in (
            b"-1",
            b"-" + b"9" * 400,
            b"9" * 400,
            b"9" * 5_000,
            b"1e999",
            b'"15"',
            b"null",
        )
    ),
    spoilt(b'"renewTime":null,"acquireTime":7'),
)


async def test_answers_that_cannot_be_read_end_nothing(
    kube: Cluster, namespace: str, tmp_path: Path
) -> None:
    """A number of 400 digits ended the process."""
    async with candidate(kube, tmp_path, namespace) as one:
        one.create(leaseDurationSeconds=1)
        one.api.spoilt = SPOILT
        async with running(one):
            await until(lambda: not one.api.spoilt)
            await until(lambda: one.leader.leads)
        assert any("cannot be read" in stood.trouble for stood in one.stood)


async def test_what_could_not_be_held_is_not_in_order_as_it_ends(tmp_path: Path) -> None:
    """At SIGTERM the log said "in order again" of a Lease that was never held."""
    file = tmp_path / "kubeconfig"
    file.write_text(UNREACHABLE)
    stood: list[Standing] = []
    async with ApiServer(Kubeconfig(str(file))) as api:
        leader = Leader(
            api,
            namespace="shop",
            name=NAME,
            identity="me",
            settings=SETTINGS,
            on_change=stood.append,
        )
        running = asyncio.create_task(leader.run())
        await until(lambda: stood)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await leader.release()
    assert stood
    assert all(one.trouble for one in stood)


async def test_a_claim_whose_answer_was_lost_is_known_again(
    kube: Cluster, namespace: str, tmp_path: Path
) -> None:
    async with candidate(kube, tmp_path, namespace) as one:
        one.create(leaseDurationSeconds=1)
        one.api.losing = 1
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with running(one):
            await until(lambda: one.leader.leads)
            assert loop.time() - began < SETTINGS.duration_s


async def test_one_that_ends_before_its_claim_is_answered_gives_the_lease_back(
    kube: Cluster, namespace: str, tmp_path: Path
) -> None:
    async with candidate(kube, tmp_path, namespace) as one:
        one.create(leaseDurationSeconds=1)
        one.api.losing = 1
        with pytest.raises(ApiServerError):
            await one.leader._turn()
        await one.leader.release()
        lease = one.lease()
        assert lease is not None
        assert lease["spec"]["holderIdentity"] == ""
        assert lease["spec"]["leaseDurationSeconds"] == 1


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"holderIdentity": ""}, id="nobody"),
        pytest.param({"holderIdentity": "x", "leaseDurationSeconds": 1}, id="somebody, briefly"),
    ],
)
async def test_a_lease_that_somebody_made_by_hand_is_taken_after_a_silence(
    spec: dict[str, Any], kube: Cluster, namespace: str, tmp_path: Path
) -> None:
    async with candidate(kube, tmp_path, namespace) as one:
        one.create(**spec)
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with running(one):
            await until(lambda: one.leader.leads)
            assert loop.time() - began >= SETTINGS.duration_s


async def test_while_it_is_deleted_over_and_over_never_do_two_lead(
    kube: Cluster, namespace: str, tmp_path: Path
) -> None:
    """Its last holder makes it again, and leads on in the end; a third one begins meanwhile."""
    async with (
        candidate(kube, tmp_path, namespace, "one") as one,
        candidate(kube, tmp_path, namespace, "two") as two,
        candidate(kube, tmp_path, namespace, "three") as three,
        running(one),
        running(two),
    ):
        each = (one, two, three)

        def leading() -> list[Candidate]:
            found = [each_ for each_ in each if each_.leader.leads]
            assert len(found) < 2, "two lead at once"
            return found

        for _ in range(2):
            await until(leading)
            one.delete()
            await until(lambda: not leading())
        one.delete()
        async with running(three):
            await until(leading)
