"""What callers may do, on a real API server and over TLS: by status, in time, and under streams."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from tests.certificates import Authority, Pair
from tests.integration.http2_toy import Client
from tests.integration.serving import PATIENCE_S, Serving, serving
from tests.integration.test_access import OK, ROWS, WATCH, call, methods, outcome
from tests.integration.test_access_reviews import RBAC, Account, desk
from tests.kube.apiserver import Cluster
from tests.unit.objects import service
from tests.unit.server.xds.client import CDS, node
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.access.principal import CertificateRules
from vmsvc_grpc.server.access.verdicts import VerdictBounds

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService"
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


def bind(kube: Cluster, account: Account, namespace: str = "") -> None:
    """Give an account the rights of that role in a namespace, or in all."""
    kind = "rolebindings" if namespace else "clusterrolebindings"
    body = {
        "metadata": {"name": account.namespace},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "everything-here",
        },
        "subjects": [{"kind": "ServiceAccount", "name": "caller", "namespace": account.namespace}],
    }
    path = f"{RBAC}/namespaces/{namespace}/{kind}" if namespace else f"{RBAC}/{kind}"
    assert kube.request("POST", path, body).status == 201


def unbind(kube: Cluster, account: Account, namespace: str) -> None:
    path = f"{RBAC}/namespaces/{namespace}/rolebindings/{account.namespace}"
    assert kube.request("DELETE", path).status == 200


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def running(
    kube: Cluster,
    tmp_path: Path,
    authority: Authority,
    *namespaces: str,
    bounds: VerdictBounds = QUICK,
) -> AsyncIterator[Serving]:
    """A server that asks the API server, with a service `web` in each namespace."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.issue())
    tls.verify_mode = ssl.CERT_OPTIONAL
    tls.load_verify_locations(authority.certificate)
    tls.set_alpn_protocols(["h2"])
    objects = [service(Key(namespace, "web")) for namespace in namespaces]
    async with (
        desk(kube, tmp_path, bounds, CertificateRules()) as here,
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
            with pytest.raises(ssl.SSLError, match="ALERT_UNKNOWN_CA"):
                await stranger.until(lambda: stranger.seen)
    for token in tokens.values():
        for text in (*said, caplog.text):
            assert token not in text
            assert token.rpartition(".")[2] not in text


class Discovery:
    """A stream of all clusters, as the state of the world or in deltas."""

    def __init__(self, channel: grpc.aio.Channel, form: str, authorization: str) -> None:
        self._delta = form == "Delta"
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        method = channel.stream_stream(f"{ADS}/{form}AggregatedResources")
        self.call = method(metadata=[("authorization", authorization)])
        self.names: set[str] = set()
        self._request: Any = (
            discovery_pb2.DeltaDiscoveryRequest if self._delta else discovery_pb2.DiscoveryRequest
        )

    async def begin(self) -> None:
        await self.call.write(
            self._request(type_url=CDS.value, node=node("envoy")).SerializeToString()
        )

    async def until(self, names: set[str]) -> None:
        """Read, and acknowledge, until it holds these clusters."""
        async with asyncio.timeout(PATIENCE_S):
            while self.names != names:
                await self._read()

    async def _read(self) -> None:
        raw = await self.call.read()
        assert isinstance(raw, bytes), "it does not end by itself"
        if self._delta:
            delta = discovery_pb2.DeltaDiscoveryResponse.FromString(raw)
            self.names |= {each.name for each in delta.resources}
            self.names -= set(delta.removed_resources)
            nonce = delta.nonce
        else:
            whole = discovery_pb2.DiscoveryResponse.FromString(raw)
            self.names = {_name(each) for each in whole.resources}
            nonce = whole.nonce
        answer = self._request(type_url=CDS.value, response_nonce=nonce)
        await self.call.write(answer.SerializeToString())


def _name(resource: Any) -> str:
    from envoy.config.cluster.v3.cluster_pb2 import Cluster as EnvoyCluster

    return str(EnvoyCluster.FromString(resource.value).name)


async def ending(opened: Any) -> str:
    """The status that a call ends with, whatever it is sent before."""
    async with asyncio.timeout(PATIENCE_S):
        with suppress(grpc.aio.AioRpcError):
            while await opened.read() is not grpc.aio.EOF:
                pass  # gRPC's client has the status once all messages have been read.
        return str((await opened.code()).name)


@asynccontextmanager
async def streams(
    server: Serving, authority: Authority, token: str, namespace: str
) -> AsyncIterator[tuple[Any, list[Discovery]]]:
    """A watch of a service, and all clusters in both forms, by one caller."""
    channel, bearer = secure(server, authority), f"Bearer {token}"
    method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(WATCH)
    asked = pb.WatchEndpointsRequest(services=[pb.WatchedService(service=f"{namespace}/web")])
    watch = method(asked.SerializeToString(), metadata=[("authorization", bearer)])
    clusters = [Discovery(channel, form, bearer) for form in ("Stream", "Delta")]
    for each in clusters:
        await each.begin()
    yield watch, clusters
    for opened in (watch, *(each.call for each in clusters)):
        opened.cancel()


async def test_a_binding_is_taken_away_under_streams_and_given_back(
    kube: Cluster, tmp_path: Path, authority: Authority
) -> None:
    account, other = Account(kube), Account(kube)
    mine, theirs = account.namespace, other.namespace
    bind(kube, account, mine)
    async with running(kube, tmp_path, authority, mine, theirs, "shop") as server:
        token = account.token()
        async with streams(server, authority, token, mine) as (watch, clusters):
            assert isinstance(await watch.read(), bytes)
            for each in clusters:
                await each.until({f"web.{mine}:80"})
            bind(kube, account, theirs)
            for each in clusters:
                await each.until({f"web.{mine}:80", f"web.{theirs}:80"})
            unbind(kube, account, mine)
            for opened in (watch, *(each.call for each in clusters)):
                assert await ending(opened) == "PERMISSION_DENIED"
        async with streams(server, authority, token, mine) as (watch, clusters):
            assert await ending(watch) == "PERMISSION_DENIED"
            for each in clusters:
                await each.until({f"web.{theirs}:80"})
            bind(kube, account, mine)
            for each in clusters:
                await each.until({f"web.{mine}:80", f"web.{theirs}:80"})
        async with streams(server, authority, token, mine) as (watch, _):
            assert isinstance(await watch.read(), bytes)


async def test_a_token_expires_in_mid_stream(
    kube: Cluster, tmp_path: Path, authority: Authority
) -> None:
    account = Account(kube)
    bind(kube, account, account.namespace)
    async with running(kube, tmp_path, authority, account.namespace) as server:
        token = account.signed(tmp_path, 20.0)
        async with streams(server, authority, token, account.namespace) as (watch, clusters):
            assert isinstance(await watch.read(), bytes)
            for each in clusters:
                await each.until({f"web.{account.namespace}:80"})
            for opened in (watch, *(each.call for each in clusters)):
                assert await ending(opened) == "UNAUTHENTICATED"


async def test_the_api_server_stays_away_for_longer_than_verdicts_hold(
    kube: Cluster, tmp_path: Path, authority: Authority
) -> None:
    account = Account(kube)
    bind(kube, account, account.namespace)
    clusters_of = {f"web.{account.namespace}:80"}
    bounds = replace(QUICK, stale_s=4.0)
    async with running(kube, tmp_path, authority, account.namespace, bounds=bounds) as server:
        token = account.token()
        async with streams(server, authority, token, account.namespace) as (watch, clusters):
            assert isinstance(await watch.read(), bytes)
            for each in clusters:
                await each.until(clusters_of)
            await asyncio.to_thread(kube.server.kill)
            try:
                for opened in (watch, *(each.call for each in clusters)):
                    assert await ending(opened) == "UNAVAILABLE"
                async with streams(server, authority, token, account.namespace) as (again, _):
                    assert await ending(again) == "UNAVAILABLE"
            finally:
                await asyncio.to_thread(kube.server.start)
        async with streams(server, authority, token, account.namespace) as (watch, clusters):
            assert isinstance(await watch.read(), bytes)
            for each in clusters:
                await each.until(clusters_of)


async def test_denied_and_absent_are_the_same_on_a_real_api_server(
    kube: Cluster, tmp_path: Path, authority: Authority
) -> None:
    """The namespace, the service, both or neither: by status, words and questions asked."""
    account = Account(kube)
    hidden = kube.create_namespace()
    async with (
        running(kube, tmp_path, authority, hidden) as server,
        connected(server, authority) as client,
    ):
        told = set()
        for name in (f"{hidden}/web", f"{hidden}/none", "nowhere/none"):
            asked = pb.ResolveEndpointsRequest(service=name).SerializeToString()
            path = "/vmsvc.v1.EndpointService/ResolveEndpoints"
            code, words = await outcome(client, call(client, path, _bearer(account), asked))
            assert code != OK
            told.add((code, words.replace(name.partition("/")[0], "NAMESPACE")))
        assert len(told) == 1


def _bearer(account: Account) -> str:
    return f"Bearer {account.token()}"
