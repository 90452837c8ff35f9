"""A certificate for 127.0.0.1, made for one run by `openssl`."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.process import BenchError


@dataclass(frozen=True, slots=True)
class Certificate:
    """The files of a certificate that signs itself, and of its key."""

    file: Path
    key: Path


@cache
def certificate() -> Certificate:
    """The one of this process; its files go when the process ends. Raises BenchError."""
    folder = Path(_folder().name)
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=bench"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    try:
        subprocess.run(
            [*command, "-keyout", made.key, "-out", made.file], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise BenchError(f"openssl makes no certificate: {error}") from error
    return made


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="bench-certificate-")
