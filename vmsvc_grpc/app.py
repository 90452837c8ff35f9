"""Wires the parts into one process: place, cache, server, signals, drain."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import shlex
import shutil
import signal
import ssl
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from heapq import nsmallest
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from vmsvc_grpc import __version__
from vmsvc_grpc.bindings import (
    bind_access_refusals,
    bind_cache,
    bind_requests,
    bind_reviews,
    bind_server,
    bind_services,
    bind_tls,
)
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.topic import Topic
from vmsvc_grpc.collector import GarbageScans, calm_collector
from vmsvc_grpc.config import AUTH_STALE_S, TOKEN_AUDIENCE, Config
from vmsvc_grpc.exits import EXIT_FAILED
from vmsvc_grpc.freed import FreedMemory
from vmsvc_grpc.kube.credentials import NoApiServer
from vmsvc_grpc.lag import LoopLag
from vmsvc_grpc.logs.about import about, shown
from vmsvc_grpc.logs.origins import LinesPerOrigin
from vmsvc_grpc.logs.repeats import Repeats
from vmsvc_grpc.metrics import Metric, Metrics
from vmsvc_grpc.model.endpoints import EndpointSet
from vmsvc_grpc.model.events import Event
from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.model.problem import Problem
from vmsvc_grpc.place import Place
from vmsvc_grpc.reconciler.store import ChangeError
from vmsvc_grpc.server.access.gate import GateError, OpenGate
from vmsvc_grpc.server.access.principal import CertificateRules
from vmsvc_grpc.server.http.server import HttpServer
from vmsvc_grpc.server.limits import FILES_MIN, Limits, within_files
from vmsvc_grpc.server.listen import ListenError, Server
from vmsvc_grpc.server.tls.files import TlsFilesError
from vmsvc_grpc.server.tls.rotation import H2, HTTP1, TlsRotation
from vmsvc_grpc.server.transport import Listener, MakeTransport
from vmsvc_grpc.server.xds.following import XdsScope
from vmsvc_grpc.server.xds.names import References
from vmsvc_grpc.source import SourceError
from vmsvc_grpc.source.inotify import DirectoryWatch

if TYPE_CHECKING:
    from vmsvc_grpc.server.access.certificates import CertificateGate
    from vmsvc_grpc.server.access.reviews import ReviewGate
    from vmsvc_grpc.server.page.server import PageServer

_log = logging.getLogger("vmsvc_grpc")

_NAMES_MAX = 10  # How many services one line names.


def main(config: Config, repeats: Repeats) -> int:
    """Serve until a signal; the exit status. An error to start with is one line of the log.

    `repeats` bounds what the log repeats.
    """
    status = 0
    try:
        app = App(config, repeats)
        # Not uvloop.run: where no event loop can be made, it leaves a coroutine behind.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(app.run())
    except* (
        TooFewFilesError,
        TlsFilesError,
        GateError,
        ListenError,
        SourceError,
        ChangeError,
        NoApiServer,
    ) as group:
        status = EXIT_FAILED
        for text in dict.fromkeys(map(str, _each(group))):
            # One line, and no traceback: it says what to do.
            _log.error("%s", text, extra=about(reason="CannotServe"))
    return status


def _each(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group, and in the groups in it: parts run tasks within tasks."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _each(inner)
    else:
        yield error


class TooFewFilesError(Exception):
    """This process may not open as many files as it needs to begin. Its text is one line."""


class App:
    """One serving process. `run` it once, on an event loop of its own."""

    def __init__(self, config: Config, repeats: Repeats) -> None:
        """Raises TooFewFilesError."""
        self._config = config
        self._repeats = repeats
        self._unfinished = asyncio.Event()
        self._cache = Cache(
            config.rules,
            kinds=_kinds(config),
            namespaces=config.namespaces,
            on_problems=self._log_problems,
            on_unfinished=self._unfinished.set,
            on_published=_log_publication if _log.isEnabledFor(logging.DEBUG) else None,
        )
        scope = XdsScope(config.xds_scope)
        limits = self._limits = _limits(config.limits)
        _check_files()
        self._lines = LinesPerOrigin(_log)
        self._reviews = self._review_gate() if config.auth == "kubernetes" else None
        self._policy = self._policy_gate(config.auth_policy) if config.auth_policy else None
        self._gate = self._reviews or self._policy
        self._server = Server(
            self._cache,
            [
                Listener(
                    str(each),
                    partial(self._context, H2) if config.uses_tls(each) else None,
                    guarded=config.guards(each),
                )
                for each in config.listen
            ],
            _transport(config.transport),
            limits,
            xds_scope=scope,
            xds_references=References(config.cluster_domain),
            remarks=self._remarks,
            gate=self._gate or OpenGate(),
        )
        self._deliveries = self._server.counts.deliveries
        self._followed = 0
        self._unfinished_since = 0.0
        self._metrics = Metrics()
        self._lag = LoopLag(_tidying(GarbageScans(), FreedMemory()))
        self._http = HttpServer(
            self._not_ready,
            self._metrics.page,
            limits,
            self._server.counts,
            troubles=self._troubles,
            tls=partial(self._context, HTTP1) if config.uses_tls(config.http_listen) else None,
            gate=self._gate,
        )
        self._place: Place | None = None
        self._page: PageServer | None = None
        self._tls: TlsRotation | None = None
        self._grpc = tuple(map(str, config.listen))
        self._announced = False
        self._stop = asyncio.Event()
        self._draining: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve until told to stop, then drain. Raises an error that a part cannot recover from."""
        calm_collector()  # Otherwise it scans all imported modules while the lists are read.
        loop = asyncio.get_running_loop()
        for number in _stopping_signals():
            loop.add_signal_handler(number, self._stop_at_signal, number.name)
        bind_cache(self._metrics, self._cache)
        if self._config.service_metrics != "off":
            each = self._config.service_metrics == "all"
            bind_services(self._metrics, self._cache, each=each)
        bind_server(self._metrics, self._server)
        if self._gate is not None:
            bind_access_refusals(self._metrics, self._gate.refusals)
        if self._reviews is not None:
            bind_reviews(self._metrics, self._reviews)
        self._metrics.bind_histogram(Metric.LOOP_LAG, self._lag.histogram)
        place = self._place = self._chosen_place()
        tls = self._tls = self._loaded_tls()
        exposed = ", ".join(map(str, self._config.exposed))
        try:
            self._grpc = await self._server.start()
            http = await self._start_http()
            self._log_listening(http, await self._start_page())
            _log.info("reading from %s", place, extra=about(reason="Reading"))
            async with asyncio.TaskGroup() as tasks:
                until_drained = [
                    tasks.create_task(part)
                    for part in (
                        self._lag.run(),
                        self._proceed(),
                        self._lines.run(),
                        self._repeats.run(),
                        self._server.client_lines.run(),
                        place.run(self._emit),
                        *([tls.run()] if tls is not None else ()),
                        *([self._review(self._reviews)] if self._reviews is not None else ()),
                        *([self._policy.run()] if self._policy is not None else ()),
                        *([warn_each_hour(exposed)] if exposed else ()),
                    )
                ]
                await self._stop.wait()
                self._draining = tasks.create_task(self._drain())
                await asyncio.wait((self._draining,))
                for task in until_drained:
                    task.cancel()
        finally:
            if self._page is not None:
                await self._page.stop()
            await self._http.stop()
            await self._server.stop()

    def _loaded_tls(self) -> TlsRotation | None:
        """The TLS of listeners, if files are named for it. Raises TlsFilesError."""
        files = self._config.tls
        if files is None:
            return None
        if not any(map(self._config.uses_tls, (*self._config.listen, self._config.http_listen))):
            _log.warning(
                "--tls-cert: nothing uses TLS, as loopback is plain; for TLS there, write for "
                "instance --listen=tls://%s",
                self._config.listen[0],
            )
        tls = TlsRotation(files, DirectoryWatch(Path("/")))
        tls.load()
        bind_tls(self._metrics, tls)
        return tls

    def _context(self, protocol: str) -> ssl.SSLContext:
        assert self._tls is not None, "it is loaded before anything listens"
        return self._tls.context(protocol)

    def _review_gate(self) -> ReviewGate:
        from vmsvc_grpc.server.access.reviews import ReviewGate  # noqa: PLC0415
        from vmsvc_grpc.server.access.verdicts import VerdictBounds  # noqa: PLC0415

        stale_s = self._config.auth_stale_s
        bounds = VerdictBounds(stale_s=AUTH_STALE_S if stale_s is None else stale_s)
        return ReviewGate(bounds, _certificate_rules(self._config), self._log_access)

    async def _review(self, gate: ReviewGate) -> None:
        """Have the API server say who callers are and what they may do, until cancelled."""
        from vmsvc_grpc.kube.client import ApiServer  # noqa: PLC0415
        from vmsvc_grpc.server.access.kube_reviews import KubeReviews  # noqa: PLC0415

        assert self._config.credentials is not None, "a Config with this has them"
        async with ApiServer(self._config.credentials) as api:
            bind_requests(self._metrics, api)
            await gate.run(KubeReviews(api, self._config.token_audience or TOKEN_AUDIENCE))

    def _policy_gate(self, path: Path) -> CertificateGate:
        """Raises GateError if the policy cannot be used."""
        from vmsvc_grpc.server.access.certificates import (  # noqa: PLC0415
            CertificateGate,
            PolicyFile,
        )

        watch = DirectoryWatch(Path("/"))
        rules = _certificate_rules(self._config)
        return CertificateGate(PolicyFile(path), rules, watch, self._log_access)

    def _log_access(self, level: int, text: str) -> None:
        trouble = text if level >= logging.WARNING else None
        extra = about(reason="AccessTrouble" if trouble else "Access", error=trouble)
        self._lines.log("access", level, text, extra)

    def _chosen_place(self) -> Place:
        config = self._config
        # Only the part of the program that is used is loaded: each takes a tenth of a start's CPU.
        if config.manifests is not None:
            from vmsvc_grpc.place.directory import DirectoryPlace  # noqa: PLC0415

            return DirectoryPlace(config, config.manifests, self._cache, self._metrics, self._lines)
        from vmsvc_grpc.place.cluster import ClusterPlace  # noqa: PLC0415

        assert config.credentials is not None, "a Config names one of the two"
        return ClusterPlace(config, config.credentials, self._cache, self._metrics, self._lines)

    async def _start_http(self) -> str:
        host, port, _ = self._config.http_listen
        try:
            bound = await self._http.start(host, port)
        except OSError as error:
            raise ListenError(
                f"cannot listen on {self._config.http_listen} for HTTP: {_reason(error)}; "
                "choose another with --http-listen"
            ) from error
        where = self._config.http_listen._replace(port=bound)
        return f"{where} (TLS)" if self._config.uses_tls(where) else str(where)

    async def _start_page(self) -> str:
        """Serve the page, if there is to be one; its URL, or "" if there is none."""
        address = self._config.page_listen
        if address is None:
            return ""
        from vmsvc_grpc.server.page.page import Page, PageFacts  # noqa: PLC0415
        from vmsvc_grpc.server.page.server import PageServer  # noqa: PLC0415

        server, place = self._server, self._place
        assert place is not None, "it is chosen before anything listens"
        facts = PageFacts(
            version=__version__,
            reads=str(place),
            not_ready=self._not_ready,
            troubles=self._troubles,
            sources=lambda: place.sources,
            writing=lambda: place.writing,
            streams=server.streams,
            streams_open=lambda: server.streams_open,
            connections=lambda: server.connections,
        )
        page = Page(self._cache, self._server.lookup, self._remarks, self._limits, facts)
        self._page = PageServer(page, self._limits, self._server.counts)
        try:
            bound = await self._page.start(address.host, address.port)
        except OSError as error:
            raise ListenError(
                f"cannot listen on {address} for the page: {_reason(error)}; "
                "choose another with --page-listen"
            ) from error
        return f"http://{address._replace(port=bound)}"

    def _log_listening(self, http: str, page: str) -> None:
        named = zip(self._grpc, self._config.listen, strict=True)
        lines = [
            f"vmsvc-grpc {__version__}",
            *(f"  gRPC  on {at}{' (TLS)' if self._config.uses_tls(a) else ''}" for at, a in named),
            f"  HTTP  on {http}",
            *([f"  page  on {page}"] if page else ()),
        ]
        others = {"page": page} if page else {}
        _log.info(
            "vmsvc-grpc %s: gRPC on %s, HTTP on %s",
            __version__,
            ", ".join(self._grpc),
            http,
            extra=shown("\n".join(lines), reason="Listening", grpc=self._grpc, http=http, **others),
        )

    def _plain(self) -> str:
        """The first address that needs no certificate; "" if there is none."""
        listening = zip(self._grpc, self._config.listen, strict=True)
        return next((at for at, named in listening if not self._config.uses_tls(named)), "")

    def _emit(self, event: Event) -> None:
        assert self._place is not None, "a place that emits is there"
        since = self._deliveries.clock()
        was_finished = not self._unfinished.is_set()
        # The topics have published when `take_in` returns; writing comes after that.
        self._changed(self._cache.take_in(event), self._place, since)
        if was_finished and self._unfinished.is_set():
            self._unfinished_since = since
            # The first slice at once, as most lists leave work for one only. The others have a
            # turn each, however many events come in it.
            self._changed(self._cache.proceed(), self._place, since)

    async def _proceed(self) -> None:
        """Do the work that events leave, a slice a turn of the event loop."""
        while True:
            await self._unfinished.wait()
            while self._cache.unfinished:
                assert self._place is not None, "a place that emits is there"
                self._changed(self._cache.proceed(), self._place, self._unfinished_since)
                await asyncio.sleep(0)
            self._unfinished.clear()

    def _changed(self, services: Iterable[Key], place: Place, since: float) -> None:
        """The cache has taken in something that came at `since`."""
        followed = self._cache.followed
        if followed != self._followed:
            self._followed = followed
            self._deliveries.published(since, self._cache.version)
        place.changed(services)
        if self._cache.synced and not self._announced:
            self._announced = True
            _announce(self._cache, self._plain(), place)
            calm_collector()

    async def _drain(self) -> None:
        streams = sum(self._server.counts.streams_open.values())
        drain_s = self._config.drain_s
        extra = about(reason="Draining", streams=streams)
        _log.info("draining: %d streams end within %g s", streams, drain_s, extra=extra)
        await self._server.drain(drain_s)

    def _stop_at_signal(self, name: str) -> None:
        if self._draining is not None:
            _log.warning("%s again: ending at once", name, extra=about(reason="Stopping"))
            self._draining.cancel()
            return
        _log.info("%s: stopping", name, extra=about(reason="Stopping"))
        self._stop.set()

    def _not_ready(self) -> str | None:
        if self._stop.is_set():
            return "draining"
        if not self._cache.synced:
            kinds = ", ".join(sorted(kind.value for kind in self._cache.unlisted))
            return f"not synced: {kinds} not listed yet" if kinds else "not synced: nearly there"
        return None

    def _troubles(self) -> Iterator[str]:
        yield from self._place.troubles if self._place else ()
        yield from self._tls.troubles if self._tls else ()
        yield from self._gate.troubles if self._gate else ()

    def _remarks(self, kind: Kind, key: Key) -> Iterable[str]:
        return self._place.remarks(kind, key) if self._place else ()

    def _log_problems(self, kind: Kind, key: Key, problems: tuple[Problem, ...]) -> None:
        assert self._place is not None, "what is wrong was emitted by a place"
        origin = self._place.origin(kind, key)
        if not problems:
            text = f"{kind.value} {key}: mended, or gone"
            self._lines.log(origin, logging.INFO, text, about(kind, key, reason="InOrder"))
            return
        is_refused = kind is Kind.VIRTUAL_MACHINE_SERVICE
        error = "; ".join(map(str, problems))
        text = f"{kind.value} {key}{' is refused' if is_refused else ''}: {error}"
        reason = "Refused" if is_refused else "Flawed"
        self._lines.log(origin, logging.WARNING, text, about(kind, key, reason=reason, error=error))


