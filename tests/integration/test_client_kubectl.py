"""`kubectl vmsvc` on a real server, behind a kubectl of the test's own.

A real `kubectl port-forward` needs a kubelet, which does not run here. That of the test finds the
Pods that a file names, and forwards as kubectl does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.vmsvc_command import ENVIRONMENT, line_of, serving_manifests
from tests.program import PATIENCE_S, Program, awaited
from vmsvc import __version__
from vmsvc.kubectl import LABEL, Arguments, Place, place_in

PLUGIN = str(Path(sys.executable).with_name("kubectl-vmsvc"))
MANIFESTS = """\
apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachineService
metadata: {name: web, namespace: shop}
spec: {type: ClusterIP, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachine
metadata: {name: web-1, namespace: shop, labels: {app: web}}
status: {network: {primaryIP4: 10.0.0.1}}
"""
KUBECTL = (
    f"#!{sys.executable}\n"
    """
import json, os, socket, sys, threading
arguments = sys.argv[1:]
with open(os.environ["STUB_LOG"], "a") as log:
    log.write(f"{os.getpid()} {' '.join(arguments)}\\n")
if "get" in arguments:
    pods = json.load(open(os.environ["STUB_PODS"]))["items"]
    within = [a.partition("=")[2] for a in arguments if a.startswith("--namespace=")]
    if not within and os.environ.get("STUB_FORBIDS"):
        sys.exit("Error from server (Forbidden): pods is forbidden")
    if within:
        pods = [pod for pod in pods if pod["metadata"]["namespace"] in within]
    json.dump({"items": pods}, sys.stdout)
    sys.exit()
if os.environ.get("STUB_FAILS"):
    sys.exit("error: unable to forward: no kubelet")
local, _, port = arguments[-1].partition(":")
listener = socket.create_server(("127.0.0.1", int(local or 0)))
print(f"Forwarding from 127.0.0.1:{listener.getsockname()[1]} -> {port}", flush=True)
def pipe(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass
while True:
    here, _ = listener.accept()
    there = socket.create_connection(("127.0.0.1", int(port)))
    for ends in ((here, there), (there, here)):
        threading.Thread(target=pipe, args=ends, daemon=True).start()
"""
)


def pod(
    name: str = "vmsvc-grpc-1",
    *,
    namespace: str = "vmsvc-grpc",
    ready: bool = True,
    **container: Any,
) -> dict[str, Any]:
    return {
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"containers": [{"name": "vmsvc-grpc", **container}]},
        "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


DEPLOYED = ["serve", "--listen=0.0.0.0:50051", "--tls-cert=c", "--listen=127.0.0.1:50052"]


@pytest.mark.parametrize(
    ("pods", "found"),
    [
        pytest.param([], None, id="none"),
        pytest.param([pod(args=DEPLOYED)], ("vmsvc-grpc-1", 50052), id="as deployed"),
        pytest.param(
            [pod("a", ready=False, args=DEPLOYED), pod("b", args=DEPLOYED)],
            ("b", 50052),
            id="ready",
        ),
        pytest.param([pod("a", ready=False, args=DEPLOYED)], ("a", 50052), id="none is ready"),
        pytest.param(
            [pod(args=["--listen=0.0.0.0:7"])], ("vmsvc-grpc-1", 7), id="no TLS: any port will do"
        ),
        pytest.param([pod(args=["--listen=0.0.0.0:7", "--tls-cert=c"])], None, id="TLS alone"),
        pytest.param([pod(args=["--tls-cert=c", "--listen=tls://127.0.0.1:7"])], None, id="tls://"),
        pytest.param([pod()], None, id="no arguments"),
        pytest.param(
            [pod(args=["serve", "--listen", "127.0.0.1:7"])], ("vmsvc-grpc-1", 7), id="two words"
        ),
        pytest.param(
            [pod(command=["vmsvc-grpc", "serve", "--listen=[::1]:7"])],
            ("vmsvc-grpc-1", 7),
            id="a command of its own",
        ),
        *(
            pytest.param(
                [pod("a", args=odd), pod("b", args=DEPLOYED)], ("b", 50052), id=f"odd: {odd}"
            )
            for odd in (
                ["--listen=evil"],
                ["--listen"],
                ["--listen="],
                ["--listen=$(WHERE)"],
                ["--listen=127.0.0.1:0"],
                ["--listen=127.0.0.1:65536"],
                ["--listen=127.0.0.1:-1"],
                ["--listen=127.0.0.1:\u0667"],
            )
        ),
    ],
)
def test_place(pods: list[Any], found: tuple[str, int] | None) -> None:
    assert place_in({"items": pods}) == (Place("vmsvc-grpc", *found) if found else None)


def test_arguments_are_sorted_by_whose_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VMSVC_SERVER_NAMESPACE", raising=False)
    assert Arguments.of(["list"]).namespace == "vmsvc-grpc"
    monkeypatch.setenv("VMSVC_SERVER_NAMESPACE", "edge")
    assert Arguments.of(["list"]).namespace == "edge"
    line = "--context c list -n shop --kubeconfig=f --server-namespace infra -o name -- --user"
    assert Arguments.of(line.split()) == (
        ("--context=c", "--kubeconfig=f"),
        "infra",
        ("list", "-n", "shop", "-o", "name", "--", "--user"),
    )
    line = "watch --until-ready 3 --as a --as-group g -A --as-group h --cont c"
    assert Arguments.of(line.split()) == (
        ("--as=a", "--as-group=g", "--as-group=h"),
        "edge",
        ("watch", "--until-ready", "3", "-A", "--cont", "c"),
    )


class Cluster:
    """The test's kubectl, and what it was asked."""

    def __init__(self, folder: Path, server: Program) -> None:
        self._log, self._pods = folder / "log", folder / "pods"
        self.has([pod(args=[f"--listen={server.grpc}"])])
        self._log.touch()
        (folder / "kubectl").write_text(KUBECTL)
        (folder / "kubectl").chmod(0o755)
        self.environment = {
            **ENVIRONMENT,
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
            "STUB_LOG": str(self._log),
            "STUB_PODS": str(self._pods),
        }

    def has(self, pods: list[Any]) -> None:
        self._pods.write_text(json.dumps({"items": pods}))

    def forwarders(self) -> list[int]:
        """The processes that forwarded, the last one last."""
        lines = [line.split() for line in self._log.read_text().splitlines()]
        return [int(line[0]) for line in lines if "port-forward" in line]

    def asked(self) -> list[str]:
        return [line.partition(" ")[2] for line in self._log.read_text().splitlines()]

    def run(self, line: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PLUGIN, *line.split()],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with serving_manifests(MANIFESTS, tmp_path_factory.mktemp("server")) as program:
        yield program


@pytest.fixture
def cluster(tmp_path: Path, server: Program) -> Cluster:
    return Cluster(tmp_path, server)


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_command_is_asked_of_the_server_in_the_cluster(cluster: Cluster) -> None:
    """What a shell has set for another server does not count."""
    ran = cluster.run(
        "--context c resolve shop/web -o name",
        VMSVC_SERVER="127.0.0.1:1",
        VMSVC_TLS="true",
        VMSVC_TOKEN_FILE="/none",
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "shop/web-1\n", "")
    get, forward = cluster.asked()
    assert get.startswith("--context=c get pods --namespace=vmsvc-grpc")
    assert forward.startswith("--context=c port-forward --address=127.0.0.1")
    assert not any(map(alive, cluster.forwarders()))


def test_a_watch_goes_on_with_another_pod(cluster: Cluster) -> None:
    with subprocess.Popen(
        [PLUGIN, "watch", "shop/web"],
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    ) as process:
        try:
            assert json.loads(line_of(process.stdout))["service"] == "shop/web"
            assert json.loads(line_of(process.stdout))["event"] == "synced"
            os.kill(cluster.forwarders()[0], signal.SIGKILL)
            while json.loads(line_of(process.stdout))["event"] != "synced":
                pass
            assert len(cluster.forwarders()) == 2
            process.send_signal(signal.SIGHUP)
            assert process.wait(PATIENCE_S) == 143
            assert awaited(lambda: not any(map(alive, cluster.forwarders())))
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        pytest.param("--context", 2, "--context: expected one argument; see", id="no value"),
        pytest.param("list --user=", 2, "--user: expected one argument", id="an empty value"),
        pytest.param("list --as --user u", 2, "--as: expected one", id="a flag is no value"),
        pytest.param("list --server a:1", 2, "it finds the server by itself", id="a server"),
        pytest.param("resolve shop/none", 1, "there is no VirtualMachineService", id="the answer"),
    ],
)
def test_what_fails_is_one_line_and_a_code(
    cluster: Cluster, line: str, code: int, said: str
) -> None:
    ran = cluster.run(line)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_a_cluster_without_the_server(cluster: Cluster) -> None:
    cluster.has([])
    ran = cluster.run("list --server-namespace infra")
    assert ran.returncode == 3
    assert (
        f"there is no running Pod labelled {LABEL} in namespace infra; is vmsvc-grpc installed"
        in ran.stderr
    )


