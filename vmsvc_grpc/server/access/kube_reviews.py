"""Asks an API server whose a token is and what somebody may do: TokenReview, SubjectAccessReview.

Owns their shapes, but for what `access_review` reads. Decides nothing about time: `reviews` does.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from vmsvc_grpc.kube.access_review import granted
from vmsvc_grpc.kube.client import ApiServer
from vmsvc_grpc.model.decoding import decoder
from vmsvc_grpc.server.access.facts import Refusal, Secret
from vmsvc_grpc.server.access.needs import ResourceNeed, UrlNeed
from vmsvc_grpc.server.access.principal import Principal, authenticated, lasting

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 - a path
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"

_JWT_PARTS = 3


class _User(msgspec.Struct):
    username: str = ""
    uid: str = ""
    groups: list[str] | None = None
    extra: dict[str, list[str]] | None = None


class _TokenStatus(msgspec.Struct):
    authenticated: bool = False
    user: _User | None = None
    audiences: list[str] | None = None


class _TokenReview(msgspec.Struct):
    status: _TokenStatus


class _Claims(msgspec.Struct):
    exp: float | None = None


_decode_token_review = decoder(_TokenReview)
_decode_claims = decoder(_Claims)


class KubeReviews:
    """Reviews by one API server, as the account of this server."""

    def __init__(self, api: ApiServer, audiences: tuple[str, ...]) -> None:
        """A token must be for one of `audiences`; none: for the API server itself."""
        self._api = api
        self._audiences = audiences
        whom = " or ".join(audiences) or "the API server"
        self._refusal = Refusal(
            "the bearer token is not valid: it has expired or been revoked, is not for "
            f"{whom} (its audience), or is of another cluster"
        )

    async def owner(self, token: Secret) -> Principal | Refusal:
        """Whose a token is. Raises ApiServerError, and msgspec.DecodeError."""
        spec: dict[str, Any] = {"token": token.reveal()}
        if self._audiences:
            spec["audiences"] = self._audiences
        answer = await self._api.request("POST", TOKEN_REVIEWS, body=_review(TOKEN_REVIEWS, spec))
        status = _decode_token_review(answer).status
        # An API server that knows nothing of audiences says nothing of them (TokenReviewSpec): the
        # token could be for anybody.
        for_us = not self._audiences or set(self._audiences) & set(status.audiences or ())
        if not (status.authenticated and for_us and status.user and status.user.username):
            return self._refusal
        user = status.user
        principal = Principal(
            username=user.username,
            uid=user.uid,
            groups=tuple(user.groups or ()),
            extra=lasting(user.extra or {}),
            expires_at=_expiry(token.reveal()),
        )
        return authenticated(principal)

    async def allowed(self, principal: Principal, need: ResourceNeed | UrlNeed) -> bool:
        """Whether somebody has a right. Raises ApiServerError, and msgspec.DecodeError."""
        spec: dict[str, Any] = {
            "user": principal.username,
            "uid": principal.uid,
            "groups": principal.groups,
            "extra": dict(principal.extra),
            **_attributes(need),
        }
        return granted(
            await self._api.request("POST", ACCESS_REVIEWS, body=_review(ACCESS_REVIEWS, spec))
        )


def _review(path: str, spec: dict[str, Any]) -> dict[str, Any]:
    group = path.removeprefix("/apis/").rpartition("/")[0]
    kind = "TokenReview" if path == TOKEN_REVIEWS else "SubjectAccessReview"
    return {"apiVersion": group, "kind": kind, "spec": spec}


def _attributes(need: ResourceNeed | UrlNeed) -> dict[str, Any]:
    if isinstance(need, UrlNeed):
        return {"nonResourceAttributes": {"verb": need.verb, "path": need.path}}
    return {
        "resourceAttributes": {
            "verb": need.verb,
            "group": need.group,
            "resource": need.resource,
            "namespace": need.namespace,
        }
    }


def _expiry(token: str) -> float | None:
    """When a token expires that somebody has found valid; None if it does not say so.

    A TokenReview has no such field. ServiceAccounts' tokens, and OpenID's, are JWTs (RFC 7519).
    """
    parts = token.split(".")
    if len(parts) != _JWT_PARTS:
        return None
    try:
        claims = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return _decode_claims(claims).exp
    except (ValueError, msgspec.DecodeError):
        return None
