"""Certificates as OpenSSL reads them, made by its command line for a hundred years."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from vmsvc_grpc.server.access.certificate import ClientCertificate, client_certificate

FOLDER = Path(__file__).parent / "certificates"


def read(name: str) -> ClientCertificate:
    """The certificate of that name, by the function that `getpeercert` is made of."""
    path = FOLDER / f"{name}.pem"
    native: Any = ssl._ssl  # type: ignore[attr-defined]
    return client_certificate(native._test_decode_cert(str(path)))


@pytest.mark.parametrize(
    ("name", "common_names", "organizations", "uids", "uris"),
    [
        pytest.param(
            "several-names", ("first", "last"), ("one", "two"), (), (), id="several names, in order"
        ),
        pytest.param("one-rdn", ("inner",), ("one", "two"), (), (), id="all names in one set"),
        pytest.param("uid", ("ann",), (), ("u-1",), (), id="the uid that Kubernetes writes"),
        pytest.param(
            "spiffe",
            (),
            (),
            (),
            ("spiffe://cluster.local/ns/shop/sa/web",),
            id="no subject, and a URI beside a DNS name",
        ),
        pytest.param(
            "utf8", ('Jörg "x",CN=admin',), (), (), (), id="a value that looks like two names"
        ),
    ],
)
def test_names_are_read_as_they_stand_in_the_certificate(
    name: str,
    common_names: tuple[str, ...],
    organizations: tuple[str, ...],
    uids: tuple[str, ...],
    uris: tuple[str, ...],
) -> None:
    found = read(name)
    assert (found.common_names, found.organizations) == (common_names, organizations)
    assert (found.uids, found.uris) == (uids, uris)


def test_the_end_is_openssls() -> None:
    # `openssl x509 -enddate`.
    assert read("spiffe").expires_at == 4949444470.0
