"""Credentials for TLS from files, checked before they are used."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc


class FilesError(ValueError):
    """A file cannot be used; the message is one line that names it."""


def credentials(
    cacert: str | None = None, cert: str | None = None, key: str | None = None
) -> grpc.ChannelCredentials:
    """Credentials that trust the CAs of the file `cacert`, or the system's.

    They show the certificate of the file `cert`, whose key is in `key`, if both are given. The
    files are read once. Raises FilesError.
    """
    roots = _read(cacert) if cacert else None
    chain, private = (_read(cert), _read(key)) if cert and key else (None, None)
    checked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if roots is not None:
        try:
            checked.load_verify_locations(cadata=roots.decode("ascii", "ignore"))
        except (ssl.SSLError, ValueError) as error:
            raise FilesError(f"{cacert} holds no certificate in PEM") from error
    if cert and key:
        try:
            # Without a password, OpenSSL would ask for one at the terminal.
            checked.load_cert_chain(cert, key, password="")
        except ssl.SSLError as error:
            mismatch = error.reason == "KEY_VALUES_MISMATCH"
            flaw = "do not go together" if mismatch else "are no certificate and plain key in PEM"
            raise FilesError(f"{cert} and {key} {flaw}") from error
    return grpc.ssl_channel_credentials(roots, private, chain)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise FilesError(f"{path}: {error.strerror or error}") from error
