"""Bytes for clients that cannot be served: at a limit, or as they speak something else.

Made by hand, as there is no engine for them, or it has failed.
"""

from __future__ import annotations

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""How a client of HTTP/2 begins (RFC 9113, 3.4)."""

_HTTP1_METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"PATCH ", b"DELETE ", b"OPTIONS ")

# RFC 8446, 5.1: a handshake's record, of any version.
_TLS_HANDSHAKE = b"\x16\x03"

# A GOAWAY frame: its type, flags and stream; ENHANCE_YOUR_CALM (RFC 9113, 7).
_GOAWAY_HEAD = b"\x07\0\0\0\0\0"
_CALM_CODE = b"\0\0\0\x0b"

_GRPC_ONLY = b"this port speaks gRPC over HTTP/2, and not HTTP/1.1: try grpcurl"
_TLS_ONLY = b"this port takes only TLS, and this connection uses none"
_NO_TLS = b"this port uses no TLS"
_NO_ALPN = b"this port takes only clients that offer h2 by ALPN"


def farewell(limit: str) -> bytes:
    """For a client that is refused at a limit before it has sent anything.

    Without the SETTINGS that should come first (RFC 9113, 3.4): once these have come, a connection
    works, to gRPC's clients. Its core would connect again at once, and for ever: 158 times in
    4 s. Now it waits longer each time, as after a connection that failed: 3 times.
    """
    return calm(0, limit.encode())


def calm(last_stream: int, why: bytes) -> bytes:
    """The GOAWAY frame that sends a client away which has sent too much (RFC 9113, 6.8)."""
    payload = last_stream.to_bytes(4, "big") + _CALM_CODE + why
    return len(payload).to_bytes(3, "big") + _GOAWAY_HEAD + payload


def may_be_http1(begun: bytes) -> bool:
    """Whether more has to come before it is known that a client speaks HTTP/1.1, or does not."""
    return any(method.startswith(begun) and begun != method for method in _HTTP1_METHODS)


def stranger_answer(begun: bytes, *, under_tls: bool) -> bytes:
    """For a client that has begun otherwise than one of HTTP/2, or has not offered it by ALPN.

    Nothing for one that could not read an answer. A client that expects TLS and gets text reports
    that there is no TLS; no alert of TLS says so.
    """
    if begun.startswith(_HTTP1_METHODS):
        return _http1(_GRPC_ONLY)
    if under_tls and begins_http2(begun):
        return _http1(_NO_ALPN)
    return _http1(_NO_TLS) if begun.startswith(_TLS_HANDSHAKE) else b""


def plain_answer(begun: bytes) -> bytes:
    """For a client that uses no TLS where it has to.

    To gRPC's clients, too, which report text in the place of HTTP/2.
    """
    if begun.startswith(_HTTP1_METHODS) or begins_http2(begun):
        return _http1(_TLS_ONLY)
    return b""


def begins_http2(begun: bytes) -> bool:
    """Whether a client's first bytes, of which there is one at least, may be those of HTTP/2."""
    return PREFACE.startswith(begun[: len(PREFACE)])


def _http1(text: bytes) -> bytes:
    return (
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: %d\r\nConnection: close\r\n\r\n%s\n" % (len(text) + 1, text)
    )