async def warn_each_hour(exposed: str, hour_s: float = 3600.0) -> None:
    """Log, now and each hour until cancelled, that anybody may come to these addresses."""
    while True:
        _log.warning(
            "--insecure: others may read along at %s, or nobody there is asked who they are",
            exposed,
            extra=about(reason="Insecure"),
        )
        await asyncio.sleep(hour_s)


def _stopping_signals() -> Iterator[signal.Signals]:
    """The signals that end us. A closed terminal sends SIGHUP; `nohup` ignores it."""
    yield from (signal.SIGTERM, signal.SIGINT)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        yield signal.SIGHUP


def _reason(error: OSError) -> str:
    # asyncio's own text repeats the address.
    return os.strerror(error.errno) if error.errno else str(error)


def _transport(name: str) -> MakeTransport:
    """The transport of this name. The library of the other one is not loaded."""
    if name == "http2":
        from vmsvc_grpc.server.transport.http2 import Http2  # noqa: PLC0415

        return Http2
    from vmsvc_grpc.server.transport.grpc_aio import GrpcAio  # noqa: PLC0415

    return GrpcAio


def _kinds(config: Config) -> frozenset[Kind]:
    """The kinds without which nothing can be answered."""
    if config.manifests is not None:
        from vmsvc_grpc.place.directory import directory_kinds  # noqa: PLC0415

        return directory_kinds(config)
    from vmsvc_grpc.place.cluster import SERVED_KINDS, cluster_kinds  # noqa: PLC0415

    # Slices that are only to be deleted must not delay answers.
    return SERVED_KINDS if config.endpoint_slices == "mirror" else cluster_kinds(config)


