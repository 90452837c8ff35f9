"""What callers may do, on a real API server and over TLS: the status of each method for each."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from tests.certificates import Authority, Pair
from tests.integration.http2_toy import Client
from tests.integration.serving import Serving, serving
from tests.integration.test_access import ROWS, WATCH, call, methods, outcome
from tests.integration.test_access_reviews import RBAC, Account, desk
from tests.kube.apiserver import Cluster
from tests.unit.objects import service
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.access.principal import CertificateRules
from vmsvc_grpc.server.access.verdicts import VerdictBounds

QUICK = VerdictBounds(recheck_s=1.0, yes_s=0.5, no_s=0.5)

# The rights of one who may do everything that there is to do here.
RULES = [
    {"apiGroups": [""], "resources": ["endpoints"], "verbs": ["get", "list", "watch"]},
    {
        "apiGroups": ["vmoperator.vmware.com"],
        "resources": ["virtualmachines"],
        "verbs": ["get"],
    },
    {
        "nonResourceURLs": ["/vmsvc-grpc/csds", "/vmsvc-grpc/channelz", "/metrics"],
        "verbs": ["get"],
    },
]


@pytest.fixture(scope="module")
def kube(
    find_binary: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A cluster of its own: tests sign tokens with its key."""
    with Cluster(tmp_path_factory.mktemp("kube"), find=find_binary) as cluster:
        role = {"metadata": {"name": "everything-here"}, "rules": RULES}
        assert cluster.request("POST", f"{RBAC}/clusterroles", role).status == 201
        yield cluster


def bind(kube: Cluster, account: Account) -> None:
    """Give an account the rights of that role, everywhere."""
    body = {
        "metadata": {"name": account.namespace},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "everything-here",
        },
        "subjects": [{"kind": "ServiceAccount", "name": "caller", "namespace": account.namespace}],
    }
    assert kube.request("POST", f"{RBAC}/clusterrolebindings", body).status == 201


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def running(
    kube: Cluster, tmp_path: Path, authority: Authority, *namespaces: str
) -> AsyncIterator[Serving]:
    """A server that asks the API server, with a service `web` in each namespace."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.issue())
    tls.verify_mode = ssl.CERT_OPTIONAL
    tls.load_verify_locations(authority.certificate)
    tls.set_alpn_protocols(["h2"])
    objects = [service(Key(namespace, "web")) for namespace in namespaces]
    async with (
        desk(kube, tmp_path, QUICK, CertificateRules()) as here,
        serving(*objects, gate=here.gate, tls=lambda: tls) as server,
    ):
        yield server


@asynccontextmanager
async def connected(
    server: Serving, authority: Authority, shown: Pair | None = None
) -> AsyncIterator[Client]:
    host, _, port = server.address.rpartition(":")
    tls = ssl.create_default_context(cafile=authority.certificate)
    tls.set_alpn_protocols(["h2"])
    if shown is not None:
        tls.load_cert_chain(*shown)
    reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
    try:
        yield Client(reader, writer, 65_535, auto=True)
    finally:
        writer.transport.abort()


def secure(server: Serving, authority: Authority) -> grpc.aio.Channel:
    trust = grpc.ssl_channel_credentials(authority.certificate.read_bytes())
    channel = grpc.aio.secure_channel(server.address, trust)
    server.channels.append(channel)
    return channel


async def test_every_method_has_its_status_for_every_caller(
    kube: Cluster,
    tmp_path: Path,
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A method that reflection lists and that has no row fails. No word has anything of a token."""
    caplog.set_level(logging.DEBUG)
    admin, nobody = Account(kube), Account(kube)
    bind(kube, admin)
    tokens = {
        "bad token": admin.token()[:-8] + "AAAAAAAA",
        "wrong audience": admin.token("elsewhere"),
        "expired": admin.signed(tmp_path, -120.0),
        "denied": nobody.token(),
        "allowed": admin.token(),
    }
    unknown = {"no credentials", "bad token", "wrong audience", "expired"}
    masters = authority.issue("/O=system:masters/CN=bob", names="")
    said = []
    async with running(kube, tmp_path, authority, "shop") as server:
        channel = secure(server, authority)
        listed = await methods(channel, f"Bearer {tokens['allowed']}")
        assert {path for path in listed if "Service/Fetch" not in path} <= ROWS.keys()
        async with (
            connected(server, authority) as client,
            connected(server, authority, masters) as not_master,
        ):
            for path, (request, statuses) in ROWS.items():
                for who in ("no credentials", *tokens):
                    shown = f"Bearer {tokens[who]}" if who in tokens else None
                    found = await outcome(client, call(client, path, shown, request))
                    expected = statuses["no credentials" if who in unknown else who]
                    assert found[0] == expected, (path, who, found)
                    said.append(found[1])
                found = await outcome(not_master, call(not_master, path, None, request))
                assert found[0] == statuses["no credentials"], (path, "system:masters", found)
                said.append(found[1])
        other = Authority(tmp_path / "other", "other").issue("/CN=ann", names="")
        async with connected(server, authority, other) as stranger:
            call(stranger, WATCH, None, b"")
            await stranger.until(lambda: stranger.seen)
            assert stranger.over, "a certificate of another CA ends the connection"
            assert not stranger.seen
    for token in tokens.values():
        for text in (*said, caplog.text):
            assert token not in text
            assert token.rpartition(".")[2] not in text
