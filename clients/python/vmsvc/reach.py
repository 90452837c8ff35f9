"""How a command of `vmsvc` reaches its server, by its options."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vmsvc.access import TokenFile
from vmsvc.aio import AsyncClient
from vmsvc.arguments import UsageError
from vmsvc.options import Options
from vmsvc.sync import Client
from vmsvc.tls import FilesError, TlsFiles


def client(options: Options) -> AsyncClient:
    """The client for these options. Raises UsageError."""
    with _as_usage(options):
        return AsyncClient(options.server, **_arguments(options), timeout_s=options.timeout_s)


def sync_client(options: Options, timeout_s: float) -> Client:
    """The same without an event loop, for calls that take no longer. Raises UsageError."""
    with _as_usage(options):
        return Client(options.server, **_arguments(options), timeout_s=timeout_s)


def _arguments(options: Options) -> dict[str, Any]:
    tls = TlsFiles(options.cacert, options.cert, options.key) if options.tls else None
    token = TokenFile(options.token_file) if options.token_file else None
    return {"credentials": tls, "token": token, "authority": options.authority}


@contextmanager
def _as_usage(options: Options) -> Iterator[None]:
    """What a client cannot be made of, as an error of the command line."""
    try:
        yield
    except FilesError as error:
        raise UsageError(str(error)) from None
    except ValueError:
        raise UsageError(
            f"--token-file: the token would be sent to {options.server} without TLS, for all to "
            "read; add --tls"
        ) from None
