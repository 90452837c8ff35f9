"""An API server as the source, and, while this replica leads, as the place to write."""

from __future__ import annotations

import asyncio
import logging
import socket
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from vmsvc_grpc.bindings import bind_requests
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.config import Config
from vmsvc_grpc.kube.client import ApiServer
from vmsvc_grpc.kube.credentials import Credentials
from vmsvc_grpc.logs.about import about
from vmsvc_grpc.logs.origins import LinesPerOrigin
from vmsvc_grpc.metrics import Metric, Metrics, Values, moment
from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.place import SourceState
from vmsvc_grpc.place.reconciling import bind_reconciler, failure_log
from vmsvc_grpc.reconciler.bounds import HANG_S, ReconcilerBounds
from vmsvc_grpc.reconciler.election import LeaseSettings, lease_name
from vmsvc_grpc.reconciler.events import EventRecorder
from vmsvc_grpc.reconciler.kube import KubeStore
from vmsvc_grpc.reconciler.leader import Leader, Standing
from vmsvc_grpc.reconciler.loop import Reconciler
from vmsvc_grpc.reconciler.rules import Rules
from vmsvc_grpc.source import Emit
from vmsvc_grpc.source.kube import KubeSource, KubeSourceBounds, Trouble

_log = logging.getLogger(__name__)

SERVED_KINDS = frozenset(Kind) - {Kind.ENDPOINT_SLICE}
"""The kinds that answers depend on."""


def cluster_kinds(config: Config) -> frozenset[Kind]:
    """The kinds to read; EndpointSlices only if this replica may write them."""
    return frozenset(Kind) if config.reconcile else SERVED_KINDS


class ClusterPlace:
    """Reads one API server. Writes there only if so configured, and while it holds the Lease."""

    def __init__(
        self,
        config: Config,
        credentials: Credentials,
        cache: Cache,
        metrics: Metrics,
        lines: LinesPerOrigin,
    ) -> None:
        """Nothing is read yet."""
        self._config = config
        self._credentials = credentials
        self._cache = cache
        self._metrics = metrics
        self._lines = lines
        self._source: KubeSource | None = None
        self._reconciler: Reconciler | None = None
        self._leading: Leader | None = None
        self._lease = ""
        self._identity = ""
        self._standing = Standing()
        if config.reconcile:
            # Bound at once, so that an early scrape shows that nobody leads yet.
            name = config.lease_name or lease_name(config.namespaces)
            metrics.bind(
                Metric.LEADS, lambda: {(name,): bool(self._leading and self._leading.leads)}
            )

    def __str__(self) -> str:
        where = ", ".join(self._config.namespaces)
        scope = f", namespace {where}" if where else ""
        writes = "writing where it leads" if self._config.reconcile else "only reading"
        return f"{self._credentials}{scope}, {writes}"

    @property
    def sources(self) -> Iterator[SourceState]:
        """Each kind, in each namespace that is read by itself."""
        now = asyncio.get_running_loop().time()
        for loop in self._source.loops if self._source else ():
            silence_s = None if loop.contact is None else now - loop.contact
            how = loop.trouble or ("listed, and watched" if loop.counts.lists else "being listed")
            yield SourceState(loop.scope, how, not loop.trouble, silence_s)

    @property
    def writing(self) -> str:
        """Who holds the Lease, and so writes."""
        if not self._config.reconcile:
            return "nothing is written (--reconcile=off)"
        held, lease = self._standing, self._lease
        if held.trouble:
            return f"Lease {lease} cannot be held: {held.trouble}"
        if held.leads:
            return f"this replica leads: it holds Lease {lease} as {self._identity}, and writes"
        if held.holder and held.holder != self._identity:
            return f"{held.holder} leads: it holds Lease {lease}; this replica only serves"
        return f"nobody leads yet: Lease {lease or '(not known yet)'} is to be taken"

    @property
    def troubles(self) -> tuple[str, ...]:
        """What cannot be read from the API server now, and why."""
        return self._source.troubles if self._source else ()

    def remarks(self, _kind: Kind, _key: Key) -> Iterable[str]:
        """None: an API server holds an object once."""
        return ()

    def origin(self, _kind: Kind, key: Key) -> str:
        """Its namespace."""
        return f"namespace {key.namespace}"

    async def run(self, emit: Emit) -> None:
        """Read, and write while leading, until cancelled. Raises NoApiServer."""
        async with ApiServer(self._credentials) as api:
            source = KubeSource(
                api,
                kinds=cluster_kinds(self._config),
                namespaces=self._config.namespaces,
                bounds=KubeSourceBounds(silence_s=self._config.watch_silence_s),
                report=_log_trouble,
            )
            self._source = source
            _bind_source(self._metrics, source)
            bind_requests(self._metrics, api)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(source.run(emit))
                if self._config.reconcile:
                    tasks.create_task(self._write(api))

    async def _write(self, api: ApiServer) -> None:
        """Write while leading; the lease is given back once nothing is written."""
        # They say in which namespace the Lease is.
        await api.accessible()
        identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
        leader = self._leading = self._leader(api, identity)
        recorder = EventRecorder(
            api,
            instance=identity,
            may_write=lambda: leader.leads,
            on_lost=lambda service, text: self._lines.log(
                self.origin(Kind.VIRTUAL_MACHINE_SERVICE, service),
                logging.INFO,
                text,
                about(Kind.VIRTUAL_MACHINE_SERVICE, service, reason="EventLost"),
            ),
        )
        self._reconciler = self._writer(api, leader, recorder)
        bind_reconciler(self._metrics, self._reconciler)
        try:
            async with asyncio.TaskGroup() as tasks:
                for job in (leader.run(), recorder.run(), self._reconciler.run()):
                    tasks.create_task(job)
        finally:
            await leader.release()

    def _leader(self, api: ApiServer, identity: str) -> Leader:
        duration_s = self._config.lease_duration_s
        namespace = self._config.lease_namespace or api.namespace
        name = self._config.lease_name or lease_name(self._config.namespaces)
        lease = Key(namespace, name)
        self._lease, self._identity = str(lease), identity

        def changed(now: Standing) -> None:
            before, self._standing = self._standing, now
            _log_standing(lease, identity, before, now)
            if self._reconciler is not None:
                self._reconciler.lead_changed()

        return Leader(
            api,
            namespace=namespace,
            name=name,
            identity=identity,
            # In the proportions of Kubernetes' own components: of 15 s, 10 to renew in.
            settings=LeaseSettings(
                duration_s=duration_s, margin_s=duration_s / 3, renew_s=duration_s * 2 / 15
            ),
            on_change=changed,
        )

    def _writer(self, api: ApiServer, leader: Leader, recorder: EventRecorder) -> Reconciler:
        config = self._config
        write_s = config.lease_duration_s / 3 * 0.8
        store = KubeStore(api, may_write=lambda: leader.leads, write_s=write_s)
        return Reconciler(
            self._cache,
            store,
            bounds=ReconcilerBounds(
                workers=config.workers,
                writes_per_s=config.writes_per_s,
                # What hangs must be known before it is given up.
                hang_s=min(HANG_S, write_s / 4),
            ),
            rules=Rules(
                copying=config.copying,
                load_balancer_provider=config.load_balancer_provider,
                direct_slices=config.endpoint_slices == "direct",
                vmservices_held=True,
            ),
            mirrored=store.mirrored,
            witness=store,
            on_failure=failure_log(self._lines, self.origin),
            on_notice=recorder.record,
            may_write=lambda: leader.leads,
        )

    def changed(self, services: Iterable[Key]) -> None:
        """Hand them to the reconciler, if there is one."""
        if self._reconciler is not None:
            self._reconciler.enqueue(services)


