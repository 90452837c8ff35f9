"""The files of a certificate, its key and the clients' CA: read, checked, made into a context."""

from __future__ import annotations

import os
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from vmsvc_grpc.kube.credential_files import FileFlawError, filled_text_of
from vmsvc_grpc.model.problem import escaped, system_reason
from vmsvc_grpc.server.file_follower import identity
from vmsvc_grpc.server.tls import pem
from vmsvc_grpc.server.tls.validity import CertificateError, Validity, validity

# How often files that others replace while they are read are read again.
_READS_MAX = 5

# Of TLS 1.2, those that RFC 9113 allows (9.2.2). Those of TLS 1.3 are not chosen by this.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class TlsFilesError(Exception):
    """Files cannot be used for TLS. Its text is one line, which names the flag and the file."""

    def __init__(self, text: str) -> None:
        """The text is made safe to print."""
        super().__init__(escaped(text))


class TlsFiles(NamedTuple):
    """Where a certificate with its chain, its key, and the CAs of clients are; all in PEM."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class Usable:
    """A text in PEM that can be used, and when it expires, in seconds since 1970.

    Of a certificate and its key, one text; of CAs, the last one to expire counts.
    """

    text: str = field(repr=False)
    ends: float


def read_pair(certificate: Path, key: Path, now: float) -> Usable:
    """A certificate and its key, of one writing, which fit and are valid. Raises TlsFilesError."""
    texts = _read_together({"--tls-cert": certificate, "--tls-key": key})
    with _naming("--tls-cert", certificate):
        chain = pem.certificates(texts[0])
        valid = validity(chain[0].der())
        _check_time(valid, now)
    with _naming("--tls-key", key):
        # By itself: either file may hold other objects, too.
        usable = Usable("".join(each.text for each in (*chain, pem.key(texts[1]))), valid.ends)
    try:
        _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), usable)
    except OSError as error:
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            raise TlsFilesError(
                f"--tls-key {key} is not the key of the certificate in --tls-cert {certificate}"
            ) from error
        raise TlsFilesError(
            f"--tls-cert {certificate} and --tls-key {key} cannot be used: {_reason(error)}"
        ) from error
    return usable


def read_client_ca(path: Path, now: float) -> Usable:
    """The CAs of clients, of which one is valid at least. Raises TlsFilesError."""
    (text,) = _read_together({"--client-ca": path})
    with _naming("--client-ca", path):
        found = [validity(each.der()) for each in pem.certificates(text)]
        latest = max(found, key=lambda valid: valid.ends)
        if not any(valid.begins <= now < valid.ends for valid in found):
            _check_time(latest, now)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=text)
    except ssl.SSLError as error:
        raise TlsFilesError(f"--client-ca {path} cannot be used: {_reason(error)}") from error
    return Usable(text, latest.ends)


def context(pair: Usable, client_ca: Usable | None, protocol: str) -> ssl.SSLContext:
    """A server's context: TLS 1.2 or newer, and `protocol` by ALPN.

    With `client_ca`, a client may show a certificate, which must be of one of these CAs then.
    Sessions are not resumed: a client that resumes shows no certificate again, so one that has
    expired would count for as long. Raises TlsFilesError, as when no file can be opened.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_ciphers(_CIPHERS)
    made.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    made.num_tickets = 0
    made.set_alpn_protocols([protocol])
    try:
        _load(made, pair)
    except OSError as error:
        raise TlsFilesError(f"--tls-cert and --tls-key cannot be used: {_reason(error)}") from error
    if client_ca is not None:
        made.verify_mode = ssl.CERT_OPTIONAL
        made.load_verify_locations(cadata=client_ca.text)
    return made


def _read_together(paths: dict[str, Path]) -> list[str]:
    """The texts of files that belong together, by their flags. Raises TlsFilesError.

    Read again if one is replaced meanwhile, as a Secret's links are, so that all are of one
    writing.
    """
    texts: list[str] = []
    for _ in range(_READS_MAX):
        before = identity(list(paths.values()))
        texts = [_text(flag, path) for flag, path in paths.items()]
        if identity(list(paths.values())) == before:
            break
    return texts


def _text(flag: str, path: Path) -> str:
    try:
        return filled_text_of(path)
    except FileFlawError as error:  # It names the file.
        raise TlsFilesError(f"{flag} {error}") from error
    except OSError as error:
        raise TlsFilesError(f"{flag} {path}: {system_reason(error)}") from error


@contextmanager
def _naming(flag: str, path: Path) -> Iterator[None]:
    """Have an error about a text name its flag and file."""
    try:
        yield
    except (pem.PemError, CertificateError) as error:
        raise TlsFilesError(f"{flag} {path} {error}") from error


def _check_time(valid: Validity, now: float) -> None:
    if now >= valid.ends:
        raise CertificateError(f"expired at {at(valid.ends)}")
    if now < valid.begins:
        raise CertificateError(f"is not valid before {at(valid.begins)}; is our clock right?")


def at(seconds: float) -> str:
    """A time, given in seconds since 1970, as Kubernetes writes one."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _load(made: ssl.SSLContext, pair: Usable) -> None:
    """Have a context use a pair. Raises OSError, of which ssl.SSLError is one."""
    with _as_file(pair.text) as path:
        # A password of none, or OpenSSL would ask at the terminal for one.
        made.load_cert_chain(path, password="")


@contextmanager
def _as_file(text: str) -> Iterator[str]:
    """The path of a file with this text, on no disk: the `ssl` module takes keys from files alone.

    So what was checked is what is used, whatever stands in the file it came from by now.
    """
    if sys.platform != "linux":
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(text)
            file.flush()
            yield file.name
        return
    descriptor = os.memfd_create("tls")
    try:
        with open(descriptor, "w", closefd=False) as file:
            file.write(text)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    """Why a file cannot be used: OpenSSL's own words are like EE_KEY_TOO_SMALL."""
    if not isinstance(error, ssl.SSLError):
        return system_reason(error)
    return (error.reason or "OpenSSL does not say why").replace("_", " ").lower()
