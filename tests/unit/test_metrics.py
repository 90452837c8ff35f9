"""The table of metrics keeps Prometheus' conventions, and the page shows what is bound."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from prometheus_client import parser

from tests.monitoring.reference import reference, undescribed
from vmsvc_grpc.histogram import Histogram
from vmsvc_grpc.metrics import LABELS, Metric, Metrics

ROOT = Path(__file__).parents[2]

# The names that others have coined; all of ours begin with `vmsvc_`.
KNOWN = (
    "grpc_server_started_total",
    "grpc_server_handled_total",
    "grpc_server_handling_seconds",
    "workqueue_depth",
    "workqueue_adds_total",
    "workqueue_retries_total",
    "workqueue_queue_duration_seconds",
    "workqueue_work_duration_seconds",
    "workqueue_unfinished_work_seconds",
    "workqueue_longest_running_processor_seconds",
    "rest_client_requests_total",
    "leader_election_master_status",
)


def test_names_are_ours_or_those_that_dashboards_know() -> None:
    others = [metric.metric for metric in Metric if not metric.metric.startswith("vmsvc_")]
    assert sorted(others) == sorted(KNOWN)
    assert not [metric for metric in Metric if metric.metric.startswith("vmsvc_grpc_")]


@pytest.mark.parametrize("metric", Metric, ids=lambda metric: metric.metric)
def test_names_say_units_last(metric: Metric) -> None:
    name = metric.metric
    if metric.is_histogram:
        assert name.endswith("_seconds")
        assert "le" not in metric.labels
    if "_bytes" in name or "_seconds" in name:
        assert name.removesuffix("_total").endswith(("_bytes", "_seconds"))
    assert "_ms" not in name
    assert metric.text.endswith(".")


def test_each_label_is_described() -> None:
    assert list(undescribed()) == []


def test_no_label_takes_the_place_of_what_a_target_is_told_by() -> None:
    """As scraped with `honorLabels`, a label of ours counts before one of the target's."""
    assert not {"job", "instance", "pod", "container", "endpoint"} & LABELS.keys()


def test_the_reference_is_that_of_the_table() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == reference(), "run make gen"


def test_values_of_several_parts_are_added_by_label() -> None:
    metrics = Metrics()
    for values in ({("shared",): 1, ("own-1",): 5}, {("shared",): 2, ("own-2",): 5}):
        metrics.bind(Metric.FILES, partial(dict, values))
    page = b"".join(metrics.page(False)).decode()
    assert 'vmsvc_files_read_total{source="shared"} 3.0' in page
    assert page.count('vmsvc_files_read_total{source="own-') == 2


@pytest.mark.parametrize("open_metrics", [False, True], ids=["text", "OpenMetrics"])
def test_histograms_have_their_labels(open_metrics: bool) -> None:
    metrics = Metrics()
    done, failed = Histogram((1.0,)), Histogram((1.0,))
    done.observe(0.5)
    metrics.bind_histograms(Metric.RECONCILES, lambda: {("done",): done, ("failed",): failed})
    page = b"".join(metrics.page(open_metrics)).decode()
    assert 'vmsvc_reconcile_seconds_bucket{le="1.0",result="done"} 1.0' in page
    assert 'vmsvc_reconcile_seconds_count{result="failed"} 0.0' in page


def test_families_come_in_the_order_of_the_table() -> None:
    metrics = Metrics()
    for metric in reversed(Metric):
        if metric.is_histogram:
            metrics.bind_histograms(metric, dict)
        else:
            metrics.bind(metric, dict)
    page = b"".join(metrics.page(False)).decode()
    names = [family.name for family in parser.text_string_to_metric_families(page)]
    ours = [metric.metric.removesuffix("_total") for metric in Metric]
    assert [name for name in names if name in ours] == ours
