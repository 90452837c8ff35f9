"""The one connection to an API server: requests and watches, as bytes.

Owns sessions, timeouts and fresh credentials. Knows no kind of object. Repeats a request only
if it was refused for its credentials; all other retries are the caller's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import NamedTuple, Self

import aiohttp
import msgspec
import uvloop

from vmsvc_grpc import __version__
from vmsvc_grpc.backoff import Backoff
from vmsvc_grpc.kube.connector import (
    MAY_SEND,
    Connector,
    abort,
    noted_socket,
    sockets_handed_over,
)
from vmsvc_grpc.kube.credentials import Access, Credentials, NoApiServer
from vmsvc_grpc.kube.errors import ApiServerError, answered_error, translated, translation
from vmsvc_grpc.logs.about import about

FIELD_MANAGER = "vmsvc-grpc"
"""The field manager that an API server notes for our writes: our User-Agent."""

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestBounds:
    """How long to wait, and how much to read.

    `connect_s` is for the connection, TLS included; `silence_s` for the next byte of an
    answer; `request_s` for all of it (an API server itself gives up after 60 s). A line
    of a watch holds one object, which etcd bounds at 1.5 MiB by default. An answer is at most a
    page of 500 objects: its bound leaves half a MiB for each, and a VM has some 10 KiB.
    Refused credentials are read again every `reload_s` at most; with each failure to do so the time
    doubles, up to `reload_max_s`. A request waits at most `renewal_s` for the renewal of
    credentials that are about to expire, and then uses the old ones.
    """

    connect_s: float = 10.0
    silence_s: float = 30.0
    request_s: float = 65.0
    line_bytes_max: int = 64 * 1024 * 1024
    answer_bytes_max: int = 256 * 1024 * 1024
    reload_s: float = 1.0
    reload_max_s: float = 60.0
    renewal_s: float = 1.0


class _HttpRequest(NamedTuple):
    method: str
    path: str
    query: Mapping[str, str] | None
    headers: Mapping[str, str]
    data: bytes | None
    timeout: aiohttp.ClientTimeout


class ApiServer:
    """Requests to one API server. Use it as an async context manager.

    If credentials are refused, they are read again, and the request is made once more. So rotated
    tokens, client certificates and CAs need no restart.
    """

    def __init__(self, credentials: Credentials, bounds: RequestBounds = RequestBounds()) -> None:
        """Nothing is read or connected to yet."""
        self.requests: Counter[tuple[str, str, str]] = Counter()
        """Requests by HTTP status (`<error>` for no answer), method and host; as in client-go."""
        self._credentials = credentials
        self._bounds = bounds
        self._loading: asyncio.Task[None] | None = None
        self._loaded = 0.0
        self._tried = 0.0
        self._refused = False
        self._failures = 0
        self._failure = ""
        self._access: Access | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Read the credentials; does not connect.

        Raises NoApiServer, unless asking again may help: then requests fail, with the reason, until
        the credentials can be read.
        """
        try:
            await self._load()
        except NoApiServer as error:
            if not error.may_pass:
                raise
            self._failed(error)
        on_uvloop = isinstance(asyncio.get_running_loop(), uvloop.Loop)
        self._session = aiohttp.ClientSession(
            connector=Connector(
                # Each watch holds a connection; the reconciler bounds how many writes there are.
                limit=0,
                socket_factory=noted_socket if on_uvloop else None,
            ),
            headers={
                "Accept": JSON,
                # Unpacking a list would hold up the event loop for longer than reading it.
                "Accept-Encoding": "identity",
                "User-Agent": f"{FIELD_MANAGER}/{__version__}",
            },
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all connections."""
        assert self._session is not None
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait((self._loading,))
        await self._session.close()

    @property
    def host(self) -> str:
        """The API server's address, as `https://HOST:PORT`."""
        return self._known_access.host

    @property
    def namespace(self) -> str:
        """The namespace of the pod, or of the kubeconfig's context."""
        return self._known_access.namespace

    async def accessible(self) -> None:
        """Return once there are credentials, which are read again and again until then."""
        while self._access is None:
            with contextlib.suppress(ApiServerError):
                await self._fresh_access()
                return
            await asyncio.sleep(self._bounds.reload_s)

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object | None = None,
        content_type: str = JSON,
        may_send: Callable[[], bool] = lambda: True,
    ) -> bytes:
        """The body of a successful answer. Raises ApiServerError, and NotSent.

        `path` begins with a slash; `body` is encoded as JSON. `may_send` is called once there is a
        connection, right before the request is sent: getting one may take long, and we may be
        stopped meanwhile. If cancelled, a write may or may not have been made.
        """
        data = None if body is None else msgspec.json.encode(body)
        headers = {} if data is None else {"Content-Type": content_type}
        request = _HttpRequest(method, path, query, headers, data, self._timeout())
        token = MAY_SEND.set(may_send)
        try:
            response = await self._open(request)
        finally:
            MAY_SEND.reset(token)
        async with response:
            return await _body(response, self._bounds.answer_bytes_max)

    async def dated(self, path: str) -> tuple[bytes, str]:
        """The body of what is at a path, and when the API server says it answered (`Date`).

        Raises ApiServerError.
        """
        request = _HttpRequest("GET", path, None, {}, None, self._timeout())
        response = await self._open(request)
        async with response:
            body = await _body(response, self._bounds.answer_bytes_max)
            return body, response.headers.get("Date", "")

    def _timeout(self) -> aiohttp.ClientTimeout:
        bounds = self._bounds
        return aiohttp.ClientTimeout(
            total=bounds.request_s, connect=bounds.connect_s, sock_read=bounds.silence_s
        )

    @contextlib.asynccontextmanager
    async def watch(
        self, path: str, query: Mapping[str, str], *, silence_s: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The lines of a watch that has begun, of any length, until the server ends it.

        Raises ApiServerError, also while lines are read: with `silent` if nothing came
        for `silence_s`, which is how a connection whose other end vanished is noticed.
        """
        timeout = aiohttp.ClientTimeout(
            total=None, connect=self._bounds.connect_s, sock_read=silence_s
        )
        response = await self._open(_HttpRequest("GET", path, query, {}, None, timeout))
        async with response:
            try:
                yield _lines(response.content, self._bounds.line_bytes_max)
            finally:
                await abort(response)

    async def _open(self, request: _HttpRequest) -> aiohttp.ClientResponse:
        """A successful answer, its head read and its body not."""
        access = await self._fresh_access()
        try:
            answer = await self._try(request, access)
        except aiohttp.ClientSSLError as error:
            refused: Exception = error
        except ApiServerError as error:
            if error.status != HTTPStatus.UNAUTHORIZED:
                raise
            refused = error
        else:
            if self._loading is None:
                self._refused = False
            return answer
        # A request that was refused, or had no connection, has changed nothing.
        self._refused = True
        if not await self._reloaded(access):
            raise self._explained(translation(refused))
        try:
            return await self._try(request, self._known_access)
        except aiohttp.ClientSSLError as error:
            raise translation(error) from error

    async def _try(self, request: _HttpRequest, access: Access) -> aiohttp.ClientResponse:
        """One request. Raises ApiServerError, and ClientSSLError as it is."""
        code = "<error>"
        try:
            response = await self._send(request, access)
            code = str(response.status)
        finally:
            self.requests[code, request.method, access.host] += 1
        if response.status in range(200, 300):
            return response
        async with response:
            raise await answered_error(response)

    async def _send(self, request: _HttpRequest, access: Access) -> aiohttp.ClientResponse:
        assert self._session is not None, "use it as a context manager"
        authorization = {"Authorization": access.authorization} if access.authorization else {}
        with translated(aiohttp.ClientSSLError), sockets_handed_over():
            return await self._session.request(
                request.method,
                access.host + request.path,
                params=request.query,
                headers={**request.headers, **authorization},
                data=request.data,
                timeout=request.timeout,
                ssl=access.tls,
                server_hostname=access.server_name,
                proxy=access.proxy,
                # An API server never sends one, and we have no business elsewhere.
                allow_redirects=False,
            )

    @property
    def _known_access(self) -> Access:
        assert self._access is not None, "use it as a context manager"
        return self._access

    async def _fresh_access(self) -> Access:
        access = self._access
        if access is None:
            await self._reloaded(None)
        elif access.fresh_s is not None and _now_s() - self._loaded >= access.fresh_s:
            # The old ones may still be valid, and reading new ones may hang, as in a plugin.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._bounds.renewal_s):
                    await self._reloaded(access)
        if self._access is None:
            raise ApiServerError(0, self._failure)
        return self._access

    async def _reloaded(self, refused: Access | None) -> bool:
        """Whether there is access other than `refused`, read now or by somebody else meanwhile."""
        if self._access is refused:
            if self._loading is None and _now_s() - self._tried >= self._reload_s():
                self._loading = asyncio.create_task(self._reload())
            if self._loading is not None:
                # A caller that stops waiting must not cancel it for the others.
                await asyncio.shield(self._loading)
        return self._access != refused

    def _reload_s(self) -> float:
        """How long after an attempt to read credentials the next one may be made."""
        bounds = self._bounds
        backoff = Backoff(bounds.reload_s, max(bounds.reload_s, bounds.reload_max_s))
        return backoff.longest_s(self._failures + 1)

    async def _reload(self) -> None:
        """Read the credentials again. If they cannot be read, they are perhaps being written."""
        before = self._access
        try:
            await self._load()
        except NoApiServer as error:
            self._failed(error)
        else:
            if self._failure and before is not None:
                _log.info("new credentials can be had again", extra=about(reason="InOrder"))
            self._failure = ""
            # Credentials that were refused, and are unchanged, count as another failure.
            self._failures = self._failures + 1 if self._refused and self._access == before else 0
        finally:
            self._loading, self._refused = None, False

    def _failed(self, error: NoApiServer) -> None:
        self._failures += 1
        if str(error) != self._failure:
            self._failure = str(error)
            # Without any, each request fails for this reason, which its caller tells of.
            if self._access is not None:
                extra = about(reason="NoCredentials", error=error)
                _log.warning("cannot get new credentials, trying again: %s", error, extra=extra)

    def _explained(self, refused: ApiServerError) -> ApiServerError:
        """The refusal, with the reason why there are no better credentials."""
        if self._failure and refused.status == HTTPStatus.UNAUTHORIZED:
            message = f"{refused.message}; there are no new credentials: {self._failure}"
            return ApiServerError(refused.status, message, reason=refused.reason)
        return refused

    async def _load(self) -> None:
        try:
            self._access = await self._credentials.load()
        finally:
            self._tried = _now_s()
        self._loaded = self._tried


def _now_s() -> float:
    return asyncio.get_running_loop().time()


async def _body(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    """All of an answer. Raises ApiServerError, also if it is longer."""
    parts: list[bytes] = []
    left = bytes_max
    with translated():
        while part := await response.content.readany():
            parts.append(part)
            left -= len(part)
            if left < 0:
                raise ApiServerError(0, f"the answer is longer than {bytes_max} bytes")
    return b"".join(parts)


async def _lines(content: aiohttp.StreamReader, bytes_max: int) -> AsyncIterator[bytes]:
    """Whole lines, without line ends. A line that is cut off is dropped."""
    parts: list[bytes] = []
    held = 0
    while True:
        with translated():
            chunk = await content.readany()
        if not chunk:
            return
        first, *others = chunk.split(b"\n")
        parts.append(first)
        for part in others:
            if line := b"".join(parts):
                yield line
            parts, held = [part], 0
        held += len(parts[-1])
        if held > bytes_max:
            raise ApiServerError(0, f"a line of the watch is longer than {bytes_max} bytes")
