"""Someone with only grpcurl, and no proto files, can use the server."""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest

from tests.go_programs import cache
from tests.program import Program, awaited, serving
from vmsvc_grpc import __version__

SERVICES = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "vmsvc.v1.EndpointService",
    "vmsvc.v1.ServerService",
]
METHODS = {
    "grpc.health.v1.Health": ["Check", "List", "Watch"],
    "grpc.reflection.v1.ServerReflection": ["ServerReflectionInfo"],
    "grpc.reflection.v1alpha.ServerReflection": ["ServerReflectionInfo"],
    "vmsvc.v1.EndpointService": [
        "ExplainEndpoints",
        "ListServices",
        "ResolveEndpoints",
        "WatchEndpoints",
    ],
    "vmsvc.v1.ServerService": ["GetVersion"],
}
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def grpcurl() -> str:
    """The binary that `make grpcurl` built, or the one that VMSVC_TEST_GRPCURL names."""
    path = os.environ.get("VMSVC_TEST_GRPCURL") or str(cache() / "bin" / "grpcurl")
    if not os.access(path, os.X_OK):
        raise FileNotFoundError(f"no grpcurl at {path}: run make grpcurl")
    return path


@pytest.fixture(scope="module", params=["grpcio", "http2"])
def transport(request: pytest.FixtureRequest) -> str:
    """What carries the program's calls."""
    return str(request.param)


