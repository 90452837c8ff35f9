"""What each subcommand of `vmsvc` does, given its options: ask, and write the answer."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vmsvc.aio import AsyncClient, AsyncWatch
from vmsvc.arguments import UsageError
from vmsvc.errors import (
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    RefusedError,
    UnauthenticatedError,
    UnimplementedError,
    VmsvcError,
)
from vmsvc.goal import Goal
from vmsvc.model import Readiness, ServerVersion, ServiceState
from vmsvc.options import (
    EXIT_LATE,
    EXIT_NO_ANSWER,
    EXIT_REFUSED,
    EXIT_USAGE,
    Options,
)
from vmsvc.reach import client
from vmsvc.show import (
    endpoints_table,
    event_json,
    event_yaml,
    explained_names,
    explanation_text,
    json_text,
    lines,
    printable,
    services_table,
    versions_text,
    vm_names,
    yaml_text,
)
from vmsvc.state import Event
from vmsvc.versions import ClientVersion, Versions, too_far_apart

if TYPE_CHECKING:
    from vmsvc.live import Board

# Answers, and what a watch tells, for a program.
_AS_DATA: Mapping[str, Callable[[object], str]] = {"json": json_text, "yaml": yaml_text}
_EVENT_AS: Mapping[str, Callable[[Event, datetime], str]] = {
    "json": event_json,
    "yaml": event_yaml,
}


def run(options: Options) -> int:
    """Run one command; the exit code. If it fails, stderr says why.

    Raises KeyboardInterrupt, with everything closed, and OSError if stdout fails.
    """
    if options.command == "completion":
        from vmsvc.completion import script  # noqa: PLC0415 - no other command needs it

        _write(script(options.shell))
        return 0
    if options.client_only:
        _write_versions(None, options)
        return 0
    try:
        # In an event loop, an interrupt arrives only where the code waits.
        return asyncio.run(_run(options))
    except VmsvcError as error:
        return _failed(error)
    except _LateError as late:
        _note(str(late))
        return EXIT_LATE


class _LateError(Exception):
    """What was waited for did not come in time; the text says what lacks."""


async def _run(options: Options) -> int:
    async with client(options) as server:
        return await _COMMANDS[options.command](server, options)


def _failed(error: VmsvcError) -> int:
    """Say why on stderr; the exit code."""
    _note(str(error))
    match error:
        case NotFoundError() | RefusedError() | PermissionDeniedError() | UnauthenticatedError():
            return EXIT_REFUSED
        case InvalidArgumentError():
            return EXIT_USAGE
        case _:
            return EXIT_NO_ANSWER


def _note(text: str) -> None:
    # That nobody can be told, as the log's disk is full, ends nothing that is told of.
    if sys.stderr is not None:  # It is, if it was closed before we were started.
        with suppress(OSError):
            sys.stderr.write(f"vmsvc: {printable(text)}\n")


class _Notes(logging.Handler):
    """Writes the client's log to stderr, a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        _note(record.getMessage())


def _write(text: str) -> None:
    # Flushed, as the reader of a pipe waits for it, and a reader that is gone is noticed here.
    sys.stdout.write(text)
    sys.stdout.flush()


async def _list(server: AsyncClient, options: Options) -> int:
    namespace = options.namespaces[0] if options.namespaces else None
    services = [service async for service in server.list(namespace)]
    if options.output in _AS_DATA:
        _write(_AS_DATA[options.output](services))
    elif not services:
        _note(f"no services in namespace {namespace}" if namespace else "no services")
    elif options.output == "name":
        _write(lines(service.service for service in services))
    else:
        _write(services_table(services, wide=options.output == "wide"))
    return 0


async def _resolve(server: AsyncClient, options: Options) -> int:
    asked = (server.resolve(name, readiness=options.readiness) for name in options.services)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    states = [answer for answer in answers if isinstance(answer, ServiceState)]
    if options.output in _AS_DATA:
        # One name, one object, as kubectl has it.
        told = states[0] if states and len(answers) == 1 else states
        if states:
            _write(_AS_DATA[options.output](told))
    else:
        _write_endpoints(states, options)
    code = 0
    for answer in answers:
        if isinstance(answer, VmsvcError):
            code = max(code, _failed(answer))
        elif isinstance(answer, BaseException):
            raise answer
    return code


