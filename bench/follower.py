"""A client in Python under measure: many streams by its library, or by grpc.aio alone.

BENCH protocol, a JSON object a line: `open` is answered once every stream knows all, `until` once
every stream's newest state, or message, has an address. It ends with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from vmsvc.aio import AsyncClient
from vmsvc.model import ServiceState
from vmsvc.state import Event, Synced
from vmsvc.sync import Client
from vmsvc.v1 import endpoint_service_pb2 as pb
from vmsvc.v1.endpoint_service_pb2_grpc import EndpointServiceStub

# Looking costs the client CPU, so it is seldom.
_LOOK_S = 0.05


@dataclass(slots=True)
class Followed:
    """What the streams have been sent, by their numbers. Written by them, read by who asks."""

    streams: int
    newest: dict[int, ServiceState | pb.WatchEndpointsResponse] = field(default_factory=dict)
    known: set[int] = field(default_factory=set)
    received: int = 0

    def take(self, stream: int, event: Event) -> None:
        """Take in what a watch of the library has yielded."""
        if isinstance(event, ServiceState):
            self.newest[stream] = event
            self.received += 1
        elif isinstance(event, Synced):
            self.known.add(stream)

    def take_message(self, stream: int, message: pb.WatchEndpointsResponse) -> None:
        """The same of a stream without the library."""
        if message.WhichOneof("event") == "synced":
            self.known.add(stream)
        else:
            self.newest[stream] = message
            self.received += 1

    def behind(self, address: str) -> int:
        """How many streams have not been told of an address."""
        return self.streams - sum(_has(newest, address) for newest in self.newest.copy().values())

    def answer(self, command: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to a command; None: not yet."""
        if command["do"] == "open":
            return {"event": "opened"} if len(self.known) == self.streams else None
        behind = self.behind(command["address"])
        if behind and time.time() < command["deadline"]:
            return None
        return {"event": "until", "behind": behind, "received": self.received}


def _has(newest: ServiceState | pb.WatchEndpointsResponse, address: str) -> bool:
    if isinstance(newest, ServiceState):
        return any(endpoint.address == address for endpoint in newest.endpoints)
    sent = (*newest.snapshot.endpoints, *newest.delta.upserted)
    return any(endpoint.address == address for endpoint in sent)


def main() -> None:
    """Follow as the arguments say, until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--how", choices=("async", "sync", "bare"), required=True)
    parser.add_argument("--server", required=True)
    parser.add_argument("--service", required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    given = parser.parse_args()
    followed = Followed(given.streams)
    if given.how == "sync":
        _in_threads(given, followed)
    else:
        asyncio.run(_in_a_loop(given, followed))


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def _in_a_loop(given: argparse.Namespace, followed: Followed) -> None:
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    _say({"event": "ready"})
    begin = _watches if given.how == "async" else _calls
    tasks: list[asyncio.Task[None]] = []
    while line := await commands.readline():
        command = json.loads(line)
        if command["do"] == "open":
            tasks += begin(given, followed)
        while (answer := followed.answer(command)) is None:  # noqa: ASYNC110 - see below
            # An event would be set at each message, which the library would be charged for.
            await asyncio.sleep(_LOOK_S)
        _say(answer)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _watches(given: argparse.Namespace, followed: Followed) -> list[asyncio.Task[None]]:
    clients = [AsyncClient(given.server) for _ in range(given.connections)]

    async def follow(stream: int) -> None:
        async for event in clients[stream % len(clients)].watch(given.service).events():
            followed.take(stream, event)

    return [asyncio.create_task(follow(stream)) for stream in range(given.streams)]


def _calls(given: argparse.Namespace, followed: Followed) -> list[asyncio.Task[None]]:
    # Channels of their own, as clients of the library have them; else they share a connection.
    local = (("grpc.use_local_subchannel_pool", 1),)
    channels = [grpc.aio.insecure_channel(given.server, local) for _ in range(given.connections)]
    request = pb.WatchEndpointsRequest(services=[pb.WatchedService(service=given.service)])

    async def follow(stream: int) -> None:
        stub = EndpointServiceStub(channels[stream % len(channels)])
        async for message in stub.WatchEndpoints(request):
            followed.take_message(stream, message)

    return [asyncio.create_task(follow(stream)) for stream in range(given.streams)]


def _in_threads(given: argparse.Namespace, followed: Followed) -> None:
    _say({"event": "ready"})
    with ExitStack() as stack:
        for line in sys.stdin:
            command = json.loads(line)
            if command["do"] == "open":
                stack.enter_context(_threads(given, followed))
            while (answer := followed.answer(command)) is None:
                time.sleep(_LOOK_S)
            _say(answer)


@contextmanager
def _threads(given: argparse.Namespace, followed: Followed) -> Iterator[None]:
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(given.server)) for _ in range(given.connections)]

        def follower(stream: int) -> Callable[[], None]:
            def follow() -> None:
                for event in clients[stream % len(clients)].watch(given.service).events():
                    followed.take(stream, event)

            return follow

        threads = [
            threading.Thread(target=follower(stream), daemon=True)
            for stream in range(given.streams)
        ]
        for thread in threads:
            thread.start()
        yield


if __name__ == "__main__":
    main()
