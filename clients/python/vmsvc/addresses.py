"""Addresses as text. Pure."""

from __future__ import annotations


def reached(address: str, port: int | str) -> str:
    """Address and port, or several, as in a URL: an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
