"""The test cluster itself: each flavour serves what it says, and nothing of it is left behind.

What the tests of the program use all the time, and could not pass without, is tested by night.
"""

import asyncio
import json
import os
import select
import signal
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.go_programs import BuildError
from tests.kube.apiserver import Cluster, KubectlError
from tests.kube.binaries import binary, cache_folder
from tests.kube.plugin import FLAVOURS, StartCluster
from tests.kube.process import Process, ProcessError

API = "/apis/vmoperator.vmware.com"
GONE_TIMEOUT_S = 20


def virtual_machine(namespace: str, version: str, status: dict[str, Any]) -> dict[str, Any]:
    """A virtual machine of some API version, with what its schema demands."""
    return {
        "apiVersion": f"vmoperator.vmware.com/{version}",
        "kind": "VirtualMachine",
        "metadata": {"name": "vm-a", "namespace": namespace, "labels": {"app": "shop"}},
        "spec": {"className": "small", "imageName": "vmi-0a0044d7c690bcbea"},
        "status": status,
    }


def vm_service(namespace: str, version: str, **spec: Any) -> dict[str, Any]:
    """A VMService that selects the virtual machine."""
    port = {"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}
    return {
        "apiVersion": f"vmoperator.vmware.com/{version}",
        "kind": "VirtualMachineService",
        "metadata": {"name": "shop", "namespace": namespace},
        "spec": {"selector": {"app": "shop"}, "type": "ClusterIP", "ports": [port], **spec},
    }


def round_trip(kube: Cluster, version: str, status: dict[str, Any]) -> dict[str, Any]:
    """Creates a VM and a VMService with kubectl, writes the VM's status, and reads it back."""
    namespace = kube.create_namespace()
    vm = virtual_machine(namespace, version, status)
    objects = {"apiVersion": "v1", "kind": "List", "items": [vm, vm_service(namespace, version)]}
    kube.kubectl("create", "-f", "-", stdin=json.dumps(objects))
    patch = json.dumps({"status": status})
    names = ["-n", namespace, f"virtualmachine.{version}.vmoperator.vmware.com/vm-a"]
    kube.kubectl("patch", "--subresource=status", "--type=merge", "-p", patch, *names)
    service = json.loads(kube.kubectl("get", "-n", namespace, "vmservice", "shop", "-o", "json"))
    assert service["spec"] == vm_service(namespace, version)["spec"]
    stored: dict[str, Any] = json.loads(kube.kubectl("get", *names, "-o", "json"))
    return stored


def create_service(kube: Cluster, **spec: Any) -> dict[str, Any]:
    """The spec that the API server fills in for a Service."""
    path = f"/api/v1/namespaces/{kube.create_namespace()}/services"
    body = {"metadata": {"name": "shop"}, "spec": {"ports": [{"port": 80}], **spec}}
    response = kube.request("POST", path, body)
    assert response.status == 201, response
    filled: dict[str, Any] = response.body["spec"]
    return filled


def first_event(kube: Cluster, path: str) -> dict[str, Any]:
    """What a watch says first."""
    headers = {"Authorization": f"Bearer {kube.admin.token}"}
    request = urllib.request.Request(kube.server.url + path, headers=headers)
    trust = ssl.create_default_context(cafile=kube.server.ca_file)
    with urllib.request.urlopen(request, context=trust, timeout=GONE_TIMEOUT_S) as response:
        event: dict[str, Any] = json.loads(response.readline())
    return event


@pytest.mark.nightly
def test_single_stack_serves_every_version_and_one_family(kube: Cluster) -> None:
    status = {"network": {"primaryIP4": "10.20.0.11"}}
    for version in ("v1alpha2", "v1alpha6"):
        assert round_trip(kube, version, status)["status"] == status
    assert kube.request("GET", "/version").body["gitVersion"].startswith("v1.")
    filled = create_service(kube)
    assert filled["ipFamilies"] == ["IPv4"]
    assert filled["clusterIP"].startswith("10.96.")


@pytest.mark.nightly
def test_dual_stack_gives_both_families(kube_dual_stack: Cluster) -> None:
    status = {"network": {"primaryIP4": "10.20.0.11", "primaryIP6": "fd00::11"}}
    assert round_trip(kube_dual_stack, "v1alpha6", status)["status"] == status
    filled = create_service(kube_dual_stack, ipFamilyPolicy="RequireDualStack")
    assert filled["ipFamilies"] == ["IPv4", "IPv6"]
    assert filled["clusterIPs"][1].startswith("fd00:10:96::")


@pytest.mark.nightly
def test_relaxed_takes_what_the_published_crd_refuses(kube: Cluster, kube_relaxed: Cluster) -> None:
    status = {"network": {"primaryIP4": "10.20.0.11"}}
    assert round_trip(kube_relaxed, "v1alpha2", status)["status"] == status
    spec = {"selector": {"app": "shop"}, "ports": [{"port": 80}]}
    body = vm_service("default", "v1alpha2") | {"spec": spec}
    path = f"{API}/v1alpha2/namespaces/default/virtualmachineservices"
    assert kube.request("POST", path, body).status == 422
    taken = kube_relaxed.request("POST", path, body)
    assert taken.status == 201
    assert taken.body["spec"]["type"] == "ClusterIP"
    assert taken.body["spec"]["ports"] == [{"port": 80, "protocol": "TCP"}]


@pytest.mark.nightly
def test_v1alpha1_storage_keeps_the_address(kube_v1alpha1_storage: Cluster) -> None:
    status = {"vmIp": "10.20.0.11", "powerState": "poweredOn"}
    assert round_trip(kube_v1alpha1_storage, "v1alpha1", status)["status"] == status
    assert kube_v1alpha1_storage.request("GET", f"{API}/v1alpha2/virtualmachines").status == 404


def test_a_session_that_was_closed_connects_anew(kube: Cluster) -> None:
    session = kube.server.session()
    for _ in range(2):
        assert session.request("GET", "/version").status == 200
        session.close()


def test_rbac_denies_a_user_until_a_rule_grants(kube: Cluster) -> None:
    namespace = kube.create_namespace()
    account = kube.service_account(namespace, "reader")
    path = f"{API}/v1alpha6/namespaces/{namespace}/virtualmachines"
    assert [kube.request("GET", path, user=u).status for u in (kube.nobody, account)] == [403, 403]
    with pytest.raises(KubectlError, match=r"nobody.* cannot list resource"):
        kube.kubectl("get", "vm", "-n", namespace, user=kube.nobody)
    rule = ["--verb=list", "--resource=virtualmachines.vmoperator.vmware.com"]
    kube.kubectl("create", "role", "reader", "-n", namespace, *rule)
    whom = ["--role=reader", f"--serviceaccount={namespace}:reader"]
    kube.kubectl("create", "rolebinding", "reader", "-n", namespace, *whom)
    process = kube.server.process
    process.wait_until(
        lambda: kube.request("GET", path, user=account).status == 200, "allowing a list", 10
    )
    assert kube.request("DELETE", path, user=account).status == 403
    assert kube.request("GET", path, user=kube.nobody).status == 403


@pytest.mark.nightly
def test_a_restart_keeps_data_port_tokens_and_trust(start_cluster: StartCluster) -> None:
    kube = start_cluster()
    kube.install_crds(*FLAVOURS["single-stack"].crds)
    vm = round_trip(kube, "v1alpha6", {"network": {"primaryIP4": "10.20.0.11"}})
    path = f"{API}/v1alpha6/namespaces/{vm['metadata']['namespace']}/virtualmachines/vm-a"
    before = kube.request("GET", path).body
    account = kube.service_account("default", "reader")
    url, trust = kube.server.url, kube.server.ca_file.read_text()
    kube.server.restart()
    kube.server.kill()
    with pytest.raises(ConnectionRefusedError):
        kube.request("GET", path)
    kube.server.start()
    assert kube.request("GET", path).body == before
    assert kube.request("GET", path, user=account).status == 403
    assert (kube.server.url, kube.server.ca_file.read_text()) == (url, trust)
    kube.server.restart(new_ca=True)
    assert kube.server.ca_file.read_text() != trust
    assert kube.request("GET", path).body == before


@pytest.mark.nightly
def test_after_a_compaction_a_restarted_server_has_no_old_revision(
    start_cluster: StartCluster,
) -> None:
    kube = start_cluster()
    namespace = kube.create_namespace()
    maps = f"/api/v1/namespaces/{namespace}/configmaps"
    old = kube.request("GET", maps).body["metadata"]["resourceVersion"]
    watch = f"{maps}?watch=1&resourceVersion={old}"
    made = kube.request("POST", maps, {"metadata": {"name": "a"}})
    assert made.status == 201
    assert kube.etcd.compact() >= int(made.body["metadata"]["resourceVersion"])
    assert first_event(kube, watch)["type"] == "ADDED"
    kube.server.restart()
    assert first_event(kube, watch)["object"]["code"] == 410


@pytest.mark.nightly
def test_a_second_server_serves_when_the_first_is_gone(start_cluster: StartCluster) -> None:
    kube = start_cluster(servers=2)
    first, second = kube.servers
    namespace = kube.create_namespace()
    account = kube.service_account(namespace, "reader")
    first.kill()
    assert second.request("GET", f"/api/v1/namespaces/{namespace}").status == 200
    assert second.request("GET", "/api/v1/namespaces", user=account).status == 403
    first.start()
    first.process.pause()
    assert second.request("DELETE", f"/api/v1/namespaces/{namespace}").status == 200
    first.process.resume()
    assert first.request("GET", "/readyz").status == 200


@pytest.mark.nightly
def test_controllers_end_a_namespace(start_cluster: StartCluster) -> None:
    kube = start_cluster()
    namespace = kube.create_namespace()
    controllers = kube.start_controllers("namespace-controller")
    path = f"/api/v1/namespaces/{namespace}"
    assert kube.request("DELETE", path).status == 200
    controllers.wait_until(lambda: kube.request("GET", path).status == 404, "ending it", 60)


def wait_for_end(pid: int) -> bool:
    """Whether a process that is not our child ends in time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], GONE_TIMEOUT_S)[0])
    finally:
        os.close(descriptor)


def test_a_process_dies_with_the_tests_even_when_they_are_killed(tmp_path: Path) -> None:
    script = """
import sys, pathlib
from tests.kube.process import Process
process = Process("sleep", ["/bin/sleep", "600"], pathlib.Path(sys.argv[1]))
process.start()
print(process.pid, flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", script, str(tmp_path / "log")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as tests:
        assert tests.stdout is not None
        pid = int(tests.stdout.readline())
        tests.send_signal(signal.SIGKILL)
    assert wait_for_end(pid)


async def test_a_process_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    process = Process("sleep", ["/bin/sleep", "600"], tmp_path / "log")
    await asyncio.to_thread(process.start)
    await asyncio.get_running_loop().shutdown_default_executor()
    assert process.running
    process.kill()
    assert not process.running


def test_a_process_that_ends_early_tells_its_log(tmp_path: Path) -> None:
    process = Process("false", ["/bin/sh", "-c", "echo no such flag; exit 1"], tmp_path / "log")
    process.start()
    with pytest.raises(ProcessError, match=r"false ended before ready\n.*\nno such flag"):
        process.wait_until(lambda: False, "ready", 10)


@pytest.fixture
def fake_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a `go` on the PATH that runs a script ($OUT is -o's), with a cache of its own."""
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    calls = tmp_path / "calls"

    def install(script: str) -> Path:
        go = tmp_path / "go"
        find_out = 'while [ "$1" != -o ]; do shift; done; OUT=$2'
        go.write_text(f"#!/bin/sh\necho called >> {calls}\n{find_out}\n{script}\n")
        go.chmod(0o755)
        return calls

    return install


def test_two_processes_build_a_binary_once(fake_go: Callable[[str], Path]) -> None:
    calls = fake_go('sleep 1; echo built > "$OUT"')
    command = [sys.executable, "-m", "tests.kube.binaries", "etcd"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = {process.communicate()[0] for process in both}
    assert outputs == {f"{cache_folder() / 'etcd'}\n"}
    assert calls.read_text() == "called\n"
    assert sorted(path.name for path in cache_folder().iterdir()) == [".lock", "etcd"]


def test_a_failed_build_leaves_nothing_and_says_why(fake_go: Callable[[str], Path]) -> None:
    fake_go('echo half > "$OUT"; echo no space left; exit 1')
    with pytest.raises(BuildError, match=r"etcd v\S+ .* ended with 1\nno space left"):
        binary("etcd")
    assert [path.name for path in cache_folder().iterdir()] == [".lock"]


def test_without_go_one_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=r"Go is not on the PATH.*KUBEBUILDER_ASSETS") as error:
        binary("kube-apiserver")
    assert "\n" not in str(error.value)


def test_given_binaries_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    (tmp_path / "etcd").touch()
    assert binary("etcd") == tmp_path / "etcd"
