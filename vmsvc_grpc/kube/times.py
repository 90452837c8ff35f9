"""Moments as Kubernetes writes them. Pure."""

from __future__ import annotations

from datetime import datetime


def time_text(at: datetime) -> str:
    """A moment in UTC as a Kubernetes `Time`: RFC 3339, in whole seconds."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_time_text(at: datetime) -> str:
    """A moment in UTC as a Kubernetes `MicroTime`, as in Leases and Events."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
