"""The gate that asks an API server, on a real one: tokens by TokenRequest, rights by RBAC."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from tests import confidential
from tests.integration.kube_replica import until
from tests.kube.apiserver import Cluster, User
from vmsvc_grpc.kube.client import ApiServer
from vmsvc_grpc.kube.credentials import Kubeconfig
from vmsvc_grpc.server.access.caller import Caller
from vmsvc_grpc.server.access.certificate import ClientCertificate
from vmsvc_grpc.server.access.facts import Refusal, Secret
from vmsvc_grpc.server.access.gate import Pass, Verdict
from vmsvc_grpc.server.access.kube_reviews import KubeReviews
from vmsvc_grpc.server.access.needs import AUTHENTICATED, Need, ResourceNeed, UrlNeed, endpoints_in
from vmsvc_grpc.server.access.principal import CertificateRules, Principal
from vmsvc_grpc.server.access.reviews import ReviewGate
from vmsvc_grpc.server.access.verdicts import VerdictBounds
from vmsvc_grpc.server.call import Code, RpcError

AUDIENCE = "vmsvc-grpc"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
QUICK = VerdictBounds(recheck_s=1.0, yes_s=0.5, no_s=0.5)


@pytest.fixture(scope="module")
def kube(
    find_binary: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A cluster of its own, as tests stop it, and sign tokens with its key."""
    with Cluster(tmp_path_factory.mktemp("kube"), find=find_binary) as cluster:
        yield cluster


class Account:
    """A ServiceAccount, in a namespace of its own."""

    def __init__(self, kube: Cluster) -> None:
        self.kube = kube
        self.namespace = kube.create_namespace()
        body = {"metadata": {"name": "caller"}}
        made = kube.request("POST", self._path, body).body
        self.uid = made["metadata"]["uid"]

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/serviceaccounts"

    def token(self, *audiences: str) -> str:
        spec = {"expirationSeconds": 600, "audiences": audiences or [AUDIENCE]}
        answer = self.kube.request("POST", f"{self._path}/caller/token", {"spec": spec})
        return confidential.token(str(answer.body["status"]["token"]))

    def token_of_pod(self, name: str) -> str:
        """A token that is good as long as this Pod is there, as kubelet gets them."""
        spec = {
            "serviceAccountName": "caller",
            "nodeName": "n1",
            "containers": [{"name": "c", "image": "none"}],
        }
        pods = f"/api/v1/namespaces/{self.namespace}/pods"
        made = self.kube.request("POST", pods, {"metadata": {"name": name}, "spec": spec})
        assert made.status in (HTTPStatus.CREATED, HTTPStatus.CONFLICT), made.body
        bound = {"kind": "Pod", "apiVersion": "v1", "name": name}
        asked = {"expirationSeconds": 600, "audiences": [AUDIENCE], "boundObjectRef": bound}
        answer = self.kube.request("POST", f"{self._path}/caller/token", {"spec": asked})
        return confidential.token(str(answer.body["status"]["token"]))

    def signed(self, folder: Path, lasts_s: float) -> str:
        """A token as the API server makes them, but one that lasts shorter than it would have."""
        claims = json.loads(_decoded(self.token().split(".")[1]))
        claims["exp"] = int(time.time() + lasts_s)
        head = _encoded(json.dumps({"alg": "ES256"}).encode())
        text = f"{head}.{_encoded(json.dumps(claims).encode())}"
        key = self.kube._folder / "service-account.key"
        command = ["openssl", "dgst", "-sha256", "-sign", str(key)]
        der = subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout
        return confidential.token(f"{text}.{_encoded(_raw(der))}")

    def delete(self) -> None:
        assert self.kube.request("DELETE", f"{self._path}/caller").status == 200

    def bind(self) -> None:
        """Bind the rules of `view`. A controller puts them there, which does not run here."""
        body = {
            "metadata": {"name": "caller"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "system:aggregate-to-view",
            },
            "subjects": [
                {"kind": "ServiceAccount", "name": "caller", "namespace": self.namespace},
                {"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"},
            ],
        }
        path = f"{RBAC}/namespaces/{self.namespace}/rolebindings"
        assert self.kube.request("POST", path, body).status == 201

    def unbind(self) -> None:
        path = f"{RBAC}/namespaces/{self.namespace}/rolebindings/caller"
        assert self.kube.request("DELETE", path).status == 200


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _raw(der: bytes) -> bytes:
    """The two numbers of a signature, as a JWT has them."""
    first = der[4 : 4 + der[3]]
    second = der[6 + der[3] :]
    return b"".join(number.lstrip(b"\0").rjust(32, b"\0") for number in (first, second))


