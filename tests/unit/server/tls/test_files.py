from __future__ import annotations

import contextlib
import os
import shutil
import ssl
import time
from pathlib import Path

import pytest

from tests.certificates import Authority, Pair, encrypted
from vmsvc_grpc.kube.credential_files import filled_text_of
from vmsvc_grpc.server.tls.files import TlsFilesError, Usable, context, read_client_ca, read_pair
from vmsvc_grpc.server.tls.validity import CertificateError, validity

DAY_S = 86_400.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def good(authority: Authority) -> Pair:
    return authority.issue(days=2)


def pem_of(name: str) -> str:
    return f"-----BEGIN {name}-----\nTUlJ\n-----END {name}-----\n"


def test_a_pair_that_fits_says_when_it_expires(good: Pair) -> None:
    now = time.time()
    usable = read_pair(*good, now)
    assert now + DAY_S < usable.ends <= now + 2 * DAY_S
    assert "PRIVATE" not in repr(usable)


def test_a_chain_is_sent_whole_and_keys_beside_it_are_not_taken(
    authority: Authority, good: Pair, tmp_path: Path
) -> None:
    other = authority.issue()
    certificate, key = tmp_path / "both.crt", tmp_path / "both.key"
    chain = good.certificate.read_text() + authority.certificate.read_text()
    certificate.write_text(f"{other.key.read_text()}Bag Attributes\n{chain}")
    key.write_text(other.certificate.read_text() + good.key.read_text())
    assert read_pair(certificate, key, time.time()).text.count("BEGIN CERTIFICATE") == 2


def bad_pairs() -> dict[str, tuple[str, str, str]]:
    """What stands in both files, of CERTIFICATE, KEY and OTHER_KEY, and the words about it."""
    return {
        "another key": ("{certificate}", "{other_key}", "is not the key of the certificate in"),
        "empty certificate": ("", "{key}", "crt is empty"),
        "empty key": ("{certificate}", " \n", "key is empty"),
        "swapped files": ("{key}", "{certificate}", "crt has no certificate in PEM"),
        "cut certificate": ("{cut_certificate}", "{key}", "crt is cut off"),
        "cut key": ("{certificate}", "{cut_key}", "key is cut off"),
        "no base64": (pem_of("CERTIFICATE").replace("TUlJ", "*"), "{key}", "is not base64"),
        "no certificate": (pem_of("CERTIFICATE"), "{key}", "crt is no certificate"),
        "two keys": ("{certificate}", "{key}{other_key}", "more than one private key"),
        "no key in it": ("{certificate}", pem_of("PRIVATE KEY"), "cannot be used"),
        "encrypted": ("{certificate}", "{encrypted}", "key is encrypted"),
        "encrypted of old": ("{certificate}", "{encrypted_of_old}", "key is encrypted"),
        "expired": ("{expired}", "{expired_key}", "crt expired at 20"),
    }


@pytest.mark.parametrize("case", bad_pairs())
def test_what_cannot_be_used_is_one_line_that_names_the_file(
    case: str, authority: Authority, good: Pair, tmp_path: Path
) -> None:
    certificate, key, says = bad_pairs()[case]
    other, expired = authority.issue(), authority.issue(days=-1)
    texts = {
        "certificate": good.certificate.read_text(),
        "key": good.key.read_text(),
        "cut_certificate": good.certificate.read_text()[:-40],
        "cut_key": good.key.read_text()[:-40],
        "other_key": other.key.read_text(),
        "encrypted": encrypted(good.key),
        "encrypted_of_old": encrypted(good.key, traditional=True),
        "expired": expired.certificate.read_text(),
        "expired_key": expired.key.read_text(),
    }
    files = Pair(tmp_path / "tls.crt", tmp_path / "tls.key")
    files.certificate.write_text(certificate.format(**texts))
    files.key.write_text(key.format(**texts))
    with pytest.raises(TlsFilesError, match=says) as error:
        read_pair(*files, time.time())
    text = str(error.value)
    assert str(tmp_path) in text
    assert "--tls-" in text
    assert "\n" not in text
    assert "TUlJ" not in text


@pytest.mark.parametrize("file", ["certificate", "key"])
def test_what_cannot_be_read_is_no_pair(file: str, good: Pair, tmp_path: Path) -> None:
    for make in (
        lambda path: None,
        lambda path: path.mkdir(),
        os.mkfifo,
        lambda path: path.write_bytes(b"\x30\x82\xff\xfe"),
        lambda path: path.write_bytes(b"x" * (4 * 1024 * 1024 + 1)),
    ):
        path = tmp_path / "strange"
        make(path)
        with pytest.raises(TlsFilesError, match="strange"):
            read_pair(*good._replace(**{file: path}), time.time())
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)


