"""deploy/monitoring beside the real program: each alert fires for its cause, and for no other.

The program is brought into the state that an alert is about, and scraped. Prometheus' own promtool
then evaluates the rules over what was scraped, as if hours went by.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import shutil
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest
from envoy.service.endpoint.v3 import eds_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.certificates import Authority
from tests.integration.cluster import World, eventually, world
from tests.monitoring.promtool import DASHBOARD, ROOT, Scraped, alerts, asked, empty, firing, rules
from tests.program import PATIENCE_S, Program, awaited, serving
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc.v1 import endpoint_service_pb2_grpc as pb_grpc

__all__ = ["world"]

SERVICE = """\
apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachineService
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
"""
# Its endpoints are others' to write.
OTHERS = """\
apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachineService
metadata: {name: others, namespace: lab}
spec: {ports: [{port: 80}]}
"""
VM = """\
apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachine
metadata: {name: web-1, namespace: shop, labels: {app: web}}
status: {network: {primaryIP4: 10.0.0.%d}}
"""
# A replica that is scraped for hours, as it is now.
LATER = 90


def scraped(program: Program | None, minute: int) -> Scraped:
    """One scrape, as Prometheus does it."""
    at = time.time()
    try:
        return Scraped(minute, program.metrics() if program else None, at)
    except OSError:
        return Scraped(minute, None, at)


def firing_of(alert: str, folder: Path, before: Scraped, after: Scraped) -> list[int]:
    """The minutes at which an alert fires if what has happened between the scrapes ends there."""
    minutes = range(2, 30, 3)
    return [minute for minute in minutes if alert in firing(folder, [before, after], minute)]


def page(program: Program, accept: str = "") -> str:
    request = urllib.request.Request(f"http://{program.http}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return str(answer.read().decode())


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    directory = tmp_path / "manifests"
    directory.mkdir()
    (directory / "web.yaml").write_text(SERVICE + VM % 1)
    return directory


@contextlib.contextmanager
def following(
    manifests: Path, tmp_path: Path, *flags: str | Path, within: Sequence[str] = ()
) -> Iterator[Program]:
    arguments: list[str | Path] = ["--manifests", manifests, "--drain-s", "0.1", *flags]
    with serving(arguments, tmp_path / "log", within=within) as program:
        yield program


def move(manifests: Path, host: int) -> None:
    """Change the VM's address, in one piece."""
    new = manifests.parent / "new.yaml"
    new.write_text(SERVICE + VM % host)
    new.replace(manifests / "web.yaml")


def watch(channel: grpc.Channel) -> Any:
    request = pb.WatchEndpointsRequest(services=[{"service": "shop/web"}])
    return pb_grpc.EndpointServiceStub(channel).WatchEndpoints(request, wait_for_ready=True)


# -- What is good --


def test_the_rules_are_as_prometheus_wants_them(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules()))
    assert asked("check", "rules", "--lint=all", "--lint-fatal", tmp_path / "rules.yaml")[0] == 0


