"""Certificates and keys in PEM (RFC 7468): what a text holds, and what is wrong with it."""

from __future__ import annotations

import base64
import binascii
import re
from typing import NamedTuple

_BOUNDARY = re.compile(r"-----(BEGIN|END) ([A-Z0-9 ]+)-----\s*")

_CERTIFICATES = frozenset({"CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"})
_KEY = "PRIVATE KEY"

# RFC 1421, 4.6.1.1: how OpenSSL marks an encrypted key that is not in PKCS #8.
_ENCRYPTED_HEADER = "Proc-Type: 4,ENCRYPTED"


class PemError(ValueError):
    """A text cannot be used; the message goes on after the file's name, and quotes nothing."""


class Block(NamedTuple):
    """One object of a text: its label, and its lines."""

    label: str
    lines: list[str]

    @property
    def text(self) -> str:
        """The object by itself, in PEM."""
        return "\n".join(
            (f"-----BEGIN {self.label}-----", *self.lines, f"-----END {self.label}-----", "")
        )

    def der(self) -> bytes:
        """The object in DER, if it has no headers. Raises PemError."""
        try:
            return base64.b64decode("".join(self.lines), validate=True)
        except binascii.Error as error:
            raise PemError("has a certificate that is not base64") from error


def certificates(text: str) -> list[Block]:
    """The certificates of a text, in order; at least one. Raises PemError."""
    found = [block for block in _blocks(text) if block.label in _CERTIFICATES]
    if not found:
        raise PemError("has no certificate in PEM")
    return found


def key(text: str) -> Block:
    """The private key of a text, which needs no password. Raises PemError."""
    keys = [block for block in _blocks(text) if block.label.endswith(_KEY)]
    if not keys:
        raise PemError("has no private key in PEM")
    if len(keys) > 1:
        raise PemError("has more than one private key")
    (found,) = keys
    if found.label.startswith("ENCRYPTED") or _ENCRYPTED_HEADER in found.lines:
        raise PemError("is encrypted, and nobody can be asked for its password here; decrypt it")
    return found


def _blocks(text: str) -> list[Block]:
    """The objects of a text. Raises PemError if one is cut off."""
    found: list[Block] = []
    within: Block | None = None
    for line in text.splitlines():
        boundary = _BOUNDARY.fullmatch(line)
        if boundary is None:
            if within is not None:
                within.lines.append(line.strip())
        elif boundary[1] == "BEGIN" and within is None:
            within = Block(boundary[2], [])
        elif boundary[1] == "END" and within is not None and within.label == boundary[2]:
            found.append(within)
            within = None
        else:
            raise PemError("is cut off: BEGIN and END do not go together")
    if within is not None:
        raise PemError("is cut off: its last END is not there")
    return found