def test_a_stranger_is_never_asked(cluster: Cluster, server: Program) -> None:
    """Whoever may create a Pod may label it as ours; that is one namespace's fault."""
    listens = [f"--listen={server.grpc}"]
    ours = pod(args=listens)
    strangers = [
        pod("a", namespace="attacker", args=["--listen=127.0.0.1:1"]),
        pod("b", namespace="attacker", args=["--listen=evil"]),
    ]
    for mine in (ours, pod(args=listens, ready=False)):
        cluster.has([*strangers, mine])
        assert cluster.run("list -o name").stdout == "shop/web\n"
    # Nor if ours is away.
    asked = len(cluster.asked())
    cluster.has([*strangers, pod("c", namespace="edge", args=listens)])
    ran = cluster.run("list -o name")
    assert (ran.returncode, ran.stdout) == (3, "")
    assert (
        "in namespace vmsvc-grpc; there is one in attacker, edge: if you trust who may create Pods "
        "there, name it by --server-namespace\n" in ran.stderr
    )
    assert not any("port-forward" in line for line in cluster.asked()[asked:])
    assert "is vmsvc-grpc installed" in cluster.run("list", STUB_FORBIDS="yes").stderr
    assert cluster.run("list -o name --server-namespace edge").stdout == "shop/web\n"