def _log_publication(topic: Topic, /, *, was_there: bool) -> None:
    """Log a publication, for `debug`."""
    state = topic.current.state
    endpoints = state.endpoints if isinstance(state, EndpointSet) else ()
    _log.debug(
        "published %s (%s), version %d: %s",
        topic.service,
        topic.filter_class.name,
        topic.version,
        f"{len(endpoints)} endpoints" if isinstance(state, EndpointSet) else state.message,
        extra=about(
            Kind.VIRTUAL_MACHINE_SERVICE,
            topic.service,
            reason="Published" if was_there else "FirstPublished",
            version=topic.version,
            endpoints=len(endpoints),
        ),
    )


def _announce(cache: Cache, grpc: str, place: Place) -> None:
    """Log what is served now, and, for a person, how to ask for it."""
    refused = [key for key, service in cache.services.items() if service.object.problems]
    served = [key for key, service in cache.services.items() if service.served is not None]
    services, vms = len(served), len(cache.vms)
    text = f"serving {services} services and {vms} virtual machines from {place}"
    lines = [text]
    vmsvc = _vmsvc() + (f" --server {grpc}" if grpc and not grpc.endswith(":50051") else "")
    if refused:
        names = ", ".join(map(str, nsmallest(_NAMES_MAX, refused)))
        more = f" and {len(refused) - _NAMES_MAX} more" if len(refused) > _NAMES_MAX else ""
        lines.append(f"refused: {names}{more} (why: {vmsvc} explain {min(refused)})")
    first = min(served, default=None)
    if first and grpc:
        request = f'\'{{"service":"{first}"}}\''
        method = "vmsvc.v1.EndpointService/ResolveEndpoints"
        lines.append("look one up, or watch it change:")
        lines.append(f"  grpcurl -plaintext -d {request} {grpc} {method}")
        lines.append(f"  {vmsvc} watch {first}")
    counts = {"services": services, "refused": len(refused), "virtual_machines": vms}
    _log.info("%s", text, extra=shown("\n".join(lines), reason="Serving", **counts))


