"""What a client shows its server, and how it protects that: credentials, token, metadata."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc

from vmsvc.channel import is_loopback
from vmsvc.errors import UnauthenticatedError
from vmsvc.proxy import proxy_variable

Token: TypeAlias = str | Callable[[], str]
"""A bearer token, or what gives the one to use now: it is asked at each call."""

Credentials: TypeAlias = grpc.ChannelCredentials | Callable[[], grpc.ChannelCredentials]
"""Credentials for TLS, or what gives those to use now: it is asked at each call."""

# A token has some kilobytes; this is one too much for a header field.
_TOKEN_BYTES_MAX = 64 * 1024

_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A `token` from a file, read anew at each call: Kubernetes replaces it before it expires."""

    path: str | Path

    def __call__(self) -> str:
        """The token that the file holds now. Raises UnauthenticatedError."""
        try:
            with Path(self.path).open("rb") as file:
                raw = file.read(_TOKEN_BYTES_MAX + 1)
        except OSError as error:
            reason = error.strerror or str(error)
            raise _unauthenticated(f"token file {self.path}: {reason}") from error
        text = raw.decode("ascii", "replace").strip()
        if not text:
            raise _unauthenticated(f"token file {self.path} is empty")
        if len(raw) > _TOKEN_BYTES_MAX or not _TOKEN.fullmatch(text):
            raise _unauthenticated(f"token file {self.path} holds no token")
        return text


@dataclass(frozen=True, slots=True)
class Access:
    """How a client reaches its server; made by the client of its own arguments."""

    credentials: Credentials | None = None
    token: Token | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    authority: str = ""
    loopback: bool = False
    proxy: str = ""
    """The variable that names the proxy on the way; empty: there is none."""

    @classmethod
    def of(
        cls,
        server: str,
        credentials: Credentials | None,
        token: Token | None,
        metadata: Iterable[tuple[str, str]],
        authority: str,
    ) -> Access:
        """The access to a server. Raises ValueError if a token would be sent in the clear."""
        if token is not None and credentials is None and not is_loopback(server):
            raise ValueError(
                f"a token would be sent to {server} without TLS, for all to read; give credentials"
            )
        return cls(
            credentials,
            token,
            tuple(metadata),
            authority,
            is_loopback(server),
            proxy_variable(server, os.environ),
        )

    @property
    def renewable(self) -> bool:
        """Whether asking for the token again may give another one."""
        return callable(self.token)

    def protection(self) -> grpc.ChannelCredentials | None:
        """The credentials of a connection that is made now; None: it has no TLS."""
        return self.credentials() if callable(self.credentials) else self.credentials

    def sent(self) -> tuple[tuple[str, str], ...]:
        """The metadata of a call that begins now. Raises what `token` raises."""
        if self.token is None:
            return self.metadata
        token = self.token() if callable(self.token) else self.token
        return (*self.metadata, ("authorization", f"Bearer {token}"))

    def options(self) -> tuple[tuple[str, str | int], ...]:
        """The settings of a channel for its way, and for the name that the server is to prove."""
        # gRPC would have a proxy connect to this machine, where the proxy has another.
        direct = (("grpc.enable_http_proxy", 0),) if self.loopback else ()
        if not self.authority:
            return direct
        names = ["grpc.default_authority"]
        if self.credentials is not None:
            names.append("grpc.ssl_target_name_override")
        return (*direct, *((name, self.authority) for name in names))


def _unauthenticated(text: str) -> UnauthenticatedError:
    return UnauthenticatedError(text, code=grpc.StatusCode.UNAUTHENTICATED)
