"""How a request to an API server fails, and how an answer says so."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from http import HTTPStatus

import aiohttp
import msgspec

from vmsvc_grpc.model.decoding import decoder
from vmsvc_grpc.model.problem import escaped

# How every API server begins what a webhook says (apiserver's `ToStatusErr`).
_ADMISSION_WEBHOOK = "admission webhook "

NAMESPACE_TERMINATING = "NamespaceTerminating"
"""The cause of a refusal to create something in a namespace that is being deleted."""

RETRY_AFTER_MAX_S = 600.0
"""The longest time that a server may ask to wait; API servers ask for some seconds."""

# An error's body is a Status of a few hundred bytes, unless somebody else answered.
_ERROR_BYTES_MAX = 64 * 1024


class ApiServerError(Exception):
    """A request failed. `status` is the HTTP status, 0 where there was no answer.

    `message` is one line, cut and escaped: an answer may quote objects, or be somebody else's.
    `reason` is Kubernetes' machine-readable one (`AlreadyExists`, `Invalid`, ...) or "", and
    `causes` are such reasons of its parts (`NamespaceTerminating`, ...);
    `retry_after_s` is what the server asked for, or 0; `silent`: there was a connection, but
    nothing came over it in time.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        reason: str = "",
        causes: frozenset[str] = frozenset(),
        retry_after_s: float = 0.0,
        silent: bool = False,
    ) -> None:
        self.message = escaped(message)
        super().__init__(self.message)
        self.status = status
        self.reason = reason
        self.causes = causes
        self.retry_after_s = retry_after_s
        self.silent = silent

    def __str__(self) -> str:
        return f"{self.status} {self.message}" if self.status else self.message

    @property
    def object_not_found(self) -> bool:
        """Whether the API server says that the object asked for is not there.

        A 404 without that reason is about something else: the kind is not served, or a proxy
        answered. It says nothing about the object.
        """
        is_its_word = self.reason == "NotFound" and not self.from_admission
        return self.status == HTTPStatus.NOT_FOUND and is_its_word

    @property
    def from_admission(self) -> bool:
        """Whether a webhook refused the request: with a status and a reason of its own choice."""
        return self.message.startswith(_ADMISSION_WEBHOOK)


class _Cause(msgspec.Struct):
    reason: str = ""


class _Details(msgspec.Struct, rename="camel"):
    causes: list[_Cause] | None = None
    retry_after_seconds: int = 0


class _StatusBody(msgspec.Struct):
    reason: str = ""
    message: str = ""
    details: _Details | None = None


_decode_status = decoder(_StatusBody)


@contextlib.contextmanager
def translated(*untouched: type[Exception]) -> Iterator[None]:
    """Raises errors within as ApiServerErrors, except `untouched`."""
    try:
        yield
    except untouched:
        raise
    except (aiohttp.ClientError, TimeoutError, OSError, UnicodeError) as error:
        # UnicodeError: a pod's variables name a host that none can be.
        raise translation(error) from error


def translation(error: Exception) -> ApiServerError:
    """The ApiServerError for an error on the way to the API server; one that it is already."""
    match error:
        case ApiServerError():
            return error
        case aiohttp.ClientConnectorCertificateError():
            cause: BaseException = error.certificate_error
        case aiohttp.ClientConnectorError():
            cause = error.os_error
        case aiohttp.SocketTimeoutError():
            return ApiServerError(0, "nothing came over the connection in time", silent=True)
        case _:
            return ApiServerError(0, str(error) or type(error).__name__)
    # aiohttp's own text shows the address of an object in memory, and asyncio's the address again.
    reason = os.strerror(cause.errno) if isinstance(cause, OSError) and cause.errno else str(cause)
    return ApiServerError(0, f"cannot connect to {error.host}:{error.port}: {reason}")


async def answered_error(response: aiohttp.ClientResponse) -> ApiServerError:
    """The error that an answer other than a success stands for. Reads its body."""
    raw = b""
    with translated():
        while len(raw) < _ERROR_BYTES_MAX and (chunk := await response.content.readany()):
            raw += chunk
    try:
        status = _decode_status(raw)
    except msgspec.DecodeError:  # Perhaps a proxy answered, and not the API server.
        status = _StatusBody(message=raw[:200].decode(errors="replace").strip())
    details = status.details or _Details()
    # The header says the same, where no proxy has taken it away.
    header = response.headers.get("Retry-After", str(details.retry_after_seconds))
    return ApiServerError(
        response.status,
        status.message or response.reason or "no reason given",
        reason=status.reason,
        causes=frozenset(cause.reason for cause in details.causes or ()),
        retry_after_s=retry_after_s(header),
    )


def retry_after_s(header: str) -> float:
    """The seconds that a `Retry-After` asks to wait, at most RETRY_AFTER_MAX_S; 0 without one.

    A date is allowed too, but no API server sends one.
    """
    if not re.fullmatch("[0-9]{1,9}", header):
        return 0.0
    return min(float(header), RETRY_AFTER_MAX_S)