class Desk:
    """A gate that runs, and what it logs."""

    def __init__(self, bounds: VerdictBounds, rules: CertificateRules) -> None:
        self.logged: list[str] = []
        self.gate = ReviewGate(bounds, rules, lambda _, text: self.logged.append(text))
        self.passes: list[Pass] = []

    def enter(self, caller: Caller, wake: Callable[[], None] = lambda: None) -> Pass:
        entered = self.gate.enter(caller, wake)
        self.passes.append(entered)
        return entered

    async def result(self, caller: Caller, need: Need = AUTHENTICATED) -> Verdict | Code:
        """What a call that begins is told, once that is known."""
        entered = self.enter(caller)
        await until(lambda: seen(entered, need) is not Verdict.PENDING)
        found = seen(entered, need)
        entered.close()
        return found


def seen(entered: Pass, need: Need) -> Verdict | Code:
    try:
        return entered.check(need)
    except RpcError as error:
        return error.code


def caller(token: str = "", certificate: ClientCertificate | None = None) -> Caller:
    return Caller("ipv4:192.0.2.1:1", guarded=True, token=token, certificate=certificate)


@asynccontextmanager
async def desk(
    kube: Cluster,
    tmp_path: Path,
    bounds: VerdictBounds = QUICK,
    rules: CertificateRules = CertificateRules(),  # noqa: B008 - it never changes
    *,
    user: User | None = None,
    audiences: tuple[str, ...] = (AUDIENCE,),
) -> AsyncIterator[Desk]:
    config = kube.kubeconfig(tmp_path / "reviewer.kubeconfig", user=user)
    async with ApiServer(Kubeconfig(str(config))) as api:
        here = Desk(bounds, rules)
        running = asyncio.create_task(here.gate.run(KubeReviews(api, audiences)))
        try:
            yield here
        finally:
            for entered in here.passes:
                entered.close()
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


async def test_tokens_are_somebodys_or_nobodys(kube: Cluster, tmp_path: Path) -> None:
    account = Account(kube)
    other = Account(kube)
    gone = other.token()
    other.delete()
    async with desk(kube, tmp_path) as here:
        for token, result in (
            (account.token(), Verdict.ALLOWED),
            (account.token("elsewhere", AUDIENCE), Verdict.ALLOWED),
            (account.token("elsewhere"), Code.UNAUTHENTICATED),
            (kube.admin.token, Code.UNAUTHENTICATED),  # It is for the API server.
            (account.token("https://kubernetes.default.svc"), Code.UNAUTHENTICATED),
            (gone, Code.UNAUTHENTICATED),
            (account.signed(tmp_path, -120.0), Code.UNAUTHENTICATED),
            (account.token()[:-8] + "AAAAAAAA", Code.UNAUTHENTICATED),
            ("no token", Code.UNAUTHENTICATED),
            ("", Code.UNAUTHENTICATED),
        ):
            assert await here.result(caller(token)) is result, token
        entered = here.enter(caller(account.token()))
        await until(lambda: seen(entered, AUTHENTICATED) is Verdict.ALLOWED)
        assert entered.username == f"system:serviceaccount:{account.namespace}:caller"
        assert not here.gate.troubles
        assert not here.logged


async def test_without_an_audience_tokens_for_the_api_server_count(
    kube: Cluster, tmp_path: Path
) -> None:
    account = Account(kube)
    async with desk(kube, tmp_path, audiences=()) as here:
        issuer = "https://kubernetes.default.svc"
        assert await here.result(caller(account.token(issuer))) is Verdict.ALLOWED
        assert await here.result(caller(kube.admin.token)) is Verdict.ALLOWED
        assert await here.result(caller(account.token())) is Code.UNAUTHENTICATED


async def test_a_binding_gives_the_right_and_takes_it_from_open_calls(
    kube: Cluster, tmp_path: Path
) -> None:
    account = Account(kube)
    need, elsewhere = endpoints_in("watch", account.namespace), endpoints_in("watch", "default")
    woken: list[str] = []
    async with desk(kube, tmp_path) as here:
        token = account.token()
        assert await here.result(caller(token), need) is Verdict.DENIED
        entered = here.enter(caller(token), lambda: woken.append("again"))
        await until(lambda: seen(entered, need) is Verdict.DENIED)
        account.bind()
        await until(lambda: seen(entered, need) is Verdict.ALLOWED)
        assert await here.result(caller(token), elsewhere) is Verdict.DENIED
        assert await here.result(caller(token), UrlNeed("get", "/metrics")) is Verdict.DENIED
        woken.clear()
        account.unbind()
        await until(lambda: woken)
        assert seen(entered, need) is Verdict.DENIED
        account.bind()
        await until(lambda: seen(entered, need) is Verdict.ALLOWED)