def _log_trouble(trouble: Trouble) -> None:
    if trouble.resolved:
        _log.info("%s", trouble, extra=about(reason="InOrder"))
    else:
        _log.warning("%s", trouble, extra=about(reason="CannotRead", error=trouble.message))


def _log_standing(lease: Key, identity: str, before: Standing, now: Standing) -> None:
    """Log whether this replica writes; if not, which one does, or why that is not known."""

    def of(reason: str, error: str | None = None) -> dict[str, Any]:
        return about("Lease", lease, reason=reason, error=error, holder=now.holder)

    if now.trouble != before.trouble:
        if now.trouble:
            extra = of("LeaseTrouble", now.trouble)
            _log.warning("Lease %s cannot be held: %s", lease, now.trouble, extra=extra)
        else:
            _log.info("Lease %s: in order again", lease, extra=of("InOrder"))
    if now.leads and not before.leads:
        _log.info("leading: Lease %s is held as %s", lease, identity, extra=of("Leading"))
    elif before.leads and not now.leads:
        _log.info("not leading any more", extra=of("NotLeading"))
    if now.holder == identity and not now.leads and before.holder != identity:
        _log.info(
            "Lease %s is held as %s; writing begins once an earlier holder must have ended",
            lease,
            identity,
            extra=of("WaitingToLead"),
        )
    if now.holder not in ("", identity, before.holder):
        extra = of("NotLeading")
        _log.info("not leading: Lease %s is held by %s", lease, now.holder, extra=extra)


def _bind_source(metrics: Metrics, source: KubeSource) -> None:
    def contact() -> Values:
        now = asyncio.get_running_loop().time()
        heard = ((scope, loop.contact) for scope, loop in scopes.items())
        return {scope: moment(now - contact) for scope, contact in heard if contact is not None}

    scopes = {(loop.kind.value, loop.namespace or ""): loop for loop in source.loops}
    metrics.bind(Metric.CONTACT, contact)
    metrics.bind(Metric.LISTS, lambda: {scope: loop.counts.lists for scope, loop in scopes.items()})
    metrics.bind(
        Metric.WATCHES, lambda: {scope: loop.counts.watches for scope, loop in scopes.items()}
    )
    metrics.bind(
        Metric.READ_FAILURES,
        lambda: {
            (*scope, str(status)): n
            for scope, loop in scopes.items()
            for status, n in loop.counts.failures.items()
        },
    )
