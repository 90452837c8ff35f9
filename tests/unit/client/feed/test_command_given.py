"""What a command is given on its standard input, which it need not read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from vmsvc.feed.command import run


async def test_a_command_reads_what_it_is_given(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    await run(["sh", "-c", f"cat > {heard}"], timeout_s=30, given=b"a\nb")
    assert heard.read_bytes() == b"a\nb"


async def test_a_command_that_is_given_nothing_finds_the_end(tmp_path: Path) -> None:
    await run(["cat"], timeout_s=30)


@pytest.mark.parametrize("runs", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_command_may_end_before_it_is_given_anything(runs: Callable[[Any], None]) -> None:
    """Side by side, as most have ended then when their turn comes. uvloop refuses to write then."""

    async def side_by_side() -> None:
        await asyncio.gather(*(run(["true"], timeout_s=30, given=b"x") for _ in range(20)))

    runs(side_by_side())


async def test_a_command_may_end_before_it_is_given_all() -> None:
    await run(["true"], timeout_s=30, given=b"x" * 1_000_000)