def _vmsvc() -> str:
    """The command `vmsvc`, as it can be typed here: it is installed beside this program."""
    beside = Path(sys.executable).with_name("vmsvc")
    if shutil.which("vmsvc") or not beside.exists():
        return "vmsvc"
    here = Path.cwd()
    return shlex.quote(str(beside.relative_to(here) if beside.is_relative_to(here) else beside))


def _limits(wanted: Limits) -> Limits:
    """The limits, as far as this process may open files for them; says so where it may not."""
    files_max = _raise_file_limit()
    limits = within_files(wanted, files_max)
    if limits.connections_max < wanted.connections_max:
        _log.warning(
            "the limit of open files (%d) allows %d gRPC connections at once, not %d "
            "(--connections-max); raise it for more (ulimit -n)",
            files_max,
            limits.connections_max,
            wanted.connections_max,
            extra=about(reason="FewOpenFiles"),
        )
    return limits


def _raise_file_limit() -> int:
    """Raise the limit of open files as far as the system allows; the limit then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _log.debug("open files: at most %d (was %d)", hard, soft)
    return hard


def _check_files() -> None:
    """Raise TooFewFilesError unless as many can be opened as are needed to begin.

    Without one, libraries of ours abort the process, or leave an event loop that cannot be closed.
    """
    try:
        with ExitStack() as opened:
            for _ in range(FILES_MIN):
                opened.enter_context(Path(os.devnull).open("rb"))
    except OSError as error:
        raise TooFewFilesError(
            f"fewer than {FILES_MIN} files can be opened: {_reason(error)}; "
            "raise the limit (ulimit -n)"
        ) from error


def _certificate_rules(config: Config) -> CertificateRules:
    return CertificateRules(
        of_cluster=config.client_ca_of_cluster, trust_domain=config.spiffe_trust_domain
    )


def _tidying(garbage: GarbageScans, freed: FreedMemory) -> Callable[[], None]:
    """What is done about memory at each tick."""

    def tidy() -> None:
        garbage.scan_if_due()
        freed.give_back_if_due()

    return tidy
