"""The program with TLS, as grpcurl, openssl, curl-like clients and gRPC's own see it."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.certificates import Authority, Pair
from tests.integration.test_grpcurl import grpcurl
from tests.program import PATIENCE_S, Program, awaited, serving

__all__ = ["grpcurl"]

MANIFESTS = Path(__file__).parents[2] / "examples"
HEALTH = "/grpc.health.v1.Health/Check"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue()


@pytest.fixture(scope="module")
def program(
    authority: Authority, pair: Pair, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    """It listens on loopback without TLS, and on all addresses with it."""
    arguments: list[str | Path] = ["--manifests", MANIFESTS, "--drain-s", "0.1"]
    arguments += ["--listen", "127.0.0.1:0", "--listen", "0.0.0.0:0", "--insecure"]
    arguments += ["--tls-cert", pair.certificate, "--tls-key", pair.key]
    arguments += ["--client-ca", authority.certificate]
    with serving(arguments, tmp_path_factory.mktemp("program") / "log") as running:
        yield running


@pytest.fixture
def secure(program: Program) -> str:
    """The address with TLS, as clients on this machine write it."""
    (port,) = re.findall(r"gRPC  on 0\.0\.0\.0:(\d+) \(TLS\)", program.said())
    return f"127.0.0.1:{port}"


def run(*command: str | Path, sent: bytes = b"") -> str:
    done = subprocess.run(command, input=sent, capture_output=True, timeout=PATIENCE_S, check=False)
    return (done.stdout + done.stderr).decode(errors="replace")


def test_grpcurl_is_answered_over_tls(grpcurl: str, secure: str, authority: Authority) -> None:
    said = run(grpcurl, "-cacert", authority.certificate, secure, "list")
    assert "vmsvc.v1.EndpointService" in said.split()


def test_a_client_may_show_a_certificate(grpcurl: str, secure: str, authority: Authority) -> None:
    own = authority.issue("/O=team/CN=shop", "")
    flags = ("-cacert", authority.certificate, "-cert", own.certificate, "-key", own.key)
    assert "vmsvc.v1.EndpointService" in run(grpcurl, *flags, secure, "list").split()


@pytest.mark.parametrize(
    ("flag", "agreed"),
    [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3"), ("-tls1_1", None), ("-tls1", None)],
)
def test_tls_is_1_2_or_newer(secure: str, authority: Authority, flag: str, agreed: str) -> None:
    weak = () if agreed else ("-cipher", "ALL:@SECLEVEL=0")
    command = ("openssl", "s_client", "-connect", secure, "-CAfile", authority.certificate)
    said = run(*command, "-alpn", "h2,http/1.1", flag, *weak)
    assert ("Verify return code: 0 (ok)" in said and "Cipher is (NONE)" not in said) == bool(agreed)
    if agreed:
        assert "ALPN protocol: h2" in said
        assert f"New, {agreed}" in said


def said_by_grpc(channel: grpc.Channel) -> str:
    """Why a call is unavailable."""
    with channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(HEALTH)
        with pytest.raises(grpc.RpcError, match="UNAVAILABLE") as error:
            call(b"", timeout=PATIENCE_S)
    return str(error.value)


def test_a_client_without_tls_is_answered_in_words(secure: str) -> None:
    host, port = secure.split(":")
    for begun in (b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        with socket.create_connection((host, int(port)), PATIENCE_S) as client:
            client.sendall(begun)
            answer = b"".join(iter(lambda: client.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.endswith(b"this port takes only TLS, and this connection uses none\n")
    assert "http1.x server" in said_by_grpc(grpc.insecure_channel(secure))


def test_a_client_of_tls_learns_that_there_is_none(
    grpcurl: str, program: Program, authority: Authority
) -> None:
    said = run(grpcurl, "-cacert", authority.certificate, "-max-time", "3", program.grpc, "list")
    assert "first record does not look like a TLS handshake" in said
    trust = grpc.ssl_channel_credentials(authority.certificate.read_bytes())
    assert "WRONG_VERSION_NUMBER" in said_by_grpc(grpc.secure_channel(program.grpc, trust))


def test_a_client_that_offers_no_alpn_is_told_so(secure: str) -> None:
    command = ("openssl", "s_client", "-quiet", "-connect", secure)
    said = run(*command, sent=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert "this port takes only clients that offer h2 by ALPN" in said


def test_metrics_say_when_files_expire(program: Program) -> None:
    with urllib.request.urlopen(f"http://{program.http}/metrics", timeout=PATIENCE_S) as page:
        text = page.read().decode()
    name = "vmsvc_tls_expiration_timestamp_seconds"
    (ends,) = re.findall(rf'{name}\{{file="certificate"\}} (\S+)', text)
    assert 86_400 < float(ends) - time.time() <= 2 * 86_400
    assert 'vmsvc_tls_files_refused{file="client-ca"} 0.0' in text
    assert 'vmsvc_tls_loads_total{file="certificate"} 1.0' in text


def test_what_is_wrong_with_files_is_in_the_readiness_and_the_log(
    authority: Authority, tmp_path: Path
) -> None:
    pair, other = authority.issue(), authority.issue()
    key = tmp_path / "tls.key"
    key.write_text(pair.key.read_text())
    arguments: list[str | Path] = ["--manifests", MANIFESTS, "--drain-s", "0.1"]
    arguments += ["--listen", "tls://127.0.0.1:0", "--tls-cert", pair.certificate]
    with serving([*arguments, "--tls-key", key], tmp_path / "log") as program:
        assert "gRPC  on 127.0.0.1" in program.said()
        assert " (TLS)\n" in program.said()
        (tmp_path / "new").write_text(other.key.read_text())
        (tmp_path / "new").rename(key)
        says = "is not the key of the certificate"
        assert awaited(lambda: says in ready(program))
        assert says in program.said()
        (tmp_path / "new").write_text(pair.key.read_text())
        (tmp_path / "new").rename(key)
        assert awaited(lambda: ready(program) == "ok\n")


def ready(program: Program) -> str:
    with urllib.request.urlopen(f"http://{program.http}/readyz", timeout=PATIENCE_S) as page:
        text: str = page.read().decode()
        return text


def ended(*arguments: str | Path) -> tuple[int, str]:
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "vmsvc_grpc",
        "serve",
        "--manifests",
        MANIFESTS,
    ]
    done = subprocess.run(
        [*command, "--http-listen", "127.0.0.1:0", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return done.returncode, done.stderr


def test_files_that_cannot_be_used_end_a_start_in_one_line(
    authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    expired = authority.issue(days=-1)
    for bad, says in (
        (Pair(expired.certificate, expired.key), "expired at"),
        (Pair(pair.certificate, expired.key), "is not the key"),
        (Pair(pair.certificate, tmp_path / "none"), "No such file"),
    ):
        listen = ("--listen", "tls://127.0.0.1:0")
        code, said = ended(*listen, "--tls-cert", bad.certificate, "--tls-key", bad.key)
        assert code == 1
        (line,) = [line for line in said.splitlines() if " ERROR " in line]
        assert says in line
        assert "Traceback" not in said


def test_the_http_port_has_the_same_tls(authority: Authority, tmp_path: Path) -> None:
    pair, new = authority.issue(), authority.issue()
    own = Pair(tmp_path / "tls.crt", tmp_path / "tls.key")
    for source, target in zip(pair, own, strict=True):
        target.write_text(source.read_text())
    arguments: list[str | Path] = ["--manifests", MANIFESTS, "--drain-s", "0.1"]
    arguments += ["--http-listen", "tls://127.0.0.1:0"]
    arguments += ["--tls-cert", own.certificate, "--tls-key", own.key]
    trust = ssl.create_default_context(cafile=authority.certificate)
    with serving(arguments, tmp_path / "log") as program:
        assert f"HTTP  on {program.http} (TLS)" in program.said()
        host, _, port = program.http.rpartition(":")

        def shown() -> str:
            with urllib.request.urlopen(
                f"https://{program.http}/livez", timeout=PATIENCE_S, context=trust
            ) as page:
                assert page.read() == b"ok\n"
            return ssl.get_server_certificate(
                (host, int(port)), ca_certs=str(authority.certificate)
            )

        assert shown().split() == pair.certificate.read_text().split()
        for source, target in zip(new, own, strict=True):
            target.write_text(source.read_text())
        assert awaited(lambda: shown().split() == new.certificate.read_text().split())