def test_a_pair_is_refused_before_it_is_valid(good: Pair) -> None:
    with pytest.raises(TlsFilesError, match="is not valid before"):
        read_pair(*good, time.time() - DAY_S)


def test_a_ca_is_usable_while_one_in_the_file_is(authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "ca.crt"
    old = Authority(tmp_path / "old").issue(days=-1).certificate.read_text()
    path.write_text(old + authority.certificate.read_text())
    assert read_client_ca(path, time.time()).ends > time.time() + DAY_S
    with pytest.raises(TlsFilesError, match=r"--client-ca .*ca\.crt expired at"):
        read_client_ca(path, time.time() + 40 * DAY_S)
    path.write_text("nothing")
    with pytest.raises(TlsFilesError, match="has no certificate in PEM"):
        read_client_ca(path, time.time())


def shaken(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends of a connection after their handshake, in memory. Raises ssl.SSLError."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(up, down, server_side=True)
    theirs = client.wrap_bio(down, up, server_hostname="localhost")
    for _ in range(4):
        for end in (theirs, ours):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ours, theirs


def client_context(authority: Authority, shown: Pair | None = None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=authority.certificate)
    made.set_alpn_protocols(["h2", "http/1.1"])
    if shown:
        made.load_cert_chain(*shown)
    return made


def ours(pair: Pair, client_ca: Path | None = None) -> ssl.SSLContext:
    ca = read_client_ca(client_ca, time.time()) if client_ca else None
    return context(read_pair(*pair, time.time()), ca, "h2")


def test_a_handshake_agrees_on_http2_and_resumes_nothing(authority: Authority, good: Pair) -> None:
    for most in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        client = client_context(authority)
        client.maximum_version = most
        server, there = shaken(ours(good), client)
        assert server.selected_alpn_protocol() == "h2"
        assert server.version() == most.name.replace("_", ".")
        assert there.session is None or not there.session.has_ticket


def test_a_client_may_show_a_certificate_and_it_must_be_of_the_ca(
    authority: Authority, good: Pair, tmp_path: Path
) -> None:
    known, unknown = Authority(tmp_path, "known"), Authority(tmp_path, "unknown")
    server = ours(good, known.certificate)
    shown = known.issue("/CN=shop/O=team", "")
    for pair, seen in (
        (None, None),
        (shown, ssl.PEM_cert_to_DER_cert(shown.certificate.read_text())),
    ):
        end, _ = shaken(server, client_context(authority, pair))
        assert end.getpeercert(binary_form=True) == seen
    for pair in (unknown.issue(), known.issue(days=-1)):
        with pytest.raises(ssl.SSLCertVerificationError):
            shaken(server, client_context(authority, pair))


def test_a_swap_between_two_reads_gives_no_mixture(
    authority: Authority, good: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Secret that is swapped after its certificate was read, and before its key."""

    other = authority.issue()
    here = Pair(tmp_path / "tls.crt", tmp_path / "tls.key")
    shutil.copy(good.certificate, here.certificate)
    shutil.copy(good.key, here.key)
    reads: list[Path] = []

    def swapped(path: Path) -> str:
        if len(reads) == 1:
            for new, place in zip(other, here, strict=True):
                shutil.copy(new, tmp_path / "new")
                (tmp_path / "new").rename(place)
        reads.append(path)
        return filled_text_of(path)

    monkeypatch.setattr("vmsvc_grpc.server.tls.files.filled_text_of", swapped)
    assert read_pair(*here, time.time()).text == read_pair(*other, time.time()).text


def test_a_text_that_is_no_certificate_has_no_validity(good: Pair) -> None:
    der = ssl.PEM_cert_to_DER_cert(good.certificate.read_text())
    assert validity(der).begins < time.time() < validity(der).ends
    for size in range(0, len(der) - 100, 7):
        with pytest.raises(CertificateError):
            validity(der[:size])


@pytest.mark.parametrize("at", range(0, 160, 3))
def test_a_broken_certificate_is_an_error_or_a_time(good: Pair, at: int) -> None:
    der = bytearray(ssl.PEM_cert_to_DER_cert(good.certificate.read_text()))
    for value in (0, 0x30, 0x7F, 0x80, 0x84, 0xFF):
        der[at] = value
        with contextlib.suppress(CertificateError):
            assert validity(bytes(der)).ends > 0


def test_a_usable_text_is_not_shown() -> None:
    assert "secret" not in repr(Usable("secret", 0.0))
