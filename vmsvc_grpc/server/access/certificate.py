"""What a client's certificate says of it, as OpenSSL reads it. Pure.

Reads no DER: the TLS library has read the certificate to verify it, and a second reader could
understand another name than the one that was verified.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UID_ATTRIBUTE = "1.3.6.1.4.1.57683.2"
"""The attribute of a subject in which Kubernetes puts the uid of a user (KEP-740)."""


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate that has been verified. Names are in its order, and may be empty.

    `uris` are those of its alternative names. It expires at `expires_at`, in seconds since 1970.
    """

    common_names: tuple[str, ...]
    organizations: tuple[str, ...] = ()
    uids: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    expires_at: float = field(default=0.0, kw_only=True)


def client_certificate(peer: Mapping[str, Any]) -> ClientCertificate:
    """The certificate that `ssl`'s `getpeercert` has as `peer`.

    That must not be empty, which it is where nothing was verified.
    """
    attributes = [attribute for names in peer["subject"] for attribute in names]
    return ClientCertificate(
        common_names=_values(attributes, "commonName"),
        organizations=_values(attributes, "organizationName"),
        uids=_values(attributes, UID_ATTRIBUTE),
        uris=_values(peer.get("subjectAltName", ()), "URI"),
        expires_at=float(ssl.cert_time_to_seconds(peer["notAfter"])),
    )


def _values(pairs: Any, name: str) -> tuple[str, ...]:
    return tuple(str(pair[1]) for pair in pairs if pair[0] == name)