async def test_a_deleted_account_and_an_expired_token_end_open_calls(
    kube: Cluster, tmp_path: Path
) -> None:
    account, brief = Account(kube), Account(kube)
    woken: list[str] = []
    async with desk(kube, tmp_path) as here:
        entered = here.enter(caller(account.token()), lambda: woken.append("account"))
        await until(lambda: seen(entered, AUTHENTICATED) is Verdict.ALLOWED)
        account.delete()
        await until(lambda: seen(entered, AUTHENTICATED) is Code.UNAUTHENTICATED)
        assert "account" in woken
        # The API server would take it for another minute: clocks may differ.
        short = here.enter(caller(brief.signed(tmp_path, 4.0)), lambda: woken.append("short"))
        await until(lambda: seen(short, AUTHENTICATED) is Verdict.ALLOWED)
        woken.clear()
        await until(lambda: woken)
        assert seen(short, AUTHENTICATED) is Code.UNAUTHENTICATED


async def test_a_certificate_has_the_rights_of_its_name(kube: Cluster, tmp_path: Path) -> None:
    account = Account(kube)
    account.bind()
    need = endpoints_in("get", account.namespace)
    later = time.time() + 600
    ann = ClientCertificate(("ann",), expires_at=later)
    masters = ClientCertificate(("bob",), ("system:masters",), expires_at=later)
    spiffe = f"spiffe://cluster.local/ns/{account.namespace}/sa/caller"
    mesh = ClientCertificate((), uris=(spiffe,), expires_at=later)
    rules = CertificateRules(trust_domain="cluster.local")
    async with desk(kube, tmp_path, rules=rules) as here:
        assert await here.result(caller(certificate=ann), need) is Verdict.ALLOWED
        assert await here.result(caller(certificate=mesh), need) is Verdict.ALLOWED
        assert await here.result(caller(certificate=masters), need) is Code.UNAUTHENTICATED
        expired = ClientCertificate(("ann",), expires_at=time.time() - 1)
        assert await here.result(caller(certificate=expired), need) is Code.UNAUTHENTICATED
        # A token says more exactly who asks, even if it is a bad one.
        assert await here.result(caller("bad", ann), need) is Code.UNAUTHENTICATED
    async with desk(kube, tmp_path, rules=CertificateRules(of_cluster=True)) as here:
        assert await here.result(caller(certificate=masters), need) is Verdict.ALLOWED


async def test_an_account_that_may_not_review_is_named_once_until_it_may(
    kube: Cluster, tmp_path: Path
) -> None:
    account, ours = Account(kube), Account(kube)
    name = f"system:serviceaccount:{ours.namespace}:caller"
    us = User(name, token=ours.token("https://kubernetes.default.svc"))
    async with desk(kube, tmp_path, user=us) as here:
        for _ in range(3):
            assert await here.result(caller(account.token())) is Code.UNAVAILABLE
        (trouble,) = here.gate.troubles
        assert "tokenreviews.authentication.k8s.io" in trouble
        assert "system:auth-delegator" in trouble
        assert here.logged == [trouble]
        body = {
            "metadata": {"name": ours.namespace},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "system:auth-delegator",
            },
            "subjects": [{"kind": "ServiceAccount", "name": "caller", "namespace": ours.namespace}],
        }
        assert kube.request("POST", f"{RBAC}/clusterrolebindings", body).status == 201
        token = account.token()

        async def allowed() -> bool:
            return await here.result(caller(token)) is Verdict.ALLOWED

        await until(allowed)
        assert not here.gate.troubles
        assert len(here.logged) == 2


