"""The command: asks everything, writes the report, and says by its status whether all is well."""

from __future__ import annotations

import asyncio
from typing import TextIO

from vmsvc_grpc.check.cluster import api_server
from vmsvc_grpc.check.findings import Grade
from vmsvc_grpc.check.machine import machine
from vmsvc_grpc.check.report import Sections, counts, write
from vmsvc_grpc.config import Config
from vmsvc_grpc.exits import EXIT_FAILED


def check(config: Config, form: str, out: TextIO) -> int:
    """Check what `serve` would need with these settings; the exit status. Raises OutputError."""
    sections = asyncio.run(_sections(config))
    write(sections, form, out)
    return EXIT_FAILED if counts(sections)[Grade.FAILED] else 0


async def _sections(config: Config) -> Sections:
    if config.credentials is None:
        return {"this machine": machine(config)}
    return {
        "API server": await api_server(config.credentials, config),
        "this machine": machine(config),
    }
