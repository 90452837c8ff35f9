"""Who may see what on the HTTP port: a question to the same gate as that of calls."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from aiohttp import web

from vmsvc_grpc.server.access.caller import Caller
from vmsvc_grpc.server.access.gate import Gate, Pass, Verdict
from vmsvc_grpc.server.access.needs import AUTHENTICATED, UrlNeed
from vmsvc_grpc.server.call import Code, RpcError
from vmsvc_grpc.server.transport.sockets import certificate_of, peer_of


async def refusal(
    gate: Gate, need: UrlNeed, request: web.Request, within_s: float
) -> web.Response | None:
    """Why a request is refused; None if its caller has what it needs. Waits for a verdict."""
    woken = asyncio.Event()
    entered = gate.enter(_caller(request), woken.set)
    try:
        async with asyncio.timeout(within_s):
            verdict = _verdict(entered, need)
            while verdict is Verdict.PENDING:
                await woken.wait()
                woken.clear()
                verdict = _verdict(entered, need)
    except RpcError as error:
        return _response(error.code, error.message)
    except TimeoutError:
        return _response(Code.UNAVAILABLE, "it could not be found out in time what you may do")
    finally:
        entered.close()
    if verdict is Verdict.ALLOWED:
        return None
    return _response(Code.PERMISSION_DENIED, f"you may not {need.verb} {need.path}")


def _verdict(entered: Pass, need: UrlNeed) -> Verdict:
    known = entered.check(AUTHENTICATED)
    return entered.check(need) if known is Verdict.ALLOWED else known


def _caller(request: web.Request) -> Caller:
    # As aiohttp has decoded them: each byte that is not UTF-8 stays one that is no token's.
    values = [
        value.encode("utf-8", "surrogateescape")
        for value in request.headers.getall("Authorization", ())
    ]
    remote = request.remote or ""  # Of a client that has gone it is not known any more.
    peer = peer_of((remote, 0)) if remote else "unix:"
    certificate = certificate_of(request.transport) if request.transport else None
    return Caller(peer, guarded=True, certificate=certificate).showing(values)


def _response(code: Code, text: str) -> web.Response:
    """The answer to a refused request, as HTTP says it."""
    status, headers = {
        Code.UNAUTHENTICATED: (HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": "Bearer"}),
        Code.PERMISSION_DENIED: (HTTPStatus.FORBIDDEN, {}),
    }.get(code, (HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "1"}))
    return web.Response(status=status, text=f"{text}\n", headers=headers)
