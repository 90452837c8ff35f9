"""Secrets that tests make, and the search for them in all that is said: logs, metrics, statuses."""

from __future__ import annotations

import re
from pathlib import Path

# A part that is long enough to be no chance, and is cut off by no change at a token's end.
_PART = 32

# The numbers of a key of P-256, in PKCS #8: the secret one ends the first line.
_LINES_OF_CURVES = 3

_secrets: dict[str, str] = {}


def token(text: str) -> str:
    """The bearer token, noted: whoever reads it in any output could use it."""
    # Of a JWT only the signature is secret.
    _secrets[text.rpartition(".")[2][:_PART]] = "a bearer token"
    return text


def key(path: Path) -> Path:
    """The file of a private key in PEM, noted likewise."""
    lines = re.findall(r"^[A-Za-z0-9+/=]{40,}$", path.read_text(), re.MULTILINE)
    # The rest is public, and of an elliptic curve's key most is. There 10 bytes are enough.
    part = lines[len(lines) // 2] if len(lines) > _LINES_OF_CURVES else lines[0][-14:]
    _secrets[part] = "a private key"
    return path


def leaked(text: str) -> tuple[str, ...]:
    """What secrets are in a text, by their kinds."""
    return tuple(kind for secret, kind in _secrets.items() if secret in text)
