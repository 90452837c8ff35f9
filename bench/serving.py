"""What the Python servers under test have in common: their flags, and their commands.

BENCH protocol, a JSON object a line. It says where it serves, then it does what standard
input tells it: make changes on a fixed schedule, or end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.dataset import DataSet
from bench.standstills.steps import Steps
from bench.standstills.witness import Witness
from vmsvc_grpc.server.tls.files import context, read_pair
from vmsvc_grpc.server.tls.rotation import H2

Change = Callable[[int], Callable[[], object]]
"""Prepares the change of this sequence number, and returns what makes it.

A VM's bytes come to a server from elsewhere: to write them is no part of what it does with them.
"""


@dataclass(frozen=True, slots=True)
class Flags:
    """Where to listen, as `host:port`, what to serve, and under which TLS, if any.

    `reviews` is the `host:port` of who answers reviews of callers; "": nobody asks who they are.
    """

    listen: str
    data: DataSet
    tls: ssl.SSLContext | None
    reviews: str


def flags(description: str) -> Flags:
    """The flags of this process."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--services", type=int, required=True)
    parser.add_argument("--endpoints", type=int, required=True)
    parser.add_argument("--certificate", help="file of the certificate for TLS")
    parser.add_argument("--key", help="file of its key")
    parser.add_argument("--reviews", default="", help="where reviews of callers are answered")
    given = parser.parse_args()
    tls = None
    if given.certificate:
        tls = context(read_pair(Path(given.certificate), Path(given.key), time.time()), None, H2)
    return Flags(given.listen, DataSet(given.services, given.endpoints), tls, given.reviews)


def allow_connections() -> None:
    """Raise the soft limit of open files to the hard one, as each connection takes a file."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def obey(address: str, data: DataSet, change: Change) -> None:
    """Print that it serves at `address`, then carry out commands, until one says quit."""
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    _say({"event": "serving", "address": address, "pid": os.getpid()})
    seq = data.first_seq
    async with asyncio.TaskGroup() as tasks:
        watching: asyncio.Task[None] | None = None
        witness = Witness(Steps())
        while line := await commands.readline():
            command = json.loads(line)
            match command["do"]:
                case "quit":
                    break
                case "change":
                    applied_ns = await _changed(change, seq, command["count"], command["rate"])
                    _say({"event": "changed", "first_seq": seq, "applied_ns": applied_ns})
                    seq += command["count"]
                case "witness":
                    watching = watching or tasks.create_task(witness.run())
                    _say({"event": "witnessed", **_witnessed(witness)})
                    witness.forget()
        if watching is not None:
            watching.cancel()


def _witnessed(witness: Witness) -> dict[str, float]:
    """What has been seen of the event loop, in seconds: 0 of what was not looked at yet."""
    return {
        "lag_s": max(witness.lags_s, default=0.0),
        "stood_s": max(witness.stood_s, default=0.0),
        "turn_s": max(witness.spent_s, default=0.0),
    }


async def _changed(change: Change, first_seq: int, count: int, rate: float) -> list[int]:
    """When each change was made, in ns since the epoch. At rate 0 only others' turns delay them."""
    applied_ns = []
    start = time.perf_counter()
    for number in range(count):
        make = change(first_seq + number)
        due_s = start + number / rate - time.perf_counter() if rate else 0.0
        await asyncio.sleep(max(0.0, due_s))
        applied_ns.append(time.time_ns())
        make()
    return applied_ns


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
