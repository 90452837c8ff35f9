"""From which part each metric of the cache, of the server and of access is read.

Those of the source and of writing are bound in `place`, which has these parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product
from operator import itemgetter
from typing import TYPE_CHECKING

from vmsvc_grpc import __version__
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.metrics import Metric, Metrics, Sample, Values, moment
from vmsvc_grpc.model.endpoints import EndpointSet, FilterClass
from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.server.listen import Server
from vmsvc_grpc.server.tls.rotation import TlsRotation
from vmsvc_grpc.server.xds.resources import TypeUrl

if TYPE_CHECKING:
    from vmsvc_grpc.kube.client import ApiServer
    from vmsvc_grpc.server.access.reviews import ReviewGate


def bind_cache(metrics: Metrics, cache: Cache) -> None:
    """Bind what is said of the program as a whole, and of its cache."""
    metrics.bind(Metric.BUILD, lambda: {(__version__,): 1})
    metrics.bind_one(Metric.SYNCED, lambda: cache.synced)
    metrics.bind(
        Metric.OBJECTS,
        lambda: {
            (Kind.VIRTUAL_MACHINE.value,): len(cache.vms),
            (Kind.VIRTUAL_MACHINE_SERVICE.value,): len(cache.services),
            (Kind.SERVICE.value,): len(cache.stored_services),
            (Kind.ENDPOINTS.value,): len(cache.stored_endpoints),
            (Kind.ENDPOINT_SLICE.value,): len(cache.stored_slices.keys()),
        },
    )
    metrics.bind(Metric.PROBLEMS, partial(_problem_counts, cache))
    metrics.bind_one(Metric.EVENTS, lambda: cache.counts.events)
    metrics.bind_one(Metric.EVALUATIONS, lambda: cache.counts.evaluations)
    metrics.bind_one(Metric.PUBLICATIONS, lambda: cache.counts.publications)
    metrics.bind_one(Metric.TOPICS, lambda: cache.topic_count)


SERVICES_A_STEP = 200
"""How many services one step of a scrape looks at: below 2 ms."""


def bind_services(metrics: Metrics, cache: Cache, *, each: bool) -> None:
    """Bind how many services and endpoints there are by namespace; `each`: by service, too."""
    shown = [Metric.NAMESPACE_SERVICES, Metric.NAMESPACE_ENDPOINTS]
    if each:
        shown.append(Metric.SERVICE_ENDPOINTS)
    metrics.bind_walk(shown, partial(_services, cache, each=each))


def _services(cache: Cache, *, each: bool) -> Iterator[list[Sample]]:
    """Steps over all services, in the order of their names. They may change in between."""
    counted: Counter[tuple[Metric, str]] = Counter()
    after: Key | None = None
    while names := cache.collection.page(None, after, SERVICES_A_STEP):
        step: list[Sample] = []
        for name in names:
            if after is not None and name.namespace != after.namespace:
                step += _of_namespace(after.namespace, counted)
                counted.clear()
            after = name
            found = _endpoints_of(cache, name)
            if found is None:
                counted[Metric.NAMESPACE_SERVICES, "refused"] += 1
                continue
            ready, others = found
            counted[Metric.NAMESPACE_SERVICES, _state(cache, name, ready)] += 1
            counted[Metric.NAMESPACE_ENDPOINTS, "true"] += ready
            counted[Metric.NAMESPACE_ENDPOINTS, "false"] += others
            if each:
                step.append((Metric.SERVICE_ENDPOINTS, (*name, "true"), ready))
                step.append((Metric.SERVICE_ENDPOINTS, (*name, "false"), others))
        yield step
    if after is not None:
        yield _of_namespace(after.namespace, counted)


def _of_namespace(namespace: str, counted: Mapping[tuple[Metric, str], int]) -> list[Sample]:
    states = (Metric.NAMESPACE_SERVICES, ("ready", "empty", "no_selector", "refused"))
    ready = (Metric.NAMESPACE_ENDPOINTS, ("true", "false"))
    return [
        (metric, (namespace, value), counted.get((metric, value), 0))
        for metric, values in (states, ready)
        for value in values
    ]


def _state(cache: Cache, service: Key, ready: int) -> str:
    """The state of a service that is not refused."""
    if ready:
        return "ready"
    # One without selector has what others write into the Endpoints of its name.
    return "empty" if cache.services[service].selector else "no_selector"


def _endpoints_of(cache: Cache, service: Key) -> tuple[int, int] | None:
    """How many endpoints of a service are ready, and how many are not; None if it is refused."""
    ready = cache.state(service, FilterClass.READY_ONLY).state
    everything = cache.state(service, FilterClass.ALL).state
    if not isinstance(ready, EndpointSet) or not isinstance(everything, EndpointSet):
        return None
    return len(ready.endpoints), len(everything.endpoints) - len(ready.endpoints)


def bind_server(metrics: Metrics, server: Server) -> None:
    """Bind what is said of calls, streams, bounds and messages."""
    counts, labels = server.counts, server.labels_of
    metrics.bind(Metric.CALLS_STARTED, lambda: _by_method(server, counts.started))
    metrics.bind(
        Metric.CALLS,
        lambda: {(*labels(path), code.label): n for (path, code), n in counts.calls.items()},
    )
    metrics.bind_histograms(
        Metric.HANDLING,
        lambda: {labels(path): taken for path, taken in counts.handling.items()},
    )
    metrics.bind_histogram(Metric.TO_FIRST, counts.deliveries.to_first)
    metrics.bind_histogram(Metric.TO_LAST, counts.deliveries.to_last)
    metrics.bind(Metric.STREAMS, lambda: _by_method(server, counts.streams_open))
    metrics.bind(Metric.REFUSALS, lambda: {(name,): n for name, n in counts.refusals.items()})
    metrics.bind(Metric.TAKEN, lambda: {(name,): n for name, n in server.taken().items()})
    metrics.bind_one(Metric.REQUEST_BYTES, lambda: counts.request_bytes)
    metrics.bind_one(Metric.NAMES, lambda: server.names.names)
    metrics.bind_one(Metric.NAME_BYTES, lambda: server.names.name_bytes)
    metrics.bind_one(Metric.FAULTS, lambda: counts.faults)
    metrics.bind_one(Metric.DRAINED, lambda: counts.drained)
    metrics.bind(Metric.MESSAGES, lambda: {(kind,): n for kind, n in counts.messages.items()})
    metrics.bind(Metric.ENCODINGS, lambda: {(kind,): n for kind, n in counts.encodings.items()})
    for metric, by_type in (
        (Metric.XDS_ENCODINGS, counts.xds_encodings),
        (Metric.XDS_SENT, counts.xds_resources_sent),
        (Metric.XDS_SKIPPED, counts.xds_resources_skipped),
        (Metric.XDS_ACKS, counts.xds_acks),
        (Metric.XDS_NACKS, counts.xds_nacks),
    ):
        metrics.bind(metric, partial(_by_type, by_type))


def bind_access_refusals(metrics: Metrics, refusals: Mapping[str, int]) -> None:
    """Bind how often a gate has refused somebody."""
    metrics.bind(Metric.ACCESS_REFUSALS, lambda: {(why,): count for why, count in refusals.items()})


def bind_reviews(metrics: Metrics, gate: ReviewGate) -> None:
    """Bind what is said of questions about who calls, and what they may do."""
    # From 0, so that the first one is a rise.
    none = [*product(gate.remembered, ("yes", "no", "failed"))]
    metrics.bind(Metric.REVIEWS, lambda: {which: gate.reviews[which] for which in none})
    metrics.bind_one(Metric.REVIEWS_OPEN, lambda: gate.waiting)
    metrics.bind(Metric.REVIEW_ANSWER, lambda: _since(gate.silence_s))
    metrics.bind(
        Metric.VERDICTS, lambda: {(review,): count for review, count in gate.remembered.items()}
    )


def bind_requests(metrics: Metrics, api: ApiServer) -> None:
    """Bind what is said of requests to an API server; those of several are added."""
    metrics.bind(Metric.API_REQUESTS, lambda: dict(api.requests.items()))


def bind_tls(metrics: Metrics, tls: TlsRotation) -> None:
    """Bind what is said of the files for TLS."""
    metrics.bind(Metric.TLS_EXPIRY, lambda: {(name,): end for name, end in tls.ends().items()})
    metrics.bind(Metric.TLS_LOADS, lambda: {(name,): n for name, n in tls.loads.items()})
    metrics.bind(Metric.TLS_REFUSED, lambda: {(name,): no for name, no in tls.refused().items()})


def _since(silence_s: float | None) -> Values:
    """When a silence began; nothing if there has been no contact yet."""
    return {} if silence_s is None else {(): moment(silence_s)}


def _by_method(server: Server, counted: Mapping[str, int]) -> Values:
    """Counts by method; each is there, even with a count of 0."""
    paths = dict.fromkeys((*server.paths, *counted))
    return {server.labels_of(path): counted.get(path, 0) for path in paths}


def _problem_counts(cache: Cache) -> Values:
    counts = Counter(map(itemgetter(0), cache.problems))
    return {(kind.value,): counts[kind] for kind in Kind}


def _by_type(counted: Mapping[str, int]) -> Values:
    """Counts by the type of xDS resource; each type is there, even with a count of 0."""
    return {(type_url.label,): counted.get(type_url.label, 0) for type_url in TypeUrl}
