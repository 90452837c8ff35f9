"""What each subcommand of `vmsvc` does, given its options: ask, and write the answer."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime

from rich.console import Console
from rich.live import Live

from vmsvc.access import TokenFile
from vmsvc.aio import AsyncClient, AsyncWatch
from vmsvc.errors import (
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    RefusedError,
    UnauthenticatedError,
    VmsvcError,
)
from vmsvc.goal import Goal
from vmsvc.live import Board
from vmsvc.model import Readiness
from vmsvc.options import (
    EXIT_LATE,
    EXIT_NO_ANSWER,
    EXIT_REFUSED,
    EXIT_USAGE,
    Options,
    UsageError,
)
from vmsvc.show import (
    endpoints_table,
    event_text,
    explanation_text,
    json_text,
    printable,
    services_table,
)
from vmsvc.tls import FilesError, credentials

_LIVE_TICK_S = 0.25
_JSON_INDENT = 2


def run(options: Options) -> int:
    """Run one command; the exit code. If it fails, stderr says why.

    Raises KeyboardInterrupt, with everything closed, and OSError if stdout fails.
    """
    try:
        # In an event loop, an interrupt arrives only where the code waits.
        asyncio.run(_run(options))
    except (NotFoundError, RefusedError, PermissionDeniedError, UnauthenticatedError) as error:
        return _failed(error, EXIT_REFUSED)
    except InvalidArgumentError as error:
        return _failed(error, EXIT_USAGE)
    except VmsvcError as error:
        return _failed(error, EXIT_NO_ANSWER)
    except _LateError as late:
        _note(str(late))
        return EXIT_LATE
    return 0


class _LateError(Exception):
    """What was waited for did not come in time; the text says what lacks."""


async def _run(options: Options) -> None:
    async with _client(options) as client:
        await _COMMANDS[options.command](client, options)


def _client(options: Options) -> AsyncClient:
    """The client for these options. Raises UsageError."""
    try:
        return AsyncClient(
            options.server,
            credentials=(
                credentials(options.cacert, options.cert, options.key) if options.tls else None
            ),
            token=TokenFile(options.token_file) if options.token_file else None,
            authority=options.authority,
            timeout_s=options.timeout_s,
        )
    except FilesError as error:
        raise UsageError(str(error)) from None
    except ValueError:
        raise UsageError(
            f"--token-file: the token would be sent to {options.server} without TLS, for all to "
            "read; add --tls"
        ) from None


def _failed(error: VmsvcError, code: int) -> int:
    _note(str(error))
    return code


def _note(text: str) -> None:
    sys.stderr.write(f"vmsvc: {printable(text)}\n")


class _Notes(logging.Handler):
    """Writes the client's log to stderr, a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        _note(record.getMessage())


def _write(text: str) -> None:
    # Flushed, as the reader of a pipe waits for it, and a reader that is gone is noticed here.
    sys.stdout.write(text)
    sys.stdout.flush()


async def _list(client: AsyncClient, options: Options) -> None:
    namespace = options.namespaces[0] if options.namespaces else None
    services = [service async for service in client.list(namespace)]
    if options.output == "json":
        _write(json_text(services, indent=_JSON_INDENT) + "\n")
    elif services:
        _write(services_table(services))
    else:
        _note(f"no services in namespace {namespace}" if namespace else "no services")


async def _resolve(client: AsyncClient, options: Options) -> None:
    [service] = options.services
    state = await client.resolve(service, readiness=options.readiness)
    if options.output == "json":
        _write(json_text(state, indent=_JSON_INDENT) + "\n")
    elif state.endpoints:
        _write(endpoints_table(state))
    else:
        ready = "" if options.readiness is Readiness.ALL else "ready "
        _note(f"{service} has no {ready}endpoints; `vmsvc explain {service}` tells why")


async def _explain(client: AsyncClient, options: Options) -> None:
    [service] = options.services
    explanation = await client.explain(service, vm_name=options.vm_name)
    if options.output == "json":
        _write(json_text(explanation, indent=_JSON_INDENT) + "\n")
    else:
        _write(explanation_text(explanation))


async def _watch(client: AsyncClient, options: Options) -> None:
    watch = client.watch(
        *options.services,
        namespaces=options.namespaces,
        all_services=options.all_services,
        readiness=options.readiness,
    )
    goal = Goal(options.services, options.until_ready, options.until_absent)
    try:
        async with asyncio.timeout(options.goal_timeout_s):
            if options.output == "json":
                await _watch_lines(watch, goal)
            else:
                board = Board(options.server, options.services, options.readiness)
                await _watch_live(watch, goal, board, Console())
    except TimeoutError:
        raise _LateError(f"after {options.goal_timeout_s:g} s, {goal.lacks()}") from None


async def _watch_lines(watch: AsyncWatch, goal: Goal) -> None:
    log = logging.getLogger("vmsvc")
    log.setLevel(logging.INFO)
    log.addHandler(_Notes())
    async for event in watch.events():
        _write(event_text(event, datetime.now(UTC)) + "\n")
        if goal.take(event):
            return


async def _watch_live(watch: AsyncWatch, goal: Goal, board: Board, console: Console) -> None:
    # The table shows all that the log would.
    logging.getLogger("vmsvc").addHandler(logging.NullHandler())
    reading = asyncio.create_task(_read(watch, goal, board))
    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                now = time.monotonic()
                live.update(board.render(now, console.width, console.height), refresh=True)
                if reading.done():
                    return
                await asyncio.wait({reading}, timeout=_LIVE_TICK_S)
    finally:
        await watch.aclose()
        await reading


async def _read(watch: AsyncWatch, goal: Goal, board: Board) -> None:
    async for event in watch.events():
        board.take(event, time.monotonic())
        if goal.take(event):
            return


_COMMANDS: Mapping[str, Callable[[AsyncClient, Options], Awaitable[None]]] = {
    "list": _list,
    "resolve": _resolve,
    "explain": _explain,
    "watch": _watch,
}
