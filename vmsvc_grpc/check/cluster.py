"""Checks of the API server: that it answers, what it serves, what we may do there, the Lease."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from itertools import groupby

import msgspec

from vmsvc_grpc.check.findings import Finding, failed, ok, skipped, warning
from vmsvc_grpc.check.rights import Right, rights
from vmsvc_grpc.config import Config
from vmsvc_grpc.kube.access_review import granted
from vmsvc_grpc.kube.client import ApiServer, RequestBounds
from vmsvc_grpc.kube.credentials import Credentials, NoApiServer
from vmsvc_grpc.kube.errors import ApiServerError
from vmsvc_grpc.kube.resources import newest_served
from vmsvc_grpc.model.decoding import decoder
from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.reconciler.election import lease_name
from vmsvc_grpc.reconciler.lease import leases_path

SKEW_MAX_S = 5.0
"""How far clocks may be apart: a Date has whole seconds, and the answer takes a while."""

SKEW_TOLERABLE_S = 60.0
"""From here on tokens and certificates that were just issued are refused."""

_AT_ONCE_MAX = 10
_ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_SELF_REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"

# Nobody wants to wait for a minute to read that nobody answers.
_BOUNDS = RequestBounds(connect_s=5.0, silence_s=10.0, request_s=15.0)


class _Version(msgspec.Struct, rename="camel"):
    git_version: str = "of an unknown version"


class _User(msgspec.Struct):
    username: str = ""


class _Self(msgspec.Struct, rename="camel"):
    user_info: _User


class _SelfReview(msgspec.Struct):
    status: _Self


class _LeaseSpec(msgspec.Struct, rename="camel", frozen=True):
    holder_identity: str | None = None
    renew_time: str | None = None


class _Lease(msgspec.Struct):
    spec: _LeaseSpec = _LeaseSpec()


_decode_version = decoder(_Version)
_decode_self = decoder(_SelfReview)
_decode_lease = decoder(_Lease)


async def api_server(credentials: Credentials, config: Config) -> list[Finding]:
    """Everything about an API server. Changes nothing there. Does not raise."""
    try:
        async with ApiServer(credentials, _BOUNDS) as api:
            return await _Asking(api, config).findings()
    except NoApiServer as error:
        return [
            failed("credentials", str(error), "mend the kubeconfig, or name another"),
            *_not_reached(),
        ]


def _not_reached() -> Iterator[Finding]:
    for name, what in (
        ("clock", "the clock"),
        ("crds", "CustomResourceDefinitions"),
        ("rights", "rights"),
        ("lease", "the Lease"),
    ):
        yield skipped(name, f"{what}: not checked, as the API server does not answer")


class _Asking:
    """The questions to one API server."""

    def __init__(self, api: ApiServer, config: Config) -> None:
        self._api = api
        self._config = config
        self._user = "the account of this server"
        self._limit = asyncio.Semaphore(_AT_ONCE_MAX)

    async def findings(self) -> list[Finding]:
        try:
            before = time.time()
            raw, date = await self._api.dated("/version")
            between = (before + time.time()) / 2
            version = _decode_version(raw).git_version
            await self._learn_user()
        except (ApiServerError, msgspec.DecodeError) as error:
            text = f"the API server: {error}"
            return [failed("api-server", text, _reach(error)), *_not_reached()]
        reached = f"{self._api.host} answers: Kubernetes {version}, as {self._user}"
        found = [
            ok("api-server", reached),
            *_clock(date, between),
            await self._crd(Kind.VIRTUAL_MACHINE),
            await self._crd(Kind.VIRTUAL_MACHINE_SERVICE),
        ]
        namespace = self._config.lease_namespace or self._api.namespace
        name = self._config.lease_name or lease_name(self._config.namespaces)
        lease = Key(namespace, name)
        found += await self._rights(lease)
        if self._config.reconcile:
            found.append(await self._lease(lease, found))
        return found

    async def _learn_user(self) -> None:
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        try:
            raw = await self._api.request("POST", _SELF_REVIEWS, body=body)
            self._user = _decode_self(raw).status.user_info.username or self._user
        except ApiServerError as error:
            if error.status == HTTPStatus.UNAUTHORIZED:
                raise  # Else it is of before 1.28, or does not let us ask.

    async def _crd(self, kind: Kind) -> Finding:
        name = f"crd-{kind.value}"
        try:
            version = await newest_served(self._api, kind)
        except ApiServerError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                advice = "install VM Operator, or its CustomResourceDefinitions"
                text, _, _ = error.message.partition("; ")
                return failed(name, text, advice)
            return failed(name, f"{kind.value}: {error}", "let us discover the API's resources")
        except msgspec.DecodeError as error:
            return failed(name, f"{kind.value}: {error}", "is this an API server of Kubernetes?")
        return ok(name, f"{kind.value} is served, newest as {version}")

    async def _rights(self, lease: Key) -> list[Finding]:
        needed = list(rights(self._config, lease))
        answers = await asyncio.gather(*map(self._may, needed))
        pairs = list(zip(needed, answers, strict=True))
        found: list[Finding] = []
        for (what, resource, where), group in groupby(pairs, key=lambda pair: _heading(pair[0])):
            each = list(group)
            allowed = [right.verb for right, answer in each if answer is True]
            if allowed:
                may = f"may {', '.join(allowed)} {resource}{where}, to {what}"
                found.append(ok("rights", may))
            found += [self._missing(right, answer) for right, answer in each if answer is not True]
        return found

    def _missing(self, right: Right, answer: bool | ApiServerError) -> Finding:
        what = f"{right.verb} {right.full_resource}{right.where}"
        if isinstance(answer, ApiServerError):
            return failed("rights", f"{what}: cannot be asked: {answer}", _reach(answer))
        name = f' named "{right.name}"' if right.name else ""
        kind = "Role" if right.namespace else "ClusterRole"
        advice = (
            f'give {self._user} a {kind} with the verb "{right.verb}" on "{right.resource}"{name} '
            f'of the API group "{right.group}", as deploy/base/{right.role}.'
            f"{'role' if right.role == 'leader' else 'cluster-role'}.yaml does"
        )
        text = f"may not {what}, to {right.purpose}"
        if right.remark:
            return warning("rights", text, f"{right.remark}; {advice}")
        return failed("rights", text, advice)

    async def _may(self, right: Right) -> bool | ApiServerError:
        resource, _, part = right.resource.partition("/")
        attributes = {
            "verb": right.verb,
            "group": right.group,
            "resource": resource,
            "subresource": part,
            "namespace": right.namespace,
            "name": right.name,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        async with self._limit:
            try:
                return granted(await self._api.request("POST", _ACCESS_REVIEWS, body=body))
            except ApiServerError as error:
                return error
            except msgspec.DecodeError as error:
                return ApiServerError(0, f"the answer cannot be read: {error}")

    async def _lease(self, lease: Key, found: list[Finding]) -> Finding:
        if any("leases.coordination" in each.text for each in found if each.advice):
            return skipped("lease", f"Lease {lease}: not checked, as a right to it is missing")
        path = leases_path(lease.namespace)
        try:
            raw = await self._api.request("GET", f"{path}/{lease.name}")
        except ApiServerError as error:
            if not error.object_not_found:
                return failed("lease", f"Lease {lease}: {error}", _reach(error))
            return await self._new_lease(lease, path)
        spec = _decode_lease(raw).spec
        if not spec.holder_identity:
            return ok("lease", f"Lease {lease} is held by nobody")
        return ok(
            "lease", f"Lease {lease} is held by {spec.holder_identity}, renewed {spec.renew_time}"
        )

    async def _new_lease(self, lease: Key, path: str) -> Finding:
        """Have the API server try to create it: its namespace, or an admission, may be against."""
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"namespace": lease.namespace, "name": lease.name},
            "spec": {},
        }
        try:
            await self._api.request("POST", path, query={"dryRun": "All"}, body=body)
        except ApiServerError as error:
            advice = f"create namespace {lease.namespace}, or name another by --lease-namespace"
            return failed("lease", f"Lease {lease} cannot be created: {error}", advice)
        return ok("lease", f"Lease {lease} is not there yet, and can be created")


def _heading(right: Right) -> tuple[str, str, str]:
    return right.purpose, right.full_resource, right.where


def _clock(date: str, now: float) -> Iterator[Finding]:
    try:
        skew_s = now - parsedate_to_datetime(date).timestamp()
    except ValueError:
        yield skipped("clock", "the clock: not checked, as the answer has no date")
        return
    text = f"our clock and the API server's are {abs(skew_s):.0f} s apart"
    advice = (
        "set the clock here, or there, by NTP: tokens and certificates that are new are refused "
        "before their time, and old ones are taken after it"
    )
    if abs(skew_s) <= SKEW_MAX_S:
        yield ok("clock", text)
    elif abs(skew_s) <= SKEW_TOLERABLE_S:
        yield warning("clock", text, advice)
    else:
        yield failed("clock", text, advice)


def _reach(error: Exception) -> str:
    status = error.status if isinstance(error, ApiServerError) else 0
    if status == HTTPStatus.UNAUTHORIZED:
        return "log in again, or have a valid token mounted: these credentials are refused"
    if status == HTTPStatus.FORBIDDEN:
        return "bind the ClusterRoles system:discovery and system:basic-user to this account"
    if status:
        return "see the log of the API server, or of the proxy before it"
    return (
        "is it running, is the address in the kubeconfig right, and does a NetworkPolicy or a "
        "proxy stand between?"
    )
