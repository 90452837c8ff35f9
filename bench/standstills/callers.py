"""Clients that ask for much, and one that asks for little and takes the time.

`python -m bench.standstills.callers --target HOST:PORT` obeys a JSON object a line, each
answered by one (`bench.process`):

    {"do": "probe", "service": NAME, "every_s": 0.01}   look it up again and again, from now on
    {"do": "probed"}                                    how long each look-up took, since the last
    {"do": "envoys", "count": 100}                      have so many Envoys connect
    {"do": "warm", "clusters": 10000}                   whether they have it all, and how many ended
    {"do": "part"}                                      have them leave
    {"do": "absent", "streams": 1000, "names": 2000, "connections": 100, "for_s": 20}
                                                        watch services that there are not
    {"do": "call", "method": PATH, "request": BASE64, "count": 20}
                                                        so many calls at once
    {"do": "quit"}
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import uvloop

from bench.standstills.envoys import Envoys
from vmsvc.v1 import endpoint_service_pb2 as pb

_SERVICE = "/vmsvc.v1.EndpointService"
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))

Answer = dict[str, Any]


class Callers:
    """What one process of clients has open."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._took_ms: list[float] = []
        self._failed: Counter[str] = Counter()
        self._envoys: Envoys | None = None
        self._following: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None

    async def obey(self, commands: asyncio.StreamReader) -> None:
        """Do what is asked until told to quit."""
        known: dict[str, Callable[..., Awaitable[Answer]]] = {
            "probe": self._probe,
            "probed": self._probed,
            "envoys": self._connect,
            "warm": self._warm,
            "part": self._part,
            "absent": self._absent,
            "call": self._call,
        }
        while line := await commands.readline():
            command = json.loads(line)
            do = command.pop("do")
            if do == "quit":
                break
            _say(await known[do](**command))
        for task in (self._probing, self._following):
            if task is not None:
                task.cancel()

    async def _probe(self, service: str, every_s: float) -> Answer:
        self._probing = asyncio.create_task(self._look_up(service, every_s))
        return {}

    async def _look_up(self, service: str, every_s: float) -> None:
        request = pb.ResolveEndpointsRequest(service=service).SerializeToString()
        async with grpc.aio.insecure_channel(self._target, options=_OPTIONS) as channel:
            look_up: Any = channel.unary_unary(f"{_SERVICE}/ResolveEndpoints")
            while True:
                began = time.perf_counter()
                try:
                    await look_up(request)
                except grpc.aio.AioRpcError as error:
                    self._failed[error.code().name] += 1
                self._took_ms.append((time.perf_counter() - began) * 1000)
                await asyncio.sleep(every_s)

    async def _probed(self) -> Answer:
        took_ms, self._took_ms = self._took_ms, []
        failed, self._failed = self._failed, Counter()
        return {"took_ms": took_ms, "failed": failed}

    async def _connect(self, count: int) -> Answer:
        self._envoys = Envoys(self._target, count)
        self._following = asyncio.create_task(self._envoys.run())
        return {}

    async def _warm(self, clusters: int) -> Answer:
        assert self._envoys is not None, "they have connected"
        return {"warm": self._envoys.warm(clusters), "ended": self._envoys.ended}

    async def _part(self) -> Answer:
        assert self._following is not None, "they have connected"
        self._following.cancel()
        await asyncio.wait((self._following,))
        self._following = self._envoys = None
        return {}

    async def _absent(self, streams: int, names: int, connections: int, for_s: float) -> Answer:
        """Read as much as comes within the time, then leave; how each stream ended."""
        channels = [
            grpc.aio.insecure_channel(self._target, options=_OPTIONS) for _ in range(connections)
        ]
        ends: Counter[str] = Counter()
        messages = 0

        async def watch(number: int) -> None:
            nonlocal messages
            asked = (f"bench/absent-{number}-{n}" for n in range(names))
            request = pb.WatchEndpointsRequest(
                services=[pb.WatchedService(service=name) for name in asked]
            )
            channel = channels[number % connections]
            follow: Any = channel.unary_stream(f"{_SERVICE}/WatchEndpoints")
            try:
                async for _ in follow(request.SerializeToString()):
                    messages += 1
            except grpc.aio.AioRpcError as error:
                ends[error.code().name] += 1

        watching = [asyncio.create_task(watch(number)) for number in range(streams)]
        await asyncio.wait(watching, timeout=for_s)
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        for channel in channels:
            await channel.close()
        return {"messages": messages, "ends": ends}

    async def _call(self, method: str, request: str, count: int) -> Answer:
        """Make the calls at once, on one connection; how each ended, and bytes in all."""
        ends: Counter[str] = Counter()
        size = 0
        async with grpc.aio.insecure_channel(self._target, options=_OPTIONS) as channel:
            ask: Any = channel.unary_unary(method)
            asked = [ask(base64.b64decode(request)) for _ in range(count)]
            for call in asked:
                try:
                    size += len(await call)
                    ends["OK"] += 1
                except grpc.aio.AioRpcError as error:
                    ends[error.code().name] += 1
        return {"bytes": size, "ends": ends}


def _say(answer: Answer) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True)
    given = parser.parse_args()
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    await Callers(given.target).obey(commands)


if __name__ == "__main__":
    uvloop.run(_main())
