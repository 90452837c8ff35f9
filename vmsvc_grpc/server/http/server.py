"""The HTTP port: whether we live, whether we are ready, and our metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from aiohttp import web

# What Prometheus' text format is called, with the version that prometheus_client writes.
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class HttpServer:
    """Serves /livez, /readyz and /metrics on one address.

    `not_ready` says why we are not ready, or None if we are; `troubles` are sentences that
    say what is wrong whether we are or not; `metrics` gives the page in Prometheus' text
    format. Each is called on the event loop at each request.
    """

    def __init__(
        self,
        not_ready: Callable[[], str | None],
        metrics: Callable[[], bytes],
        *,
        troubles: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._not_ready = not_ready
        self._troubles = troubles
        self._metrics = metrics
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; the port, which differs from the one asked for only if that is 0.

        Raises OSError if the address cannot be had.
        """
        application = web.Application()
        application.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._page),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        bound: int = self._runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Stop listening, and end what is under way."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _livez(self, _request: web.Request) -> web.Response:
        # Living does not depend on the cache: killing us would not fill it sooner.
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        reason = self._not_ready()
        lines = ("ok" if reason is None else reason, *self._troubles())
        return web.Response(
            status=200 if reason is None else 503, text="".join(f"{line}\n" for line in lines)
        )

    async def _page(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics(), headers={"Content-Type": _METRICS_TYPE})
