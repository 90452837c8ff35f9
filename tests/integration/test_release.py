"""`vmsvc-grpc release` on a real API server: it shows, asks, refuses, and lets go."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.integration.kube_replica import Desk, Object
from tests.kube.apiserver import Cluster
from vmsvc_grpc.kube.client import ApiServer
from vmsvc_grpc.kube.credentials import Kubeconfig
from vmsvc_grpc.kube.errors import ApiServerError
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.reconciler.election import LeaseRecord, lease_name
from vmsvc_grpc.reconciler.release import LeaseHolder, longest_s
from vmsvc_grpc.reconciler.vmservice import FINALIZER
from vmsvc_grpc.release import ReleaseRequest, Streams, release

FORMER = "virtualmachineservice.vmoperator.vmware.com"


class Terminal(io.StringIO):
    """A person who answers, in a terminal."""

    def isatty(self) -> bool:
        return True


class Uninstaller:
    """Somebody who runs `vmsvc-grpc release` for the namespace of a desk."""

    def __init__(self, desk: Desk, folder: Path) -> None:
        self.desk = desk
        self.kubeconfig = desk.kube.kubeconfig(folder / "kubeconfig")
        self.out = self.err = ""

    async def release(
        self, *, answers: io.StringIO | None = None, dry_run: bool = False, yes: bool = False
    ) -> int:
        namespace = self.desk.namespace
        request = ReleaseRequest(
            namespaces=(namespace,), lease_namespace=namespace, dry_run=dry_run, yes=yes
        )
        out, err = io.StringIO(), io.StringIO()
        streams = Streams(out=out, err=err, answers=answers or io.StringIO())
        found = Kubeconfig(str(self.kubeconfig))
        status = await asyncio.to_thread(release, found, request, streams)
        self.out, self.err = out.getvalue(), err.getvalue()
        return status

    async def finalizers(self) -> dict[str, list[str] | None]:
        held = await self.desk.listed("virtualmachineservices")
        return {o["metadata"]["name"]: o["metadata"].get("finalizers") for o in held}


@pytest.fixture
def desk(kube: Cluster) -> Desk:
    return Desk(kube)


@pytest.fixture
def uninstaller(desk: Desk, tmp_path: Path) -> Uninstaller:
    return Uninstaller(desk, tmp_path)


async def test_it_lets_every_vmservice_go(desk: Desk, uninstaller: Uninstaller) -> None:
    await desk.vmservice("a", meta={"finalizers": [FINALIZER, "others.example.com/stays"]})
    await desk.vmservice("b", meta={"finalizers": [FORMER]})
    await desk.vmservice("c")
    await desk.vmservice("going", meta={"finalizers": [FINALIZER]})
    await desk.delete("virtualmachineservices", "going")
    assert await uninstaller.release(yes=True) == 0
    assert uninstaller.out.splitlines() == [
        *(f"released {desk.namespace}/{name}" for name in ("a", "b", "going")),
        "released 3 VirtualMachineServices",
    ]
    assert await uninstaller.finalizers() == {
        "a": ["others.example.com/stays"],
        "b": None,
        "c": None,
    }
    assert await uninstaller.release(yes=True) == 0
    assert uninstaller.out == "no VirtualMachineService has our finalizer\n"


async def test_a_dry_run_shows_and_does_nothing(desk: Desk, uninstaller: Uninstaller) -> None:
    await desk.vmservice("a", meta={"finalizers": [FINALIZER]})
    await desk.vmservice("b")
    assert await uninstaller.release(dry_run=True) == 0
    assert uninstaller.out.splitlines() == [
        f"would release {desk.namespace}/a",
        "1 VirtualMachineServices have our finalizer",
    ]
    assert await uninstaller.finalizers() == {"a": [FINALIZER], "b": None}


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        pytest.param("y\n", None, id="y"),
        pytest.param("YES\n", None, id="yes"),
        pytest.param("n\n", [FINALIZER], id="n"),
        pytest.param("\n", [FINALIZER], id="nothing"),
        pytest.param("", [FINALIZER], id="the end of the input"),
        pytest.param("yeah?\n", [FINALIZER], id="something else"),
    ],
)
async def test_it_asks_a_person(
    desk: Desk, uninstaller: Uninstaller, answer: str, left: list[str] | None
) -> None:
    await desk.vmservice("a", meta={"finalizers": [FINALIZER]})
    status = await uninstaller.release(answers=Terminal(answer))
    assert "Take our finalizer off 1 VirtualMachineServices in 1 namespaces of https://" in (
        uninstaller.out
    )
    assert status == (1 if left else 0)
    assert await uninstaller.finalizers() == {"a": left}


class Waiting(Terminal):
    """A person who takes a while to say yes: something happens meanwhile."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__("y\n")
        self._meanwhile = meanwhile

    def readline(self, *size: Any) -> Any:
        self._meanwhile()
        return super().readline(*size)