async def test_while_the_api_server_is_away_only_who_is_known_is_served(
    kube: Cluster, tmp_path: Path
) -> None:
    account = Account(kube)
    account.bind()
    need = endpoints_in("watch", account.namespace)
    token, unknown = account.token(), account.token()
    async with desk(kube, tmp_path) as here:
        entered = here.enter(caller(token))
        await until(lambda: seen(entered, need) is Verdict.ALLOWED)
        await asyncio.to_thread(kube.server.kill)
        try:
            assert await here.result(caller(unknown), need) is Code.UNAVAILABLE
            # It has been asked about again, in vain.
            before = here.gate.reviews["access", "failed"]
            await until(lambda: here.gate.reviews["access", "failed"] > before)
            assert seen(entered, need) is Verdict.ALLOWED
            assert await here.result(caller(token), need) is Verdict.ALLOWED
            await until(lambda: here.gate.troubles)
        finally:
            await asyncio.to_thread(kube.server.start)

        async def back() -> bool:
            return await here.result(caller(unknown), need) is Verdict.ALLOWED

        await until(back)
        assert seen(entered, need) is Verdict.ALLOWED


async def test_nothing_that_is_kept_or_logged_has_a_token(kube: Cluster, tmp_path: Path) -> None:
    account = Account(kube)
    token = account.token()
    async with desk(kube, tmp_path) as here:
        assert await here.result(caller(token)) is Verdict.ALLOWED
        texts = _texts(here.gate, set())
        assert any(account.namespace in text for text in texts), "the search finds what is kept"
        assert not any(token in text for text in texts)


def _texts(found: Any, known: set[int]) -> list[str]:
    """All texts that can be reached from an object of ours."""
    if id(found) in known:
        return []
    known.add(id(found))
    if isinstance(found, str):
        return [found]
    if isinstance(found, bytes):
        return [found.decode("latin-1")]
    parts: list[Any] = []
    if isinstance(found, dict):
        parts = [*found.keys(), *found.values()]
    elif isinstance(found, list | tuple | set | frozenset):
        parts = list(found)
    elif type(found).__module__.startswith("vmsvc_grpc"):
        names = [name for kind in type(found).__mro__ for name in getattr(kind, "__slots__", ())]
        parts = [getattr(found, name, None) for name in names]
        parts += list(getattr(found, "__dict__", {}).values())
    return [text for part in parts for text in _texts(part, known)]


class CountedReviews:
    """Reviews on the API server, and how many were under way at once."""

    def __init__(self, inner: KubeReviews) -> None:
        self._inner = inner
        self._now = 0
        self.most = 0

    async def owner(self, token: Secret) -> Principal | Refusal:
        with self._one():
            return await self._inner.owner(token)

    async def allowed(self, principal: Principal, need: ResourceNeed | UrlNeed) -> bool:
        with self._one():
            return await self._inner.allowed(principal, need)

    @contextmanager
    def _one(self) -> Iterator[None]:
        self._now += 1
        self.most = max(self.most, self._now)
        yield
        self._now -= 1


async def test_tokens_of_one_account_in_several_pods_have_the_same_rights(
    kube: Cluster, tmp_path: Path
) -> None:
    account = Account(kube)
    account.bind()
    tokens = [account.token_of_pod(name) for name in ("a", "b", "b")]
    shop, bank = endpoints_in("watch", account.namespace), endpoints_in("watch", "bank")
    async with desk(kube, tmp_path, VerdictBounds(yes_s=600.0, no_s=600.0)) as here:
        for token in tokens:
            assert await here.result(caller(token), shop) is Verdict.ALLOWED
            assert await here.result(caller(token), bank) is Verdict.DENIED
        asked = {("token", "yes"): 3, ("access", "yes"): 1, ("access", "no"): 1}
        assert here.gate.reviews == asked


async def test_callers_who_come_all_at_once_are_asked_about_once_each(
    kube: Cluster, tmp_path: Path
) -> None:
    account = Account(kube)
    account.bind()
    need = endpoints_in("watch", account.namespace)
    tokens = [account.token() for _ in range(300)]
    async with ApiServer(Kubeconfig(str(kube.kubeconfig(tmp_path / "config")))) as api:
        here = Desk(VerdictBounds(), CertificateRules())
        reviews = CountedReviews(KubeReviews(api, (AUDIENCE,)))
        running = asyncio.create_task(here.gate.run(reviews))
        # Two calls of each, from as many addresses.
        passes = [
            here.gate.enter(Caller(f"ipv4:192.0.2.{n % 250}:1", True, token), lambda: None)
            for n, token in enumerate([*tokens, *tokens])
        ]
        await until(lambda: all(seen(each, need) is Verdict.ALLOWED for each in passes))
        assert here.gate.reviews == {("token", "yes"): 300, ("access", "yes"): 1}
        assert reviews.most <= 64
        again = [here.gate.enter(caller(token), lambda: None) for token in tokens]
        assert {seen(each, need) for each in again} == {Verdict.ALLOWED}, "known, and not asked"
        for each in (*passes, *again):
            each.close()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
