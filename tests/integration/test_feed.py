"""`vmsvc feed` as a process: what it keeps right, whatever the server and others do."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.integration.feeding import feeding
from tests.integration.scripted import ScriptedServer, Stream
from tests.integration.test_client_cli import MANIFESTS
from tests.monitoring.promtool import promtool
from tests.program import PATIENCE_S, awaited, serving
from tests.unit.client.told import SYNCED, WEB, not_found, snapshot
from vmsvc.v1 import endpoint_service_pb2 as pb

PROMPT = ("--check-interval-s", "0.1")
"""For what is found at the next look only."""


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "targets.json"


def targets(file: Path) -> list[str] | None:
    """The addresses in a file of targets; None while there is none."""
    try:
        return [address for group in json.loads(file.read_text()) for address in group["targets"]]
    except FileNotFoundError:
        return None


def has(file: Path, *addresses: str) -> bool:
    """Whether the file has just these before long."""
    return awaited(lambda: targets(file) == [f"{address}:8080" for address in addresses])


def begun(server: ScriptedServer, *messages: pb.WatchEndpointsResponse) -> Stream:
    stream = server.accept()
    stream.send(*messages, SYNCED)
    return stream


def test_follows_the_real_server(tmp_path: Path, file: Path) -> None:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    (manifests / "shop.yaml").write_text(MANIFESTS)
    with (
        serving(["--manifests", manifests], tmp_path / "server.log") as program,
        feeding(program.grpc, ["prometheus", "--file", file], tmp_path / "feed.log"),
    ):
        assert has(file, "10.0.0.1", "10.0.0.2")
        assert json.loads(file.read_text())[0] == {
            "targets": ["10.0.0.1:8080"],
            "labels": {
                "namespace": "shop",
                "service": "web",
                "port": "http",
                "vm": "web-1",
                "ready": "true",
            },
        }
        (manifests / "shop.yaml.new").write_text(MANIFESTS.replace("10.0.0.1", "10.0.0.7"))
        (manifests / "shop.yaml.new").rename(manifests / "shop.yaml")
        assert has(file, "10.0.0.2", "10.0.0.7")


def discovered(file: Path) -> list[dict[str, str]]:
    """The labels that Prometheus itself gives each target of a file."""
    config = file.with_name("prometheus.yml")
    scraped = {"job_name": "vms", "file_sd_configs": [{"files": [str(file)]}]}
    config.write_text(json.dumps({"scrape_configs": [scraped]}))
    command = [f"{promtool()}", "check", "service-discovery", "--timeout=1s", f"{config}", "vms"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    return [target["labels"] for target in json.loads(told.stdout)]


@pytest.mark.parametrize("prefix", ["", "__meta_vmsvc_"])
def test_prometheus_reads_it(
    server: ScriptedServer, tmp_path: Path, file: Path, prefix: str
) -> None:
    arguments = ["prometheus", "--file", file, "--label-prefix", prefix]
    with feeding(server.address, arguments if prefix else arguments[:-2], tmp_path / "log"):
        begun(server, snapshot(WEB, 1, "10.0.0.1", "fd00::1"), snapshot("data/db", 2, "10.0.0.9"))
        assert awaited(lambda: len(targets(file) or ()) == 3)
    found = discovered(file)
    assert sorted(labels["instance"] for labels in found) == [
        "10.0.0.1:8080",
        "10.0.0.9:8080",
        "[fd00::1]:8080",
    ]
    ours = {"namespace", "service", "port", "vm", "zone", "ready"}
    for labels in found:
        # What begins with two underscores is for relabelling, and goes once that is done.
        assert {name for name in labels if name in ours} == (set() if prefix else ours)


def test_what_is_known_stays_while_the_server_is_away(
    server: ScriptedServer, tmp_path: Path, file: Path
) -> None:
    arguments = ["prometheus", "--file", file, "--http-listen", "127.0.0.1:0", *PROMPT]
    with feeding(server.address, arguments, tmp_path / "log") as feed:
        begun(server, snapshot(WEB, 1, "10.0.0.1"))
        assert has(file, "10.0.0.1")
        server.stop()
        assert awaited(lambda: feed.metrics()["vmsvc_feed_connected"] == 0)
        looked = feed.metrics()['vmsvc_feed_applies_total{result="unchanged"}']
        again = 'vmsvc_feed_applies_total{result="unchanged"}'
        assert awaited(lambda: feed.metrics()[again] > looked + 3)
        assert targets(file) == ["10.0.0.1:8080"]
        assert feed.http("/readyz") == (200, "ok\n")
        with ScriptedServer(server.port) as successor:
            begun(successor, snapshot(WEB, 1, "10.0.0.2"))
            assert has(file, "10.0.0.2")


def test_nothing_is_written_before_all_is_known(
    server: ScriptedServer, tmp_path: Path, file: Path
) -> None:
    file.write_text("[]")
    arguments = ["prometheus", "--file", file, "--http-listen", "127.0.0.1:0", *PROMPT]
    with feeding(server.address, arguments, tmp_path / "log") as feed:
        stream = server.accept()
        stream.send(snapshot(WEB, 1, "10.0.0.1"))
        assert awaited(lambda: feed.metrics()["vmsvc_feed_states_received_total"] == 1)
        assert feed.http("/readyz") == (503, "the server has not answered yet\n")
        assert targets(file) == []
        stream.send(SYNCED)
        assert has(file, "10.0.0.1")


def test_a_feed_that_is_started_anew_begins_with_what_was_known(
    server: ScriptedServer, tmp_path: Path, file: Path
) -> None:
    arguments = ["prometheus", "--file", file, "--state-file", tmp_path / "states"]
    with feeding(server.address, arguments, tmp_path / "log"):
        begun(server, snapshot(WEB, 1, "10.0.0.1"))
        assert has(file, "10.0.0.1")
        assert awaited((tmp_path / "states").exists)
    server.stop()
    file.unlink()
    with feeding(server.address, arguments, tmp_path / "log"):
        assert has(file, "10.0.0.1")
        with ScriptedServer(server.port) as successor:
            begun(successor)
            assert has(file), "the service went while nobody fed"


@pytest.mark.parametrize(
    ("policy", "left"),
    [("keep", ["10.0.0.1:8080"]), ("empty", [])],
)
@pytest.mark.parametrize(
    ("flag", "news"),
    [("--on-absent", not_found(WEB)), ("--on-no-endpoints", snapshot(WEB, 2))],
    ids=["absent", "no endpoints"],
)
def test_policies(
    server: ScriptedServer,
    tmp_path: Path,
    file: Path,
    flag: str,
    news: pb.WatchEndpointsResponse,
    policy: str,
    left: list[str],
) -> None:
    arguments = ["prometheus", WEB, "shop/other", "--file", file, flag, policy]
    with feeding(server.address, arguments, tmp_path / "log"):
        stream = begun(server, snapshot(WEB, 1, "10.0.0.1"), not_found("shop/other"))
        assert has(file, "10.0.0.1")
        stream.send(news, snapshot("shop/other", 3, "10.0.0.3"))
        # By now the news before it has been taken in, too.
        assert awaited(lambda: targets(file) == ["10.0.0.3:8080", *left])


@pytest.mark.parametrize("how", ["deleted", "changed"])
def test_what_others_change_is_put_right(
    server: ScriptedServer, tmp_path: Path, file: Path, how: str
) -> None:
    with feeding(server.address, ["prometheus", "--file", file, *PROMPT], tmp_path / "log"):
        begun(server, snapshot(WEB, 1, "10.0.0.1"))
        assert has(file, "10.0.0.1")
        file.write_text("[]") if how == "changed" else file.unlink()
        assert has(file, "10.0.0.1")


def test_at_sighup_it_looks_at_once(server: ScriptedServer, tmp_path: Path, file: Path) -> None:
    arguments = ["prometheus", "--file", file, "--check-interval-s", "100000"]
    with feeding(server.address, arguments, tmp_path / "log") as feed:
        begun(server, snapshot(WEB, 1, "10.0.0.1"))
        assert has(file, "10.0.0.1")
        file.unlink()
        feed.hang_up()
        assert has(file, "10.0.0.1")


def test_a_file_that_cannot_be_written_is_tried_until_it_can(
    server: ScriptedServer, tmp_path: Path
) -> None:
    file = tmp_path / "not-there" / "targets.json"
    arguments = ["prometheus", "--file", file, "--http-listen", "127.0.0.1:0", *PROMPT]
    with feeding(server.address, arguments, tmp_path / "log") as feed:
        begun(server, snapshot(WEB, 1, "10.0.0.1"))
        fault = f"{file} cannot be written: No such file or directory"
        assert feed.has_said(fault)
        assert feed.http("/readyz") == (503, f"{fault}\n")
        assert awaited(lambda: feed.metrics()['vmsvc_feed_applies_total{result="failed"}'] > 2)
        assert feed.said().count(fault) == 1, "a fault is reported once"
        assert feed.metrics()["vmsvc_feed_failing"] == 1
        file.parent.mkdir()
        assert has(file, "10.0.0.1")
        assert feed.has_said("the output is right")
        assert feed.http("/readyz") == (200, "ok\n")


def test_links_that_go_round_in_circles_end_no_feed(
    server: ScriptedServer, tmp_path: Path, file: Path
) -> None:
    file.symlink_to(file.name)
    with feeding(server.address, ["prometheus", "--file", file, *PROMPT], tmp_path / "log") as feed:
        begun(server, snapshot(WEB, 1, "10.0.0.1"))
        assert feed.has_said(f"{file} cannot be written: Too many levels of symbolic links")
        file.unlink()
        assert has(file, "10.0.0.1")


def test_a_name_that_is_no_utf8_is_told_of(
    server: ScriptedServer, systemd: socket.socket, tmp_path: Path
) -> None:
    file = tmp_path / os.fsdecode(b"\xff") / "targets.json"
    arguments = ["prometheus", "--file", file, "--http-listen", "127.0.0.1:0", *PROMPT]
    place = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    with feeding(server.address, arguments, tmp_path / "log", **place) as feed:
        begun(server, snapshot(WEB, 1, "10.0.0.1"))
        told = rf"{tmp_path}/\udcff/targets.json cannot be written: No such file or directory"
        assert heard(systemd, "STATUS")[0] == f"STATUS=failing: {told}"[:207]
        assert feed.http("/readyz") == (503, f"{told}\n")


def test_a_port_that_a_service_lacks_costs_that_service_alone(
    server: ScriptedServer, tmp_path: Path, file: Path
) -> None:
    arguments = ["prometheus", f"{WEB}:grpc", "shop/other", "--file", file]
    with feeding(server.address, arguments, tmp_path / "log") as feed:
        begun(server, snapshot(WEB, 1, "10.0.0.1"), snapshot("shop/other", 2, "10.0.0.3"))
        assert has(file, "10.0.0.3")
        assert feed.has_said(f"service {WEB} has no port 'grpc': it has http")


@pytest.mark.parametrize(
    ("status", "code"),
    [(grpc.StatusCode.PERMISSION_DENIED, 1), (grpc.StatusCode.UNIMPLEMENTED, 3)],
)
def test_refused_at_its_start_it_ends(
    server: ScriptedServer, tmp_path: Path, file: Path, status: grpc.StatusCode, code: int
) -> None:
    with feeding(server.address, ["prometheus", "--file", file], tmp_path / "log") as feed:
        server.accept().fail(status, "you may not watch endpoints")
        assert feed.process.wait(PATIENCE_S) == code
        assert feed.said().endswith(
            f"vmsvc: server {server.address}: you may not watch endpoints\n"
        )
        assert targets(file) is None


def test_refused_later_it_goes_on_with_what_is_known(
    server: ScriptedServer, tmp_path: Path, file: Path
) -> None:
    with feeding(server.address, ["prometheus", "--file", file, *PROMPT], tmp_path / "log") as feed:
        stream = begun(server, snapshot(WEB, 1, "10.0.0.1"))
        assert has(file, "10.0.0.1")
        stream.fail(grpc.StatusCode.PERMISSION_DENIED, "not any more")
        assert feed.has_said("not any more; the states held stay")
        file.unlink()
        assert has(file, "10.0.0.1")


def given(file: Path) -> list[Any]:
    """The states that the command has been given, in order."""
    text, found = file.read_text() if file.exists() else "", []
    while text := text.lstrip():
        state, end = json.JSONDecoder().raw_decode(text)
        found.append(state)
        text = text[end:]
    return found


def test_a_command_is_given_each_state(server: ScriptedServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["exec", "--command", f"sh -c 'cat >> {out}; echo $VMSVC_SERVICE >> {out}.names'"]
    with feeding(server.address, arguments, tmp_path / "log"):
        stream = begun(server, snapshot(WEB, 1, "10.0.0.1"))
        assert awaited(lambda: len(given(out)) == 1)
        stream.send(snapshot(WEB, 2, "10.0.0.2"))
        assert awaited(lambda: len(given(out)) == 2)
        stream.send(not_found(WEB))
        assert awaited(lambda: len(given(out)) == 3)
    first, second, third = given(out)
    assert [e["address"] for e in first["endpoints"]] == ["10.0.0.1"]
    assert [e["address"] for e in second["endpoints"]] == ["10.0.0.2"]
    assert third["absence"]["reason"] == "NOT_FOUND"
    assert awaited(lambda: Path(f"{out}.names").read_text() == f"{WEB}\n" * 3)


def test_a_command_that_fails_is_run_again_and_no_others(
    server: ScriptedServer, tmp_path: Path
) -> None:
    out, fails = tmp_path / "out", tmp_path / "fails"
    fails.write_text("")
    fail = f"[ -e {fails} ] && echo no luck && exit 7"
    script = f'[ "$VMSVC_SERVICE" = shop/db ] && {fail}; cat >> {out}'
    with feeding(
        server.address, ["exec", "--command", f"sh -c '{script}'"], tmp_path / "log"
    ) as feed:
        begun(server, snapshot(WEB, 1, "10.0.0.1"), snapshot("shop/db", 2, "10.0.0.2"))
        assert feed.has_said("shop/db: command sh failed with exit code 7: no luck")
        assert [state["service"] for state in given(out)] == [WEB]
        fails.unlink()
        assert awaited(lambda: [s["service"] for s in given(out)] == [WEB, "shop/db"])


def test_a_command_that_hangs_is_killed_with_all_that_it_has_started(
    server: ScriptedServer, tmp_path: Path
) -> None:
    script = f"sleep 100000 & echo $! > {tmp_path}/pid; wait"
    arguments = ["exec", "--command", f"sh -c '{script}'", "--command-timeout-s", "0.5"]
    with feeding(server.address, arguments, tmp_path / "log") as feed:
        begun(server, snapshot(WEB, 1, "10.0.0.1"))
        assert feed.has_said("command sh has not ended within 0.5 s")
        pid = int((tmp_path / "pid").read_text())
        assert awaited(lambda: pid_is_gone(pid))


def pid_is_gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of a service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(PATIENCE_S)
        manager.bind(str(tmp_path / "notify"))
        yield manager


def heard(manager: socket.socket, until: str) -> list[str]:
    """What it is told, up to a line that begins so; but for signs of life."""
    lines: list[str] = []
    ends = time.monotonic() + PATIENCE_S
    while not any(line.startswith(until) for line in lines):
        assert time.monotonic() < ends, f"no more was told than {lines}"
        lines += manager.recv(4096).decode().splitlines()
    return [line for line in lines if not line.startswith("WATCHDOG")]


def test_tells_systemd(
    server: ScriptedServer, systemd: socket.socket, tmp_path: Path, file: Path
) -> None:
    place = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000000"}
    with feeding(server.address, ["prometheus", "--file", file], tmp_path / "log", **place) as feed:
        assert systemd.recv(4096) == b"WATCHDOG=1"
        stream = begun(server, snapshot(WEB, 1, "10.0.0.1"))
        assert heard(systemd, "STATUS") == ["READY=1", "STATUS=1 service, 1 endpoint ready"]
        stream.send(snapshot(WEB, 2, "10.0.0.1", "10.0.0.2"))
        assert heard(systemd, "STATUS=1 service, 2") == ["STATUS=1 service, 2 endpoints ready"]
        feed.hang_up()
        assert heard(systemd, "READY=1")[0] == "RELOADING=1"
        assert feed.end() == 0
        assert heard(systemd, "STOPPING=1")[-1] == "STOPPING=1"


def test_a_reload_ends_although_the_output_fails(
    server: ScriptedServer, systemd: socket.socket, tmp_path: Path, file: Path
) -> None:
    place = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    with feeding(server.address, ["prometheus", "--file", file], tmp_path / "log", **place) as feed:
        begun(server, snapshot(WEB, 1, "10.0.0.1"))
        assert heard(systemd, "STATUS")[0] == "READY=1"
        file.unlink()
        file.mkdir()
        feed.hang_up()
        assert heard(systemd, "READY=1")[0] == "RELOADING=1"


def test_a_notice_through_a_socket_without_a_file(
    server: ScriptedServer, tmp_path: Path, file: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(PATIENCE_S)
        manager.bind(f"\0{tmp_path}")
        arguments, place = ["prometheus", "--file", file], {"NOTIFY_SOCKET": f"@{tmp_path}"}
        with feeding(server.address, arguments, tmp_path / "log", **place):
            begun(server, snapshot(WEB, 1, "10.0.0.1"))
            assert heard(manager, "READY=1")[0] == "READY=1"


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_ends_by_signal(
    server: ScriptedServer, tmp_path: Path, file: Path, signum: signal.Signals, code: int
) -> None:
    with feeding(server.address, ["prometheus", "--file", file], tmp_path / "log") as feed:
        stream = begun(server, snapshot(WEB, 1, "10.0.0.1"))
        assert has(file, "10.0.0.1")
        assert feed.end(signum) == code
        assert stream.over.wait(PATIENCE_S)
        assert targets(file) == ["10.0.0.1:8080"], "what was made stays"


def test_a_log_that_takes_nothing_ends_no_feed(
    server: ScriptedServer, tmp_path: Path, file: Path
) -> None:
    with (
        Path("/dev/full").open("wb") as full,
        feeding(
            server.address, ["prometheus", "--file", file, *PROMPT], tmp_path / "log", full
        ) as feed,
    ):
        begun(server, snapshot(WEB, 1, "10.0.0.1"))
        assert has(file, "10.0.0.1")
        server.stop()
        file.unlink()
        assert has(file, "10.0.0.1")
        assert feed.process.poll() is None


def test_metrics_and_probes(server: ScriptedServer, tmp_path: Path, file: Path) -> None:
    arguments = ["prometheus", "--file", file, "--http-listen", "127.0.0.1:0"]
    with feeding(server.address, arguments, tmp_path / "log") as feed:
        begun(server, snapshot(WEB, 1, "10.0.0.1"))
        assert awaited(lambda: feed.http("/readyz") == (200, "ok\n"))
        found = feed.metrics()
        assert found['vmsvc_feed_endpoints{ready="true"}'] == 1
        assert found["vmsvc_feed_services"] == 1
        assert found['vmsvc_feed_applies_total{result="changed"}'] == 1
        assert feed.http("/livez") == (200, "ok\n")
        assert feed.http("/nothing")[0] == 404


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "is not one that vmsvc feed has written"),
        ('{"format": 2, "services": []}', "is not one that vmsvc feed has written"),
        ('{"format": 1, "services": [{"service": 1}]}', "is not one that vmsvc feed has written"),
        ("[" * 100_000, "is not one that vmsvc feed has written"),
    ],
    ids=["cut off", "of another release", "with other types", "deep"],
)
def test_a_state_file_that_is_none_is_an_error_of_the_command_line(
    server: ScriptedServer, tmp_path: Path, file: Path, content: str, why: str
) -> None:
    states = tmp_path / "states"
    states.write_text(content)
    arguments = ["prometheus", "--file", file, "--state-file", states]
    with feeding(server.address, arguments, tmp_path / "log") as feed:
        assert feed.process.wait(PATIENCE_S) == 2
        assert why in feed.said()
        assert str(states) in feed.said()
    assert states.read_text() == content


def test_a_state_file_that_cannot_be_written_holds_back_no_news(
    server: ScriptedServer, tmp_path: Path, file: Path
) -> None:
    states = tmp_path / "not-there" / "states"
    arguments = ["prometheus", "--file", file, "--state-file", states]
    with feeding(server.address, arguments, tmp_path / "log") as feed:
        stream = begun(server, snapshot(WEB, 1, "10.0.0.1"))
        for version in range(2, 8):
            stream.send(snapshot(WEB, version, f"10.0.0.{version}"))
            assert has(file, f"10.0.0.{version}")
        assert feed.has_said(f"{states} cannot be written")
        states.parent.mkdir()
        assert awaited(states.exists)
        assert feed.has_said("the output is right")


def test_every_flag_has_a_variable(server: ScriptedServer, tmp_path: Path, file: Path) -> None:
    settings = {
        "VMSVC_FEED_FILE": str(file),
        "VMSVC_FEED_LABEL_PREFIX": "__meta_vmsvc_",
        "VMSVC_FEED_CHECK_INTERVAL_S": "0.1",
        "VMSVC_FEED_ALL": "false",
        "VMSVC_NAMESPACE": "shop",
        "VMSVC_ALL": "true",
        "VMSVC_OUTPUT": "yaml",
    }
    with feeding(server.address, ["prometheus"], tmp_path / "log", **settings):
        stream = begun(server, snapshot(WEB, 1, "10.0.0.1"))
        assert stream.request.namespaces == ["shop"]
        assert stream.request.readiness == pb.READINESS_READY_ONLY
        assert has(file, "10.0.0.1")
        assert "__meta_vmsvc_vm" in json.loads(file.read_text())[0]["labels"]
