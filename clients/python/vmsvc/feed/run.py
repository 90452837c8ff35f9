"""`vmsvc feed`: wiring, signals, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from vmsvc.aio import AsyncClient
from vmsvc.arguments import UsageError
from vmsvc.errors import VmsvcError
from vmsvc.feed import http, state_file
from vmsvc.feed.held import Held
from vmsvc.feed.keeper import Keeper
from vmsvc.feed.kinds import KINDS
from vmsvc.feed.options import FeedOptions
from vmsvc.feed.report import Report
from vmsvc.feed.systemd import Notifier
from vmsvc.model import ServiceState
from vmsvc.options import Options

_log = logging.getLogger("vmsvc.feed")

_BEAT_S = 1.0


class _StoppedError(Exception):
    """A signal has come that asks to stop."""


async def run(server: AsyncClient, options: Options) -> int:
    """Feed until a signal ends it; the exit code. Raises UsageError, and VmsvcError if refused."""
    feed = options.feed
    assert feed is not None
    notifier = Notifier(os.environ)
    report = Report(feed.output, notifier)
    output = KINDS[feed.output].make(feed.given)
    held = Held(options.services, feed.policies, _earlier(options, feed))

    def save(states: Mapping[str, ServiceState]) -> None:
        if feed.state_file:
            state_file.save(feed.state_file, states)

    keeper = Keeper(
        lambda: server.watch(
            *options.services,
            namespaces=options.namespaces,
            all_services=options.all_services,
            readiness=options.readiness,
        ),
        held,
        output,
        save,
        feed.check_interval_s,
        report,
    )
    with ExitStack() as stack:
        _listen(stack, feed, report)
        signals = stack.enter_context(_signals(keeper, report))
        try:
            return await _until(signals, keeper, report)
        finally:
            notifier.stopping()
            await output.aclose()


def _earlier(options: Options, feed: FeedOptions) -> list[ServiceState]:
    if feed.state_file is None:
        return []
    try:
        states = state_file.load(feed.state_file)
    except state_file.StateFileError as error:
        raise UsageError(str(error)) from None
    earlier = state_file.within(states, options.services, options.namespaces)
    if earlier:
        _log.info("begun with %d services of %s", len(earlier), feed.state_file)
    return earlier


def _listen(stack: ExitStack, feed: FeedOptions, report: Report) -> None:
    if feed.http_listen is None:
        return
    host, port = feed.http_listen
    try:
        at = stack.enter_context(http.serving(host, port, report))
    except OSError as error:
        raise UsageError(f"--http-listen {host}:{port}: {error.strerror or error}") from None
    _log.info("probes and metrics at http://%s:%d", *at)


@contextmanager
def _signals(keeper: Keeper, report: Report) -> Iterator[asyncio.Future[signal.Signals]]:
    """Within the block, SIGHUP has the keeper look, and one that asks to stop is the result."""
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[signal.Signals] = loop.create_future()

    def stop(number: signal.Signals) -> None:
        if not stopped.done():
            stopped.set_result(number)

    def look() -> None:
        report.reloading()
        keeper.look()

    ends = (signal.SIGTERM, signal.SIGINT)
    for number in ends:
        loop.add_signal_handler(number, stop, number)
    loop.add_signal_handler(signal.SIGHUP, look)
    try:
        yield stopped
    finally:
        for number in (*ends, signal.SIGHUP):
            loop.remove_signal_handler(number)


async def _until(stopped: asyncio.Future[signal.Signals], keeper: Keeper, report: Report) -> int:
    async def ends() -> None:
        await stopped
        raise _StoppedError

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keeper.run())
            tasks.create_task(_beat(report))
            tasks.create_task(ends())
    except* _StoppedError:
        pass
    except* VmsvcError as errors:
        raise _first(errors) from None
    number = stopped.result()
    return 0 if number is signal.SIGTERM else 128 + number


async def _beat(report: Report) -> None:
    while True:
        report.beat()
        await asyncio.sleep(_BEAT_S)


def _first(errors: BaseExceptionGroup[VmsvcError]) -> VmsvcError:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
