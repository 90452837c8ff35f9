"""The program with --auth: who may ask, over TLS, as gRPC's own client sees it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from tests.certificates import Authority, Pair
from tests.integration.test_access_reviews import Account
from tests.kube.apiserver import Cluster
from tests.program import PATIENCE_S, Program, awaited, serving
from vmsvc.v1 import endpoint_service_pb2 as pb

EXAMPLES = Path(__file__).parents[2] / "examples"
RESOLVE = "/vmsvc.v1.EndpointService/ResolveEndpoints"
WATCH = "/vmsvc.v1.EndpointService/WatchEndpoints"
POLICY = """\
rules:
- subjects: [{kind: User, name: ann}]
  namespaces: [shop]
  verbs: [get, watch]
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def tls(authority: Authority) -> list[str | Path]:
    pair = authority.issue()
    found: list[str | Path] = [
        "--listen",
        "tls://127.0.0.1:0",
        "--client-ca",
        authority.certificate,
    ]
    return [*found, "--tls-cert", pair.certificate, "--tls-key", pair.key, "--drain-s", "0.1"]


def channel(program: Program, authority: Authority, shown: Pair | None = None) -> grpc.Channel:
    trust = authority.certificate.read_bytes()
    own = (shown.key.read_bytes(), shown.certificate.read_bytes()) if shown else (None, None)
    return grpc.secure_channel(program.grpc, grpc.ssl_channel_credentials(trust, *own))


def resolved(connected: grpc.Channel, service: str, *shown: str) -> grpc.StatusCode:
    """How a look-up ends that shows these `authorization` values."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = connected.unary_unary(RESOLVE)
    request = pb.ResolveEndpointsRequest(service=service).SerializeToString()
    metadata = tuple(("authorization", value) for value in shown)
    try:
        call(request, timeout=PATIENCE_S, metadata=metadata)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture
def certified(authority: Authority, policy: Path, tmp_path: Path) -> Iterator[Program]:
    arguments: list[str | Path] = ["--manifests", EXAMPLES, *tls(authority)]
    arguments += ["--auth", "certificates", "--auth-policy", policy]
    with serving(arguments, tmp_path / "log") as running:
        yield running


def test_a_certificate_may_ask_what_the_policy_says(
    certified: Program, authority: Authority
) -> None:
    ok, denied = grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED
    unknown = grpc.StatusCode.UNAUTHENTICATED
    with channel(certified, authority, authority.issue("/CN=ann")) as ann:
        assert resolved(ann, "shop/web") is ok
        assert resolved(ann, "shop/none") is grpc.StatusCode.NOT_FOUND
        assert resolved(ann, "elsewhere/web") is denied
        # Who shows more than a certificate, but nothing clear, is nobody.
        for shown in (["Basic YTpi"], ["Bearer"], ["Bearer a", "Bearer a"]):
            assert resolved(ann, "shop/web", *shown) is unknown, shown
        assert resolved(ann, "shop/web") is ok
    with channel(certified, authority, authority.issue("/CN=bob")) as bob:
        assert resolved(bob, "shop/web") is denied
        assert resolved(bob, "shop/none") is denied
    with channel(certified, authority, authority.issue("/CN=ann/O=system:masters")) as masters:
        assert resolved(masters, "shop/web") is unknown
    with channel(certified, authority) as nobody:
        assert resolved(nobody, "shop/web") is unknown


def test_a_policy_that_takes_a_right_away_ends_the_stream(
    certified: Program, authority: Authority, policy: Path
) -> None:
    with channel(certified, authority, authority.issue("/CN=ann")) as ann:
        watch: grpc.UnaryStreamMultiCallable[bytes, bytes] = ann.unary_stream(WATCH)
        request = pb.WatchEndpointsRequest(namespaces=["shop"])
        stream = watch(request.SerializeToString(), timeout=PATIENCE_S)
        assert next(stream)
        policy.write_text(POLICY.replace("shop", "elsewhere"))
        with pytest.raises(grpc.RpcError, match="PERMISSION_DENIED"):
            for _ in stream:
                pass
        policy.write_text("rules: [")
        trouble = f"{policy}, line 2: is not YAML"
        assert awaited(lambda: trouble in ready(certified))


def ready(program: Program) -> str:
    with urllib.request.urlopen(f"http://{program.http}/readyz", timeout=PATIENCE_S) as answer:
        return str(answer.read().decode())


def test_the_program_does_not_start_with_a_policy_of_no_use(
    authority: Authority, policy: Path
) -> None:
    policy.write_text(POLICY.replace("verbs", "verb"))
    arguments = ["serve", "--manifests", EXAMPLES, *tls(authority), "--auth", "certificates"]
    done = subprocess.run(
        [sys.executable, "-m", "vmsvc_grpc", *arguments, "--auth-policy", policy],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 1
    assert f"{policy}, line 4: there is no field 'verb'; did you mean verbs?" in done.stderr
    assert "Traceback" not in done.stderr


def by_plugin(kubeconfig: Path) -> Path:
    """The same kubeconfig, whose token comes from a program that it names, as clouds have it."""
    config = json.loads(kubeconfig.read_text())
    status = {"token": config["users"][0]["user"]["token"]}
    version = "client.authentication.k8s.io/v1"
    said = {"apiVersion": version, "kind": "ExecCredential", "status": status}
    plugin = kubeconfig.with_name("plugin")
    plugin.write_text(f"#!/bin/sh\necho '{json.dumps(said)}'\n")
    plugin.chmod(0o700)
    asks = {"apiVersion": version, "command": str(plugin), "interactiveMode": "Never"}
    config["users"][0]["user"] = {"exec": asks}
    kubeconfig.write_text(json.dumps(config))
    return kubeconfig


def test_tokens_are_reviewed_and_are_in_nothing_that_is_said(
    find_binary: Callable[[str], Path], authority: Authority, tmp_path: Path
) -> None:
    folder = tmp_path / "kube"
    folder.mkdir()
    with Cluster(folder, find=find_binary) as kube:
        account = Account(kube)
        token = account.token()
        config = by_plugin(kube.kubeconfig(tmp_path / "kubeconfig"))
        # No CustomResourceDefinitions: whoever may ask is told that nothing is known yet.
        arguments: list[str | Path] = ["--kubeconfig", config, *tls(authority)]
        with serving([*arguments, "--auth", "kubernetes"], tmp_path / "log") as program:
            with channel(program, authority) as client:
                service = f"{account.namespace}/web"
                denied = grpc.StatusCode.PERMISSION_DENIED
                assert resolved(client, service, f"Bearer {token}") is denied
                account.bind()
                unfilled = grpc.StatusCode.UNAVAILABLE
                assert awaited(lambda: resolved(client, service, f"Bearer {token}") is unfilled)
                unknown = grpc.StatusCode.UNAUTHENTICATED
                assert resolved(client, service, f"Bearer {token[:-8]}AAAAAAAA") is unknown
                assert resolved(client, service) is unknown
            with urllib.request.urlopen(f"http://{program.http}/metrics") as answer:
                page = answer.read().decode()
            assert 'vmsvc_access_reviews_total{result="yes",review="token"} 1.0' in page
            assert 'vmsvc_access_refusals_total{reason="unauthenticated"} 2.0' in page
            assert token not in page + program.said()
            assert account.namespace not in page
