"""Tokens of an OpenID provider: used until they expire, renewed, and shown to nobody else."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from vmsvc_grpc.kube.credentials import Access, Kubeconfig, NoApiServer
from vmsvc_grpc.kube.plugin import PluginBounds

# Of 127.0.0.1, by nobody but itself, until 2126.
KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgjyWCvGiow6pJMg5I
HaLeuGaUOS5w4jFNO6ZoAVSV2sGhRANCAARUohSCDUWQ1bKi9t2msreqr6tXJb86
gy5ApZgma5ryJBLQoqyeVDL75jBrS5yGH3Byvx/GdSOOe0fb6DzjtOlO
-----END PRIVATE KEY-----
"""
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBkDCCATagAwIBAgIUR8AuijLSvGJh8lbBU8MZD+nYzO4wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJMTI3LjAuMC4xMCAXDTI2MTEyNzE1MjM0NVoYDzIxMjYxMTAz
MTUyMzQ1WjAUMRIwEAYDVQQDDAkxMjcuMC4wLjEwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARUohSCDUWQ1bKi9t2msreqr6tXJb86gy5ApZgma5ryJBLQoqyeVDL7
5jBrS5yGH3Byvx/GdSOOe0fb6DzjtOlOo2QwYjAdBgNVHQ4EFgQUjo1oq4F7MKB0
/drKI0EFyagKtRcwHwYDVR0jBBgwFoAUjo1oq4F7MKB0/drKI0EFyagKtRcwDwYD
VR0TAQH/BAUwAwEB/zAPBgNVHREECDAGhwR/AAABMAoGCCqGSM49BAMCA0gAMEUC
IE/fFmKSwo88bzqzm4hLn8o43I9iKXSDskufdjJIl2mjAiEAi+0tMwMua8z82MW4
zboLaSpPzpQ490xIhnsWFJovxvc=
-----END CERTIFICATE-----
"""
PATIENT = PluginBounds(plugin_s=60.0)
QUICK = PluginBounds(plugin_s=1.0)


def jwt(who: str, in_s: float | None = 3600.0) -> str:
    """A token that expires then; `who` has its claims use both letters that base64 has two of."""
    claims = {"sub": who, **({} if in_s is None else {"exp": int(time.time() + in_s)})}
    middle = base64.urlsafe_b64encode(json.dumps(claims, ensure_ascii=False).encode())
    return f"e30.{middle.decode().rstrip('=')}.c2ln"


@dataclass
class Script:
    """What a provider does, and what it has been asked."""

    renewed: Any = None
    discovery: Any = None
    status: int = 200
    redirect: str = ""
    hangs: threading.Event = field(default_factory=threading.Event)
    hangs_on: threading.Event = field(default_factory=threading.Event)
    refresh_tokens: list[str] = field(default_factory=list)
    proofs: list[tuple[str | None, dict[str, list[str]]]] = field(default_factory=list)
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    script: Script

    def do_GET(self) -> None:
        assert self.path == "/realm/.well-known/openid-configuration"
        found = self.script.discovery
        self._answer({"token_endpoint": f"{self.script.url}/token"} if found is None else found)

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        assert form["grant_type"] == ["refresh_token"]
        self.script.refresh_tokens += form["refresh_token"]
        del form["grant_type"], form["refresh_token"]
        self.script.proofs.append((self.headers["Authorization"], form))
        self._answer(self.script.renewed)

    def _answer(self, what: Any) -> None:
        if self.script.hangs.is_set():
            self.script.hangs_on.wait()
            return
        body = what if isinstance(what, bytes) else json.dumps(what).encode()
        self.send_response(302 if self.script.redirect else self.script.status)
        if self.script.redirect:
            self.send_header("Location", self.script.redirect)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Says nothing: a client may go away."""


@contextmanager
def provider(*, tls: Path | None = None, **script: Any) -> Iterator[Script]:
    """A provider on loopback, until the block ends; over TLS if there is a folder for its files."""
    made = Script(**script)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"script": made}))
    if tls:
        (tls / "both.pem").write_text(KEY + CERTIFICATE)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls / "both.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    made.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made
    finally:
        made.hangs_on.set()
        server.shutdown()
        thread.join()
        server.socket.close()