@pytest.fixture(scope="module")
def manifests(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, in a directory that a test may edit; a new one for each transport."""
    directory = tmp_path_factory.mktemp("manifests")
    for path in EXAMPLES.glob("*.yaml"):
        (directory / path.name).write_bytes(path.read_bytes())
    return directory


@pytest.fixture(scope="module")
def program(
    transport: str, manifests: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    log = tmp_path_factory.mktemp("program") / "log"
    flags: list[str | Path] = ["--manifests", manifests, "--drain-s", "0", "--transport", transport]
    with serving(flags, log) as program:
        yield program


def asked(grpcurl: str, *arguments: str, code: int = 0) -> str:
    """What grpcurl prints, on standard error if it fails."""
    command = [grpcurl, "-plaintext", "-max-time", "20", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == code, f"{arguments}: {result.stderr}"
    return result.stderr if code else result.stdout


def called(grpcurl: str, program: Program, method: str, **request: Any) -> Any:
    text = asked(grpcurl, "-d", json.dumps(request), program.grpc, method)
    return json.loads(text)


def test_list_names_the_services(grpcurl: str, program: Program) -> None:
    assert set(SERVICES) <= set(asked(grpcurl, program.grpc, "list").split())


@pytest.mark.parametrize("service", SERVICES)
def test_list_names_the_methods_of_a_service(grpcurl: str, program: Program, service: str) -> None:
    listed = asked(grpcurl, program.grpc, "list", service).split()
    assert listed == [f"{service}.{method}" for method in METHODS[service]]


@pytest.mark.parametrize("service", SERVICES)
def test_describe_knows_each_service_its_methods_and_messages(
    grpcurl: str, program: Program, service: str
) -> None:
    described = asked(grpcurl, program.grpc, "describe", service)
    assert f"{service} is a service" in described
    for method in METHODS[service]:
        text = asked(grpcurl, program.grpc, "describe", f"{service}.{method}")
        messages = re.findall(r"\( (?:stream )?\.(\S+) \)", text)
        assert len(messages) == 2, text
        for message in messages:
            assert " is a message" in asked(grpcurl, program.grpc, "describe", message)


def test_a_look_up_gives_the_ready_endpoints(grpcurl: str, program: Program) -> None:
    method = "vmsvc.v1.EndpointService/ResolveEndpoints"
    found = called(grpcurl, program, method, service="shop/web")["endpointSet"]
    assert found["service"] == "shop/web"
    assert found["ports"] == [
        {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"},
    ]
    assert [(e["address"], e["zone"], e["ready"]) for e in found["endpoints"]] == [
        ("10.20.0.11", "zone-a", True),
        ("10.20.0.12", "zone-b", True),
    ]


def test_the_server_tells_its_version(grpcurl: str, program: Program, transport: str) -> None:
    told = called(grpcurl, program, "vmsvc.v1.ServerService/GetVersion")
    assert (told["version"], told["transport"]) == (__version__, transport)


def test_xds_is_asked_for_and_shown(grpcurl: str, program: Program) -> None:
    kind = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    method = "envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
    node = {"id": "a person"}
    found = called(grpcurl, program, method, node=node, typeUrl=kind, resourceNames=["web.shop:80"])
    (assignment,) = found["resources"]
    assert (assignment["@type"], assignment["clusterName"]) == (kind, "web.shop:80")
    assert [e["locality"]["zone"] for e in assignment["endpoints"]] == ["zone-a", "zone-b"]


def test_a_service_of_xds_needs_no_type(grpcurl: str, program: Program) -> None:
    method = "envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints"
    (assignment,) = called(grpcurl, program, method, resource_names=["web.shop:http"])["resources"]
    assert assignment["clusterName"] == "web.shop:http"
    (none,) = called(grpcurl, program, method, resource_names=["none.shop:80"])["resources"]
    assert (none["clusterName"], none.get("endpoints")) == ("none.shop:80", None)


def test_xds_as_deltas_says_what_there_is_not(
    grpcurl: str, program: Program, tmp_path: Path
) -> None:
    method = "envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints"
    names = ["web.shop:80", "none.shop:80"]
    with streaming(grpcurl, program, method, tmp_path / "x", resource_names_subscribe=names) as log:
        assert awaited(lambda: len(messages(log)) > 1)
        first, second = messages(log)
    assert [resource["name"] for resource in first["resources"]] == ["web.shop:80"]
    assert second["removedResources"] == ["none.shop:80"]


def test_the_packed_parts_of_a_listener_are_shown(grpcurl: str, program: Program) -> None:
    method = "envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners"
    (listener,) = called(grpcurl, program, method, resource_names=["web.shop:80"])["resources"]
    manager = listener["apiListener"]["apiListener"]
    assert manager["rds"]["routeConfigName"] == "web.shop:80"
    assert manager["httpFilters"][0]["typedConfig"]["@type"].endswith(".Router")


def test_who_holds_what_is_told(grpcurl: str, program: Program) -> None:
    method = "/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints"
    status = "envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus"
    with grpc.insecure_channel(program.grpc) as channel:
        request = DiscoveryRequest(node={"id": "a client"}, resource_names=["web.shop:80"])
        requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        open_stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
        call = open_stream(iter(requests.get, None))
        requests.put(request.SerializeToString())
        next(call)
        (config,) = called(grpcurl, program, status)["config"]
        assert config["node"]["id"] == "a client"
        (shown,) = config["genericXdsConfigs"]
        assert (shown["name"], shown["configStatus"]) == ("web.shop:80", "STALE")
        requests.put(None)
        call.cancel()


@pytest.mark.parametrize(
    ("service", "code", "says"),
    [
        pytest.param("shop/none", "NotFound", "shop/none", id="no such service"),
        pytest.param("office/intranet", "FailedPrecondition", "spec.type: ", id="refused"),
        pytest.param("web", "InvalidArgument", "namespace/name", id="no namespace"),
    ],
)
def test_a_look_up_that_fails_says_why(
    grpcurl: str, program: Program, service: str, code: str, says: str
) -> None:
    request = json.dumps({"service": service})
    method = "vmsvc.v1.EndpointService/ResolveEndpoints"
    # grpcurl ends with 64 and the number of the status code.
    numbers = {"NotFound": 5, "FailedPrecondition": 9, "InvalidArgument": 3}
    text = asked(grpcurl, "-d", request, program.grpc, method, code=64 + numbers[code])
    assert f"Code: {code}" in text
    assert says in text


def test_health_is_told(grpcurl: str, program: Program) -> None:
    method = "grpc.health.v1.Health/Check"
    assert called(grpcurl, program, method) == {"status": "SERVING"}
    named = called(grpcurl, program, method, service="vmsvc.v1.EndpointService")
    assert named == {"status": "SERVING"}


@contextmanager
def streaming(
    grpcurl: str, program: Program, method: str, log: Path, **request: Any
) -> Iterator[Path]:
    """A call that goes on, until the block ends; the file that its messages go to."""
    command = [grpcurl, "-plaintext", "-d", json.dumps(request), program.grpc, method]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield log
    finally:
        process.terminate()
        process.wait()


def messages(log: Path) -> list[Any]:
    """The messages that a file holds, of which the last may not be whole yet."""
    decoder, text, found = json.JSONDecoder(), log.read_text().lstrip(), []
    while text:
        try:
            message, end = decoder.raw_decode(text)
        except json.JSONDecodeError:
            break
        found.append(message)
        text = text[end:].lstrip()
    return found


def test_health_is_watched(grpcurl: str, program: Program, tmp_path: Path) -> None:
    method = "grpc.health.v1.Health/Watch"
    with streaming(grpcurl, program, method, tmp_path / "health") as log:
        assert awaited(lambda: messages(log)) == [{"status": "SERVING"}]


def test_a_stream_shows_an_edit(
    grpcurl: str, program: Program, manifests: Path, tmp_path: Path
) -> None:
    method = "vmsvc.v1.EndpointService/WatchEndpoints"
    request = {"services": [{"service": "shop/checkout"}]}
    with streaming(grpcurl, program, method, tmp_path / "watch", **request) as log:
        first = awaited(lambda: messages(log)[1:]) and messages(log)
        edited = tmp_path / "checkout.yaml"
        edited.write_text(
            (manifests / "checkout.yaml").read_text().replace("10.20.1.31", "10.20.1.99")
        )
        edited.rename(manifests / "checkout.yaml")
        changes = awaited(lambda: messages(log)[2:])
    assert [e["address"] for e in first[0]["snapshot"]["endpoints"]] == ["10.20.1.31"]
    assert first[1:] == [{"synced": {}}]
    (change,) = changes
    assert [e["address"] for e in change["delta"]["removed"]] == ["10.20.1.31"]
    assert [e["address"] for e in change["delta"]["upserted"]] == ["10.20.1.99"]