async def test_it_looks_at_the_lease_again_after_the_answer(
    desk: Desk, uninstaller: Uninstaller
) -> None:
    await desk.vmservice("a", meta={"finalizers": [FINALIZER]})
    loop = asyncio.get_running_loop()

    def scaled_up() -> None:
        taken = held(desk, "vmsvc-grpc", "vmsvc-grpc-7d9_new")
        asyncio.run_coroutine_threadsafe(taken, loop).result(timeout=20)

    assert await uninstaller.release(answers=Waiting(scaled_up)) == 1
    assert "is held by vmsvc-grpc-7d9_new, which would put" in uninstaller.err
    assert await uninstaller.finalizers() == {"a": [FINALIZER]}


async def test_where_nobody_can_be_asked_it_does_nothing(
    desk: Desk, uninstaller: Uninstaller
) -> None:
    await desk.vmservice("a", meta={"finalizers": [FINALIZER]})
    assert await uninstaller.release() == 2
    assert "add --yes" in uninstaller.err
    assert await uninstaller.finalizers() == {"a": [FINALIZER]}


def lease(holder: str, duration_s: int) -> Object:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": duration_s}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec}


async def held(desk: Desk, name: str, holder: str, duration_s: int = 3) -> None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{desk.namespace}/leases"
    body = lease(holder, duration_s) | {"metadata": {"name": name}}
    assert (await desk.request("POST", path, body)).status == 201


@asynccontextmanager
async def renewed(desk: Desk, name: str) -> AsyncIterator[None]:
    """Somebody renews a Lease as long as the block lasts."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{desk.namespace}/leases/{name}"
    merge = "application/merge-patch+json"

    async def renew() -> None:
        transitions = 0
        while True:
            transitions += 1
            body = {"spec": {"leaseTransitions": transitions}}
            await desk.request("PATCH", path, body, content_type=merge)
            await asyncio.sleep(0.1)

    renewing = asyncio.create_task(renew())
    yield
    renewing.cancel()


@pytest.mark.parametrize("name", ["vmsvc-grpc", lease_name(["shop"])])
async def test_it_refuses_while_somebody_holds_the_lease(
    desk: Desk, uninstaller: Uninstaller, name: str
) -> None:
    await desk.vmservice("a", meta={"finalizers": [FINALIZER]})
    await held(desk, name, "vmsvc-grpc-7d9_abc")
    async with renewed(desk, name):
        assert await uninstaller.release(yes=True) == 1
        assert f"Lease {desk.namespace}/{name} is held by vmsvc-grpc-7d9_abc" in uninstaller.err
        assert "scale the Deployment to 0" in uninstaller.err
        assert await uninstaller.release(dry_run=True) == 1
        assert f"would release {desk.namespace}/a" in uninstaller.out
    assert await uninstaller.finalizers() == {"a": [FINALIZER]}


@pytest.mark.parametrize(
    ("name", "holder"),
    [
        pytest.param("vmsvc-grpc", "crashed", id="a holder that is heard of no more"),
        pytest.param("vmsvc-grpc", "", id="nobody"),
        pytest.param("vmsvc-grpcd", "another program", id="another program's"),
        pytest.param("vmsvc-grpc-canary", "another one", id="another deployment's"),
    ],
)
async def test_a_lease_of_nobody_holds_up_nothing(
    desk: Desk, uninstaller: Uninstaller, name: str, holder: str
) -> None:
    await desk.vmservice("a", meta={"finalizers": [FINALIZER]})
    await held(desk, name, holder)
    assert await uninstaller.release(yes=True) == 0
    assert await uninstaller.finalizers() == {"a": None}


def answering(command: list[str], answer: bytes) -> subprocess.CompletedProcess[str]:
    """The command, run with a terminal as its input in which somebody has typed `answer`."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer)
        return subprocess.run(
            command, stdin=theirs, stdout=subprocess.PIPE, text=True, timeout=60, check=False
        )
    finally:
        os.close(ours)
        os.close(theirs)


