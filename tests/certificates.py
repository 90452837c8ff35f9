"""Certificates for tests, made by `openssl`, and Secrets as Kubernetes mounts them."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.confidential import key

LOCAL = "IP:127.0.0.1,DNS:localhost"

_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")


class Pair(NamedTuple):
    """The files of a certificate and of its key."""

    certificate: Path
    key: Path


class Authority:
    """A CA of its own. Its files, and those that it makes, are in its folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._numbers = itertools.count()
        self.pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
        certificate, private = self.pair
        extension = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        _openssl(
            *("req", "-x509", *_EC, "-nodes", "-days", "30", "-subj", f"/CN={name}", *extension),
            *("-keyout", private, "-out", certificate),
        )
        key(private)

    @property
    def certificate(self) -> Path:
        """The file of its own certificate."""
        return self.pair.certificate

    def issue(self, subject: str = "/CN=vmsvc-grpc", names: str = LOCAL, *, days: int = 2) -> Pair:
        """A certificate for that subject and these alternative names; expired if `days` < 0."""
        stem = self._folder / f"{self.pair.certificate.stem}-{next(self._numbers)}"
        made = Pair(stem.with_suffix(".crt"), stem.with_suffix(".key"))
        asked, extensions = stem.with_suffix(".csr"), stem.with_suffix(".ext")
        extensions.write_text(f"subjectAltName={names}\n" if names else "")
        _openssl("req", *_EC, "-nodes", "-subj", subject, "-keyout", made.key, "-out", asked)
        _openssl(
            *("x509", "-req", "-in", asked, "-CA", self.pair.certificate, "-CAkey", self.pair.key),
            *("-days", str(days), "-extfile", extensions, "-out", made.certificate),
        )
        key(made.key)
        return made


def encrypted(key: Path, *, traditional: bool = False) -> str:
    """The text of a key under a password, in PKCS #8 or in OpenSSL's own form."""
    form = ("ec",) if traditional else ("pkcs8", "-topk8")
    return _openssl(
        *form,
        "-in",
        key,
        "-aes-128-cbc" if traditional else "-v2",
        *(() if traditional else ("aes-128-cbc",)),
        "-passout",
        "pass:secret",
    )


def _openssl(*arguments: str | Path) -> str:
    done = subprocess.run(["openssl", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Secret:
    """A Secret as the kubelet mounts it: files that are links through `..data`, swapped at once."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        self._numbers = itertools.count()

    def put(self, **contents: str | Path) -> None:
        """Swap in other contents, by the files' names with `_` for `.`; paths are copied."""
        before = self.directory / "..data"
        old = before.readlink() if before.is_symlink() else None
        new = self.directory / f"..{next(self._numbers)}"
        new.mkdir()
        for name, content in contents.items():
            text = content.read_text() if isinstance(content, Path) else content
            (new / name.replace("_", ".")).write_text(text)
        following = self.directory / "..data_tmp"
        following.symlink_to(new.name)
        following.rename(before)
        for name in contents:
            link = self.directory / name.replace("_", ".")
            if not link.is_symlink():
                link.symlink_to(Path("..data") / link.name)
        for link in self.directory.iterdir():
            if link.is_symlink() and not os.path.lexists(link.resolve()) and link != before:
                link.unlink()
        if old is not None:
            shutil.rmtree(self.directory / old)
