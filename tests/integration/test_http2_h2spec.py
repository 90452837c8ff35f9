"""The transport on libnghttp2, judged by h2spec: 137 of its 145 tests pass, and these do not."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.integration.http2_toy import serving
from tests.integration.test_http2_tls import ours
from tests.interop.judges import H2SPEC, judge

TESTS = 145
WITHIN_S = 300.0

# All are libnghttp2's own ways, and its server nghttpd has them, too.
FAILING = {
    # Frames on a stream that was closed are ignored. It keeps no record of which end closed a
    # stream, and the RFC lets who has sent a reset ignore what is still under way.
    ("http2/5.1", "closed: Sends a DATA frame after sending RST_STREAM frame"),
    ("http2/5.1", "closed: Sends a HEADERS frame after sending RST_STREAM frame"),
    ("http2/5.1", "closed: Sends a DATA frame"),
    ("http2/5.1", "closed: Sends a HEADERS frame"),
    # So are those on a stream with a smaller number, which was closed when it was passed over.
    ("http2/5.1.1", "Sends stream identifier that is numerically smaller than previous"),
    # RFC 9113, 5.3.2, has taken priorities out of HTTP/2.
    ("http2/5.3.1", "Sends PRIORITY frame that depend on itself"),
    ("http2/6.3", "Sends a PRIORITY frame with 0x0 stream identifier"),
    # Not only the stream but the connection ends, with the code that is asked for.
    (
        "http2/6.9.1",
        (
            "Sends multiple WINDOW_UPDATE frames increasing the flow control window to above "
            "2^31-1 on a stream"
        ),
    ),
}

# Some cases race: in generic/3.8 h2spec sends a ping after its GOAWAY, and fails if its connection
# has ended by then, as one without streams does. So what passes once of so many times passes.
TIMES = 3

# The report is XML but for its texts, which may be of any bytes.
CASE = re.compile(rb'<testcase package="(.*?)" classname="(.*?)"[^>]*>(\s*<(?:error|failure))?')


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
async def test_h2spec_finds_what_is_known_and_no_more(tls: bool, tmp_path: Path) -> None:
    failing = await judged(tls, tmp_path, "first")
    for time in range(1, TIMES):
        if failing == FAILING:
            break
        failing &= await judged(tls, tmp_path, f"again-{time}")
    assert failing == FAILING


async def judged(tls: bool, folder: Path, name: str) -> set[tuple[str, str]]:
    """The cases of h2spec that fail: package and name. Its report is called `name`."""
    report = folder / f"{name}.xml"
    program = await asyncio.to_thread(judge, H2SPEC)
    flags = ("--tls", "--insecure") if tls else ()
    async with serving(tls=ours() if tls else None) as toy:
        told = asyncio.subprocess.DEVNULL
        judging = await asyncio.create_subprocess_exec(
            *(program, "-h", "127.0.0.1", "-p", str(toy.port), "-j", str(report), *flags),
            stdout=told,
            stderr=told,
        )
        async with asyncio.timeout(WITHIN_S):
            await judging.wait()
    cases = CASE.findall(report.read_bytes())
    assert len(cases) == TESTS
    return {(package.decode(), case.decode()) for package, case, failed in cases if failed}
