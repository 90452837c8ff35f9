"""The Runtime API's lines and prompts, and what HAProxy does when it does not answer them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.program import PATIENCE_S
from vmsvc.feed.haproxy import runtime
from vmsvc.feed.haproxy.runtime import Place, PlaceError, Runtime
from vmsvc.feed.output import OutputError

Answering = Callable[[str], str]


@asynccontextmanager
async def peer(
    answering: Answering, *, first: str = "\n> ", prompt: str = "\n> "
) -> AsyncIterator[tuple[Runtime, list[str]]]:
    """Something that answers as a HAProxy would, and the lines that it was sent."""
    heard: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for line in reader:
            heard.append(line.decode().rstrip("\n"))
            text = first if heard[-1] == "prompt" else answering(heard[-1]) + prompt
            # In pieces, as they come from a busy one.
            for start in range(0, len(text), 7):
                writer.write(text[start : start + 7].encode())
                await writer.drain()
            if not text.endswith("> "):
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield Runtime(Place(host="127.0.0.1", port=port), timeout_s=5), heard
    finally:
        server.close()


async def test_answers_come_in_order_whatever_lines_they_have() -> None:
    said = {"one": "1\n# a > b\n", "two": "", "three": "a\n\nb > \n"}
    async with peer(lambda line: said[line]) as (haproxy, heard):
        assert await haproxy.ask(["one", "two", "three"]) == ["1\n# a > b", "", "a\n\nb >"]
        assert heard == ["prompt", "one", "two", "three"]


async def test_a_prompt_may_come_in_pieces() -> None:
    text = b"\n> one\n\n> \n> "
    for cut in range(len(text) + 1):
        reader = asyncio.StreamReader()
        answers = runtime._Answers(reader)
        reader.feed_data(text[:cut])
        reading = asyncio.create_task(three_of(answers))
        while reader._buffer:  # type: ignore[attr-defined] # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
        reader.feed_data(text[cut:])
        assert await reading == ["", "one", ""]


async def three_of(answers: runtime._Answers) -> list[str]:
    return [await answers.next() for _ in range(3)]


async def test_a_master_hands_commands_on_to_the_worker() -> None:
    def answering(line: str) -> str:
        assert line.startswith("@1 ")
        return f"{line}\n"

    async with peer(answering, first="master> ", prompt="\nmaster> ") as (haproxy, _):
        assert await haproxy.ask(["one", "two"]) == ["@1 one", "@1 two"]


async def test_a_version_that_has_dynamic_servers_as_an_experiment_is_asked_for_it() -> None:
    experimental = False

    def answering(line: str) -> str:
        nonlocal experimental
        if line == "experimental-mode on":
            experimental = True
            return ""
        refused = line.startswith("add") and not experimental
        return "This command is restricted to experimental mode only.\n" if refused else line

    async with peer(answering) as (haproxy, heard):
        assert await haproxy.ask(["set this", "add that"]) == ["set this", "add that"]
        assert heard.count("experimental-mode on") == 1


async def test_one_that_closes_early_is_away() -> None:
    async with peer(lambda line: "1\n# half", prompt="") as (haproxy, _):
        with pytest.raises(OutputError, match=r"^HAProxy at 127.0.0.1:\d+ has closed the conn"):
            await haproxy.ask(["show servers state"])


async def test_one_that_does_not_answer_is_given_up() -> None:
    async with peer(lambda line: "", first="no prompt> ") as (haproxy, _):
        late = Runtime(haproxy.place, timeout_s=0.05)
        with pytest.raises(OutputError, match=r"has not answered within 0.05 s$"):
            await late.ask(["show servers state"])


async def test_one_that_answers_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_ANSWER_BYTES_MAX", 1000)
    async with peer(lambda line: "x" * 300_000) as (haproxy, _):
        with pytest.raises(OutputError, match=r"answers more than 1000 bytes$"):
            await haproxy.ask(["show servers state"])


async def test_one_that_reads_no_more_is_given_up(tmp_path: Path) -> None:
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"\n> ")
        await over.wait()
        writer.close()

    place = tmp_path / "socket"
    async with await asyncio.start_unix_server(serve, str(place)):
        late = Runtime(Place(path=str(place)), timeout_s=0.5)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(OutputError, match=r"has not answered within 0.5 s$"):
                await late.ask(["x" * 10_000_000])
        over.set()


async def test_one_that_is_not_there_is_named(tmp_path: Path) -> None:
    gone = Runtime(Place(path=str(tmp_path / "none.sock")), timeout_s=5)
    with pytest.raises(OutputError, match=rf"^HAProxy at {re.escape(str(tmp_path))}/none.sock "):
        await gone.ask(["show info"])


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("/run/haproxy/admin.sock", Place(path="/run/haproxy/admin.sock")),
        ("127.0.0.1:9999", Place(host="127.0.0.1", port=9999)),
        ("[::1]:9999", Place(host="::1", port=9999)),
        ("lb.example:1", Place(host="lb.example", port=1)),
    ],
)
def test_a_place_is_read_and_shown(text: str, place: Place) -> None:
    assert Place.of(text) == place
    assert str(place) == text


@pytest.mark.parametrize("text", ["", "admin.sock", ":9999", "host:", "host:0", "host:65536"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(PlaceError, match="is neither /PATH of a socket nor HOST:PORT"):
        Place.of(text)
