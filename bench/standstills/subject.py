"""The real program, under a witness: `vmsvc-grpc serve` with these arguments.

It speaks the bench's protocol, a JSON object a line (`bench.process`), and logs to standard
error.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import sys
from typing import Any

from bench.standstills.steps import Steps, WatchedLoop
from bench.standstills.witness import Witness
from vmsvc_grpc import flags
from vmsvc_grpc.__main__ import config, parser
from vmsvc_grpc.app import App
from vmsvc_grpc.logs.about import SHOWN
from vmsvc_grpc.logs.formats import TextFormatter
from vmsvc_grpc.logs.repeats import Repeats

_ADDRESSES = re.compile(r"gRPC\s+on (\S+)\s+HTTP\s+on (\S+)")


class _Lines(logging.Handler):
    """Counts what is logged; notes what is said to whoever starts the program."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.said: list[str] = []
        self.serving = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1
        if (text := getattr(record, SHOWN, None)) is not None:
            self.said.append(text)
            if text.startswith("serving "):
                self.serving.set()


async def _serve(arguments: list[str], steps: Steps, lines: _Lines) -> None:
    given = flags.settings(flags.SERVE, parser().parse_args(["serve", *arguments]), {})
    app, witness = App(config(given, {}), Repeats()), Witness(steps)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(app.run())
        watching = tasks.create_task(witness.run())
        await _obey(witness, steps, lines)
        running.cancel()
        watching.cancel()


async def _obey(witness: Witness, steps: Steps, lines: _Lines) -> None:
    """Say where it serves, once it does; then answer what is asked, until told to quit."""
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    await lines.serving.wait()
    found = _ADDRESSES.search("\n".join(lines.said))
    assert found is not None, "it says where it listens before it serves"
    _answer({"address": found[1], "http": found[2], "pid": os.getpid()})
    while line := await commands.readline():
        match json.loads(line)["do"]:
            case "quit":
                return
            case "mark":
                witness.forget()
                lines.count = 0
                _answer({})
            case "report":
                _answer(
                    {
                        "lags_s": witness.lags_s,
                        "stood_s": witness.stood_s,
                        "spent_s": witness.spent_s,
                        "kept_s": witness.kept_s,
                        "log_lines": lines.count,
                        "longest_step_s": steps.longest_s,
                        "steps": steps.worst(5),
                        "places": witness.places.most_common(5),
                    }
                )


def _answer(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter())
    handler.setLevel(logging.ERROR)
    counted = _Lines()
    logging.basicConfig(level=logging.INFO, handlers=[handler, counted])
    loop = WatchedLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(_serve(sys.argv[1:], loop.steps, counted))
