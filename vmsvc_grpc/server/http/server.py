"""The HTTP port: whether we live, whether we are ready, and our metrics."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable, Iterable

from aiohttp import web

from vmsvc_grpc.server.access.gate import Gate
from vmsvc_grpc.server.access.needs import UrlNeed
from vmsvc_grpc.server.counts import ServerCounts
from vmsvc_grpc.server.http.accept import prefers
from vmsvc_grpc.server.http.guard import refusal
from vmsvc_grpc.server.http.port import HttpPort
from vmsvc_grpc.server.http.scrapes import MetricsPage, Scrapes
from vmsvc_grpc.server.limits import Limits

# The media types of the two formats of metrics, in the versions that prometheus_client writes.
_TEXT = "text/plain"
_OPEN_METRICS = "application/openmetrics-text"
_TYPES = {
    _TEXT: f"{_TEXT}; version=0.0.4; charset=utf-8",
    _OPEN_METRICS: f"{_OPEN_METRICS}; version=1.0.0; charset=utf-8",
}

METRICS_URL = "/metrics"
"""The non-resource URL of the page, as Kubernetes' own servers name theirs."""


class HttpServer:
    """Serves /livez, /readyz and /metrics on one address, with or without TLS.

    Clients on this machine are told by /readyz what is wrong; others, whether we are ready.

    `not_ready` says why we are not ready, or None if we are; `troubles` are sentences that
    say what is wrong whether we are or not; `metrics` gives the page. Each is called on the
    event loop at each request.
    """

    def __init__(
        self,
        not_ready: Callable[[], str | None],
        metrics: MetricsPage,
        limits: Limits,
        counts: ServerCounts,
        *,
        troubles: Callable[[], Iterable[str]] = tuple,
        tls: Callable[[], ssl.SSLContext] | None = None,
        gate: Gate | None = None,
    ) -> None:
        """Counts in `counts` which connections were ended at a limit.

        With `tls`, which gives the context for a handshake that begins now, every client uses TLS.
        With `gate`, clients on other machines get the page only if they may get METRICS_URL.
        """
        self._gate = gate
        self._not_ready = not_ready
        self._troubles = troubles
        self._scrapes = Scrapes(metrics)
        self._limits = limits
        application = web.Application()
        application.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get(METRICS_URL, self._page),
            ]
        )
        self._port = HttpPort(application, limits, counts, tls)

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, a free one for 0.

        Raises OSError if the address cannot be bound.
        """
        return await self._port.start(host, port)

    async def stop(self) -> None:
        """Stop listening, send what has been begun, and end all connections."""
        await self._port.stop()

    async def _livez(self, _request: web.Request) -> web.Response:
        # Living does not depend on the cache: killing us would not fill it sooner.
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        reason = self._not_ready()
        if _comes_from_here(request):
            lines = ("ok" if reason is None else reason, *self._troubles())
        else:
            lines = ("ok" if reason is None else "not ready",)
        return web.Response(
            status=200 if reason is None else 503, text="".join(f"{line}\n" for line in lines)
        )

    async def _page(self, request: web.Request) -> web.Response:
        if self._gate is not None and not _comes_from_here(request):
            within_s = self._limits.http_request_s / 2  # Then the connection is ended.
            need = UrlNeed("get", METRICS_URL)
            if (refused := await refusal(self._gate, need, request, within_s)) is not None:
                return refused
        chosen = prefers(",".join(request.headers.getall("Accept", ())), (_TEXT, _OPEN_METRICS))
        body = await self._scrapes.page(chosen == _OPEN_METRICS)
        return web.Response(body=body, headers={"Content-Type": _TYPES[chosen]})


def _comes_from_here(request: web.Request) -> bool:
    """Whether a client is on this machine, as one of a port-forward is.

    Both ends must be of this machine alone: the proxy of a mesh hands on what comes from elsewhere
    with an address such as 127.0.0.6, but to the Pod's own one.
    """
    own = request.transport.get_extra_info("sockname") if request.transport else None
    return own is not None and _is_here(own[0]) and _is_here(request.remote)


def _is_here(remote: str | None) -> bool:
    """Whether an address is one that only this machine can reach."""
    try:
        address = ipaddress.ip_address(remote or "")
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
