"""Wires the parts into one process: sources, cache, server, reconciler, signals, drain."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TextIO

import uvloop

from vmsvc_grpc import __version__
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.config import Config
from vmsvc_grpc.metrics import Metric, Metrics
from vmsvc_grpc.model.events import Event
from vmsvc_grpc.model.objects import Key, Kind, Problem
from vmsvc_grpc.reconciler.desired import Failure
from vmsvc_grpc.reconciler.directory import DirectoryStore
from vmsvc_grpc.reconciler.loop import ChangeError, Reconciler, Settings
from vmsvc_grpc.server.http import HttpServer
from vmsvc_grpc.server.listen import ListenError, Server
from vmsvc_grpc.source.files import FilesSource, SourceError
from vmsvc_grpc.source.problems import FileProblem

_log = logging.getLogger("vmsvc_grpc")

_MANIFEST_KINDS = frozenset({Kind.VIRTUAL_MACHINE, Kind.VIRTUAL_MACHINE_SERVICE})
_HELD_KINDS = frozenset({Kind.SERVICE, Kind.ENDPOINTS})

EXIT_FAILED = 1


def main(config: Config) -> int:
    """Serve until SIGTERM or SIGINT; the exit status. Errors are one line on standard error."""
    status = 0
    try:
        uvloop.run(App(config, sys.stdout).run())
    except* (ListenError, SourceError, ChangeError) as group:
        status = EXIT_FAILED
        for error in group.exceptions:
            _log.error("%s", error)  # One line, and no traceback: it says what to do.
    return status


class App:
    """One serving process. `run` it once, on an event loop of its own."""

    def __init__(self, config: Config, out: TextIO) -> None:
        """`out` is where it says, in a few lines, what it serves and how to ask."""
        self._config = config
        self._out = out
        self._cache = Cache(
            config.rules,
            kinds=_MANIFEST_KINDS | (_HELD_KINDS if config.output else frozenset()),
            on_problems=_log_problems,
        )
        self._server = Server(self._cache, str(config.listen), config.limits)
        self._http = HttpServer(self._not_ready, self._metrics_page)
        self._metrics = Metrics()
        self._reconciler: Reconciler | None = None
        self._jobs: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self._grpc = ""
        self._announced = False
        self._stop = asyncio.Event()
        self._draining: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve until told to stop, then drain. Raises what a part cannot go on from."""
        _raise_file_limit()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop, signal.Signals(number).name)
        self._wire()
        _bind(self._metrics, self._cache, self._server, self._reconciler)
        try:
            self._grpc = await self._server.start()
            http = await self._start_http()
            self._say(f"vmsvc-grpc {__version__}\n  gRPC  on {self._grpc}\n  HTTP  on {http}")
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(job()) for job in self._jobs]
                await self._stop.wait()
                self._draining = tasks.create_task(self._drain())
                await asyncio.wait((self._draining,))
                for task in running:
                    task.cancel()
        finally:
            await self._http.stop()
            await self._server.stop()

    def _wire(self) -> None:
        """The sources, and the reconciler where objects are held."""
        config = self._config
        manifests = self._files(config.manifests, _MANIFEST_KINDS, shared=False)
        self._jobs.append(lambda: manifests.run(self._emit))
        if config.output is None:
            return
        store = DirectoryStore(config.output)
        reconciler = Reconciler(
            self._cache,
            store,
            settings=Settings(workers=config.workers, writes_per_s=config.writes_per_s),
            load_balancer_provider=config.load_balancer_provider,
            on_failure=_log_failure,
            all_listed=lambda: manifests.all_read,
        )
        held = self._files(config.output, _HELD_KINDS, shared=True)
        self._jobs.append(lambda: held.run(lambda event: self._emit(store.observation(event))))
        self._jobs.append(reconciler.run)
        self._reconciler = reconciler

    def _files(self, directory: Path, kinds: frozenset[Kind], *, shared: bool) -> FilesSource:
        def report(problem: FileProblem) -> None:
            level = logging.INFO if problem.resolved else logging.WARNING
            _log.log(level, "%s: %s", directory, problem)

        files = FilesSource(
            directory, kinds, settle_s=self._config.settle_s, shared=shared, report=report
        )
        name = str(directory)
        self._metrics.bind(Metric.FILES, lambda: {(name,): files.files_read})
        self._metrics.bind(Metric.UNKNOWN, lambda: {(name,): files.ignored})
        self._metrics.bind(Metric.FILE_PROBLEMS, lambda: {(name,): len(files.problems)})
        return files

    async def _start_http(self) -> str:
        host, port = self._config.http_listen
        try:
            bound = await self._http.start(host, port)
        except OSError as error:
            raise ListenError(
                f"cannot listen on {self._config.http_listen} for HTTP: {error.strerror}; "
                "choose another with --http-listen"
            ) from error
        return str(self._config.http_listen._replace(port=bound))

    def _emit(self, event: Event) -> None:
        # The topics have published when `apply` returns; writing comes after that.
        changed = self._cache.apply(event)
        if self._reconciler is not None:
            self._reconciler.enqueue(changed)
        if self._cache.synced and not self._announced:
            self._announced = True
            self._say(_announcement(self._cache, self._grpc, self._config))

    async def _drain(self) -> None:
        streams = sum(self._server.counts.streams_open.values())
        _log.info("draining: %d streams end within %g s", streams, self._config.drain_s)
        await self._server.drain(self._config.drain_s)

    def _told_to_stop(self, name: str) -> None:
        if self._draining is not None:
            _log.warning("%s again: ending at once", name)
            self._draining.cancel()
            return
        _log.info("%s: stopping", name)
        self._stop.set()

    def _not_ready(self) -> str | None:
        if self._stop.is_set():
            return "draining"
        if not self._cache.synced:
            kinds = ", ".join(sorted(kind.value for kind in self._cache.unlisted))
            return f"not synced: {kinds} not listed yet"
        return None

    def _metrics_page(self) -> bytes:
        return self._metrics.page()

    def _say(self, text: str) -> None:
        print(text, file=self._out, flush=True)


