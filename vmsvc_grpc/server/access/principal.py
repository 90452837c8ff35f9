"""Who asks: a name, groups and more, as Kubernetes knows its users. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from vmsvc_grpc.model.problem import quoted
from vmsvc_grpc.model.validate import is_dns_1123_label, is_dns_1123_subdomain
from vmsvc_grpc.server.access.caller import Caller
from vmsvc_grpc.server.access.certificate import ClientCertificate

RESERVED = "system:"
"""How names and groups begin that Kubernetes gives to its own parts."""

_ANONYMOUS = "system:anonymous"
_AUTHENTICATED = "system:authenticated"
_UNAUTHENTICATED = "system:unauthenticated"
_SERVICE_ACCOUNTS = "system:serviceaccounts"
_OF_CREDENTIALS = frozenset(
    f"authentication.kubernetes.io/{name}"
    for name in ("credential-id", "node-name", "node-uid", "pod-name", "pod-uid")
)

_SPIFFE = "spiffe://"
_SERVICE_ACCOUNT_PATH = re.compile(r"/ns/(?P<namespace>[^/]+)/sa/(?P<name>[^/]+)")


class UnknownCallerError(Exception):
    """What a caller shows does not say who it is. Its text is one sentence for the caller."""


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class Principal:
    """One who asks. Equal ones have the same rights, whenever what they show expires.

    `extra` is what else its authenticator said of it: see `lasting`. `expires_at` is in seconds
    since 1970; None: what it shows does not expire, as far as we know.
    """

    username: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()
    expires_at: float | None = field(default=None, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Work out the hash once: each right that is looked up asks for it, of all groups."""
        told = (self.username, self.uid, self.groups, self.extra)
        object.__setattr__(self, "_hash", hash(told))

    def __hash__(self) -> int:
        """Equal for equal ones."""
        return self._hash


def lasting(said: Mapping[str, Sequence[str]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What an authenticator says of somebody, in the order of keys, but nothing of a credential.

    Left out are its id, and the Pod and node where it is. With them, each Pod and each new token
    of one ServiceAccount would be somebody else, whose rights are asked about anew.
    """
    about_who = sorted(said.keys() - _OF_CREDENTIALS)
    return tuple((name, tuple(said[name])) for name in about_who)


def authenticated(principal: Principal) -> Principal:
    """The same in the group of all whom Kubernetes knows, where it would put it."""
    outside = principal.username == _ANONYMOUS
    if outside or {_AUTHENTICATED, _UNAUTHENTICATED} & set(principal.groups):
        return principal
    return replace(principal, groups=(*principal.groups, _AUTHENTICATED))


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRules:
    """What the CA of clients is believed.

    `of_cluster`: it is the cluster's own, so that names and groups that begin with `system:` are
    Kubernetes' own. `trust_domain`: it certifies ServiceAccounts of this domain by SPIFFE IDs; "":
    it has no such business, and URIs mean nothing.
    """

    of_cluster: bool = False
    trust_domain: str = ""

    def named_by(self, caller: Caller) -> tuple[Principal | None, str]:
        """Whom the certificate of a caller names; or None, and why, if there is more to say.

        What is meant for a token, and is none, counts before a certificate.
        """
        if caller.problem or caller.certificate is None:
            return None, caller.problem
        try:
            return self.principal(caller.certificate), ""
        except UnknownCallerError as error:
            return None, str(error)

    def principal(self, shown: ClientCertificate) -> Principal:
        """Who a certificate is of. Raises UnknownCallerError.

        With a SPIFFE ID it is a ServiceAccount. Else, as for kube-apiserver, the last common name
        is the user's name, and each organization a group (`CommonNameUserConversion`).
        """
        if self.trust_domain and any(uri.lower().startswith("spiffe:") for uri in shown.uris):
            return self._service_account(shown)
        username = shown.common_names[-1] if shown.common_names else ""
        if not username:
            raise UnknownCallerError("the client's certificate has no common name (CN)")
        groups = tuple(filter(None, shown.organizations))
        if not self.of_cluster:
            for field_name, value in (("CN", username), *(("O", group) for group in groups)):
                _check_not_reserved(field_name, value)
        principal = Principal(
            username=username,
            uid=_uid(shown),
            groups=groups,
            expires_at=shown.expires_at,
        )
        return authenticated(principal)

    def _service_account(self, shown: ClientCertificate) -> Principal:
        # X.509-SVID, 2: a certificate with more than one URI must be refused.
        if len(shown.uris) != 1:
            raise UnknownCallerError(
                f"the client's certificate has {len(shown.uris)} URIs; one with a SPIFFE ID has "
                "no other"
            )
        uri = shown.uris[0]
        domain, slash, path = uri.removeprefix(_SPIFFE).partition("/")
        if not uri.startswith(_SPIFFE) or domain != self.trust_domain:
            raise UnknownCallerError(
                f"the SPIFFE ID {quoted(uri)} of the client's certificate is not of the trust "
                f"domain {self.trust_domain}"
            )
        named = _SERVICE_ACCOUNT_PATH.fullmatch(slash + path)
        if not (
            named and is_dns_1123_label(named["namespace"]) and is_dns_1123_subdomain(named["name"])
        ):
            raise UnknownCallerError(
                f"the SPIFFE ID {quoted(uri)} of the client's certificate names no "
                "ServiceAccount, as /ns/NAMESPACE/sa/NAME does"
            )
        namespace, name = named["namespace"], named["name"]
        return Principal(
            username=f"system:serviceaccount:{namespace}:{name}",
            groups=(_SERVICE_ACCOUNTS, f"{_SERVICE_ACCOUNTS}:{namespace}", _AUTHENTICATED),
            expires_at=shown.expires_at,
        )


def _check_not_reserved(field_name: str, value: str) -> None:
    if value.startswith(RESERVED):
        raise UnknownCallerError(
            f"{field_name} {quoted(value)} of the client's certificate is reserved: only the "
            f"cluster's own CA may certify what begins with {RESERVED!r}"
        )


def _uid(shown: ClientCertificate) -> str:
    """The uid of a subject. Raises UnknownCallerError where kube-apiserver would refuse it."""
    if not shown.uids:
        return ""
    if len(shown.uids) > 1 or not shown.uids[0]:
        raise UnknownCallerError("the client's certificate has an empty uid, or more than one")
    return shown.uids[0]