def _write_endpoints(states: Sequence[ServiceState], options: Options) -> None:
    if options.output == "name":
        _write(lines(vm_names(states)))
    elif any(state.endpoints for state in states):
        several = len(options.services) > 1
        _write(endpoints_table(states, several=several, wide=options.output == "wide"))
    ready = "" if options.readiness is Readiness.ALL else "ready "
    for name in (state.service for state in states if not state.endpoints):
        _note(f"{name} has no {ready}endpoints; `vmsvc explain {name}` tells why")


async def _explain(server: AsyncClient, options: Options) -> int:
    [service] = options.services
    explanation = await server.explain(service, vm_name=options.vm_name)
    if options.output in _AS_DATA:
        _write(_AS_DATA[options.output](explanation))
    elif options.output == "name":
        _write(lines(explained_names(explanation)))
    else:
        _write(explanation_text(explanation, wide=options.output == "wide"))
    return 0


async def _version(server: AsyncClient, options: Options) -> int:
    try:
        told = await server.version()
    except UnimplementedError:
        _write_versions(None, options)
        _note(
            f"server {options.server} does not tell its version: it is vmsvc-grpc 0.1.0 or older, "
            "or no vmsvc-grpc"
        )
        return EXIT_NO_ANSWER
    except VmsvcError as error:
        # What is asked when nothing works should say what it can.
        _write_versions(None, options)
        return _failed(error)
    ours = _write_versions(told, options)
    if too_far_apart(ours.version, told.version):
        _note(
            f"{ours.version} and the server's {told.version} are more than one minor version "
            "apart, and may not understand each other: upgrade the older one"
        )
    return 0


def _write_versions(server: ServerVersion | None, options: Options) -> ClientVersion:
    versions = Versions(ClientVersion(), server)
    if options.output in _AS_DATA:
        _write(_AS_DATA[options.output](versions))
    else:
        _write(versions_text(versions, wide=options.output == "wide"))
    return versions.client


async def _feed(server: AsyncClient, options: Options) -> int:
    try:
        from vmsvc.feed.run import run  # noqa: PLC0415 - no other command needs what it imports
    except ModuleNotFoundError as error:
        raise UsageError(f"feed needs {error.name}: pip install 'vmsvc-client[feed]'") from None
    _show_log()
    return await run(server, options)


async def _watch(server: AsyncClient, options: Options) -> int:
    watch = server.watch(
        *options.services,
        namespaces=options.namespaces,
        all_services=options.all_services,
        readiness=options.readiness,
    )
    goal = Goal(options.services, options.until_ready, options.until_absent)
    try:
        async with asyncio.timeout(options.goal_timeout_s):
            if options.output in _EVENT_AS:
                await _watch_lines(watch, goal, _EVENT_AS[options.output])
            else:
                await _watch_live(watch, goal, options)
    except TimeoutError:
        raise _LateError(f"after {options.goal_timeout_s:g} s, {goal.lacks()}") from None
    return 0


async def _watch_lines(
    watch: AsyncWatch, goal: Goal, text: Callable[[Event, datetime], str]
) -> None:
    _show_log()
    async for event in watch.events():
        _write(text(event, datetime.now(UTC)))
        if goal.take(event):
            return


def _show_log() -> None:
    log = logging.getLogger("vmsvc")
    log.setLevel(logging.INFO)
    log.addHandler(_Notes())


async def _watch_live(watch: AsyncWatch, goal: Goal, options: Options) -> None:
    # Here, as rich takes longer to import than most answers take to come.
    from rich.console import Console  # noqa: PLC0415

    from vmsvc.live import Board  # noqa: PLC0415
    from vmsvc.screen import show  # noqa: PLC0415

    board = Board(options.server, options.services, options.readiness)
    # The table shows all that the log would.
    logging.getLogger("vmsvc").addHandler(logging.NullHandler())
    reading = asyncio.create_task(_read(watch, goal, board))
    try:
        await show(board.render, reading, Console())
    finally:
        await watch.aclose()
        await reading


async def _read(watch: AsyncWatch, goal: Goal, board: Board) -> None:
    async for event in watch.events():
        board.take(event, time.monotonic())
        if goal.take(event):
            return


_COMMANDS: Mapping[str, Callable[[AsyncClient, Options], Awaitable[int]]] = {
    "list": _list,
    "resolve": _resolve,
    "explain": _explain,
    "watch": _watch,
    "version": _version,
    "feed": _feed,
}