async def test_from_a_terminal_the_whole_command_asks(desk: Desk, uninstaller: Uninstaller) -> None:
    await desk.vmservice("a", meta={"finalizers": [FINALIZER]})
    command = [sys.executable, "-m", "vmsvc_grpc", "release", "--namespace", desk.namespace]
    command += ["--kubeconfig", str(uninstaller.kubeconfig)]
    command += ["--lease-namespace", desk.namespace]
    done = await asyncio.to_thread(answering, command, b"y\n")
    assert done.returncode == 0
    assert done.stdout.endswith("released 1 VirtualMachineServices\n")
    assert await uninstaller.finalizers() == {"a": None}


class Refusing(ApiServer):
    """An API server that refuses writes to one VMService, and has another change all the time."""

    tried: ClassVar[Counter[str]] = Counter()

    async def request(self, method: str, path: str, **options: Any) -> bytes:
        name = path.rpartition("/")[2]
        if method == "PATCH":
            self.tried[name] += 1
            if name in ("denied", "changing"):
                status = 422 if name == "denied" else 409
                raise ApiServerError(status, f"{name} by\x1b[2J a webhook")
        return await super().request(method, path, **options)


async def test_one_that_cannot_be_released_costs_none_of_the_others(
    desk: Desk, uninstaller: Uninstaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("changing", "denied", "fine"):
        await desk.vmservice(name, meta={"finalizers": [FINALIZER]})
    monkeypatch.setattr("vmsvc_grpc.release.ApiServer", Refusing)
    assert await uninstaller.release(yes=True) == 1
    assert await uninstaller.finalizers() == {
        "changing": [FINALIZER],
        "denied": [FINALIZER],
        "fine": None,
    }
    assert uninstaller.err.splitlines() == [
        f"vmsvc-grpc release: {desk.namespace}/changing: 409 changing by\\x1b[2J a webhook",
        f"vmsvc-grpc release: {desk.namespace}/denied: 422 denied by\\x1b[2J a webhook",
        "vmsvc-grpc release: 2 could not be released; try again",
    ]
    assert Refusing.tried == {"changing": 10, "denied": 1, "fine": 1}


async def test_who_holds_a_lease_may_have_any_name(desk: Desk, uninstaller: Uninstaller) -> None:
    await desk.vmservice("a", meta={"finalizers": [FINALIZER]})
    await held(desk, "vmsvc-grpc", "\x1b[2Jforged\nline\u202e" + "x" * 500)
    async with renewed(desk, "vmsvc-grpc"):
        assert await uninstaller.release(yes=True) == 1
    assert all(line.isprintable() and len(line) < 600 for line in uninstaller.err.split("\n"))


@pytest.mark.parametrize(
    ("seconds", "wait_s"),
    [
        pytest.param([3, 15], 15, id="as long as the longest lasts"),
        pytest.param([15, 2**31 - 1], 60, id="a minute at most"),
        pytest.param([15, 1], 60, id="one that nobody of ours wrote says nothing"),
        pytest.param([0], 60, id="nor does none"),
        pytest.param([], 0, id="nobody holds any"),
    ],
)
def test_how_long_a_sign_of_life_is_waited_for(seconds: list[float], wait_s: float) -> None:
    """A holder writes its own duration at each renewal; until then somebody's edit stands there."""
    key = Key("shop", "vmsvc-grpc")
    holders = [LeaseHolder(key, LeaseRecord(duration_s=each)) for each in seconds]
    assert longest_s(holders) == wait_s
