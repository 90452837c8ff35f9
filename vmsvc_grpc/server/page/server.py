"""The page's port: its files, and a stream of events for each page that is open."""

from __future__ import annotations

import asyncio
import contextlib
from http import HTTPStatus
from importlib import resources
from pathlib import PurePath

from aiohttp import web
from aiohttp.typedefs import Handler

from vmsvc_grpc.server.call import LATER
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.http.port import HttpPort
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.server.page import told
from vmsvc_grpc.server.page.page import Page, QueryError
from vmsvc_grpc.server.page.views import PageStream
from vmsvc_grpc.server.page.visitor import refusal

_KINDS = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}

_CHECKED = ("Host", "Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode")

_HEADERS = {
    # Nothing from elsewhere, no script but ours, and no text of others becomes a part of the page.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class PageServer:
    """Serves the page on one address of this machine, to people on this machine."""

    def __init__(self, page: Page, limits: Limits, counts: ServerCounts) -> None:
        """Counts in `counts` what was refused at a limit."""
        self._page = page
        self._limits = limits
        self._counts = counts
        self._stopping = False
        self._woken: dict[PageStream, asyncio.Event] = {}
        # One slice a turn of the event loop, however many pages are open.
        self._turn = asyncio.Lock()
        self._files = {
            "/" if file.name == "index.html" else f"/{file.name}": (
                file.read_bytes(),
                _KINDS[PurePath(file.name).suffix],
            )
            for file in resources.files(__package__).joinpath("static").iterdir()
        }
        application = web.Application(middlewares=[_checked])
        application.on_response_prepare.append(_with_headers)
        application.add_routes(
            [
                *(web.get(path, self._file) for path in self._files),
                web.get("/events", self._events, allow_head=False),
            ]
        )
        self._port = HttpPort(application, limits, counts)

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, a free one for 0.

        Raises OSError if the address cannot be bound.
        """
        return await self._port.start(host, port)

    async def stop(self) -> None:
        """End all streams, and stop listening."""
        self._stopping = True
        for woken in self._woken.values():
            woken.set()
        await self._port.stop()

    async def _file(self, request: web.Request) -> web.Response:
        body, kind = self._files[request.path]
        return web.Response(body=body, content_type=kind, charset="utf-8")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        # A browser shows no more of a refused stream than that it was refused.
        if len(self._woken) >= self._limits.page_streams_max:
            self._counts.refusals["page_streams_max"] += 1
            await response.write(
                told.refused(
                    f"{len(self._woken)} pages are open, as many as may be (page_streams_max): "
                    "close some"
                )
            )
            return response
        woken = asyncio.Event()
        try:
            stream = self._page.open(request.query, woken.set)
        except QueryError as error:
            await response.write(told.refused(str(error)))
            return response
        self._woken[stream] = woken
        self._port.hold(request)
        try:
            # A client that goes away, or takes nothing, has no more to be told.
            with contextlib.suppress(ConnectionError, TimeoutError):
                await self._send(stream, woken, response)
        finally:
            del self._woken[stream]
            stream.close()
        return response

    async def _send(
        self, stream: PageStream, woken: asyncio.Event, response: web.StreamResponse
    ) -> None:
        clock = asyncio.get_running_loop().time
        while not self._stopping:
            woken.clear()
            async with self._turn:
                said = stream.next(clock())
                await asyncio.sleep(0)
            if said is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(max(stream.due, clock() + 0.01)):
                        await woken.wait()
            elif said is not LATER:
                async with asyncio.timeout(self._limits.connection_write_s):
                    await response.write(said)
        await response.write(told.event("ending", b"{}"))


@web.middleware
async def _checked(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer nobody but people on this machine."""
    sent = {name: request.headers.getall(name) for name in _CHECKED if name in request.headers}
    if text := refusal(sent, document=request.path == "/"):
        return web.Response(status=HTTPStatus.FORBIDDEN, text=f"{text}\n")
    return await handler(request)


async def _with_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
