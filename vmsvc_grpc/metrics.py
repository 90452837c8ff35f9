"""Every metric: its name, labels and help text. Values are read when somebody scrapes.

The parts count in plain numbers of their own; no code here runs for an event or a message.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from vmsvc_grpc.histogram import Histogram

Values = Mapping[tuple[str, ...], float]
"""Values by label values, which are in the order of the metric's labels."""

Histograms = Mapping[tuple[str, ...], Histogram]
"""The same for histograms."""

Sample = tuple["Metric", tuple[str, ...], int]
"""A metric, its label values, and its value."""

Walk = Callable[[], Iterator[Iterable[Sample]]]
"""Goes through what there may be much of. Each step takes a few ms at most."""


class Metric(Enum):
    """The metrics: name, help text, labels. docs/metrics.md is made from this table.

    Names begin with `vmsvc_`. Where dashboards know a name for the same thing, it is that one:
    `grpc_server_` as the interceptors of grpc-ecosystem have it, `workqueue_`, `rest_client_` and
    `leader_election_` as Kubernetes' own components do. A counter's name ends with `_total`; units
    are base units, and come last; a moment is a Unix timestamp.
    """

    BUILD = ("vmsvc_build_info", "1, labelled by the version that runs.", ("version",))
    SYNCED = ("vmsvc_synced", "1 once every kind of object has been listed, else 0.", ())

    CALLS_STARTED = (
        "grpc_server_started_total",
        "Calls that have begun.",
        ("grpc_type", "grpc_service", "grpc_method"),
    )
    CALLS = (
        "grpc_server_handled_total",
        "Calls that have ended.",
        ("grpc_type", "grpc_service", "grpc_method", "grpc_code"),
    )
    HANDLING = (
        "grpc_server_handling_seconds",
        "How long calls took that have ended; a stream as long as it was open.",
        ("grpc_type", "grpc_service", "grpc_method"),
        True,
    )
    STREAMS = (
        "vmsvc_streams_open",
        "Streams that are open, and calls that wait for a verdict on who asks (--streams-max).",
        ("grpc_type", "grpc_service", "grpc_method"),
    )
    FAULTS = (
        "vmsvc_faults_total",
        "Calls that ended by a fault of ours; the log has the traceback of each.",
        (),
    )
    DRAINED = ("vmsvc_streams_drained_total", "Streams ended as the server stops.", ())
    REQUEST_BYTES = (
        "vmsvc_request_bytes_total",
        "Bytes of requests that were read; those refused for their size are not.",
        (),
    )
    REFUSALS = (
        "vmsvc_refusals_total",
        "Calls, connections, names refused or ended at a bound, and uploads that wait, by setting.",
        ("setting",),
    )
    TAKEN = (
        "vmsvc_bound_taken",
        "How much is taken of a bound on all connections, by its setting (with http2).",
        ("setting",),
    )
    NAMES = (
        "vmsvc_names_followed",
        "Services and xDS resources that streams follow by name (--names-max).",
        (),
    )
    NAME_BYTES = ("vmsvc_names_followed_bytes", "Bytes of those (--name-bytes-max).", ())
    LOOP_LAG = (
        "vmsvc_loop_lag_seconds",
        "How late the event loop called back, which is how long everybody waited.",
        (),
        True,
    )

    OBJECTS = ("vmsvc_objects", "Objects in the cache.", ("kind",))
    PROBLEMS = ("vmsvc_objects_with_problems", "Objects refused or partly unusable.", ("kind",))
    EVENTS = ("vmsvc_events_total", "Events taken in from the sources.", ())
    EVALUATIONS = ("vmsvc_evaluations_total", "Times that a VM was matched against a service.", ())
    PUBLICATIONS = ("vmsvc_publications_total", "Versions published by topics.", ())
    TOPICS = ("vmsvc_topics", "Topics: two a service, and those that clients wait for.", ())
    TO_FIRST = (
        "vmsvc_change_to_first_stream_seconds",
        "From the source's event to the first stream; changes sent together are one (with http2).",
        (),
        True,
    )
    TO_LAST = (
        "vmsvc_change_to_last_stream_seconds",
        "The same to the last stream, leaving out those whose clients do not read.",
        (),
        True,
    )
    MESSAGES = ("vmsvc_watch_messages_total", "Messages sent to watches.", ("event",))
    ENCODINGS = ("vmsvc_watch_encodings_total", "Messages made; many share one.", ("event",))
    XDS_ENCODINGS = (
        "vmsvc_xds_encodings_total",
        "xDS resources made; all streams share each.",
        ("type",),
    )
    XDS_SENT = (
        "vmsvc_xds_resources_sent_total",
        "xDS resources put into responses, removals among them.",
        ("type",),
    )
    XDS_SKIPPED = (
        "vmsvc_xds_resources_skipped_total",
        "xDS resources looked at for a stream that had nothing new for it.",
        ("type",),
    )
    XDS_ACKS = ("vmsvc_xds_acks_total", "xDS responses that clients acknowledged.", ("type",))
    XDS_NACKS = (
        "vmsvc_xds_nacks_total",
        "xDS responses that clients refused; the log has their words.",
        ("type",),
    )

    NAMESPACE_SERVICES = (
        "vmsvc_namespace_services",
        "VirtualMachineServices by state (--service-metrics).",
        ("namespace", "state"),
    )
    NAMESPACE_ENDPOINTS = (
        "vmsvc_namespace_endpoints",
        "Endpoints of all services of a namespace (--service-metrics).",
        ("namespace", "ready"),
    )
    SERVICE_ENDPOINTS = (
        "vmsvc_service_endpoints",
        "Endpoints of a service that is not refused (--service-metrics=all).",
        ("namespace", "service", "ready"),
    )

    FILES = ("vmsvc_files_read_total", "Manifest files read.", ("source",))
    FILE_PROBLEMS = ("vmsvc_file_problems", "Problems of manifest files now.", ("source",))
    UNKNOWN = ("vmsvc_documents_ignored", "Documents of kinds that are not ours.", ("source",))
    CONTACT = (
        "vmsvc_source_contact_timestamp_seconds",
        "When the API server last sent anything of a kind: what is served is as old as that.",
        ("kind", "namespace"),
    )
    LISTS = ("vmsvc_source_lists_total", "Complete lists read.", ("kind", "namespace"))
    WATCHES = ("vmsvc_source_watches_total", "Watches opened.", ("kind", "namespace"))
    READ_FAILURES = (
        "vmsvc_source_failures_total",
        "Reads that failed, by HTTP status; 0 for no answer.",
        ("kind", "namespace", "status"),
    )
    API_REQUESTS = (
        "rest_client_requests_total",
        "Requests to the API server, by HTTP status; <error> for no answer.",
        ("code", "method", "host"),
    )

    LEADS = (
        "leader_election_master_status",
        "1 while this replica leads, and so may write, else 0.",
        ("name",),
    )
    RECONCILES = (
        "vmsvc_reconcile_seconds",
        "Turns in which a service's objects were looked at, and written if need be.",
        ("result",),
        True,
    )
    WRITES = (
        "vmsvc_write_seconds",
        "Writes of objects, from the request to its answer.",
        ("kind", "verb", "result"),
        True,
    )
    PENDING = (
        "vmsvc_reconcile_pending",
        "Services that wait for the reconciler or are worked on, those that back off among them.",
        (),
    )
    FAILING = (
        "vmsvc_reconcile_failing",
        "Services whose objects are not as they should be; each says why (vmsvc explain NAME).",
        (),
    )
    QUEUE_DEPTH = (
        "workqueue_depth",
        "Services that are due, and wait for a worker.",
        ("name",),
    )
    QUEUE_ADDS = ("workqueue_adds_total", "Services that were put into the queue.", ("name",))
    QUEUE_RETRIES = (
        "workqueue_retries_total",
        "Services that were put back to try again later.",
        ("name",),
    )
    QUEUE_WAIT = (
        "workqueue_queue_duration_seconds",
        "How long a service that was due waited for a worker.",
        ("name",),
        True,
    )
    QUEUE_WORK = (
        "workqueue_work_duration_seconds",
        "How long a worker took for a service.",
        ("name",),
        True,
    )
    QUEUE_UNFINISHED = (
        "workqueue_unfinished_work_seconds",
        "How long workers have been at what they have not finished, in all.",
        ("name",),
    )
    QUEUE_LONGEST = (
        "workqueue_longest_running_processor_seconds",
        "How long the worker that began first has been at its service.",
        ("name",),
    )

    REVIEWS = (
        "vmsvc_access_reviews_total",
        "Questions to the API server about tokens and rights, by result (yes, no, failed).",
        ("review", "result"),
    )
    REVIEWS_OPEN = (
        "vmsvc_access_reviews_open",
        "Questions to the API server that have no answer yet.",
        (),
    )
    REVIEW_ANSWER = (
        "vmsvc_access_review_answer_timestamp_seconds",
        "When the API server last answered one; nothing before it first has.",
        (),
    )
    VERDICTS = (
        "vmsvc_access_verdicts_remembered",
        "Answers about tokens and rights that are remembered.",
        ("review",),
    )
    ACCESS_REFUSALS = (
        "vmsvc_access_refusals_total",
        "Calls that were refused for who asks, by reason.",
        ("reason",),
    )
    TLS_EXPIRY = (
        "vmsvc_tls_expiration_timestamp_seconds",
        "When the certificate in use expires (of CAs, the last one).",
        ("file",),
    )
    TLS_LOADS = ("vmsvc_tls_loads_total", "Times that files were taken into use.", ("file",))
    TLS_REFUSED = (
        "vmsvc_tls_files_refused",
        "1 while files cannot be used and what was read before stays in use, else 0.",
        ("file",),
    )

    def __init__(
        self,
        metric: str,
        text: str,
        labels: tuple[str, ...],
        is_histogram: bool = False,
    ) -> None:
        self.metric = metric
        self.text = text
        self.labels = labels
        self.is_histogram = is_histogram

    @property
    def is_counter(self) -> bool:
        """Whether its values only rise."""
        return self.metric.endswith("_total")