def kubeconfig(folder: Path, at: Script, **config: str) -> Kubeconfig:
    named = {
        "idp-issuer-url": f"{at.url}/realm",
        "client-id": "us",
        "client-secret": "hush",
        **config,
    }
    file = folder / "config"
    file.write_text(
        json.dumps(
            {
                "current-context": "one",
                "contexts": [{"name": "one", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443"}}],
                "users": [
                    {"name": "u", "user": {"auth-provider": {"name": "oidc", "config": named}}}
                ],
            }
        )
    )
    return Kubeconfig(str(file), bounds=PATIENT)


async def loaded(folder: Path, at: Script, **config: str) -> Access:
    return await kubeconfig(folder, at, **config).load()


async def test_a_token_is_used_until_it_expires_and_nobody_is_asked(tmp_path: Path) -> None:
    with provider() as at:
        token = jwt("å?>~ÿ")
        access = await loaded(tmp_path, at, **{"id-token": token, "refresh-token": "r"})
        assert access.authorization == f"Bearer {token}"
        assert access.fresh_s is not None
        assert 3500 < access.fresh_s < 3600
        forever = jwt("me", None)
        access = await loaded(tmp_path, at, **{"id-token": forever})
        assert (access.authorization, access.fresh_s) == (f"Bearer {forever}", None)
        assert at.refresh_tokens == []


async def test_one_that_has_expired_is_renewed_and_each_refresh_token_used_once(
    tmp_path: Path,
) -> None:
    """A provider may refuse one that it has replaced; the kubeconfig still has the first."""
    with provider() as at:
        config = kubeconfig(tmp_path, at, **{"id-token": jwt("old", -5), "refresh-token": "r-1"})
        file = tmp_path / "config"
        before = file.read_bytes()
        at.renewed = {"id_token": jwt("new", 11), "refresh_token": "r-2"}
        access = await config.load()
        assert access.authorization == f"Bearer {at.renewed['id_token']}"
        at.renewed = {"id_token": jwt("newer", -30)}
        # Before it expires: a request takes time.
        await until_expired(access)
        access = await config.load()
        assert access.authorization == f"Bearer {at.renewed['id_token']}"
        # One that is said to have expired already is for the API server to refuse.
        assert access.fresh_s == 10.0
        at.renewed = {"id_token": jwt("newest"), "refresh_token": "r-3"}
        await config.load()
        assert at.refresh_tokens == ["r-1", "r-2", "r-2"]
        assert file.read_bytes() == before
        # Somebody has logged in anew.
        at.renewed = {"id_token": jwt("other")}
        kubeconfig(tmp_path, at, **{"refresh-token": "r-9"})
        await config.load()
        assert at.refresh_tokens[3:] == ["r-9"]


async def test_who_asks_is_said_as_the_provider_wants_it(tmp_path: Path) -> None:
    with provider(renewed={"id_token": jwt("me")}) as at:
        named = {"refresh-token": "r", "client-id": "a:b", "client-secret": "s +%"}
        methods = ("client_secret_post", "client_secret_basic"), ("client_secret_post",)
        await loaded(tmp_path, at, **named)
        for each in methods:
            at.discovery = {
                "token_endpoint": f"{at.url}/token",
                "token_endpoint_auth_methods_supported": each,
            }
            await loaded(tmp_path, at, **named)
        await loaded(tmp_path, at, **{**named, "client-secret": ""})
        basic = f"Basic {base64.b64encode(b'a%3Ab:s+%2B%25').decode()}"
        assert at.proofs == [
            (basic, {}),
            (basic, {}),
            (None, {"client_id": ["a:b"], "client_secret": ["s +%"]}),
            (None, {"client_id": ["a:b"]}),
        ]


async def until_expired(access: Access) -> None:
    assert access.fresh_s is not None
    await asyncio.sleep(max(0.0, access.fresh_s) + 0.01)


async def test_secrets_are_shown_to_no_one_but_the_provider(tmp_path: Path) -> None:
    """Without a certificate authority in the kubeconfig, nobody asked who that was."""
    with provider(tls=tmp_path, renewed={"id_token": jwt("me")}) as at:
        with pytest.raises(NoApiServer, match=r"OpenID provider gives no token: .*certificate"):
            await loaded(tmp_path, at, **{"refresh-token": "r"})
        assert at.refresh_tokens == []
        ca = base64.b64encode(CERTIFICATE.encode()).decode()
        (tmp_path / "ca.pem").write_text(CERTIFICATE)
        for known in (
            {"idp-certificate-authority-data": ca},
            {"idp-certificate-authority": "ca.pem"},
        ):
            access = await loaded(tmp_path, at, **{"refresh-token": "r", **known})
            assert access.authorization == f"Bearer {at.renewed['id_token']}"
        with provider() as elsewhere:
            at.discovery = {"token_endpoint": f"{elsewhere.url}/token"}
            with pytest.raises(NoApiServer, match="token_endpoint is not an https URL"):
                await loaded(tmp_path, at, **{"refresh-token": "r", **known})
            at.discovery, at.redirect = None, f"{elsewhere.url}/token"
            with pytest.raises(NoApiServer, match="is answered with 302"):
                await loaded(tmp_path, at, **{"refresh-token": "r", **known})
            assert elsewhere.refresh_tokens == []


HUGE = b'{"exp":%s}' % (b"9" * 5000)
FAILS: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "no token at all": ({}, {}, "there is no refresh-token"),
    "expired and no refresh token": ({}, {"id-token": jwt("me", -1)}, "there is no refresh-token"),
    "a token that is none": ({}, {"id-token": "secret"}, "its id-token is no JSON Web Token"),
    "a token of two lines": ({}, {"id-token": "e30.e30.\nc2ln"}, "its id-token is no JSON Web"),
    "renewed, of two lines": (
        {"renewed": {"id_token": "e30.e30.\nc2ln"}},
        {"refresh-token": "r"},
        "its id-token is no JSON Web Token",
    ),
    "claims that are none": ({}, {"id-token": "a.secret%.c"}, "the claims of its id-token"),
    "claims with 5,000 digits": (
        {},
        {"id-token": f"a.{base64.urlsafe_b64encode(HUGE).decode()}.c"},
        "the claims of its id-token",
    ),
    "no URL": ({}, {"idp-issuer-url": "", "refresh-token": "r"}, "is not an https URL: ''"),
    "another scheme": (
        {},
        {"idp-issuer-url": "file:///etc", "refresh-token": "r"},
        "is not an https URL: 'file:",
    ),
    "a refusal": ({"status": 400, "renewed": {}}, {"refresh-token": "r"}, "is answered with 400"),
    "no id_token": ({"renewed": {}}, {"refresh-token": "r"}, "has no id_token"),
    "no JSON": ({"renewed": b"<html>\xff"}, {"refresh-token": "r"}, "its answer cannot be read"),
    "too much": ({"renewed": b" " * 2_000_000}, {"refresh-token": "r"}, "more than 1048576 bytes"),
    "no endpoint": ({"discovery": {}}, {"refresh-token": "r"}, "its answer cannot be read"),
}


@pytest.mark.parametrize(("script", "config", "said"), FAILS.values(), ids=FAILS.keys())
async def test_a_provider_that_gives_nothing_is_told_in_one_line(
    script: dict[str, Any], config: dict[str, str], said: str, tmp_path: Path
) -> None:
    with provider(**script) as at:
        with pytest.raises(NoApiServer) as caught:
            await loaded(tmp_path, at, **config)
        sentence = str(caught.value)
        assert "OpenID provider gives no token: " in sentence
        assert said in sentence
        assert sentence.isprintable()
        assert "secret" not in sentence
        assert "hush" not in sentence
        assert caught.value.may_pass


@pytest.mark.parametrize("token", ["opaque", "e30.e30.\nc2ln", "a.secret%.c"])
async def test_a_token_that_cannot_be_read_is_renewed_if_it_can_be(
    token: str, tmp_path: Path
) -> None:
    """It was an error for ever, although a refresh token stood beside it (issue 9, point 22)."""
    renewed = jwt("me")  # Made once, as it tells the time.
    with provider(renewed={"id_token": renewed}) as at:
        access = await loaded(tmp_path, at, **{"id-token": token, "refresh-token": "r"})
        assert access.authorization == f"Bearer {renewed}"
        assert at.refresh_tokens == ["r"]


async def test_a_provider_that_gave_what_is_of_no_use_is_asked_again(tmp_path: Path) -> None:
    with provider(renewed={"id_token": "none", "refresh_token": "r-2"}) as at:
        config = kubeconfig(tmp_path, at, **{"refresh-token": "r-1"})
        with pytest.raises(NoApiServer, match="its id-token is no JSON Web Token"):
            await config.load()
        at.renewed = {"id_token": jwt("me")}
        assert (await config.load()).authorization == f"Bearer {at.renewed['id_token']}"
        assert at.refresh_tokens == ["r-1", "r-2"]


async def test_a_provider_that_hangs_is_given_up(tmp_path: Path) -> None:
    with provider() as at:
        at.hangs.set()
        path = kubeconfig(tmp_path, at, **{"refresh-token": "r"}).path
        with pytest.raises(NoApiServer, match="no answer within 1 s"):
            await Kubeconfig(path, bounds=QUICK).load()
