"""Every metric: its name, labels and help text. Values are read when somebody scrapes.

The parts count in plain numbers of their own; no code here runs for an event or a message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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


class Metric(Enum):
    """The metrics: name (a counter's ends with `_total`), help text, labels."""

    BUILD = ("vmsvc_build_info", "1, labelled by the version that runs.", ("version",))
    SYNCED = ("vmsvc_synced", "1 once every kind of object has been listed, else 0.", ())
    OBJECTS = ("vmsvc_objects", "Objects in the cache.", ("kind",))
    PROBLEMS = ("vmsvc_objects_with_problems", "Objects refused or partly unusable.", ("kind",))
    EVENTS = ("vmsvc_events_total", "Events taken in from the sources.", ())
    EVALUATIONS = ("vmsvc_evaluations_total", "Times that a VM was matched against a service.", ())
    PUBLICATIONS = ("vmsvc_publications_total", "Versions published by topics.", ())
    TOPICS = ("vmsvc_topics", "Topics: two a service, and those that clients wait for.", ())
    FILES = ("vmsvc_files_read_total", "Manifest files read.", ("source",))
    FILE_PROBLEMS = ("vmsvc_file_problems", "Problems of manifest files now.", ("source",))
    UNKNOWN = ("vmsvc_documents_ignored", "Documents of kinds that are not ours.", ("source",))
    SILENCE = (
        "vmsvc_source_silence_seconds",
        "Seconds since the API server last sent anything of a kind: the age of what is served.",
        ("kind", "namespace"),
    )
    LISTS = ("vmsvc_source_lists_total", "Complete lists read.", ("kind", "namespace"))
    WATCHES = ("vmsvc_source_watches_total", "Watches opened.", ("kind", "namespace"))
    READ_FAILURES = (
        "vmsvc_source_failures_total",
        "Reads that failed, by HTTP status; 0 for no answer.",
        ("kind", "namespace", "status"),
    )
    LEADS = ("vmsvc_leads", "1 while this replica may write, else 0.", ())
    CALLS = ("vmsvc_grpc_calls_total", "Calls that have ended.", ("method", "code"))
    STREAMS = ("vmsvc_grpc_streams_open", "Streams that are open.", ("method",))
    REFUSALS = (
        "vmsvc_grpc_refusals_total",
        "Calls, connections, names refused or ended at a bound, and uploads that wait, by setting.",
        ("setting",),
    )
    TAKEN = (
        "vmsvc_grpc_bound_taken",
        "How much is taken of a bound on all connections, by its setting (with http2).",
        ("setting",),
    )
    REQUEST_BYTES = (
        "vmsvc_grpc_request_bytes_total",
        "Bytes of requests that were read; those refused for their size are not.",
        (),
    )
    NAMES = (
        "vmsvc_grpc_names_followed",
        "Services and xDS resources that streams follow by name (--names-max).",
        (),
    )
    NAME_BYTES = ("vmsvc_grpc_name_bytes_followed", "Bytes of those (--name-bytes-max).", ())
    DRAINED = ("vmsvc_grpc_streams_drained_total", "Streams ended as the server stops.", ())
    REVIEWS = (
        "vmsvc_grpc_reviews_total",
        "Questions to the API server about tokens and rights, by result (yes, no, failed).",
        ("review", "result"),
    )
    REVIEWS_OPEN = (
        "vmsvc_grpc_reviews_open",
        "Questions to the API server that have no answer yet.",
        (),
    )
    REVIEW_SILENCE = (
        "vmsvc_grpc_review_silence_seconds",
        "Seconds since the API server last answered one; nothing before it first has.",
        (),
    )
    VERDICTS = (
        "vmsvc_grpc_verdicts_remembered",
        "Answers about tokens and rights that are remembered.",
        ("review",),
    )
    ACCESS_REFUSALS = (
        "vmsvc_grpc_access_refusals_total",
        "Calls that were refused for who asks, by reason.",
        ("reason",),
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
    RECONCILES = ("vmsvc_reconciles_total", "Services whose objects were looked at.", ())
    WRITES = ("vmsvc_writes_total", "Writes of objects.", ("kind", "verb"))
    CONFLICTS = ("vmsvc_write_conflicts_total", "Writes that met a newer object.", ())
    FAILURES = ("vmsvc_reconcile_failures_total", "Reconciles that failed.", ())
    WORKING = ("vmsvc_reconciles_under_way", "Services that the reconciler works on now.", ())
    QUEUE = ("vmsvc_reconcile_queue", "Services that wait for the reconciler.", ())
    TLS_EXPIRY = (
        "vmsvc_tls_expiry_seconds",
        "Seconds until the certificate in use expires (of CAs, the last one); negative after that.",
        ("file",),
    )
    TLS_LOADS = ("vmsvc_tls_loads_total", "Times that files were taken into use.", ("file",))
    TLS_REFUSED = (
        "vmsvc_tls_files_refused",
        "1 while files cannot be used and what was read before stays in use, else 0.",
        ("file",),
    )
    LOOP_LAG = (
        "vmsvc_grpc_loop_lag_seconds",
        "How late the event loop called back, which is how long everybody waited.",
        (),
    )

    def __init__(self, metric: str, text: str, labels: tuple[str, ...]) -> None:
        self.metric = metric
        self.text = text
        self.labels = labels


class Metrics(Collector):
    """A page of metrics. Each is bound to a reader of its values; an unbound one is left out."""

    def __init__(self) -> None:
        self._readers: dict[Metric, list[Callable[[], Values]]] = {}
        self._histograms: dict[Metric, Histogram] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def bind(self, metric: Metric, read: Callable[[], Values]) -> None:
        """Ask `read` for values of `metric` at each scrape; several may be bound to one."""
        self._readers.setdefault(metric, []).append(read)

    def bind_one(self, metric: Metric, read: Callable[[], float]) -> None:
        """Ask `read` for the only value of `metric`, which has no labels."""
        self.bind(metric, lambda: {(): read()})

    def bind_histogram(self, metric: Metric, histogram: Histogram) -> None:
        """Show `histogram` as `metric`, which has no labels."""
        self._histograms[metric] = histogram

    def collect(self) -> Iterator[Family]:
        """The families of all bound metrics, read now."""
        for metric, readers in self._readers.items():
            counter = metric.metric.endswith("_total")
            shape = CounterMetricFamily if counter else GaugeMetricFamily
            family = shape(metric.metric, metric.text, labels=metric.labels)
            for read in readers:
                for values, number in read().items():
                    family.add_metric(list(values), number)
            yield family
        for metric, histogram in self._histograms.items():
            yield HistogramMetricFamily(
                metric.metric, metric.text, buckets=histogram.buckets(), sum_value=histogram.sum_s
            )

    def page(self, open_metrics: bool) -> bytes:
        """All of it: as OpenMetrics, or in Prometheus' text format."""
        generate = openmetrics.generate_latest if open_metrics else generate_latest
        return generate(self._registry)