LABELS = {
    "code": "HTTP status; `<error>` where no answer came",
    "event": "kind of message: snapshot, delta, current, absent, synced",
    "file": "`certificate` (with its key) or `client-ca`",
    "grpc_code": "status code, as gRPC for Go writes it: OK, NotFound, ...",
    "grpc_method": "the method's name; `unknown` for all methods that there are not",
    "grpc_service": "the service's full name; `unknown` likewise",
    "grpc_type": "unary, server_stream, bidi_stream; `unknown` likewise",
    "host": "the API server's address",
    "kind": "kind of object",
    "method": "HTTP method",
    "name": "the queue, or the Lease",
    "namespace": "of services, theirs; of sources, one named by `--namespace`, or empty for all "
    "together",
    "ready": "true or false",
    "reason": "why callers were refused",
    "result": "how it ended: a turn is done, is to be gone on with (again), or failed; a write was "
    "written, met a newer object (conflict), met none (gone), or failed; a review was answered yes "
    "or no, or failed",
    "review": "what is asked of the API server: about a token (token) or a right (access)",
    "service": "the service's name",
    "setting": "the bound, by the name of its flag, with `_` for `-`",
    "source": "the directory",
    "state": "ready (it has a ready endpoint), empty (it has none), no_selector (its endpoints are "
    "others' to write) or refused",
    "status": "HTTP status; 0 where no answer came",
    "type": "type of xDS resource",
    "verb": "create, update or delete",
    "version": "the version that runs",
}
"""What each label says. Callers can add no value; services and namespaces are what there are."""


