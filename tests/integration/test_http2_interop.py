"""The transport on libnghttp2, judged by gRPC's interoperability tests, of its client in Go.

Left out are the cases of what no method of ours does: metadata of its own (custom_metadata),
messages with control characters, which every session escapes (special_status_message),
compression, and what is of credentials, load balancing or ORCA.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.http2_toy import serving
from tests.integration.test_http2_tls import CERTIFICATE, ours
from tests.interop import service
from tests.interop.judges import GRPC_GO, judge

WITHIN_S = 120.0

CASES = (
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "unimplemented_method",
    "unimplemented_service",
    "rpc_soak",
    "channel_soak",
)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("case", CASES)
async def test_a_case_passes(case: str, tls: bool) -> None:
    program = await asyncio.to_thread(judge, GRPC_GO)
    flags = [f"--test_case={case}", "--server_host=127.0.0.1"]
    if tls:
        flags += [
            "--use_tls",
            "--use_test_ca",
            f"--ca_file={CERTIFICATE}",
            "--server_host_override=localhost",
        ]
    # A machine under load is slow, not wrong.
    patience = ("--soak_per_iteration_max_acceptable_latency_ms=60000",)
    slow = ("--soak_overall_timeout_seconds=100",)
    async with serving(tls=ours() if tls else None, methods=service.methods()) as toy:
        judging = await asyncio.create_subprocess_exec(
            *(program, f"--server_port={toy.port}", *flags, *patience, *slow),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(WITHIN_S):
            said, _ = await judging.communicate()
    assert judging.returncode == 0, said.decode()
