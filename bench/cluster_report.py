"""What `make bench-cluster` measured, in Markdown, and the targets of it."""

from __future__ import annotations

from bench.report import outcome_table, verdict_table
from bench.results import Results
from bench.targets import Target, median, ratio, worst

OURS = "vmsvc-grpc"
"""What ours is called where no other program is measured beside it."""

FROM_SERVER = "vmsvc-grpc, API server"
FROM_JSON = "vmsvc-grpc, JSON files"
FROM_YAML = "vmsvc-grpc, YAML files"
INFORMERS = "client-go informers, API server"

ANSWER = "the API server's answer to the write"
VM = "a watcher of VMs"
STREAM = "a client of our stream"
ENDPOINTS = "a watcher of the Endpoints that we write"
SLICE = "a watcher of the mirrored EndpointSlice"

_COLUMNS = {
    "k": {
        "from_start_s": "from its start, s",
        "from_request_s": "from its first request, s",
        "cpu_s": "CPU, s",
        "rss_mib": "RSS, MiB",
        "rss_bytes_a_vm": "RSS a VM, bytes",
    },
    "l": {
        "changed_s": "changes made in, s",
        "right_s": "all right after that, s",
        "writes": "writes of Endpoints",
        "other_writes": "other writes",
        "writes_in_1s": "of a service in 1 s, at most",
        "cpu_s": "CPU, s",
    },
    "m": {
        "p50_ms": "p50, ms",
        "p99_ms": "p99, ms",
        "told_p50_ms": "after the VM's watcher: p50, ms",
        "told_p99_ms": "p99, ms",
    },
}

_HOW = """\
The API server, etcd, the peers and whoever makes the changes share the machine with ours. Each
number is the median of its repeats (in parentheses the least and the most). CPU is a process's user
and system time. *RSS a VM* is what a program takes over one that found nothing, divided by the VMs.
Of the time from a VM's status write until somebody knows, the API server takes the most before it
tells anybody; hence *after the VM's watcher*, which is client-go's informer of VMs."""

_SOONER = "stream sooner than slice, "

TARGETS = (
    Target("k", "time beside informers", ratio("from_start_s", FROM_SERVER, INFORMERS), most=1.5),
    Target("k", "RSS a VM", median("rss_bytes_a_vm", FROM_SERVER), most=4096, unit="bytes"),
    Target("l", "writes of a service in 1 s", worst("writes_in_1s", OURS), most=1, unit=""),
    Target("m", f"{_SOONER}from the write", ratio("p50_ms", SLICE, STREAM), least=3),
    Target("m", f"{_SOONER}after a VM's watcher", ratio("told_p50_ms", SLICE, STREAM), least=3),
)
"""The targets of `make bench-cluster`."""


def markdown(results: Results) -> str:
    """The whole report."""
    lines = ["# What a cluster costs", ""]
    lines += [f"- {name}: {value}" for name, value in results.machine.items()]
    lines += ["", _HOW, "", "## Targets", "", *verdict_table(results, TARGETS)]
    for key, outcome in results.outcomes.items():
        table = outcome_table(outcome, _COLUMNS[key])
        lines += ["", f"## {key}: {outcome.title}", "", *table]
    return "\n".join(lines) + "\n"