class Metrics(Collector):
    """A page of metrics. Each is bound to a reader of its values; an unbound one is left out."""

    def __init__(self) -> None:
        self._readers: dict[Metric, list[Callable[[], Values]]] = {}
        self._walks: list[tuple[Sequence[Metric], Walk]] = []
        self._histograms: dict[Metric, Callable[[], Histograms]] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def bind(self, metric: Metric, read: Callable[[], Values]) -> None:
        """Ask `read` for values of `metric` at each scrape.

        Several may be bound to one metric; values with the same labels are added.
        """
        assert not metric.is_histogram, "it has no values of this kind"
        self._readers.setdefault(metric, []).append(read)

    def bind_one(self, metric: Metric, read: Callable[[], float]) -> None:
        """Ask `read` for the only value of `metric`, which has no labels."""
        self.bind(metric, lambda: {(): read()})

    def bind_walk(self, metrics: Sequence[Metric], walk: Walk) -> None:
        """Have `walk` made at each scrape for the values of gauges of which there may be many."""
        self._walks.append((metrics, walk))

    def bind_histograms(self, metric: Metric, read: Callable[[], Histograms]) -> None:
        """Ask `read` for the histograms that `metric` has at a scrape."""
        assert metric.is_histogram, "it has values of another kind"
        self._histograms[metric] = read

    def bind_histogram(self, metric: Metric, histogram: Histogram) -> None:
        """Show `histogram` as `metric`, which has no labels."""
        self.bind_histograms(metric, lambda: {(): histogram})

    def collect(self) -> Iterator[Family]:
        """The families of all bound metrics, read now, in the order of the table."""
        for metric in Metric:
            if metric in self._histograms:
                yield self._histogram_family(metric)
            elif metric in self._readers:
                shape = CounterMetricFamily if metric.is_counter else GaugeMetricFamily
                family = shape(metric.metric, metric.text, labels=metric.labels)
                for labels, number in self._values(metric).items():
                    family.add_metric(list(labels), number)
                yield family

    def _values(self, metric: Metric) -> Values:
        first, *others = self._readers[metric]
        values = dict(first())
        for read in others:
            for labels, number in read().items():
                values[labels] = values.get(labels, 0) + number
        return values

    def _histogram_family(self, metric: Metric) -> Family:
        family = HistogramMetricFamily(metric.metric, metric.text, labels=metric.labels)
        for labels, histogram in self._histograms[metric]().items():
            family.add_metric(list(labels), histogram.buckets(), histogram.sum_s)
        return family

    def page(self, open_metrics: bool) -> Iterator[bytes]:
        """All of it, part by part: as OpenMetrics, or in Prometheus' text format.

        Each part, some of them empty, takes a few ms at most to make, so that others can have their
        turn before the next one.
        """
        generate = openmetrics.generate_latest if open_metrics else generate_latest
        for family in self._registry.collect():
            yield generate(_Families(family)).removesuffix(_END)
        for metrics, walk in self._walks:
            lines = {metric: [_head(metric)] for metric in metrics}
            for step in walk():
                for metric, values, number in step:
                    lines[metric].append(_line(metric, values, number))
                yield b""
            for of_metric in lines.values():
                yield "".join(of_metric).encode()
        if open_metrics:
            yield _END


_END = b"# EOF\n"


class _Families(CollectorRegistry):
    """What the library writes one family of."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        self._family = family

    def collect(self) -> Iterator[Family]:
        yield self._family


def _head(metric: Metric) -> str:
    """What stands before a gauge's values; the same in both formats."""
    return f"# HELP {metric.metric} {metric.text}\n# TYPE {metric.metric} gauge\n"


def _line(metric: Metric, values: Sequence[str], number: int) -> str:
    pairs = zip(metric.labels, values, strict=True)
    labels = ",".join([f'{label}="{_escaped(value)}"' for label, value in pairs])
    return f"{metric.metric}{{{labels}}} {number}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def moment(silence_s: float) -> float:
    """The Unix timestamp of what was so many seconds ago."""
    return time.time() - silence_s