def test_each_alert_has_its_part_of_the_runbook() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    headings = re.findall(r"(?m)^### (\w+)$", text)
    assert sorted(headings) == sorted(alerts())
    for name, alert in alerts().items():
        assert alert["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
        assert alert["annotations"]["summary"].endswith(".")
        assert alert["labels"]["severity"] in ("critical", "warning", "info")


def test_each_alert_is_caused_here() -> None:
    text = Path(__file__).read_text()
    assert [name for name in alerts() if f'"{name}"' not in text] == []


def test_nothing_fires_for_a_replica_that_is_well(manifests: Path, tmp_path: Path) -> None:
    with (
        following(manifests, tmp_path, "--output", tmp_path / "out") as program,
        grpc.insecure_channel(program.grpc) as channel,
    ):
        first = scraped(program, 0)
        stream = watch(channel)
        assert next(stream).WhichOneof("event") == "snapshot"
        assert next(stream).WhichOneof("event") == "synced"
        move(manifests, 2)
        assert next(stream).WhichOneof("event") == "delta"
        stub = pb_grpc.EndpointServiceStub(channel)
        stub.ResolveEndpoints(pb.ResolveEndpointsRequest(service="shop/web"))
        with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
            stub.ResolveEndpoints(pb.ResolveEndpointsRequest(service="shop/none"))
        assert awaited(lambda: program.metric("vmsvc_reconcile_pending") == 0)
        for sent in ("vmsvc_change_to_first_stream", "vmsvc_change_to_last_stream"):
            assert awaited(partial(_is_one, program, f"{sent}_seconds_count")), "one change"
        for accept in ("", "application/openmetrics-text"):
            text = page(program, accept)
            assert text.endswith("# EOF\n") is bool(accept)
        status, said = asked("check", "metrics", given=page(program))
        ours = [line for line in said.splitlines() if not line.startswith(("process_", "python_"))]
        # Their names are Kubernetes' own.
        known = ("workqueue_", "leader_election_", "rest_client_")
        assert [line for line in ours if not line.startswith(known)] == [], said
        assert status in (0, 3)
        assert firing(tmp_path, [first, scraped(program, 5)], LATER) == []


def _is_one(program: Program, name: str) -> bool:
    return program.metric(name) == 1


# -- What is not --


def test_files_objects_and_what_is_held(manifests: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples" / "refused.yaml", manifests)
    (manifests / "broken.yaml").write_text("a: [")
    out = tmp_path / "out"
    out.mkdir()
    (out / "shop").write_text("in the way")
    with following(manifests, tmp_path, "--output", out) as program:
        assert awaited(lambda: program.metric("vmsvc_reconcile_failing") == 1)
        assert awaited(lambda: program.metric(f'vmsvc_file_problems{{source="{manifests}"}}') == 1)
        assert firing(tmp_path, [scraped(program, 0)], LATER) == [
            "VmsvcGrpcObjectsNotHeld",
            "VmsvcGrpcReconcileStuck",
            "VmsvcGrpcFileProblems",
            "VmsvcGrpcObjectsRefused",
        ]


def test_a_service_without_endpoints(manifests: Path, tmp_path: Path) -> None:
    (manifests / "web.yaml").write_text(SERVICE)
    (manifests / "others.yaml").write_text(OTHERS)
    with following(manifests, tmp_path) as program:
        scrape = scraped(program, 0)
        assert firing(tmp_path, [scrape], LATER) == ["VmsvcGrpcServicesEmpty"]
        about_it = 'ALERTS{alertname="VmsvcGrpcServicesEmpty",namespace="shop"}'
        assert empty(tmp_path, [scrape], LATER, [about_it]) == "", "it names ours, not theirs"
        assert scrape.values is not None
        states = {
            name: number
            for name, number in scrape.values.items()
            if name.startswith("vmsvc_namespace_services{") and number
        }
        assert states == {
            'vmsvc_namespace_services{namespace="shop",state="empty"}': 1,
            'vmsvc_namespace_services{namespace="lab",state="no_selector"}': 1,
        }


def test_a_client_at_a_bound(manifests: Path, tmp_path: Path) -> None:
    with (
        following(manifests, tmp_path, "--streams-per-client-max", "1") as program,
        grpc.insecure_channel(program.grpc) as channel,
    ):
        before = scraped(program, 0)
        stream = watch(channel)
        next(stream)
        with pytest.raises(grpc.RpcError, match="streams_per_client_max"):
            next(watch(channel))
        after = scraped(program, 1)
    assert firing(tmp_path, [before, after], LATER, goes_on=True) == ["VmsvcGrpcAtBound"]
    assert firing_of("VmsvcGrpcAtBound", tmp_path, before, after) == []


def test_a_client_that_refuses_what_it_is_sent(manifests: Path, tmp_path: Path) -> None:
    requests: queue.SimpleQueue[DiscoveryRequest | None] = queue.SimpleQueue()
    with (
        following(manifests, tmp_path) as program,
        grpc.insecure_channel(program.grpc) as channel,
    ):
        before = scraped(program, 0)
        stub = eds_pb2_grpc.EndpointDiscoveryServiceStub(channel)
        call = stub.StreamEndpoints(iter(requests.get, None), wait_for_ready=True)
        requests.put(DiscoveryRequest(node={"id": "n"}, resource_names=["web.shop:80"]))
        nonce = next(call).nonce
        requests.put(DiscoveryRequest(response_nonce=nonce, error_detail={"message": "no"}))
        name = 'vmsvc_xds_nacks_total{type="ClusterLoadAssignment"}'
        assert awaited(lambda: program.metric(name) == 1)
        requests.put(None)
        assert firing(tmp_path, [before, scraped(program, 5)], 10) == ["VmsvcGrpcXdsRefused"]


def test_a_fault_of_ours(manifests: Path, tmp_path: Path) -> None:
    """None is known that a test could cause: it is written into the second scrape."""
    with following(manifests, tmp_path) as program:
        well = scraped(program, 0)
    assert well.values is not None
    assert well.values["vmsvc_faults_total"] == 0, "the first one is a rise"
    one = Scraped(5, {**well.values, "vmsvc_faults_total": 1}, well.at + 300)
    assert firing(tmp_path, [well, one], 10) == ["VmsvcGrpcFaults"]


def test_a_standstill(manifests: Path, tmp_path: Path) -> None:
    with following(manifests, tmp_path) as program:
        before = scraped(program, 0)
        stop(program)
        late = 'vmsvc_loop_lag_seconds_bucket{le="1.0"}'
        whole = "vmsvc_loop_lag_seconds_count"
        assert awaited(lambda: _is_above(program, whole, late))
        assert firing(tmp_path, [before, scraped(program, 5)], 10) == ["VmsvcGrpcStandstill"]


def _is_above(program: Program, whole: str, part: str) -> bool:
    """Whether one count is above another, at one moment."""
    values = program.metrics()
    return values[whole] > values[part]


def stop(program: Program, seconds: float = 1.5) -> None:
    """Have the whole program stand still."""
    program.process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    program.process.send_signal(signal.SIGCONT)


def test_a_replica_that_is_gone(manifests: Path, tmp_path: Path) -> None:
    with following(manifests, tmp_path) as program:
        well = scraped(program, 0)
    scrapes = [well, scraped(program, 5)]
    assert firing(tmp_path, scrapes, LATER) == ["VmsvcGrpcDown", "VmsvcGrpcReplicaDown"]
    which = 'ALERTS{alertname="VmsvcGrpcDown",job="vmsvc-grpc"}'
    assert empty(tmp_path, scrapes, LATER, [which]) == "", "it says which, where there are several"


def test_certificates_that_end_and_cannot_be_replaced(manifests: Path, tmp_path: Path) -> None:
    pair = Authority(tmp_path / "tls").issue(days=2)
    flags = ("--tls-cert", pair.certificate, "--tls-key", pair.key, "--listen", "tls://127.0.0.1:0")
    with following(manifests, tmp_path, *flags) as program:
        assert firing(tmp_path, [scraped(program, 0)], LATER) == ["VmsvcGrpcCertificateExpires"]
        pair.key.write_text("no key")
        name = 'vmsvc_tls_files_refused{file="certificate"}'
        assert awaited(lambda: program.metric(name) == 1)
        assert firing(tmp_path, [scraped(program, 0)], LATER) == [
            "VmsvcGrpcCertificateExpires",
            "VmsvcGrpcTlsFilesRefused",
        ]


def test_changes_that_come_late(manifests: Path, tmp_path: Path) -> None:
    """The program stands still after the first stream was sent a change, and before the last."""
    streams = 400
    flags = ("--streams-per-client-max", "10000")
    with (
        following(manifests, tmp_path, *flags) as program,
        grpc.insecure_channel(program.grpc, options=_APART) as first,
        grpc.insecure_channel(program.grpc, options=_APART) as others,
    ):
        before = scraped(program, 0)
        seen = watch(first)
        assert [next(seen).WhichOneof("event") for _ in range(2)] == ["snapshot", "synced"]
        waiting = [watch(others) for _ in range(streams)]
        for each in waiting:
            next(each)
        late = 'vmsvc_change_to_last_stream_seconds_bucket{le="1.0"}'
        whole = "vmsvc_change_to_last_stream_seconds_count"

        def is_late(host: int) -> bool:
            move(manifests, host)
            next(seen)
            stop(program)
            assert awaited(lambda: program.metric(whole) == host - 1)
            return _is_above(program, whole, late)

        assert any(is_late(host) for host in range(2, 60)), "once in a few times it is in between"
        fired = firing(tmp_path, [before, scraped(program, 1)], LATER, goes_on=True)
        assert fired == ["VmsvcGrpcChangesLate", "VmsvcGrpcStandstill"]


# Channels to the same address share a connection, unless they differ.
_APART = (("grpc.use_local_subchannel_pool", 1),)


def test_an_api_server_that_never_answers(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    pair = authority.issue(days=20)
    flags: list[str | Path] = ["--kubeconfig", _kubeconfig(tmp_path), "--reconcile", "on"]
    flags += ["--lease-namespace", "vmsvc-grpc"]
    flags += ["--tls-cert", pair.certificate, "--tls-key", pair.key, "--auth", "kubernetes"]
    flags += ["--listen", "127.0.0.1:0", "--listen", "0.0.0.0:0", "--drain-s", "0.1"]
    with (
        serving(flags, tmp_path / "log") as program,
        grpc.insecure_channel(program.grpc) as plain,
        grpc.secure_channel(_secure(program), _trusting(authority)) as guarded,
    ):
        before = scraped(program, 0)
        stub = health_pb2_grpc.HealthStub(plain)  # type: ignore[no-untyped-call]
        for _ in range(100):  # Who asks after its health is answered.
            stub.Check(health_pb2.HealthCheckRequest())
        for channel in (plain, guarded, guarded):
            with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
                pb_grpc.EndpointServiceStub(channel).ResolveEndpoints(
                    pb.ResolveEndpointsRequest(service="shop/web"),
                    metadata=(("authorization", "Bearer t"),),
                    timeout=PATIENCE_S,
                )
        failed = 'vmsvc_access_reviews_total{result="failed",review="token"}'
        assert (before.values or {})[failed] == 0, "the first one is a rise"
        assert awaited(lambda: program.metrics()[failed])
        assert awaited(lambda: sum(_read_failures(program)) > sum(_read_failures(before)))
        after = scraped(program, 1)
        assert firing_of("VmsvcGrpcReviewsFail", tmp_path, before, after) == []
        fired = firing(tmp_path, [before, after], LATER, goes_on=True)
        assert fired == [
            "VmsvcGrpcNotSynced",
            "VmsvcGrpcSourceFailing",
            "VmsvcGrpcNoLeader",
            "VmsvcGrpcLookUpsFail",
            "VmsvcGrpcReviewsFail",
        ]


def _read_failures(of: Program | Scraped) -> list[float]:
    values = (of.values or {}) if isinstance(of, Scraped) else of.metrics()
    return [n for name, n in values.items() if name.startswith("vmsvc_source_failures_total")]


def _kubeconfig(folder: Path) -> Path:
    """A kubeconfig of an API server that is not there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    file = folder / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}
    users = [{"name": "u", "user": {}}]
    file.write_text(
        json.dumps(
            {"clusters": [cluster], "contexts": [context], "users": users, "current-context": "c"}
        )
    )
    return file


def _secure(program: Program) -> str:
    (port,) = re.findall(r"gRPC  on 0\.0\.0\.0:(\d+) \(TLS\)", program.said())
    return f"127.0.0.1:{port}"


def _trusting(authority: Authority) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(authority.certificate.read_bytes())


# -- On a real API server --


def test_an_api_server_that_falls_silent_and_the_dashboard(world: World, tmp_path: Path) -> None:
    site = world.site()
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    (manifests / "web.yaml").write_text(SERVICE + VM % 1)
    pair = Authority(tmp_path / "tls").issue(days=20)
    with (
        following(
            manifests, tmp_path, "--tls-cert", pair.certificate, "--tls-key", pair.key
        ) as one,
        world.replica(steady=[site.steady]) as replica,
        grpc.insecure_channel(one.grpc) as channel,
    ):
        asked_for = pb.ResolveEndpointsRequest(service="shop/web")
        pb_grpc.EndpointServiceStub(channel).ResolveEndpoints(asked_for, wait_for_ready=True)
        eventually(lambda: replica.leads, "it leads")
        eventually(lambda: replica.metric("vmsvc_reconcile_pending") == 0, "all is written")
        both = Scraped(0, one.metrics() | replica.program.metrics(), time.time())
        assert empty(tmp_path, [both], 10, queries()) == ""
        well = scraped(replica.program, 0)
        assert firing(tmp_path, [well], 4) == []
        world.cluster.server.process.stop(grace_s=2)
        silent = scraped(replica.program, 1)
        assert "VmsvcGrpcSourceSilent" in firing(tmp_path, [well, silent], LATER)
        world.cluster.server.start()


def test_the_component_fits_the_base_and_grants_no_more_than_the_page(
    world: World, tmp_path: Path
) -> None:
    way = os.path.relpath(ROOT / "deploy", tmp_path)
    (tmp_path / "kustomization.yaml").write_text(
        f"resources: [{way}/base]\ncomponents: [{way}/monitoring]\n"
    )
    kubectl = world.cluster.kubectl
    built = list(yaml.safe_load_all(kubectl("kustomize", str(tmp_path))))
    (deployment,) = (each for each in built if each["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert "--client-ca=/etc/vmsvc-grpc/tls/ca.crt" in container["args"]
    (monitor,) = (each for each in built if each["kind"] == "PodMonitor")
    (scrape,) = monitor["spec"]["podMetricsEndpoints"]
    assert scrape["port"] in {port["name"] for port in container["ports"]}
    own = [each for each in built if each["metadata"]["name"] == "vmsvc-grpc-metrics"]
    (mine,) = (each for each in own if each["kind"] == "Certificate")
    assert mine["spec"]["secretName"] == scrape["tlsConfig"]["cert"]["secret"]["name"]
    (dashboard,) = (each for each in built if each["kind"] == "ConfigMap")
    assert json.loads(dashboard["data"]["vmsvc-grpc.json"])["title"] == "vmsvc-grpc"
    granted = [each for each in own if each is not mine]
    assert sorted(each["kind"] for each in granted) == ["ClusterRole", "ClusterRoleBinding"]
    assert granted[0]["rules"] == [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]
    kubectl("apply", "--validate=strict", "-f", "-", stdin=yaml.safe_dump_all(granted))
    who = mine["spec"]["commonName"]
    assert kubectl("auth", "can-i", "get", "/metrics", "--as", who).strip() == "yes"


def queries() -> list[str]:
    """The queries of the dashboard, as Grafana asks them."""
    dashboard = json.loads(DASHBOARD.read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(found) > 20
    for name, value in (
        ("$__rate_interval", "5m"),
        ("$job", "vmsvc-grpc"),
        ("$instance", ".*"),
    ):
        found = [query.replace(name, value) for query in found]
    assert not [query for query in found if "$" in query]
    return found
