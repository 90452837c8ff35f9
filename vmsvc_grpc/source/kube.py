"""Events from an API server: makes the requests that `source.listwatch` decides on.

Owns the requests for reading: queries and timeouts. Their order, and what follows a failure, is
decided by the machine.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

import msgspec

from vmsvc_grpc.backoff import Backoff
from vmsvc_grpc.kube.client import ApiServer
from vmsvc_grpc.kube.errors import ApiServerError
from vmsvc_grpc.kube.resources import LABEL_SELECTORS, VERSIONS, newest_served, resource_path
from vmsvc_grpc.model.events import Event
from vmsvc_grpc.model.objects import Kind
from vmsvc_grpc.source import Emit
from vmsvc_grpc.source.listwatch import (
    Discover,
    ListPage,
    ListWatch,
    OpenWatch,
    RequestFailure,
)


class Trouble(NamedTuple):
    """Why something cannot be read, as a sentence. `resolved`: it can be read again."""

    message: str
    resolved: bool = False

    def __str__(self) -> str:
        return f"{'in order again: ' if self.resolved else ''}{self.message}"


OnTrouble = Callable[[Trouble], None]
"""Called once for each trouble, and once more, with `resolved`, when it is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeSourceBounds:
    """Bounds of reading from an API server that hardly anybody needs to change.

    `page_objects` is what client-go asks for, too. A watch lasts between `watch_s` and
    twice as long, so that many do not end at once. `silence_s` is how long a watch may be silent:
    an API server sends a bookmark every minute. `slice_s` is how long
    taking in pages and lines of watches may hold up the event loop.
    """

    page_objects: int = 500
    watch_s: float = 300.0
    silence_s: float = 75.0
    slice_s: float = 0.005
    backoff: Backoff = field(default_factory=Backoff)


class KubeSource:
    """Events of kinds on an API server, in some namespaces or in all. Runs once.

    `loops` has a machine for each kind and namespace; their counts, contacts and troubles may be
    read at any time.
    """

    def __init__(
        self,
        api: ApiServer,
        *,
        kinds: Iterable[Kind] = tuple(Kind),
        namespaces: Sequence[str] = (),
        bounds: KubeSourceBounds = KubeSourceBounds(),
        report: OnTrouble = lambda _: None,
        random: Callable[[], float] = random.random,
    ) -> None:
        """Without `namespaces` it reads all at once; with them, it asks nothing about others."""
        self.loops = tuple(
            ListWatch(
                kind,
                namespace,
                version=VERSIONS.get(kind, ""),
                backoff=bounds.backoff,
            )
            for kind, namespace in product(kinds, namespaces or (None,))
        )
        self._api = api
        self._bounds = bounds
        self._report = report
        self._random = random
        self._reported: dict[ListWatch, str] = {}
        self._waiting = asyncio.Lock()
        self._taken_in_s = 0.0  # In this turn of the event loop.

    @property
    def troubles(self) -> tuple[str, ...]:
        """Sentences that say what cannot be read now, and why; empty while all is well."""
        return tuple(dict.fromkeys(loop.trouble for loop in self.loops if loop.trouble))

    async def run(self, emit: Emit) -> None:
        """Emit events, beginning with a complete list of each kind, until cancelled.

        Never gives up: what cannot be read is reported, and tried again.
        """
        async with asyncio.TaskGroup() as group:
            for loop in self.loops:
                group.create_task(self._follow(loop, emit), name=loop.scope)

    async def _follow(self, loop: ListWatch, emit: Emit) -> None:
        while True:
            delay_s = await self._step(loop, emit)
            self._report_trouble(loop)
            # Even without a delay, so that others have their turn.
            await asyncio.sleep(delay_s)

    async def _step(self, loop: ListWatch, emit: Emit) -> float:
        """Make one request, and emit its events; the seconds to wait before the next."""
        _emit_all(loop.asks(), emit)
        try:
            match loop.request():
                case Discover():
                    loop.discovered(await newest_served(self._api, loop.kind))
                    return 0.0
                case ListPage(version, continue_token):
                    await self._page(loop, version, continue_token, emit)
                    return 0.0
                case OpenWatch(version, resource_version):
                    return await self._watch(loop, version, resource_version, emit)
        except ApiServerError as error:
            failure = RequestFailure(error.status, str(error), error.retry_after_s, error.silent)
            return self._failed(loop, failure)
        except msgspec.DecodeError as error:
            message = f"the answer cannot be read: {error}"
            return self._failed(loop, RequestFailure(0, message, unreadable=True))

    async def _page(self, loop: ListWatch, version: str, continue_token: str, emit: Emit) -> None:
        query = {"limit": str(self._bounds.page_objects), **_selection(loop.kind)}
        if continue_token:
            query["continue"] = continue_token
        path = resource_path(loop.kind, version, loop.namespace)
        raw = await self._api.request("GET", path, query=query)
        await self._turn()
        began = time.perf_counter()
        # An object is decoded and emitted in one go; only between two others have their turn.
        for event in loop.page(raw, _now()):
            emit(event)
            self._count(began)
            await self._turn()
            began = time.perf_counter()

    async def _watch(
        self, loop: ListWatch, version: str, resource_version: str, emit: Emit
    ) -> float:
        timeout_s = self._bounds.watch_s * (1.0 + self._random())
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(round(timeout_s)),
            **_selection(loop.kind),
        }
        path = resource_path(loop.kind, version, loop.namespace)
        async with self._api.watch(path, query, silence_s=self._bounds.silence_s) as lines:
            loop.opened(_now())
            self._report_trouble(loop)
            async for line in lines:
                # Hundreds of lines may have come at once, and are handed over without a break.
                await self._turn()
                began = time.perf_counter()
                found = loop.line(line, _now())
                if isinstance(found, RequestFailure):
                    return self._failed(loop, found)
                _emit_all(found, emit)
                self._count(began)
        return loop.ended(_now(), self._random())

    async def _turn(self) -> None:
        """Wait until this turn of the event loop has time left to take something in.

        However many kinds and namespaces are read at once, a turn has one slice of all of them.
        """
        if self._taken_in_s > self._bounds.slice_s:
            async with self._waiting:  # So that one looks, and not each that waits.
                while self._taken_in_s > self._bounds.slice_s:  # noqa: ASYNC110 - turns, no event
                    await asyncio.sleep(0)

    def _count(self, began: float) -> None:
        """Count the time since `began`, in which something was taken in, for this turn."""
        if not self._taken_in_s:
            asyncio.get_running_loop().call_soon(self._begin_turn)
        self._taken_in_s += time.perf_counter() - began

    def _begin_turn(self) -> None:
        self._taken_in_s = 0.0

    def _failed(self, loop: ListWatch, failure: RequestFailure) -> float:
        return loop.failed(failure, _now(), self._random())

    def _report_trouble(self, loop: ListWatch) -> None:
        """Report a new or resolved trouble of one loop; one that several share is reported once."""
        before, now = self._reported.pop(loop, ""), loop.trouble
        others = self._reported.values()
        if now and now != before and now not in others:
            self._report(Trouble(now))
        elif before and not now and before not in others:
            self._report(Trouble(before, resolved=True))
        if now:
            self._reported[loop] = now


def _selection(kind: Kind) -> dict[str, str]:
    """The part of a query that selects objects of a kind."""
    selector = LABEL_SELECTORS.get(kind)
    return {"labelSelector": selector} if selector else {}


def _emit_all(events: Iterable[Event], emit: Emit) -> None:
    for event in events:
        emit(event)


def _now() -> float:
    return asyncio.get_running_loop().time()
