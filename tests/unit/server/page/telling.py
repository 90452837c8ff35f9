"""What the rest of the process tells a page, in tests: only what a test says differs."""

from __future__ import annotations

from typing import Any

from vmsvc_grpc.server.page.page import PageFacts


def facts(**given: Any) -> PageFacts:
    """A server that is well, has no clients, and writes nothing."""
    plain = PageFacts(
        version="1.2.3",
        reads="a test",
        not_ready=lambda: None,
        troubles=tuple,
        sources=tuple,
        writing=lambda: "nothing is written",
        streams=tuple,
        streams_open=lambda: 0,
        connections=lambda: 0,
    )
    return plain._replace(**given)
