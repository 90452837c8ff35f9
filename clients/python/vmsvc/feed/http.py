"""Probes and metrics of a feed, over HTTP on loopback: /livez, /readyz, /metrics."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6, SHUT_RDWR, socket
from typing import Any, ClassVar

from prometheus_client.exposition import choose_encoder

from vmsvc.feed.report import Report

_REQUEST_S_MAX = 5.0
_REQUESTS_MAX = 16


@contextmanager
def serving(host: str, port: int, report: Report) -> Iterator[tuple[str, int]]:
    """Serve within the block, in threads of their own; the address. Raises OSError."""

    class Handler(_Handler):
        about = report

    with (_ServerV6 if ":" in host else _Server)((host, port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="http", daemon=True)
        thread.start()
        try:
            yield str(server.server_address[0]), server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._room = threading.BoundedSemaphore(_REQUESTS_MAX)
        super().__init__(address, handler)

    def process_request(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        # Each has a thread. Who asks for more than these waits in the line of the socket.
        self._room.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        # In all: by a byte now and then, a client would keep its place for ever.
        end = threading.Timer(_REQUEST_S_MAX, _cut_off, (request,))
        end.daemon = True
        try:
            end.start()
            super().process_request_thread(request, client_address)
        finally:
            end.cancel()
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no news."""


def _cut_off(request: socket) -> None:
    with suppress(OSError):
        request.shutdown(SHUT_RDWR)


class _ServerV6(_Server):
    address_family: int = AF_INET6


class _Handler(BaseHTTPRequestHandler):
    about: Report
    timeout: ClassVar[float | None] = _REQUEST_S_MAX

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/livez":
                self._say(self.about.live())
            case "/readyz":
                self._say(self.about.live() or self.about.ready())
            case "/metrics":
                encode, kind = choose_encoder(self.headers.get("Accept", ""))
                self._answer(200, kind, encode(self.about.registry))
            case _:
                self._answer(404, "text/plain", b"there are /livez, /readyz and /metrics\n")

    def _say(self, fault: str | None) -> None:
        text = f"{fault or 'ok'}\n".encode(errors="backslashreplace")
        self._answer(503 if fault else 200, "text/plain", text)

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
        """Probes come all the time."""