def test_a_port_that_cannot_be_forwarded(cluster: Cluster) -> None:
    ran = cluster.run("list", STUB_FAILS="yes")
    assert ran.returncode == 3
    assert ran.stderr == (
        "kubectl vmsvc: kubectl port-forward to pod/vmsvc-grpc-1 in namespace vmsvc-grpc failed: "
        "error: unable to forward: no kubelet\n"
    )


def test_the_versions_of_both(cluster: Cluster) -> None:
    ran = cluster.run("version")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [line.split()[0] for line in ran.stdout.splitlines()] == ["Client:", "Server:"]
    cluster.has([])
    ran = cluster.run("version -o json")
    assert ran.returncode == 3
    assert json.loads(ran.stdout)["client"]["version"] == __version__
    assert json.loads(ran.stdout)["server"] is None
    assert ran.stderr.startswith("kubectl vmsvc: there is no running Pod")


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("--help", 0, "usage: kubectl vmsvc"),
        ("watch --help", 0, "--until-ready"),
        ("--version", 0, "vmsvc "),
        ("version --client", 0, "Client:"),
        ("completion bash", 0, "complete "),
        ("list --speed", 2, "there is no flag '--speed'"),
    ],
)
def test_what_needs_no_server_needs_no_cluster(
    cluster: Cluster, line: str, code: int, said: str
) -> None:
    ran = cluster.run(line)
    assert ran.returncode == code
    assert said in ran.stdout + ran.stderr
    assert cluster.asked() == []


def test_a_machine_without_kubectl(cluster: Cluster) -> None:
    ran = cluster.run("list", PATH="/none")
    assert (ran.returncode, ran.stderr) == (3, "kubectl vmsvc: there is no kubectl in PATH\n")
