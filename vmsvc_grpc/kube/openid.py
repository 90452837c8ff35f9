"""Tokens of an OpenID provider, as a kubeconfig's `auth-provider: oidc` names them.

A token is used until it expires; then the provider renews it
(`client-go/plugin/pkg/client/auth/oidc`). The kubeconfig is never written: only this process knows
the new tokens.
"""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote_plus, urlsplit

import msgspec

from vmsvc_grpc.model.decoding import decoder
from vmsvc_grpc.model.problem import quoted

if TYPE_CHECKING:
    import aiohttp

_DISCOVERY = "/.well-known/openid-configuration"

# A provider's answers have some kilobytes.
_ANSWER_BYTES_MAX = 1024 * 1024

# A token is renewed this long before it expires: a request takes time, and clocks differ.
_EARLY_S = 10.0

# Three parts, of characters that a header may hold. Python's base64 passes over others.
_JWT = re.compile(r"[!-\-/-~]*\.([!-\-/-~]*)\.[!-\-/-~]*")


class OpenIDError(Exception):
    """A provider gave no token; the message is one line, and has no secret in it."""


class Provider(msgspec.Struct, rename="kebab", frozen=True):
    """A provider in a kubeconfig, and the tokens that it has given so far."""

    idp_issuer_url: str = ""
    client_id: str = ""
    client_secret: str = ""
    id_token: str = ""
    refresh_token: str = ""
    idp_certificate_authority: str = ""
    idp_certificate_authority_data: str = ""


def provider(config: Mapping[str, str] | None) -> Provider:
    """The provider of an `auth-provider`'s `config`."""
    return msgspec.convert(config or {}, Provider)


class Token(NamedTuple):
    """A token, and the seconds for which it may be used; None: until it is refused."""

    text: str
    fresh_s: float | None


class _Claims(msgspec.Struct):
    exp: float | None = None


class _Discovery(msgspec.Struct):
    token_endpoint: str
    # The default if a provider does not say (OpenID Connect Discovery, section 3).
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class _Renewed(msgspec.Struct):
    id_token: str = ""
    refresh_token: str = ""


_decode_claims = decoder(_Claims)
_decode_discovery = decoder(_Discovery)
_decode_renewed = decoder(_Renewed)


class OpenIDTokens:
    """The newest tokens of one user.

    They are remembered, as a provider may accept each refresh token only once.
    """

    def __init__(self) -> None:
        """Knows no tokens beyond those in the kubeconfig."""
        self._named: Provider | None = None
        self._id_token = ""
        self._refresh_token = ""

    async def token(self, named: Provider, tls: ssl.SSLContext, now: float) -> Token:
        """A token that has not expired, renewed if need be. Raises OpenIDError.

        `named` is the provider as the kubeconfig has it now: if that has changed, somebody has
        logged in anew, and our tokens are dropped. `tls` verifies the provider, and `now` is the
        time since the epoch. Waits for the provider.
        """
        if named != self._named:
            self._named = named
            self._id_token, self._refresh_token = named.id_token, named.refresh_token
        try:
            if self._id_token:
                left_s = _left_s(self._id_token, now)
                if left_s is None or left_s > 0:
                    return Token(self._id_token, left_s)
        except OpenIDError:
            # The provider may know better, if it can be asked.
            if not self._refresh_token:
                raise
        if not self._refresh_token:
            raise OpenIDError(
                "its id-token is missing or has expired, and there is no refresh-token"
            )
        renewed = await _renewed(named, self._refresh_token, tls)
        self._refresh_token = renewed.refresh_token or self._refresh_token
        # A token that cannot be used is not kept, so that the provider is asked for another.
        left_s = _left_s(renewed.id_token, now)
        self._id_token = renewed.id_token
        # The API server has the last word on one that is said to have expired already.
        return Token(self._id_token, left_s if left_s is None else max(left_s, _EARLY_S))


def _left_s(id_token: str, now: float) -> float | None:
    """The seconds for which a token may be used; None if it does not say. Raises OpenIDError."""
    parts = _JWT.fullmatch(id_token.strip())
    if parts is None:
        raise OpenIDError("its id-token is no JSON Web Token")
    try:
        claims = _decode_claims(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (msgspec.DecodeError, ValueError) as error:
        raise OpenIDError("the claims of its id-token cannot be read") from error
    return None if claims.exp is None else claims.exp - now - _EARLY_S


async def _renewed(named: Provider, refresh_token: str, tls: ssl.SSLContext) -> _Renewed:
    """The new tokens that the provider gives for a refresh token. Raises OpenIDError."""
    # It takes longer to load than all else that `render` and --help need.
    import aiohttp  # noqa: PLC0415

    connector = aiohttp.TCPConnector(ssl=tls)
    try:
        async with aiohttp.ClientSession(connector=connector, trust_env=True) as session:
            discovery = named.idp_issuer_url.rstrip("/") + _DISCOVERY
            _check_url("idp-issuer-url", named.idp_issuer_url)
            found = _decode_discovery(await _answer(session, "GET", discovery))
            _check_url("token_endpoint", found.token_endpoint, like=named.idp_issuer_url)
            form, headers = _proof(named, found.token_endpoint_auth_methods_supported)
            form |= {"grant_type": "refresh_token", "refresh_token": refresh_token}
            raw = await _answer(session, "POST", found.token_endpoint, data=form, headers=headers)
            renewed = _decode_renewed(raw)
    except msgspec.DecodeError as error:
        raise OpenIDError(f"its answer cannot be read: {error}") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise OpenIDError(str(error) or type(error).__name__) from error
    if not renewed.id_token:
        raise OpenIDError("its answer has no id_token; was the scope openid asked for at login?")
    return renewed


def _proof(named: Provider, methods: Collection[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Our client credentials, as form fields and as headers (RFC 6749, section 2.3.1)."""
    if not named.client_secret:
        return {"client_id": named.client_id}, {}
    if "client_secret_basic" not in methods and "client_secret_post" in methods:
        return {"client_id": named.client_id, "client_secret": named.client_secret}, {}
    text = f"{quote_plus(named.client_id)}:{quote_plus(named.client_secret)}"
    return {}, {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


def _check_url(field: str, url: str, like: str = "") -> None:
    """Raises OpenIDError unless it is a URL as safe as the other one, if there is another."""
    scheme = urlsplit(url).scheme
    if scheme != "https" and (scheme != "http" or urlsplit(like).scheme == "https"):
        raise OpenIDError(f"{field} is not an https URL: {quoted(url)}")


async def _answer(session: aiohttp.ClientSession, method: str, url: str, **options: Any) -> bytes:
    # The secret goes only to the address that the discovery names.
    async with session.request(method, url, allow_redirects=False, **options) as response:
        if response.status != 200:  # noqa: PLR2004 - the only status that brings a token
            raise OpenIDError(f"{method} {url} is answered with {response.status}")
        raw = b""
        while chunk := await response.content.readany():
            raw += chunk
            if len(raw) > _ANSWER_BYTES_MAX:
                raise OpenIDError(f"its answer has more than {_ANSWER_BYTES_MAX} bytes")
        return raw
