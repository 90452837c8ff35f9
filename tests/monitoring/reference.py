"""Writes docs/metrics.md from the table of metrics.

python -m tests.monitoring.reference FILE
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from vmsvc_grpc.metrics import LABELS, Metric

_HEAD = """\
<!-- Made from vmsvc_grpc/metrics.py by `make gen`. -->

# Metrics

The HTTP port serves them at `/metrics`: in Prometheus' text format, or as OpenMetrics if asked for
by `Accept`. Who may scrape is said in [security.md](security.md).

Names begin with `vmsvc_`. Where dashboards know a name for the same thing, it is that one:
`grpc_server_` as the interceptors of grpc-ecosystem have it, `workqueue_`, `rest_client_` and
`leader_election_` as Kubernetes' own components do. A histogram has `_bucket`, `_sum` and `_count`.
Units are base units; a moment is a Unix timestamp. What does not apply is left out: metrics of
files with an API server, of access without `--auth`, of writing where nothing is written.

Those that Python's client library for Prometheus has of every process are there, too: `process_`
(CPU, memory, open files, start) and `python_gc_`.

| metric | type | labels | |
| --- | --- | --- | --- |
"""

_LABELS_HEAD = """
## Labels

Each has few values, and no caller can add one.

| label | |
| --- | --- |
"""


def reference() -> str:
    """The content of the file."""
    labels = "".join(f"| `{label}` | {text} |\n" for label, text in LABELS.items())
    return _HEAD + "".join(map(_row, Metric)) + _LABELS_HEAD + labels


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.metric}` | {_type(metric)} | {labels} | {_escaped(metric.text)} |\n"


def _type(metric: Metric) -> str:
    if metric.is_histogram:
        return "histogram"
    return "counter" if metric.is_counter else "gauge"


def _escaped(text: str) -> str:
    return text.replace("<", r"\<")


def undescribed() -> Iterator[str]:
    """Labels of metrics that have no description, and descriptions of labels that there are not."""
    used = {label for metric in Metric for label in metric.labels}
    yield from sorted(used ^ LABELS.keys())


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference())
