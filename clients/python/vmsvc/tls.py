"""Credentials for TLS from files, checked before they are used."""

from __future__ import annotations

import contextlib
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
    files are read once: see `TlsFiles`. Raises FilesError.
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


class TlsFiles:
    """The same `credentials`, asked for at each call and made anew once the files have changed.

    Kubernetes and cert-manager replace certificates before they expire. Connections that are there
    keep what they began with.
    """

    def __init__(
        self, cacert: str | None = None, cert: str | None = None, key: str | None = None
    ) -> None:
        """Reads the files. Raises FilesError."""
        self._paths = (cacert, cert, key)
        self._seen = self._stamps()
        self._made = credentials(*self._paths)

    def __call__(self) -> grpc.ChannelCredentials:
        """The credentials of now. The last ones while the files are of no use, as in mid-change."""
        seen = self._stamps()
        if seen != self._seen:
            with contextlib.suppress(FilesError):
                self._made, self._seen = credentials(*self._paths), seen
        return self._made

    def _stamps(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(map(_stamp, filter(None, self._paths)))


def _stamp(path: str) -> tuple[int, int, int] | None:
    """What differs once a file is replaced or written; None if it is not there."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise FilesError(f"{path}: {error.strerror or error}") from error
