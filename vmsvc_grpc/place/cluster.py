"""An API server as the source, and, where this replica leads, as the place to write."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from vmsvc_grpc.apiserver import ApiServer
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.config import Config
from vmsvc_grpc.credentials import Credentials
from vmsvc_grpc.metrics import Metric, Metrics, Values
from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.reconciler.loop import Reconciler
from vmsvc_grpc.source import Emit
from vmsvc_grpc.source.kube import KubeSource, Trouble

_log = logging.getLogger(__name__)

CLUSTER_KINDS = frozenset(Kind)


class ClusterPlace:
    """Reads one API server. Writes there if told to, and only while it holds the lease."""

    def __init__(
        self, config: Config, credentials: Credentials, cache: Cache, metrics: Metrics
    ) -> None:
        """Nothing is read yet."""
        self._config = config
        self._credentials = credentials
        self._cache = cache
        self._metrics = metrics
        self._source: KubeSource | None = None
        self._reconciler: Reconciler | None = None

    def __str__(self) -> str:
        where = ", ".join(self._config.namespaces)
        scope = f", namespace {where}" if where else ""
        writes = "writing where it leads" if self._config.reconcile else "only reading"
        return f"{self._credentials}{scope}, {writes}"

    @property
    def troubles(self) -> tuple[str, ...]:
        """What cannot be read from the API server now, and why."""
        return self._source.troubles if self._source else ()

    async def run(self, emit: Emit) -> None:
        """Read, and write while leading, until cancelled. Raises NoApiServer."""
        async with ApiServer(self._credentials) as api:
            source = KubeSource(
                api,
                kinds=CLUSTER_KINDS,
                namespaces=self._config.namespaces,
                report=_log_trouble,
            )
            self._source = source
            _bind_source(self._metrics, source)
            await source.run(emit)

    def changed(self, services: Iterable[Key]) -> None:
        """Hand them to the reconciler, if there is one."""
        if self._reconciler is not None:
            self._reconciler.enqueue(services)


def _log_trouble(trouble: Trouble) -> None:
    _log.log(logging.INFO if trouble.resolved else logging.WARNING, "%s", trouble)


def _bind_source(metrics: Metrics, source: KubeSource) -> None:
    def silence() -> Values:
        now = asyncio.get_running_loop().time()
        heard = ((scope, loop.contact) for scope, loop in scopes.items())
        return {scope: now - contact for scope, contact in heard if contact is not None}

    scopes = {(loop.kind.value, loop.namespace or ""): loop for loop in source.loops}
    metrics.bind(Metric.SILENCE, silence)
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