def _announcement(cache: Cache, grpc: str, config: Config) -> str:
    """What is served now, and how to ask for it."""
    refused = [key for key, service in cache.services.items() if service.object.problems]
    services, vms = len(cache.services) - len(refused), len(cache.vms)
    lines = [f"serving {services} services and {vms} virtual machines from {config.manifests}"]
    if config.output is not None:
        lines.append(f"holding their Service and Endpoints in {config.output}")
    if refused:
        lines.append(f"refused: {', '.join(map(str, sorted(refused)))} (why: vmsvc explain NAME)")
    if shown := next((key for key in cache.service_keys() if key not in refused), None):
        server = "" if grpc.endswith(":50051") else f"--server {grpc} "
        request = f'\'{{"service":"{shown}"}}\''
        method = "vmsvc.v1.EndpointService/ResolveEndpoints"
        lines.append("look one up, or watch it change:")
        lines.append(f"  grpcurl -plaintext -d {request} {grpc} {method}")
        lines.append(f"  vmsvc {server}watch {shown}")
    return "\n".join(lines)


def _log_problems(kind: Kind, key: Key, problems: tuple[Problem, ...]) -> None:
    if not problems:
        _log.info("%s %s: nothing is wrong with it any more", kind.value, key)
    elif kind is Kind.VIRTUAL_MACHINE_SERVICE:
        _log.warning("%s %s is refused: %s", kind.value, key, "; ".join(map(str, problems)))
    else:
        _log.warning("%s %s: %s", kind.value, key, "; ".join(map(str, problems)))


def _log_failure(key: Key, failure: Failure | None) -> None:
    if failure is None:
        _log.info("objects of %s are as they should be again", key)
    else:
        _log.warning("objects of %s: %s: %s", key, failure.reason, failure.message)


def _raise_file_limit() -> None:
    """Allow as many connections as the system lets us have; each takes a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _log.info("open files: at most %d (was %d)", hard, soft)


def _bind(metrics: Metrics, cache: Cache, server: Server, reconciler: Reconciler | None) -> None:
    """Bind each metric to the part that counts it."""
    metrics.bind(Metric.BUILD, lambda: {(__version__,): 1})
    metrics.bind_one(Metric.SYNCED, lambda: cache.synced)
    metrics.bind(
        Metric.OBJECTS,
        lambda: {
            (Kind.VIRTUAL_MACHINE.value,): len(cache.vms),
            (Kind.VIRTUAL_MACHINE_SERVICE.value,): len(cache.services),
            (Kind.SERVICE.value,): len(cache.stored_services),
            (Kind.ENDPOINTS.value,): len(cache.stored_endpoints),
        },
    )
    metrics.bind(
        Metric.PROBLEMS,
        lambda: {(kind.value,): sum(noted is kind for noted, _ in cache.problems) for kind in Kind},
    )
    metrics.bind_one(Metric.EVENTS, lambda: cache.counts.events)
    metrics.bind_one(Metric.EVALUATIONS, lambda: cache.counts.evaluations)
    metrics.bind_one(Metric.PUBLICATIONS, lambda: cache.counts.publications)
    metrics.bind_one(Metric.TOPICS, lambda: cache.topic_count)
    counts = server.counts
    metrics.bind(
        Metric.CALLS,
        lambda: {(path, code.name): n for (path, code), n in counts.calls.items()},
    )
    metrics.bind(Metric.STREAMS, lambda: {(path,): n for path, n in counts.streams_open.items()})
    metrics.bind_one(Metric.DRAINED, lambda: counts.drained)
    metrics.bind(Metric.MESSAGES, lambda: {(kind,): n for kind, n in counts.messages.items()})
    metrics.bind(Metric.ENCODINGS, lambda: {(kind,): n for kind, n in counts.encodings.items()})
    if reconciler is None:
        return
    work = reconciler.counts
    metrics.bind_one(Metric.RECONCILES, lambda: work.reconciles)
    metrics.bind(
        Metric.WRITES,
        lambda: {(kind.value, verb.value): n for (kind, verb), n in work.writes.items()},
    )
    metrics.bind_one(Metric.CONFLICTS, lambda: work.conflicts)
    metrics.bind_one(Metric.FAILURES, lambda: work.errors)
    metrics.bind_one(Metric.QUEUE, lambda: reconciler.queue_depth)
