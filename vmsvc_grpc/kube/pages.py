"""How a list of an API server goes from page to page. Pure."""

from __future__ import annotations

import msgspec


def next_token(asked: str, named: str) -> str:
    """The token of the next page, "" after the last; `named` is what the page asked for names.

    Raises msgspec.DecodeError if a page leads to itself: the list would have no end, and nobody
    would hear of it.
    """
    if asked and named == asked:
        raise msgspec.DecodeError("metadata.continue: is that of the page itself")
    return named
