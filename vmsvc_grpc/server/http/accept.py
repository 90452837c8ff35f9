"""Which of our formats a client prefers, by its Accept header (RFC 9110, 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence

_QUALITY = re.compile(r"q=(0(\.[0-9]{0,3})?|1(\.0{0,3})?)", re.IGNORECASE)


def prefers(accept: str, offered: Sequence[str]) -> str:
    """The media type of `offered` with the highest weight; of equals, the later one.

    Wildcards count for the first one, which is also the result if the client accepts none.
    Parameters other than `q` are ignored. Never raises. O(`accept`).
    """
    weights = {_kind(part): _weight(part) for part in accept.split(",")}
    anything = max(weights.get("*/*", 0.0), weights.get(f"{offered[0].split('/')[0]}/*", 0.0))
    best, most = offered[0], max(weights.get(offered[0], 0.0), anything)
    for media_type in offered[1:]:
        weight = weights.get(media_type, 0.0)
        if weight > 0 and weight >= most:
            best, most = media_type, weight
    return best


def _kind(part: str) -> str:
    return part.partition(";")[0].strip().lower()


def _weight(part: str) -> float:
    """The weight that a client gives to a format; 1 if it gives none."""
    for parameter in part.split(";")[1:]:
        text = parameter.strip()
        if text[:2].lower() == "q=":
            return float(text[2:]) if _QUALITY.fullmatch(text) else 0.0
    return 1.0
