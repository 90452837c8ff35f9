"""The command `vmsvc` as a process: on the real server, in pipes and in a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
import yaml

import vmsvc_grpc
from tests.integration.scripted import Failure, ScriptedServer
from tests.integration.vmsvc_command import ENVIRONMENT, line_of, serving_manifests
from tests.program import PATIENCE_S, Program, awaited
from tests.unit.client.told import SYNCED, WEB, snapshot
from vmsvc import __version__
from vmsvc.v1.server_service_pb2 import GetVersionResponse

MANIFESTS = """\
apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachineService
metadata: {name: web, namespace: shop}
spec: {type: ClusterIP, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachineService
metadata: {name: old, namespace: shop}
spec: {type: NodePort, selector: {app: old}, ports: [{name: http, port: 80}]}
---
apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachine
metadata: {name: web-1, namespace: shop, labels: {app: web}}
status: {network: {primaryIP4: 10.0.0.1}}
---
apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachine
metadata: {name: web-2, namespace: shop, labels: {app: web}}
spec: {readinessProbe: {tcpSocket: {port: 80}}}
status: {network: {primaryIP4: 10.0.0.2}, conditions: [{type: Ready, status: "False", reason: R}]}
"""
VMSVC = [str(Path(sys.executable).with_name("vmsvc"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Program]:
    with serving_manifests(MANIFESTS, folder) as program:
        yield program


@pytest.fixture
def file(folder: Path) -> Iterator[Path]:
    """The manifest, put back after the test."""
    path = folder / "manifests" / "all.yaml"
    yield path
    replace(path, MANIFESTS)


def replace(path: Path, text: str) -> None:
    """As an editor does it: the file is never there in part."""
    new = path.with_name(".new")
    new.write_text(text)
    new.rename(path)


def vmsvc(server: str, line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*VMSVC, *line.split()],
        env={**ENVIRONMENT, "VMSVC_SERVER": server, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_list(server: Program) -> None:
    ran = vmsvc(server.grpc, "list")
    assert (ran.returncode, ran.stderr) == (0, "")
    header, old, web = ran.stdout.splitlines()
    assert header.split() == [
        "SERVICE", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "VMS", "READY", "STATUS",
    ]  # fmt: skip
    assert old.split("   ")[0] == "shop/old"
    assert "Refused: spec.type: NodePort is not supported" in old
    assert web.split() == [WEB, "ClusterIP", "<none>", "<none>", "80/TCP", "2", "1/2", "OK"]


def test_list_as_json(server: Program) -> None:
    ran = vmsvc(server.grpc, "list shop -o json")
    assert [s["service"] for s in json.loads(ran.stdout)] == ["shop/old", "shop/web"]


def test_list_of_an_empty_namespace(server: Program) -> None:
    ran = vmsvc(server.grpc, "list nobody")
    assert (ran.returncode, ran.stdout) == (0, "")
    assert ran.stderr == "vmsvc: no services in namespace nobody\n"
    assert json.loads(vmsvc(server.grpc, "list nobody -o json").stdout) == []


def test_resolve(server: Program) -> None:
    ran = vmsvc(server.grpc, "resolve shop/web")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [line.split() for line in ran.stdout.splitlines()] == [
        ["ADDRESS", "PORT(S)", "READY", "VM", "ZONE"],
        ["10.0.0.1", "8080/TCP(http)", "yes", "web-1", "<none>"],
    ]


def test_resolve_with_a_namespace_and_all_endpoints(server: Program) -> None:
    ran = vmsvc(server.grpc, "resolve web -o json", VMSVC_NAMESPACE="shop", VMSVC_ALL="1")
    state = json.loads(ran.stdout)
    assert state["service"] == WEB
    assert [(e["address"], e["ready"]) for e in state["endpoints"]] == [
        ("10.0.0.1", True),
        ("10.0.0.2", False),
    ]


def test_resolve_where_nothing_is_ready(server: Program, file: Path) -> None:
    replace(file, MANIFESTS.replace("app: web}, ports", "app: nobody}, ports"))
    ran = awaited(lambda: ran if (ran := vmsvc(server.grpc, "resolve shop/web")).stderr else None)
    assert ran is not None
    assert (ran.returncode, ran.stdout) == (0, "")
    assert ran.stderr == (
        "vmsvc: shop/web has no ready endpoints; `vmsvc explain shop/web` tells why\n"
    )


def test_resolve_several_tells_what_it_can(server: Program) -> None:
    ran = vmsvc(server.grpc, "resolve shop/web shop/none shop/old")
    assert ran.returncode == 1
    assert [line.split() for line in ran.stdout.splitlines()] == [
        ["SERVICE", "ADDRESS", "PORT(S)", "READY", "VM", "ZONE"],
        [WEB, "10.0.0.1", "8080/TCP(http)", "yes", "web-1", "<none>"],
    ]
    none, old = ran.stderr.splitlines()
    assert none == "vmsvc: there is no VirtualMachineService shop/none"
    assert "NodePort is not supported" in old


def test_formats(server: Program) -> None:
    """A program gets a list where several were asked for, however many there are."""
    one = vmsvc(server.grpc, "resolve shop/web -o yaml")
    assert yaml.safe_load(one.stdout)["endpoints"][0]["vm_name"] == "web-1"
    several = vmsvc(server.grpc, "resolve shop/web shop/none -o yaml")
    assert yaml.safe_load(several.stdout) == [yaml.safe_load(one.stdout)]
    assert several.returncode == 1
    none = vmsvc(server.grpc, "resolve shop/none -o json")
    assert (none.returncode, none.stdout) == (1, "")
    assert vmsvc(server.grpc, "list -o name").stdout == "shop/old\nshop/web\n"
    assert vmsvc(server.grpc, "resolve shop/web --all -o name").stdout == "shop/web-1\nshop/web-2\n"
    assert vmsvc(server.grpc, "explain shop/web -o name").stdout == "shop/web-1\nshop/web-2\n"
    assert "NO-ADDRESS" in vmsvc(server.grpc, "list -o wide").stdout
    assert "CONDITION" in vmsvc(server.grpc, "explain shop/web -o wide").stdout
    assert "UID" in vmsvc(server.grpc, "resolve shop/web -o wide").stdout


def test_explain(server: Program) -> None:
    ran = vmsvc(server.grpc, "explain shop/web")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(
        "Service:   shop/web\nSelector:  app=web\nFamilies:  IPv4\n"
        "VMs:       2 selected (1 ready, 1 not ready)\n\nVM"
    )
    assert re.search(r"web-1 +Ready +10\.0\.0\.1 +it has no readiness probe", ran.stdout)
    assert re.search(r"web-2 +NotReady +10\.0\.0\.2 +readiness probe tcpSocket", ran.stdout)


def test_explain_one_vm(server: Program) -> None:
    ran = vmsvc(server.grpc, "explain shop/web web-2 -o json")
    assert (ran.returncode, ran.stderr) == (0, "")
    explained = json.loads(ran.stdout)
    assert explained["matching"] == 2
    assert [(vm["vm_name"], vm["verdict"]) for vm in explained["virtual_machines"]] == [
        ("web-2", "NOT_READY")
    ]
    ran = vmsvc(server.grpc, "explain shop/web none")
    assert ran.returncode == 1
    assert "there is no VirtualMachine shop/none" in ran.stderr


def test_explain_of_a_refused_service_has_its_problem_first(server: Program) -> None:
    ran = vmsvc(server.grpc, "explain shop/old")
    assert ran.returncode == 0
    assert ran.stdout.splitlines()[1].startswith("Problem:   spec.type: NodePort is not supported")


@pytest.mark.parametrize(
    ("line", "code", "sentence"),
    [
        pytest.param(
            "resolve shop/none", 1, "there is no VirtualMachineService shop/none", id="not found"
        ),
        pytest.param("resolve shop/old", 1, "NodePort is not supported", id="refused"),
        pytest.param("explain shop/none", 1, "there is no", id="nothing to explain"),
        pytest.param("resolve Shop/web", 2, "cannot be a namespace's name", id="no name"),
        pytest.param("watch Shop/web", 2, "cannot be a namespace's name", id="no name to watch"),
        pytest.param("resolve web", 2, "has no namespace", id="no namespace"),
        pytest.param("frob", 2, "there is no command 'frob'", id="no such command"),
        pytest.param("--srever x list", 2, "did you mean --server?", id="a flag before, misspelt"),
        pytest.param("watch --al", 2, "did you mean --all?", id="a flag after, misspelt"),
    ],
)
def test_what_fails_is_one_line_and_a_code(
    server: Program, line: str, code: int, sentence: str
) -> None:
    ran = vmsvc(server.grpc, line)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert re.fullmatch(rf"vmsvc: .*{re.escape(sentence)}.*\n", ran.stderr)


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address that is taken, and where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield "{}:{}".format(*taken.getsockname())


@pytest.mark.parametrize("line", ["list", "resolve shop/web", "explain shop/web"])
def test_a_server_that_is_not_there(nobody: str, line: str) -> None:
    ran = vmsvc(nobody, line)
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr == f"vmsvc: server {nobody} cannot be reached: Connection refused\n"


def test_a_server_that_is_not_ready() -> None:
    with ScriptedServer() as server:
        server.unary["ListServicesRequest"] = Failure(
            grpc.StatusCode.UNAVAILABLE, "the cache is not filled yet"
        )
        ran = vmsvc(server.address, "list")
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr == f"vmsvc: server {server.address}: the cache is not filled yet\n"


class Proxy(threading.Thread):
    """An HTTP proxy that says no; what it was asked for."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:{1}".format(*self._socket.getsockname())
        self.asked: list[str] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.join()

    def run(self) -> None:
        with contextlib.suppress(OSError):  # As it is closed.
            while True:
                connection, _ = self._socket.accept()
                # A client that tries again may have left this connection, and uses the next one.
                with connection, contextlib.suppress(OSError):
                    if asked := connection.recv(4096).decode():
                        self.asked.append(asked.partition("\r\n")[0])
                        connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")


@pytest.mark.parametrize("variable", ["https_proxy", "http_proxy", "grpc_proxy"])
def test_a_proxy_of_the_environment_is_named_where_it_fails(variable: str) -> None:
    with Proxy() as proxy:
        ran = vmsvc("endpoints.example:50051", "list", **{variable: proxy.url})
    assert set(proxy.asked) == {"CONNECT endpoints.example:50051 HTTP/1.1"}
    assert ran.returncode == 3
    way = f"(through the proxy of ${variable})"
    assert ran.stderr.startswith(f"vmsvc: server endpoints.example:50051 cannot be reached {way}: ")


def test_no_proxy_of_the_environment_is_asked_for_this_machine(server: Program) -> None:
    port = server.grpc.rpartition(":")[2]
    with Proxy() as proxy:
        for name in (server.grpc, f"localhost:{port}", f"ipv4:{server.grpc}"):
            ran = vmsvc(name, "list -o name", https_proxy=proxy.url)
            assert (ran.returncode, ran.stderr) == (0, "")
    assert proxy.asked == []


def test_a_server_that_is_silent_is_waited_for_no_longer_than_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = "{}:{}".format(*silent.getsockname())
        ran = vmsvc(address, "list --timeout-s 0.5")
    assert ran.returncode == 3
    assert ran.stderr == f"vmsvc: server {address} did not answer in time\n"


@pytest.mark.parametrize("line", ["list", "resolve shop/web", "explain shop/web"])
def test_what_cannot_be_written_is_told(server: Program, line: str) -> None:
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [*VMSVC, "--server", server.grpc, *line.split()],
            env=ENVIRONMENT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    assert ran.returncode == 3
    assert ran.stderr == "vmsvc: cannot write the answer: No space left on device\n"


@pytest.mark.parametrize("line", ["list", "--version"])
def test_a_pipe_that_nobody_reads_is_no_failure_to_report(server: Program, line: str) -> None:
    with subprocess.Popen(
        [*VMSVC, "--server", server.grpc, line],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.wait(PATIENCE_S), process.stderr.read()) == (141, b"")


def test_version(server: Program) -> None:
    assert vmsvc(server.grpc, "--version").stdout == f"vmsvc {__version__}\n"


def test_version_of_both(server: Program) -> None:
    ran = vmsvc(server.grpc, "version")
    assert (ran.returncode, ran.stderr) == (0, "")
    client, told = ran.stdout.splitlines()
    assert client.split() == ["Client:", "vmsvc", __version__]
    assert told.split() == ["Server:", "vmsvc-grpc", vmsvc_grpc.__version__]
    both = json.loads(vmsvc(server.grpc, "version -o json").stdout)
    assert both == yaml.safe_load(vmsvc(server.grpc, "version -o yaml").stdout)
    assert both["client"]["version"] == __version__
    assert list(both["server"]) == [
        "version", "packages", "python_version", "transport", "started_at",
    ]  # fmt: skip
    assert "vmsvc.v1" in both["server"]["packages"]
    wide = vmsvc(server.grpc, "version -o wide").stdout
    assert wide.startswith("Client:      vmsvc ")
    assert "\nTransport:   http2\n" in wide


def test_version_without_a_server_is_still_that_of_the_client(nobody: str) -> None:
    ran = vmsvc(nobody, "version")
    assert (ran.returncode, ran.stdout) == (3, f"Client:   vmsvc {__version__}\n")
    assert ran.stderr == f"vmsvc: server {nobody} cannot be reached: Connection refused\n"
    ran = vmsvc(nobody, "version -o json")
    assert ran.returncode == 3
    assert json.loads(ran.stdout)["server"] is None
    ran = vmsvc(nobody, "version --client")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == f"Client:   vmsvc {__version__}\n"


def test_version_of_a_server_that_is_too_old_to_tell() -> None:
    with ScriptedServer() as old:
        old.unary["GetVersionRequest"] = Failure(grpc.StatusCode.UNIMPLEMENTED, "no such method")
        ran = vmsvc(old.address, "version")
    assert (ran.returncode, ran.stdout) == (3, f"Client:   vmsvc {__version__}\n")
    assert ran.stderr == (
        f"vmsvc: server {old.address} does not tell its version: it is vmsvc-grpc 0.1.0 or older, "
        "or no vmsvc-grpc\n"
    )


def test_version_of_a_server_that_is_far_away() -> None:
    with ScriptedServer() as far:
        far.unary["GetVersionRequest"] = GetVersionResponse(version="0.9.3")
        ran = vmsvc(far.address, "version")
    assert ran.returncode == 0
    assert ran.stdout.endswith("Server:   vmsvc-grpc 0.9.3\n")
    assert ran.stderr == (
        f"vmsvc: {__version__} and the server's 0.9.3 are more than one minor version apart, and "
        "may not understand each other: upgrade the older one\n"
    )


def test_a_closed_stdout_is_told() -> None:
    line = f"{VMSVC[0]} list >&-"
    ran = subprocess.run(
        ["/bin/sh", "-c", line], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (3, "vmsvc: cannot write the answer: stdout is closed\n")


# -- watch in a pipe --


class Watch:
    """`vmsvc watch` with its output in a pipe."""

    def __init__(self, server: str, line: str) -> None:
        self._since = datetime.now(UTC) - timedelta(milliseconds=1)  # It tells whole ones.
        self.process = subprocess.Popen(
            [*VMSVC, "--server", server, "watch", *line.split()],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # What waits to be read is in the pipe, where `select` sees it.
        )

    def told(self, event: str = "state") -> Any:
        """The next line, which is such an event, and not from before this watch began."""
        told = json.loads(line_of(self.process.stdout))
        assert told["event"] == event, told
        assert self._since <= datetime.fromisoformat(told["time"]), told
        return told

    def told_after_disconnects(self) -> Any:
        """The next state, before which there was one `disconnected` or, as it tried anew, more."""
        self.told("disconnected")
        while (told := json.loads(line_of(self.process.stdout)))["event"] == "disconnected":
            pass
        assert told["event"] == "state", told
        return told

    def noted(self) -> str:
        """The next line on stderr."""
        return line_of(self.process.stderr)

    def end(self, signum: int) -> tuple[int, str, str]:
        """Exit code after a signal, and what is left to read."""
        self.process.send_signal(signum)
        return self.ended()

    def ended(self) -> tuple[int, str, str]:
        """Exit code once it has ended, and what is left to read."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out.decode(), err.decode()


@contextmanager
def watching(server: str, line: str) -> Iterator[Watch]:
    watch = Watch(server, line)
    try:
        yield watch
    finally:
        if watch.process.poll() is None:
            watch.process.kill()
        watch.process.communicate()


def addresses(state: Any) -> list[str]:
    return [e["address"] for e in state["endpoints"]]


def test_watch_writes_a_line_at_once_for_each_change(server: Program, file: Path) -> None:
    with watching(server.grpc, "shop/web") as watch:
        first = watch.told()
        assert (first["service"], first["present"], first["absence"]) == (WEB, True, None)
        assert addresses(first) == ["10.0.0.1"]
        watch.told("synced")
        replace(file, MANIFESTS.replace("10.0.0.1}", "10.0.0.9}"))
        assert addresses(watch.told()) == ["10.0.0.9"]
        file.unlink()
        gone = watch.told()
        assert (gone["present"], gone["absence"]["reason"]) == (False, "NOT_FOUND")
        assert watch.end(signal.SIGINT) == (130, "", "")


def test_watch_of_a_namespace_has_the_refused_too(server: Program) -> None:
    with watching(server.grpc, "-n shop --all") as watch:
        states = {state["service"]: state for state in (watch.told(), watch.told())}
        assert addresses(states[WEB]) == ["10.0.0.1", "10.0.0.2"]
        assert states["shop/old"]["absence"]["reason"] == "REFUSED"
        watch.told("synced")
        assert watch.end(signal.SIGTERM) == (143, "", "")


def test_watch_waits_for_a_server_and_says_so_once(nobody: str) -> None:
    with watching(nobody, "shop/web") as watch:
        assert watch.noted() == (
            f"vmsvc: server {nobody} cannot be reached: Connection refused; "
            "trying until it answers\n"
        )
        lost = watch.told("disconnected")
        assert lost["code"] == "UNAVAILABLE"
        assert lost["error"] == f"server {nobody} cannot be reached: Connection refused"
        assert lost["retry_in_s"] >= 0
        code, _, noted = watch.end(signal.SIGINT)
        assert (code, noted) == (130, "")


def test_watch_goes_on_after_an_outage_and_says_what_happened() -> None:
    with ScriptedServer() as server, watching(server.address, "shop/web") as watch:
        server.accept().send(snapshot(WEB, 1, "10.0.0.1"), SYNCED)
        assert addresses(watch.told()) == ["10.0.0.1"]
        watch.told("synced")
        server.stop()
        assert "trying until it answers" in watch.noted()
        with ScriptedServer(server.port) as back:
            back.accept().send(snapshot(WEB, 1, "10.0.0.2"), SYNCED)
            assert addresses(watch.told_after_disconnects()) == ["10.0.0.2"]
            watch.told("synced")
            assert watch.noted() == f"vmsvc: server {server.address} answers again\n"
            assert watch.end(signal.SIGINT) == (130, "", "")


def test_watch_as_a_stream_of_yaml(server: Program) -> None:
    ran = vmsvc(server.grpc, "watch shop/web --until-ready 1 -o yaml")
    state, synced = yaml.safe_load_all(ran.stdout)
    assert (state["service"], synced["event"]) == (WEB, "synced")


def test_watch_ends_quietly_when_its_reader_is_gone(server: Program, file: Path) -> None:
    with watching(server.grpc, "shop/web") as watch:
        watch.told()
        assert watch.process.stdout is not None
        watch.process.stdout.close()
        file.unlink()
        assert watch.process.wait(PATIENCE_S) == 141
        assert watch.process.stderr is not None
        assert watch.process.stderr.read() == b""


def test_interrupting_a_call_that_waits_is_quiet() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = "{}:{}".format(*silent.getsockname())
        process = subprocess.Popen(
            [*VMSVC, "--server", address, "list"],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        connection, _ = silent.accept()  # So it waits for an answer.
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
        connection.close()
    assert (process.returncode, out, err) == (130, b"", b"")


def test_in_the_background_of_a_script_it_hears_sigterm_and_no_interrupt(server: Program) -> None:
    """A shell has what it starts with `&` ignore SIGINT, which is meant for the foreground."""
    command = f"trap '' INT; exec {VMSVC[0]} --server {server.grpc} watch shop/web"
    with subprocess.Popen(
        ["/bin/sh", "-c", command],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    ) as process:
        assert addresses(json.loads(line_of(process.stdout))) == ["10.0.0.1"]
        assert json.loads(line_of(process.stdout))["event"] == "synced"
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        try:
            assert process.communicate(timeout=PATIENCE_S) == (b"", b"")
            assert process.returncode == 143
        finally:
            process.kill()


# -- watch until something holds --


def test_watch_until_vms_are_ready(server: Program, file: Path) -> None:
    with watching(server.grpc, "shop/web --until-ready 2") as watch:
        assert addresses(watch.told()) == ["10.0.0.1"]
        watch.told("synced")
        replace(file, MANIFESTS.replace('"False"', '"True"'))
        assert addresses(watch.told()) == ["10.0.0.1", "10.0.0.2"]
        assert watch.ended() == (0, "", "")


def test_watch_until_what_holds_already(server: Program) -> None:
    with watching(server.grpc, "shop/web --until-ready 1 --timeout-s 60") as watch:
        watch.told()
        watch.told("synced")
        assert watch.ended() == (0, "", "")


def test_watch_until_it_is_too_late(server: Program) -> None:
    ran = vmsvc(server.grpc, "watch shop/web shop/none --until-ready 2 --timeout-s 1")
    assert ran.returncode == 4
    assert ran.stderr == (
        "vmsvc: after 1 s, shop/web has 1 of 2 VMs ready; shop/none is absent: there is no "
        "VirtualMachineService shop/none\n"
    )


def test_watch_until_it_is_too_late_and_nobody_has_answered(nobody: str) -> None:
    ran = vmsvc(nobody, "watch shop/web --for=absent --timeout-s 1")
    assert ran.returncode == 4
    assert ran.stderr.endswith(
        "vmsvc: after 1 s, shop/web is not known yet (as last heard; the server is away)\n"
    )


def test_watch_until_a_service_is_deleted(server: Program, file: Path) -> None:
    with watching(server.grpc, "shop/web --for=absent") as watch:
        watch.told()
        watch.told("synced")
        file.unlink()
        assert watch.told()["absence"]["reason"] == "NOT_FOUND"
        assert watch.ended() == (0, "", "")


def test_a_table_ends_with_what_was_waited_for(server: Program, file: Path) -> None:
    with terminal(server.grpc, "shop/web --until-ready 2") as screen:
        assert screen.shows(": live", "10.0.0.1:8080")
        replace(file, MANIFESTS.replace('"False"', '"True"'))
        assert screen.wait() == 0
        assert screen.shows("10.0.0.2:8080")


# -- watch in a terminal --


class Terminal:
    """`vmsvc watch` in a terminal of a size, and all that it wrote there."""

    def __init__(self, server: str, line: str, columns: int = 100, lines: int = 30) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process = subprocess.Popen(
            [*VMSVC, "--server", server, "watch", *line.split()],
            env={**ENVIRONMENT, "TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self.written = ""

    def shows(self, *texts: str) -> bool:
        """Whether the newest frame comes to show all of these."""
        return awaited(lambda: all(text in self._frame() for text in texts))

    def wait(self) -> int:
        """The exit code; what was written until then is in `written`."""
        code = self.process.wait(PATIENCE_S)
        self._frame()
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)

    def _frame(self) -> str:
        while select.select([self._ours], [], [], 0.02)[0]:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # As Linux tells that the other side is closed.
                break
            self.written += data.decode()
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.written).rpartition("server 1")[2]


@contextmanager
def terminal(server: str, line: str) -> Iterator[Terminal]:
    opened = Terminal(server, line)
    try:
        yield opened
    finally:
        opened.close()


def test_watch_is_a_live_table_in_a_terminal(server: Program, file: Path) -> None:
    with terminal(server.grpc, "-n shop") as screen:
        assert screen.shows(": live", "shop/web", "10.0.0.1:8080", "web-1", "refused: spec.type")
        assert screen.shows("2 services, 1 endpoint ready")
        replace(file, MANIFESTS.replace("10.0.0.1}", "10.0.0.9}"))
        assert screen.shows("10.0.0.9:8080", "+10.0.0.9 -10.0.0.1")
        screen.process.send_signal(signal.SIGINT)
        assert screen.wait() == 130
        assert "Traceback" not in screen.written
        assert screen.written.rfind("\x1b[?25h") > screen.written.rfind("\x1b[?25l"), "the cursor"


def test_the_table_keeps_the_last_known_while_the_server_is_away() -> None:
    with ScriptedServer() as server, terminal(server.address, "shop/web") as screen:
        server.accept().send(snapshot(WEB, 1, "10.0.0.1"), SYNCED)
        assert screen.shows(": live", "10.0.0.1:8080")
        server.stop()
        assert screen.shows(": lost", "next try in", "Connection refused", "10.0.0.1:8080")
        with ScriptedServer(server.port) as back:
            back.accept().send(snapshot(WEB, 1, "10.0.0.2"), SYNCED)
            assert screen.shows(": live", "10.0.0.2:8080")
            assert "chttp2" not in screen.written, "gRPC's own log would break the table"


def test_the_table_gives_the_cursor_back_when_terminated(server: Program) -> None:
    with terminal(server.grpc, "shop/web") as screen:
        assert screen.shows(": live")
        screen.process.terminate()
        assert screen.wait() == 143
        assert "Traceback" not in screen.written
        assert screen.written.rfind("\x1b[?25h") > screen.written.rfind("\x1b[?25l")


def test_a_watch_that_is_refused_is_one_line_after_the_table(server: Program) -> None:
    with terminal(server.grpc, "Shop/web") as screen:
        assert screen.wait() == 2
        assert "vmsvc: services[0].service: 'Shop/web'" in screen.written
        assert "Traceback" not in screen.written


class Tmux:
    """A real terminal with a real shell in it, that others resize and look at."""

    def __init__(self, server: str, socket: Path) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]
        shell = "env PS1='$ ' bash --norc --noprofile"
        self._run("new-session", "-d", "-x", "100", "-y", "20", shell, VMSVC_SERVER=server)

    def types(self, *keys: str) -> None:
        self._run("send-keys", *keys)

    def resize(self, columns: int, lines: int) -> None:
        self._run("resize-window", "-x", str(columns), "-y", str(lines))

    def comes_to_show(self, shown: Callable[[list[str]], bool]) -> None:
        assert awaited(lambda: shown(self.screen())), "\n".join(self.screen())

    def screen(self) -> list[str]:
        return self._run("capture-pane", "-p").splitlines()

    def has_cursor(self) -> bool:
        return self._run("display-message", "-p", "#{cursor_flag}").strip() == "1"

    def close(self) -> None:
        self._run("kill-server")

    def _run(self, *arguments: str, **environment: str) -> str:
        return subprocess.run(
            [*self._tmux, *arguments],
            env={**ENVIRONMENT, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **environment},
            stdout=subprocess.PIPE,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        ).stdout


@pytest.fixture
def tmux(server: Program, tmp_path: Path) -> Iterator[Tmux]:
    opened = Tmux(server.grpc, tmp_path / "tmux")
    try:
        yield opened
    finally:
        opened.close()


def tables(lines: list[str]) -> int:
    return sum(line.startswith("SERVICE ") for line in lines)


def test_the_table_is_drawn_cleanly_when_its_terminal_is_resized(tmux: Tmux, file: Path) -> None:
    tmux.types(f"{VMSVC[0]} watch -n shop", "Enter")
    tmux.comes_to_show(lambda lines: lines[-1:] != [] and "web-1" in "".join(lines))
    for columns, lines in ((50, 12), (120, 30), (40, 8)):
        tmux.resize(columns, lines)
        tmux.comes_to_show(lambda shown: shown[0].startswith("server 127.") and tables(shown) == 1)
    replace(file, MANIFESTS.replace("10.0.0.1}", "10.0.0.9}"))
    tmux.comes_to_show(lambda shown: tables(shown) == 1 and "10.0.0.9" in "".join(shown))
    tmux.types("C-c")
    tmux.comes_to_show(lambda shown: any(line.startswith("$") for line in shown))
    assert tmux.has_cursor()


def test_the_table_goes_on_below_after_it_was_stopped(tmux: Tmux) -> None:
    tmux.types(f"{VMSVC[0]} watch -n shop", "Enter")
    tmux.comes_to_show(lambda lines: "web-1" in "".join(lines))
    tmux.types("C-z")
    tmux.comes_to_show(lambda lines: any("Stopped" in line for line in lines))
    assert tmux.has_cursor()
    tmux.types("echo between", "Enter")
    tmux.comes_to_show(lambda lines: "between" in lines)
    tmux.types("fg", "Enter")
    tmux.comes_to_show(lambda lines: tables(lines[lines.index("between") :]) == 1)
    assert tables(tmux.screen()) == 2, "the one before is left as it was"
    tmux.types("C-c")
    tmux.comes_to_show(lambda lines: [line for line in lines if line][-1] == "$")
    assert tmux.has_cursor()
